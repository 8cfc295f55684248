"""Tells what has changed of what is desired, once the kernels have been told.

Each backend that goes out is an event, and each event a line of the log: a hundred of them cost milliseconds, for which connections would
go on to hosts that are dead. So kernels come first. Invariants:

1. Nothing is told twice, nothing is left out, and all in the order in which it happened, with the time when it did.
2. Kernels are waited for no longer than :data:`KERNEL_SECONDS`: what holds one up is no reason to be silent.
3. Between a few events whatever else is due has its turn: heartbeats, above all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import trio

from pyminuteman.daemon.differences import differences
from pyminuteman.vips.desired import DesiredState
from pyminuteman.vips.policy import Refusal

__all__ = ["KERNEL_SECONDS", "CatchesUp", "News"]

KERNEL_SECONDS: Final = 1.0
_EVENTS_AT_A_TIME: Final = 16
_CHANGES_KEPT: Final = 64
"""Beyond, the newest one takes in what follows: what came and went meanwhile is not told."""


class CatchesUp(Protocol):
    """Who carries out what is desired: a :class:`pyminuteman.daemon.reconciler.Reconciler`."""

    async def caught_up(self) -> None:
        """Wait until the newest desire was tried."""


@dataclass(slots=True)
class _Change:
    at: float
    before: DesiredState
    after: DesiredState
    refusals: list[Refusal]


class News:
    """Of one trio loop.

    Args:
        tell: Tells an event: kind, text, data, and when it happened in seconds of the epoch.
        kernels: Who is to be waited for.
        clock: Seconds of the epoch.
    """

    def __init__(
        self,
        tell: Callable[[str, str, dict[str, Any], float], object],
        kernels: Callable[[], Iterable[CatchesUp]],
        clock: Callable[[], float],
    ) -> None:
        self._tell = tell
        self._kernels = kernels
        self._clock = clock
        self._changes: deque[_Change] = deque()
        self._come = trio.Event()

    def note(self, before: DesiredState, after: DesiredState, refusals: Collection[Refusal]) -> None:
        """This has changed now. Does not wait."""
        if before is after and not refusals:
            return
        if len(self._changes) < _CHANGES_KEPT:
            self._changes.append(_Change(self._clock(), before, after, list(refusals)))
        else:
            self._changes[-1].after = after
            self._changes[-1].refusals += refusals
        self._come.set()

    async def run(self) -> None:
        """Until cancelled; what is still to be told is told then."""
        try:
            while True:
                await self._come.wait()
                self._come = trio.Event()
                with trio.move_on_after(KERNEL_SECONDS):
                    for kernel in tuple(self._kernels()):
                        await kernel.caught_up()
                while self._changes:
                    for count, event in enumerate(_events(self._changes.popleft()), 1):
                        self._tell(*event)
                        if count % _EVENTS_AT_A_TIME == 0:
                            await trio.lowlevel.cancel_shielded_checkpoint()
        finally:
            while self._changes:
                for event in _events(self._changes.popleft()):
                    self._tell(*event)


def _events(change: _Change) -> Iterable[tuple[str, str, dict[str, Any], float]]:
    for refusal in change.refusals:
        yield "refused", str(refusal), {"vip": str(refusal.vip), "reason": refusal.reason.name.lower()}, change.at
    for kind, text, data in differences(change.before, change.after):
        yield kind, text, data, change.at
