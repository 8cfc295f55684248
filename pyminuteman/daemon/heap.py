"""The C library's heap, kept from growing by holes in a process that runs for months (mallopt(3) of the GNU C library).

By its defaults the library gives every thread that allocates a heap of its own, and takes blocks ever larger (up to 32 MiB) from these
heaps instead of the kernel, once such a block has been freed. Here threads come and go, and answers of the API and of the kernel are
large and short-lived: what is long-lived comes to lie between them, and hardly any page is ever empty. `make soak` has seen that.
"""

from __future__ import annotations

from typing import Final

from pyminuteman.libc import libc

__all__ = ["LARGE_BYTES", "keep_heap_dense"]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
"""Of malloc.h."""
LARGE_BYTES: Final = 128 * 1024
"""Blocks of so many bytes are mapped by themselves, and given back when they are freed: the library's own first choice, kept. Nothing that
is taken and freed all the time may be as large, for each time would cost a system call and a page fault."""
_TOP_BYTES: Final = 1 << 20
"""So much stays at the heap's end when it is free, for the same reason."""


def keep_heap_dense() -> None:
    """Have one heap for all threads, which the interpreter's lock keeps from getting into each other's way, and no large blocks in it.

    To be called before there are threads. Another C library than GNU's has other ways, and is left to them.
    """
    try:
        mallopt = libc().mallopt
    except AttributeError:
        return
    mallopt(_M_ARENA_MAX, 1)
    mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)
    mallopt(_M_TRIM_THRESHOLD, _TOP_BYTES)
