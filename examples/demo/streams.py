"""Many streams of bytes over one: frames of a number, a length and so many bytes. A frame of no bytes ends its stream."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

PIECE_BYTES: Final = 16384
_HEAD: Final = struct.Struct("!IH")


def frame(number: int, data: bytes) -> bytes:
    """A piece of a stream, of at most 65,535 bytes; none is its end."""
    return _HEAD.pack(number, len(data)) + data


class Frames:
    """Takes in what comes, in whatever pieces."""

    def __init__(self) -> None:
        """Nothing yet."""
        self._partial = b""

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """The frames that are complete with this: numbers of streams, and what these say."""
        self._partial += data
        while len(self._partial) >= _HEAD.size:
            number, length = _HEAD.unpack_from(self._partial)
            end = _HEAD.size + length
            if len(self._partial) < end:
                return
            piece, self._partial = self._partial[_HEAD.size : end], self._partial[end:]
            yield number, piece
