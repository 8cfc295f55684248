"""The C library, for the few calls that Python does not have (ctypes)."""

from __future__ import annotations

import ctypes
import os
from functools import cache

__all__ = ["error_of", "libc"]


@cache
def libc() -> ctypes.CDLL:
    """Its functions, which leave errno for :func:`error_of`.

    One for all: with every other there come some classes, 5 KiB in all, that only the garbage collector's rare full round takes away.
    """
    return ctypes.CDLL(None, use_errno=True)


def error_of(what: str) -> OSError:
    """Why this thread's last call has failed; ``what`` begins the text."""
    code = ctypes.get_errno()
    return OSError(code, f"{what}: {os.strerror(code)}")
