"""What all sources have in common: complete desired states, one after another, and the reason when there is none.

A source never yields half a state, and never an empty one because something failed: it keeps silent, keeps its last good state, and
says why it is unhappy (:class:`SourceStatus`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Final, NoReturn, Protocol, Self

import trio

from pyminuteman.errors import MinutemanError
from pyminuteman.sources.backoff import Backoff
from pyminuteman.vips.model import VIP, VIPKey

__all__ = [
    "RETRY_AFTER_MAX_SECONDS",
    "LatestState",
    "Source",
    "SourceError",
    "SourceProblem",
    "SourceState",
    "SourceStatus",
    "feeding",
    "poll",
]

RETRY_AFTER_MAX_SECONDS: Final = 600.0
"""However long a server asks us to stay away, we come back after ten minutes."""


class SourceError(MinutemanError):
    """A source cannot be read, or says what cannot be understood. Its last good state stands; the text says what to look at."""


@dataclass(frozen=True, slots=True)
class SourceProblem:
    """Something in a state that was left out, while the rest of it counts.

    Attributes:
        where: The place: a file and key, a task and label.
        reason: What is wrong with it, and what is accepted.
    """

    where: str
    reason: str

    def __str__(self) -> str:
        """``WHERE: REASON``."""
        return f"{self.where}: {self.reason}"


@dataclass(frozen=True, slots=True)
class SourceState:
    """Everything that a source wants, at one time. It replaces whatever the source wanted before.

    Attributes:
        vips: In the order of their keys; no key twice.
        problems: What was left out, in the order of where.
    """

    vips: tuple[VIP, ...] = ()
    problems: tuple[SourceProblem, ...] = ()

    @classmethod
    def of(cls, vips: Iterable[VIP], problems: Iterable[SourceProblem] = ()) -> Self:
        """From VIPs in any order. Of two with one key the first counts, and the other is a problem."""
        kept: dict[VIPKey, VIP] = {}
        found = list(problems)
        reason = "it is described twice; the first description counts"
        found += [SourceProblem(str(vip.key), reason) for vip in vips if kept.setdefault(vip.key, vip) is not vip]
        ordered = sorted(kept.values(), key=lambda vip: vip.key.sort_key)
        return cls(tuple(ordered), tuple(sorted(found, key=lambda problem: (problem.where, problem.reason))))


@dataclass(slots=True)
class SourceStatus:
    """How a source is, as it goes. Times are seconds of trio's clock; None for never."""

    last_good_at: float | None = None
    failing_since: float | None = None
    failures: int = 0
    """In a row; 0 when it is well."""
    reason: str = ""
    """Why it is unhappy; empty when it is well."""
    counters: dict[str, int] = field(default_factory=dict)

    def good(self, now: float) -> None:
        """A complete state was read."""
        self.last_good_at, self.failing_since, self.failures, self.reason = now, None, 0, ""

    def failed(self, now: float, reason: str) -> None:
        """It could not be read."""
        self.failing_since = now if self.failing_since is None else self.failing_since
        self.failures += 1
        self.reason = reason


class Source(Protocol):
    """Where desired states come from."""

    @property
    def name(self) -> str:
        """As the user wrote it, without secrets: ``file:/etc/minuteman/vips.d``."""

    @property
    def status(self) -> SourceStatus:
        """How it is now."""

    def states(self) -> AbstractAsyncContextManager[AsyncIterator[SourceState]]:
        """Complete states, each only when it differs from the one before; the first as soon as there is one.

        Failures do not end it: they are in :attr:`status`, and tried again with back-off. It ends with the context.
        """


class LatestState:
    """A place for one state: the newest that has not been read. An async iterator for one reader.

    A state equal to the one before is not told again; one that was not read in time gives way to the next, for it is of no use then.
    """

    def __init__(self) -> None:
        """Nothing is there yet."""
        self._told: SourceState | None = None
        self._next: SourceState | None = None
        self._readers = trio.lowlevel.ParkingLot()
        self._ended = False
        self.replaced = 0
        """How many states were never read."""

    def put(self, state: SourceState) -> bool:
        """Offer a state; False when the reader has it already, or is about to."""
        waiting = self._next
        if state == (self._told if waiting is None else waiting):
            return False
        self.replaced += waiting is not None
        self._next = None if state == self._told else state
        self._readers.unpark()
        return True

    def end(self) -> None:
        """Nothing will come any more."""
        self._ended = True
        self._readers.unpark_all()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SourceState:
        await trio.lowlevel.checkpoint_if_cancelled()
        while self._next is None:
            if self._ended:
                raise StopAsyncIteration
            await self._readers.park()
        self._told, self._next = self._next, None
        await trio.lowlevel.cancel_shielded_checkpoint()
        return self._told


@asynccontextmanager
async def feeding(run: Callable[[LatestState], Awaitable[None]]) -> AsyncIterator[AsyncIterator[SourceState]]:
    """The body of :meth:`Source.states`: ``run`` goes on beside the reader, and ends with the context.

    An exception of the ``with`` block comes out as it is, not in a group.
    """
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        latest = LatestState()

        async def feed() -> None:
            await run(latest)
            latest.end()

        nursery.start_soon(feed)
        try:
            yield latest
        except Exception as error:  # noqa: BLE001 - it is raised below
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def poll(
    fetch: Callable[[], Awaitable[SourceState | None]],
    latest: LatestState,
    status: SourceStatus,
    *,
    interval_seconds: float,
    backoff: Backoff,
    random: Random,
) -> NoReturn:
    """Fetch for ever; for the pollers among the sources, as what :func:`feeding` runs.

    Args:
        fetch: One complete state, or None when it has not changed. It has a deadline of its own. Any
            :class:`~pyminuteman.errors.MinutemanError` is a failure: the last state stands, ``status`` has the reason, and the next
            attempt comes after the back-off, or after ``retry_after_seconds`` of the error where that is longer (but not above
            :data:`RETRY_AFTER_MAX_SECONDS`). Other exceptions are ours, and end it.
        latest: Where states go.
        status: Kept up to date; its counters ``fetches``, ``states`` and ``failures`` are counted here.
        interval_seconds: From the end of a fetch to the next, less up to a tenth at random: nodes started together drift apart.
        backoff: After failures.
        random: For the jitter.
    """
    counters = status.counters
    for name in ("fetches", "states", "failures"):
        counters.setdefault(name, 0)
    while True:
        counters["fetches"] += 1
        try:
            state = await fetch()
        except MinutemanError as error:
            counters["failures"] += 1
            status.failed(trio.current_time(), str(error))
            asked = min(getattr(error, "retry_after_seconds", None) or 0.0, RETRY_AFTER_MAX_SECONDS)
            wait = max(asked, backoff.wait_seconds(status.failures, random))
        else:
            status.good(trio.current_time())
            counters["states"] += state is not None and latest.put(state)
            wait = interval_seconds * random.uniform(0.9, 1.0)
        await trio.sleep(wait)
