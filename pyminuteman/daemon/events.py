"""What has happened on this node, in order: a ring of events, numbered, for the API, the page and the log.

1. Events are numbered from one, without gaps, and never renumbered within a life of the process. A life has a name of its own, so that who
   comes back with a number can tell whether it is still one of these.
2. The ring is bounded: the oldest makes room. Who reads too slowly sees by the numbers what was missed.
3. Telling an event never waits and never fails.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

import trio

__all__ = ["EVENTS_KEPT", "KINDS", "Event", "EventLog"]

EVENTS_KEPT: Final = 2000
"""A day of a quiet cluster, and some minutes of a storm."""

KINDS: Final = (
    "member_up",
    "member_suspect",
    "member_down",
    "member_left",
    "member_updated",
    "conflict",
    "partition",
    "stall",
    "vip_added",
    "vip_removed",
    "backend_out",
    "backend_in",
    "failed_open",
    "refused",
    "source_stale",
    "source_good",
    "sync",
    "sync_failed",
    "held_back",
    "foreign",
    "drained",
    "undrained",
    "weight",
    "reload",
    "host",
    "namespace",
)
"""Every kind there is: whoever listens by kind needs the whole list."""

_log = logging.getLogger("pyminuteman.daemon")


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened.

    Attributes:
        id: Its number, from 1.
        time: When, in seconds of the epoch.
        kind: One of :data:`KINDS`.
        text: In words, for people.
        data: The same for programs; plain values only.
    """

    id: int
    time: float
    kind: str
    text: str
    data: Mapping[str, Any] = field(default_factory=dict)


class EventLog:
    """The ring. For the tasks of one trio loop.

    Args:
        kept: How many events are kept, 1 or more.
        clock: Seconds of the epoch.
        life: What names this log among those of other starts; else it is made up.
    """

    def __init__(
        self,
        kept: int = EVENTS_KEPT,
        *,
        clock: Callable[[], float] = time.time,  # noqa: TID251 - shown to people
        life: str = "",
    ) -> None:
        self.life = life or secrets.token_hex(8)
        self._events: deque[Event] = deque(maxlen=kept)
        self._clock = clock
        self._newest = 0
        self._waiting = trio.lowlevel.ParkingLot()
        self.counts: Counter[str] = Counter()

    @property
    def oldest(self) -> int:
        """Number of the oldest event that is kept; 0 when there is none."""
        return self._events[0].id if self._events else 0

    @property
    def newest(self) -> int:
        """Number of the newest event; 0 when there was none yet."""
        return self._newest

    def tell(self, kind: str, text: str, data: Mapping[str, Any] | None = None, at: float | None = None) -> Event:
        """Something happened, at that time, in seconds of the epoch; None: now.

        Raises:
            ValueError: The kind is none of :data:`KINDS`.
        """
        if kind not in KINDS:
            msg = f"{kind!r} is no kind of event"
            raise ValueError(msg)
        self._newest += 1
        event = Event(self._newest, self._clock() if at is None else at, kind, text, dict(data or {}))
        self._events.append(event)
        self.counts[kind] += 1
        self._waiting.unpark_all()
        _log.info("%s: %s", kind, text, extra={"event": kind})
        return event

    def since(self, number: int) -> list[Event]:
        """The events that are kept with a higher number, the oldest first."""
        skip = max(0, number - self.oldest + 1) if self._events else 0
        return list(islice(self._events, skip, None))

    async def wait_beyond(self, number: int) -> None:
        """Return as soon as there is an event with a higher number."""
        await trio.lowlevel.checkpoint()
        while self._newest <= number:
            await self._waiting.park()
