"""When a backend counts as healthy: not by one result, but by several alike in a row; and when to look again.

Pure. Invariants:

1. A backend becomes unhealthy only by ``fall`` failures in a row, and healthy only by ``rise`` successes in a row.
2. So two changes are at least ``min(rise, fall)`` checks apart, and one odd result changes nothing.
3. The next check is due within ``1 - jitter`` to ``1 + jitter`` intervals from the end of the last one: checks that began together do
   not stay together, and those of one backend never overlap.
4. While results speak against the state, or too few of them have spoken at all, the shorter interval holds: a change is not put off
   by the patience that a quiet backend may have.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from random import Random

from pyminuteman.errors import MinutemanError

__all__ = ["CheckPolicy", "Hysteresis", "InvalidCheckError"]

_COUNT_MAX = 100
_INTERVAL_MIN_SECONDS, _INTERVAL_MAX_SECONDS = 0.05, 3600.0
_JITTER_MAX = 0.5


class InvalidCheckError(MinutemanError, ValueError):
    """A check, or how often it is to be made, was described that cannot be. Nothing was changed; the text says what is accepted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckPolicy:
    """How often to look, and how many results it takes to believe them.

    Raises:
        InvalidCheckError: A number is out of its range.
    """

    interval_seconds: float = 2.0
    """From the end of a check to the next, while all is as it was. 0.05 to 3600."""
    undecided_interval_seconds: float = 0.5
    """The same while results speak against the state, or nothing is borne out yet. 0.05 to 3600."""
    timeout_seconds: float = 1.0
    """For one check; longer is a failure. 0.05 to 3600. Choose what your slowest honest answer takes, twice."""
    rise: int = 2
    """Successes in a row that make an unhealthy backend healthy. 1 to 100."""
    fall: int = 3
    """Failures in a row that make a healthy backend unhealthy. 1 to 100; with 1, each lost packet costs a backend."""
    jitter: float = 0.1
    """Share of an interval by which it is now longer, now shorter. 0 to 0.5."""
    starts_healthy: bool = True
    """What a backend is taken for until checks have decided. True: our own restart takes nobody out of service. False: nobody is sent
    connections before it has passed ``rise`` checks."""

    def __post_init__(self) -> None:
        """Validate."""
        for name in ("interval_seconds", "undecided_interval_seconds", "timeout_seconds"):
            self._check(name, _INTERVAL_MIN_SECONDS, _INTERVAL_MAX_SECONDS)
        for name in ("rise", "fall"):
            self._check(name, 1, _COUNT_MAX, kind=int)
        self._check("jitter", 0, _JITTER_MAX)

    def _check(self, name: str, low: float, high: float, kind: type = float) -> None:
        value = getattr(self, name)
        right = isinstance(value, (int, kind)) and not isinstance(value, bool)
        if not (right and isfinite(value) and low <= value <= high):
            what = "a whole number" if kind is int else "a number"
            raise InvalidCheckError(f"{name} {value!r} is not {what} from {low:g} to {high:g}")

    @property
    def longest_detection_seconds(self) -> float:
        """From a backend's death to its being unhealthy, at most: a whole interval and ``fall`` checks that hang until their deadline."""
        stretch = 1 + self.jitter
        first = self.interval_seconds * stretch + self.timeout_seconds
        return first + (self.fall - 1) * (self.undecided_interval_seconds * stretch + self.timeout_seconds)


class Hysteresis:
    """What is known of one backend.

    Args:
        policy: How many results it takes.
        dice: For the jitter.
        now: Seconds on any clock that does not jump. The first check is due within an undecided interval.
    """

    __slots__ = ("_dice", "_last", "_row", "confirmed", "due", "healthy", "policy")

    def __init__(self, policy: CheckPolicy, dice: Random, now: float) -> None:
        self.policy = policy
        self.healthy = policy.starts_healthy
        """What it counts as."""
        self.confirmed = False
        """Whether checks have decided that; until then it is the policy's guess."""
        self.due = now + policy.undecided_interval_seconds * dice.random()
        """When to check next."""
        self._dice = dice
        self._last: bool | None = None
        self._row = 0

    @property
    def is_settled(self) -> bool:
        """Whether the state is decided, and the last result agrees with it."""
        return self.confirmed and self._last == self.healthy

    def record(self, passed: bool, now: float) -> bool:
        """Take the result of a check that ended ``now``, and set when the next is due.

        Returns:
            Whether the backend has become healthy or unhealthy by it.
        """
        self._row = self._row + 1 if passed == self._last else 1
        self._last = passed
        before = self.healthy
        if self._row >= (self.policy.rise if passed else self.policy.fall):
            self.healthy, self.confirmed = passed, True
        self.postpone(now)
        return self.healthy != before

    def postpone(self, now: float) -> None:
        """Have the next check due one interval from ``now``; for a check that says nothing of the backend."""
        policy = self.policy
        interval = policy.interval_seconds if self.is_settled else policy.undecided_interval_seconds
        self.due = now + interval * (1 + policy.jitter * self._dice.uniform(-1, 1))
