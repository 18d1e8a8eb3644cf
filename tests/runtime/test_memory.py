"""The C library keeps freed memory when it is told to."""

import platform
import subprocess
import sys

import pytest

MAPPED = """
import ctypes, torch
from octvideo.runtime import keep_freed_memory

class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena ordblks smblks hblks hblkhd usmblks".split()]
    _fields_ += [(name, ctypes.c_size_t) for name in "fsmblks uordblks fordblks keepcost".split()]

mallinfo = ctypes.CDLL(None).mallinfo2
mallinfo.restype = Info
before = mallinfo().hblkhd
large = torch.empty(1 << 26, dtype=torch.uint8)
print(mallinfo().hblkhd - before >= 1 << 26)
del large
keep_freed_memory()
before = mallinfo().hblkhd
large = torch.empty(1 << 26, dtype=torch.uint8)
print(mallinfo().hblkhd - before >= 1 << 26)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_large_maps_are_not_asked_of_the_system_each_time():
    result = subprocess.run([sys.executable, "-c", MAPPED], capture_output=True, text=True, timeout=120)
    if "mallinfo2" in result.stderr:
        pytest.skip("this glibc has no mallinfo2")
    assert result.stdout.split() == ["True", "False"], result.stderr
