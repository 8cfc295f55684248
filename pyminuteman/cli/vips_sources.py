"""The sources that ``--source`` names: their latest complete states, what they come to, and why one has none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import trio

from pyminuteman.cli.terminal import say
from pyminuteman.errors import MinutemanError
from pyminuteman.sources.base import Source, SourceError, SourceProblem, SourceState
from pyminuteman.vips.claims import Claim

__all__ = ["Feeds", "bare_errors", "first_states"]

_LOOK_SECONDS: Final = 0.25
"""How often sources are asked how they are; news of VIPs come by themselves."""
_REOPEN_SECONDS: Final = 1.0
"""How long after its end a source is opened again. None should end by itself."""


class Feeds:
    """Reads all sources at once, and keeps the latest complete state of each.

    A source that fails keeps its last good state; what it says of its failures, and of what it left out, is told on standard error,
    each thing once.

    Args:
        factories: Each makes the source anew, which is done at the start and by :meth:`retry`.
    """

    def __init__(self, factories: Sequence[Callable[[], Source]]) -> None:
        self._factories = factories
        self.sources = [factory() for factory in factories]
        self.states: list[SourceState | None] = [None] * len(factories)
        self._reasons = [""] * len(factories)
        self._problems: list[tuple[SourceProblem, ...]] = [()] * len(factories)
        self._news = trio.Event()
        self._openings = [trio.CancelScope() for _ in factories]

    @property
    def is_complete(self) -> bool:
        """Whether every source has had a complete state."""
        return None not in self.states

    def claims(self) -> list[Claim]:
        """What all of them want."""
        pairs = zip(self.sources, self.states, strict=True)
        return [Claim(vip, source.name) for source, state in pairs if state is not None for vip in state.vips]

    def retry(self) -> None:
        """Try those that fail again, at once and with whatever credentials are in their files now.

        The others are left alone: they tell of changes by themselves, and know the last good state of what is wrong in them.
        """
        for scope, source in zip(self._openings, self.sources, strict=True):
            if source.status.failures:
                scope.cancel()
        self.wake()

    def wake(self) -> None:
        """Have :meth:`news` return."""
        self._news.set()

    async def news(self, seconds: float) -> None:
        """Return when a source has another state, or :meth:`wake` was called; in any case after so many seconds. For one caller."""
        end = trio.current_time() + seconds
        self.tell()
        while not self._news.is_set() and trio.current_time() < end:
            with trio.move_on_at(min(end, trio.current_time() + _LOOK_SECONDS)):
                await self._news.wait()
            self.tell()
        self._news = trio.Event()

    async def run(self) -> None:
        """Read, until cancelled."""
        async with trio.open_nursery() as nursery:
            for at in range(len(self.sources)):
                nursery.start_soon(self._read, at)

    async def _read(self, at: int) -> None:
        while True:
            with self._openings[at] as opening:
                async with self.sources[at].states() as states:
                    async for state in states:
                        self.states[at] = state
                        self.wake()
            if not opening.cancelled_caught:
                await trio.sleep(_REOPEN_SECONDS)
            self._openings[at] = trio.CancelScope()
            try:
                self.sources[at] = self._factories[at]()
            except MinutemanError as error:
                say(f"{self.sources[at].name}: {error}; it is read as before")

    def tell(self) -> None:
        """Say on standard error what is new of failures, and of what was left out."""
        for at, (source, state) in enumerate(zip(self.sources, self.states, strict=True)):
            reason = source.status.reason
            if reason and reason != self._reasons[at]:
                say(f"{source.name}: {reason}{'' if state is None else '; what was last read stands'}")
            elif self._reasons[at] and not reason and source.status.last_good_at is not None:
                say(f"{source.name}: is read again")
            self._reasons[at] = reason
            problems = () if state is None else state.problems
            for problem in problems:
                if problem not in self._problems[at]:
                    say(f"{source.name}: left out: {problem}")
            self._problems[at] = problems

    def why_incomplete(self, seconds: float) -> SourceError:
        """The error of sources that had no complete state within that time."""
        pairs = zip(self.sources, self.states, strict=True)
        lines = [f"{source.name}: {source.status.reason or 'no answer yet'}" for source, state in pairs if state is None]
        return SourceError("\n  ".join([f"no complete state within {seconds:g} s, so nothing was done:", *lines]))


@contextmanager
def bare_errors() -> Iterator[None]:
    """An error that is alone in its group comes out of it: there it has a text for people and an exit code."""
    try:
        yield
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        raise error from None


async def first_states(feeds: Feeds, seconds: float) -> None:
    """Read until every source has had a complete state.

    Raises:
        SourceError: That was not so within the time; the text says of each source why.
    """
    end = trio.current_time() + seconds
    with bare_errors():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(feeds.run)
            while not feeds.is_complete and trio.current_time() < end:
                await feeds.news(end - trio.current_time())
            nursery.cancel_scope.cancel()
    feeds.tell()
    if not feeds.is_complete:
        raise feeds.why_incomplete(seconds)
