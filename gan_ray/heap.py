"""The C library's heap, told to keep what networks free and ask for again a moment later.

glibc gives freed memory back to the kernel and gets it again, page by page and zeroed, at the next
cycle: tens of thousands of page faults a cycle, 15 to 25 % of a core. docs/figures.md has figures.
"""

from __future__ import annotations

import ctypes
import os

_TRIM, _MMAP = -1, -3
"""`M_TRIM_THRESHOLD` and `M_MMAP_THRESHOLD` of malloc.h."""
_LARGEST = 2**31 - 1
"""Bytes; what mallopt's int holds."""


def environment() -> dict[str, str]:
    """Give the variables of a process that computes in another thread than its first.

    Threads have arenas of their own, whose heaps are of 64 MiB, and an empty one is given back; so
    that there is one arena, glibc must know before the first thread begins.
    """
    return {"MALLOC_ARENA_MAX": os.environ.get("MALLOC_ARENA_MAX", "1")}


def keep_freed_memory() -> None:
    """Keep up to 2 GiB of freed memory in this process; where the C library is another, nothing.

    Changes speed alone. Holds for the first thread; for all, with the variables of `environment`.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(_TRIM, _LARGEST)
        set_option(_MMAP, _LARGEST)
