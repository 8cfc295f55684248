"""What all sources have in common: complete desired states, one after another, and the reason when there is none.

A source never yields half a state, and never an empty one because something failed: it keeps silent, keeps its last good state, and
says why it is unhappy (:class:`SourceStatus`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

from pyminuteman.errors import MinutemanError
from pyminuteman.vips.model import VIP

__all__ = ["Source", "SourceError", "SourceProblem", "SourceState", "SourceStatus"]


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
