"""A source whose states are put in by code: an API, a script, a test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Final

import trio

from pyminuteman.sources.base import LatestState, SourceError, SourceState, SourceStatus
from pyminuteman.vips.model import VIP

__all__ = ["PushSource"]

_READERS_MAX: Final = 16


class PushSource:
    """Takes states from code, and tells them like any other source. It says nothing before the first one is pushed."""

    def __init__(self, name: str = "push:") -> None:
        """Nothing has been pushed."""
        self.name = name
        self.status = SourceStatus(counters={"pushes": 0, "states": 0})
        self._last: SourceState | None = None
        self._readers: list[LatestState] = []

    def push(self, state: SourceState | Iterable[VIP]) -> bool:
        """From now on all of this is desired, and nothing else. Call it from within trio; it does not wait.

        Returns:
            Whether it differs from what was desired before.

        Raises:
            SourceError: Two VIPs have one key. Nothing was changed.
        """
        if not isinstance(state, SourceState):
            vips = tuple(state)
            state = SourceState.of(vips)
            if state.problems:
                raise SourceError(f"{self.name} {state.problems[0]}")
        self.status.counters["pushes"] += 1
        self.status.good(trio.current_time())
        if state == self._last:
            return False
        self.status.counters["states"] += 1
        self._last = state
        for reader in self._readers:
            reader.put(state)
        return True

    @asynccontextmanager
    async def states(self) -> AsyncIterator[AsyncIterator[SourceState]]:
        """See :class:`~pyminuteman.sources.base.Source`. Up to 16 readers; each begins with the newest state.

        Raises:
            SourceError: There are as many readers already.
        """
        if len(self._readers) >= _READERS_MAX:
            raise SourceError(f"{self.name} has {_READERS_MAX} readers already")
        latest = LatestState()
        if self._last is not None:
            latest.put(self._last)
        self._readers.append(latest)
        try:
            yield latest
        finally:
            self._readers.remove(latest)
