"""A node's own clock: it starts anywhere, runs a little fast or slow, and its wall clock may be wrong.

Pure. No two nodes may compare their clocks, and a core that did would be found out here: the offsets differ in every run.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from pyminuteman.testing.simulation.faults import Faults

__all__ = ["WALL_START", "Clock"]

WALL_START = 1_700_000_000.0
"""Wall time at which every simulation starts, in seconds since 1970."""
_OFFSET_MAX = 10_000.0


@dataclass(frozen=True, slots=True)
class Clock:
    """Turns the world's time into a node's and back. All in seconds.

    Attributes:
        offset: What the node's monotonic clock shows when the world's is zero.
        rate: How many seconds it counts in a second.
        wall_skew: How far its wall clock is ahead.
    """

    offset: float = 0.0
    rate: float = 1.0
    wall_skew: float = 0.0

    @classmethod
    def drawn(cls, faults: Faults, rng: random.Random) -> Clock:
        """One of those that the faults allow."""
        return cls(
            offset=rng.uniform(0.0, _OFFSET_MAX),
            rate=1.0 + faults.clock_drift * rng.uniform(-1.0, 1.0),
            wall_skew=faults.wall_skew_seconds * rng.uniform(-1.0, 1.0),
        )

    def local(self, time: float) -> float:
        """What the node's monotonic clock shows."""
        return self.offset + self.rate * time

    def world(self, local: float) -> float:
        """When it shows that."""
        return (local - self.offset) / self.rate

    @property
    def wall_offset(self) -> float:
        """What is added to the node's monotonic clock to get its wall clock (drift is left out: it is too small to matter)."""
        return WALL_START + self.wall_skew - self.offset
