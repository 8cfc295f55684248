"""RecordIO, the framing of Mesos's streams: the length of a record in decimal, a line feed, the record; and so on.

Pure. Invariants:

1. The records that come out depend on the bytes, and not on how they were cut into pieces.
2. No more is kept than one record and its length, of which the limits are known beforehand.
3. After an error nothing more comes out: where a record begins is then unknown, and the stream has to be opened anew.

Source: "RecordIO response format" in Mesos's documentation of the scheduler HTTP API.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pyminuteman.sources.base import SourceError

__all__ = ["HEADER_MAX_BYTES", "RECORD_MAX_BYTES", "RecordDecoder", "RecordError", "encode_record"]

HEADER_MAX_BYTES: Final = 12
"""Longest length, in digits: what dcos-net took. It is checked before the record limit, so a flood of digits is not kept."""
RECORD_MAX_BYTES: Final = 256 << 20
"""Largest record unless said otherwise: the first one of a stream holds the whole state of the cluster."""


class RecordError(SourceError):
    """The stream is no RecordIO, or a record is too long. Close it and open another."""


class RecordDecoder:
    """Bytes in, records out.

    Args:
        record_max: Largest record, in bytes.
    """

    def __init__(self, record_max: int = RECORD_MAX_BYTES) -> None:
        self._max = record_max
        self._header = bytearray()
        self._record = bytearray()
        self._left: int | None = None
        """Bytes of the record still to come; None within a header."""
        self._failed = ""

    @property
    def is_between(self) -> bool:
        """Whether the stream may end here without a record being cut."""
        return not self._header and self._left is None and not self._failed

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The records that ``data`` completes, in order; go through all of them. Empty records are skipped: they keep a line open.

        Raises:
            RecordError: As its docstring has it; after the records that came before, and then at every later call.
        """
        if self._failed:
            raise RecordError(self._failed)
        at = 0
        while at < len(data):
            if self._left is None:
                at = self._read_header(data, at)
            else:
                taken = data[at : at + self._left]
                self._record += taken
                at += len(taken)
                self._left -= len(taken)
            if self._left == 0:
                record, self._record, self._left = bytes(self._record), bytearray(), None
                if record:
                    yield record

    def _read_header(self, data: bytes, at: int) -> int:
        room = HEADER_MAX_BYTES + 1 - len(self._header)
        end = data.find(b"\n", at, at + room)
        if end < 0:
            self._header += data[at : at + room]
            if len(self._header) > HEADER_MAX_BYTES:
                self._fail(
                    f"no RecordIO: {bytes(self._header)!r} is not the length of a record ({HEADER_MAX_BYTES} digits at most)"
                )
            return len(data)
        self._header += data[at:end]
        if not self._header.isdigit():
            self._fail(f"no RecordIO: {bytes(self._header)!r} is not the length of a record")
        length = int(self._header)
        if length > self._max:
            self._fail(f"a record of {length} bytes is longer than {self._max}")
        self._header.clear()
        self._left = length
        return end + 1

    def _fail(self, reason: str) -> None:
        self._failed = reason
        raise RecordError(reason)


def encode_record(record: bytes) -> bytes:
    """The record as it goes over the wire."""
    return b"%d\n%b" % (len(record), record)
