"""Keep freed memory in the process: with glibc's defaults, each large activation is mapped and faulted in again."""

from __future__ import annotations

import ctypes
import os
import platform

MMAP_THRESHOLD, TRIM_THRESHOLD, TOP_PAD = -3, -1, -2
"""Options of mallopt(3)."""
LARGEST_MMAP_THRESHOLD = 32 << 20
"""The largest threshold that glibc accepts on 64-bit systems."""
KEPT = 1 << 30
"""Free memory at the top of the heap, in bytes, that stays with the process."""


def keep_freed_memory() -> bool:
    """Raise glibc's thresholds, so that activations on a CPU are allocated from memory that is already mapped.

    A training step allocates and frees the same large blocks again and again. By default, glibc returns each of them to
    the kernel, which then clears every page anew: a third of the time of a small network. The process keeps up to 1 GiB
    of freed memory. Processes that are forked inherit the setting.

    Returns:
        Whether the thresholds were raised: not without glibc, nor if the user has set them in the environment.
    """
    if platform.libc_ver()[0] != "glibc" or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    options = {MMAP_THRESHOLD: LARGEST_MMAP_THRESHOLD, TRIM_THRESHOLD: KEPT, TOP_PAD: 64 << 20}
    return all(mallopt(option, value) == 1 for option, value in options.items())
