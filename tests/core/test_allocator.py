from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, numpy as np
from stylesim.core.allocator import keep_freed_memory
if {keep}:
    assert keep_freed_memory()
np.ones(6 << 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(40):
    np.ones(6 << 20)  # 48 MiB, freed at once
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(keep: bool) -> int:
    program = PROGRAM.format(keep=keep)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="thresholds of glibc")
def test_freed_memory_is_used_again_without_page_faults():
    assert page_faults(keep=True) < page_faults(keep=False) / 10


def test_what_the_user_has_set_is_kept(monkeypatch: pytest.MonkeyPatch):
    from stylesim.core.allocator import keep_freed_memory

    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")
    assert not keep_freed_memory()
