"""How long to wait before the next attempt: twice as long after each failure, up to a limit, and never at the same time as others. Pure.

A thousand nodes that lose one server all come back to it; the jitter spreads them over half of the wait, so that no two attempts of
one node come quickly after one another either.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random
from typing import Final

__all__ = ["Backoff"]

_DOUBLINGS_MAX: Final = 63


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits between attempts, in seconds.

    Attributes:
        first_seconds: The wait after the first failure, before jitter; above 0.
        most_seconds: No wait is longer; not below ``first_seconds``.

    Raises:
        ValueError: They are not so.
    """

    first_seconds: float = 1.0
    most_seconds: float = 60.0

    def __post_init__(self) -> None:
        """Validate."""
        if not (0 < self.first_seconds <= self.most_seconds and math.isfinite(self.most_seconds)):
            msg = (
                f"back-off from {self.first_seconds} to {self.most_seconds} seconds: both are above 0, the first is the lesser"
            )
            raise ValueError(msg)

    def wait_seconds(self, failures: int, random: Random) -> float:
        """The wait after so many failures in a row (1 or more): between half of the doubled one and all of it."""
        doublings = min(max(failures, 1) - 1, _DOUBLINGS_MAX)
        return min(self.most_seconds, self.first_seconds * 2.0**doublings) * random.uniform(0.5, 1.0)
