"""What the process does with memory that it has freed."""

from __future__ import annotations

import ctypes
import platform

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of glibc's mallopt, malloc.h


def keep_freed_memory() -> None:
    """Let the C library keep freed memory for the next map, where it is glibc; the process keeps its peak.

    By default glibc asks the system for every map above 32 MiB and gives it back when it is freed, and the system fills
    it with zeros, page by page. That costs more than a convolution of eight clips that writes such a map.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, -1)
