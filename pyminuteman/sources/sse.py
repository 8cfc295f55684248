"""Server-sent events, as ``text/event-stream`` has them: fields by the line, an empty line ends an event.

Pure. Invariants:

1. The events that come out depend on the bytes, and not on how they were cut into pieces, be it within a character or a line's end.
2. No more is kept than one line and one event, of which the limits are known beforehand.
3. What is too long is dropped and counted, and the next event is whole: unlike RecordIO the stream shows where one ends.

Source: the HTML Standard, section 9.2.6 "Interpreting an event stream".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

__all__ = ["EVENT_MAX_BYTES", "EventDecoder", "ServerEvent"]

EVENT_MAX_BYTES: Final = 4 << 20
"""Longest line, and longest data of one event, unless said otherwise: Marathon sends whole groups of apps in one."""
_BOM: Final = b"\xef\xbb\xbf"
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event.

    Attributes:
        event: Its type; ``message`` when none was said.
        data: Its data, lines joined by a line feed.
        id: The last id that was said, by this event or an earlier one.
    """

    event: str = "message"
    data: str = ""
    id: str = ""


class EventDecoder:
    """Bytes in, events out.

    Args:
        event_max: Longest line in bytes, and longest data in characters.

    Attributes:
        dropped: Events that were too long.
        comments: Lines that say nothing, which servers send to keep the line open.
        retry_seconds: What the server asks for before a new attempt; None when it said nothing.
    """

    def __init__(self, event_max: int = EVENT_MAX_BYTES) -> None:
        self._max = event_max
        self._line = bytearray()
        self._after_return = False
        self._beginning = True
        self._line_too_long = False
        self._event_too_long = False
        self._event = ""
        self._data: list[str] = []
        self._size = 0
        self._id = ""
        self.dropped = 0
        self.comments = 0
        self.retry_seconds: float | None = None

    def feed(self, data: bytes) -> list[ServerEvent]:
        """The events that ``data`` completes, in order."""
        found: list[ServerEvent] = []
        at = 0
        while at < len(data):
            if self._after_return:
                self._after_return = False
                if data[at : at + 1] == b"\n":  # the second half of a CR LF that was cut in two
                    at += 1
                    continue
            end = _LINE_END.search(data, at)
            self._keep(data[at : end.start() if end else len(data)])
            if end is None:
                break
            at = end.end()
            self._after_return = end.group() == b"\r"
            event = self._end_line()
            if event is not None:
                found.append(event)
        return found

    def _keep(self, piece: bytes) -> None:
        if len(self._line) + len(piece) > self._max:
            self._line_too_long = True
            self._line.clear()
        elif not self._line_too_long:
            self._line += piece

    def _end_line(self) -> ServerEvent | None:
        line = bytes(self._line)
        self._line.clear()
        if self._beginning:
            self._beginning = False
            line = line.removeprefix(_BOM)
        if self._line_too_long:
            self._line_too_long, self._event_too_long = False, True
            return None
        if line:
            self._field(line.decode(errors="replace"))
            return None
        return self._end_event()

    def _field(self, line: str) -> None:
        if line.startswith(":"):
            self.comments += 1
            return
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            self._event = value
        elif name == "data":
            self._size += len(value) + 1
            if self._size > self._max:
                self._event_too_long = True
                self._data.clear()
            else:
                self._data.append(value)
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isascii() and value.isdigit() and len(value) <= 9:  # noqa: PLR2004 - eleven days
            self.retry_seconds = int(value) / 1000

    def _end_event(self) -> ServerEvent | None:
        event = ServerEvent(self._event or "message", "\n".join(self._data), self._id) if self._data else None
        if self._event_too_long:
            self.dropped += 1
            event = None
        self._event, self._data, self._size, self._event_too_long = "", [], 0, False
        return event
