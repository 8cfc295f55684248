"""What a number of measurements come to."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from statistics import median
from typing import TypedDict


class Spread(TypedDict):
    """Of `n` measurements, in their unit. The 95th percentile is one of them: the least that 95 % do not exceed."""

    n: int
    least: float
    median: float
    p95: float
    most: float


def spread(values: Sequence[float]) -> Spread:
    """At least one value.

    Raises:
        ValueError: There is none: a median of nothing would look like a figure.
    """
    if not values:
        raise ValueError("nothing was measured")
    ordered = sorted(values)
    return {
        "n": len(ordered),
        "least": round(ordered[0], 4),
        "median": round(median(ordered), 4),
        "p95": round(ordered[ceil(0.95 * len(ordered)) - 1], 4),
        "most": round(ordered[-1], 4),
    }
