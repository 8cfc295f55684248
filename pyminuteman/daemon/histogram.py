"""Counts of times by their length, as Prometheus wants them. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

__all__ = ["Histogram"]


class Histogram:
    """How many values were at or below each bound.

    Attributes:
        bounds: Upper bounds, rising, without the infinite one.
        counts: How many values up to each bound and above the one before, not cumulated; the last one above all bounds.
        sum: Of all values.
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        """Nothing was counted."""
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value
