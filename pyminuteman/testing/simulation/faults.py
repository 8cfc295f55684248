"""What may go wrong, as options, and the network on which it does.

Pure. Loss, delay and the rest are drawn a datagram; cuts are a set of directed pairs of hosts. Streams stand for TCP: nothing is
lost or reordered, loss only delays, and a cut in either direction ends them.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from dataclasses import dataclass, fields

__all__ = ["CLEAN", "Faults", "Network"]

_RETRANSMISSION_SECONDS = 0.2
"""Linux's least retransmission timeout (TCP_RTO_MIN): what a lost segment costs a stream."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """How bad the world is. Times are seconds; shares are of datagrams, 0 to 1.

    The defaults are a quiet local network of scheduled processes: round trips of a millisecond or two, timers up to two
    milliseconds late.
    """

    delay_min_seconds: float = 0.0002
    """What the fastest datagram takes, one way."""
    delay_mean_seconds: float = 0.0005
    """Mean of what is added to that, exponentially distributed: most are fast, some are slow."""
    delay_max_seconds: float = 0.010
    """The slowest datagram, unless it is held back by ``reordering``. The bounds of the checkers follow from it."""
    loss: float = 0.0
    """Share of datagrams that vanish, each on its own."""
    duplication: float = 0.0
    """Share of datagrams that arrive twice."""
    reordering: float = 0.0
    """Share of datagrams held back by up to ``reordering_seconds``, so that later ones overtake them."""
    reordering_seconds: float = 0.03
    """How long those are held back at most."""
    stream_delay_factor: float = 3.0
    """How much longer than a datagram a message over TCP takes: the connection is set up first."""
    wake_late_max_seconds: float = 0.002
    """How late a timer fires at most: the scheduler's doing."""
    wall_skew_seconds: float = 0.0
    """How far a wall clock is off, each way, at most."""
    clock_drift: float = 0.0
    """How much faster or slower a monotonic clock runs, at most (1e-4: a bad crystal)."""
    receive_buffer_datagrams: int = 256
    """What waits for a process that does not run; later datagrams are lost. Linux's default of 208 KiB holds about 256 small
    ones, each being charged for its buffer."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0 <= value < math.inf:
                raise ValueError(f"{field.name}: {value!r} is not a number of zero or more")
        for share in ("loss", "duplication", "reordering"):
            if getattr(self, share) > 1:
                raise ValueError(f"{share}: {getattr(self, share)!r} is not a share")
        if self.delay_min_seconds > self.delay_max_seconds:
            raise ValueError("delay_min_seconds is above delay_max_seconds")

    @property
    def slowest_seconds(self) -> float:
        """The longest that a datagram can be on its way."""
        return self.delay_max_seconds + (self.reordering_seconds if self.reordering else 0.0)


CLEAN = Faults()
"""A network that only takes its time."""


class Network:
    """Draws what becomes of each datagram, and holds the cuts.

    Hosts are numbers.
    """

    def __init__(self, faults: Faults, rng: random.Random) -> None:
        self.faults = faults
        self._random = rng.random
        self._blocked: set[tuple[int, int]] = set()
        self._troubled = bool(faults.loss or faults.duplication or faults.reordering)

    def block(self, sources: Iterable[int], targets: Iterable[int]) -> None:
        """Let nothing through from any of these to any of those."""
        targets = tuple(targets)
        self._blocked.update((source, target) for source in sources for target in targets if source != target)

    def heal(self) -> None:
        """Let everything through again."""
        self._blocked.clear()

    @property
    def blocked(self) -> frozenset[tuple[int, int]]:
        """The directed pairs between which nothing gets through."""
        return frozenset(self._blocked)

    def connected(self, one: int, other: int) -> bool:
        """Whether each of the two can send to the other."""
        return (one, other) not in self._blocked and (other, one) not in self._blocked

    def _delay(self) -> float:
        faults = self.faults
        drawn = faults.delay_min_seconds - faults.delay_mean_seconds * math.log(1.0 - self._random())
        return min(faults.delay_max_seconds, drawn)

    def datagram(self, source: int, target: int) -> tuple[float, ...]:
        """After how many seconds each copy of a datagram arrives: none, one or two."""
        if self._blocked and (source, target) in self._blocked:
            return ()
        if not self._troubled:
            return (self._delay(),)
        faults = self.faults
        if self._random() < faults.loss:
            return ()
        copies = 2 if self._random() < faults.duplication else 1
        return tuple(self._held_back() + self._delay() for _ in range(copies))

    def _held_back(self) -> float:
        held = self._random() < self.faults.reordering
        return self._random() * self.faults.reordering_seconds if held else 0.0

    def stream(self, source: int, target: int) -> float | None:
        """After how many seconds a message over TCP arrives; None when there is no connection."""
        if not self.connected(source, target):
            return None
        delay = self._delay() * self.faults.stream_delay_factor
        while self._random() < min(self.faults.loss, 0.5):
            delay += _RETRANSMISSION_SECONDS
        return delay
