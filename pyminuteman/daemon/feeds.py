"""The sources of this node, as it feeds on them: the last complete state of each, how old it is, and whether it still counts.

1. A source that fails keeps its last good state; that it is stale is said once, and so is that it is read again.
2. A source that is to be withdrawn when it falls silent (``on_silence="withdraw"``) has the empty state after ``silence_seconds`` without
   a good one, and its own again with the next good one. What was never read is never withdrawn.
3. A source that ends or breaks is opened again after a while: one that is no good takes nobody else with it.
4. What was last read stands when the source is read elsewhere from now on, until it has spoken there.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Final

import trio

from pyminuteman.daemon.events import EventLog
from pyminuteman.sources.base import Source, SourceState
from pyminuteman.sources.push import PushSource

__all__ = ["Feed"]

_LOOK_SECONDS: Final = 0.5
"""How often to see whether a source has begun to fail: sources tell of states, and not of failures."""
_REOPEN_SECONDS: Final = 5.0
_STALE_SECONDS: Final = 5.0
"""A source that fails for longer is told of: one lost request is nobody's business."""
_EMPTY: Final = SourceState()

_log = logging.getLogger("pyminuteman.daemon")


class Feed:
    """One source.

    Args:
        name: What the operators call it, the same on every node.
        source: Where it is read.
        events: Where it is told that it fails, and that it is well again.
        changed: Called with each new state.
    """

    def __init__(self, name: str, source: Source, *, events: EventLog, changed: Callable[[], None]) -> None:
        self.name = name
        self.source = source
        self.last: SourceState | None = None
        self.stale = False
        self.withdrawn = False
        self._events = events
        self._changed = changed
        self._withdraw_after = math.inf
        self._opening = trio.CancelScope()
        self._life = trio.CancelScope()

    @property
    def state(self) -> SourceState | None:
        """What is desired now; None before the first complete state."""
        return _EMPTY if self.withdrawn else self.last

    @property
    def age_seconds(self) -> float | None:
        """Since the source was last known to be good; None for never."""
        last = self.source.status.last_good_at
        return None if last is None else trio.current_time() - last

    @property
    def is_settled(self) -> bool:
        """Whether there is nothing to wait for at a start: it has a state, it fails, or it waits for somebody to push."""
        return self.last is not None or self.source.status.failures > 0 or isinstance(self.source, PushSource)

    def retry(self) -> None:
        """Try again at once if it fails, with whatever its files hold now."""
        if self.source.status.failures:
            self._opening.cancel()

    def reopen(self, source: Source) -> None:
        """Read this one from now on. What was last read stands until it has spoken; what was withdrawn stays so."""
        self.last = self.state
        self.source, self.stale, self.withdrawn = source, False, False
        self._opening.cancel()

    def withdraw_after(self, seconds: float) -> None:
        """Have what it said withdrawn after so many seconds of silence; infinite, as at first, keeps it. At once if they have passed."""
        self._withdraw_after = seconds
        self._judge()

    def end(self) -> None:
        """Read no more: :meth:`run` returns."""
        self._life.cancel()

    async def run(self) -> None:
        """Read, until cancelled or told to end."""
        with self._life:
            await self._keep_reading()

    async def _keep_reading(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._look)
            while True:
                self._opening = trio.CancelScope()
                with self._opening:
                    try:
                        await self._read()
                    except Exception:  # noqa: BLE001 - it is told, and the other sources go on
                        _log.exception("source %s broke, and is opened again", self.name)
                    await trio.sleep(_REOPEN_SECONDS)

    async def _read(self) -> None:
        async with self.source.states() as states:
            async for state in states:
                self.last = state
                self._judge()
                self._changed()

    async def _look(self) -> None:
        while True:
            await trio.sleep(_LOOK_SECONDS)
            self._judge()

    def _judge(self) -> None:
        """See whether it is stale, and whether that is for so long that what it said no longer counts."""
        status = self.source.status
        since = status.failing_since
        silent = 0.0 if since is None else trio.current_time() - since
        if silent > _STALE_SECONDS and not self.stale:
            self.stale = True
            stands = "it has never been read" if self.last is None else "what was last read stands"
            self._events.tell("source_stale", f"{self.name}: {status.reason}; {stands}", {"source": self.name})
        elif since is None and self.stale:
            self.stale = False
            self._events.tell("source_good", f"{self.name} is read again", {"source": self.name})
        withdrawn = self.last is not None and since is not None and silent > self._withdraw_after
        if withdrawn != self.withdrawn:
            self.withdrawn = withdrawn
            self._changed()
