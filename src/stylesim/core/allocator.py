"""Keep freed memory in the process, so that large activations on a CPU do not get new pages in each step."""

from __future__ import annotations

import ctypes
import os
import platform

TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4
"""Options of mallopt(3)."""
KEPT = 1 << 30
"""Free memory at the top of the heap, in bytes, that stays with the process."""
STEP = 64 << 20
"""The heap grows by at least this many bytes."""


def keep_freed_memory() -> bool:
    """Have glibc take large blocks from the heap, so that activations on a CPU are in memory that is already mapped.

    A training step allocates and frees the same large blocks again and again. By default, glibc maps each of them and
    returns it to the kernel, which clears every page anew: a third of the time of a small network. Raising the
    threshold from which blocks are mapped is not enough, because glibc accepts no more than 32 MiB. The process keeps
    up to 1 GiB of freed memory. Processes that are forked inherit the setting.

    Returns:
        Whether the settings were changed: not without glibc, nor if the user has set them in the environment.
    """
    if platform.libc_ver()[0] != "glibc" or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    options = {MMAP_MAX: 0, TRIM_THRESHOLD: KEPT, TOP_PAD: STEP}
    return all(mallopt(option, value) == 1 for option, value in options.items())
