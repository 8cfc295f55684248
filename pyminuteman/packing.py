"""MessagePack, as everything here is written in it; what is read has limits, and each reader its own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import msgpack

__all__ = ["packb"]

_BUFFER_BYTES: Final = 4096
"""Larger than nearly all that is written; what is larger still makes it grow. By itself msgpack takes 256 KiB for each call, and dozens of
these in a second, with what is small and stays in between, tear a heap to pieces."""

packb: Final[Callable[[object], bytes]] = partial(msgpack.packb, buf_size=_BUFFER_BYTES)
"""An object's bytes."""
