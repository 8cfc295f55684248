"""Back-off: longer after each failure, within bounds, and spread."""

# ruff: noqa: S311 - dice that a seed replays
from __future__ import annotations

import math
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyminuteman.sources.backoff import Backoff


@given(st.integers(0, 10**9), st.integers(), st.floats(0.001, 100), st.floats(1, 1000))
def test_a_wait_is_between_half_of_the_doubled_one_and_all_of_it(failures: int, seed: int, first: float, times: float) -> None:
    backoff = Backoff(first, first * times)
    whole = first * times if failures > 62 else min(first * times, first * 2 ** max(failures - 1, 0))
    assert whole / 2 <= backoff.wait_seconds(failures, Random(seed)) <= whole


def test_a_thousand_nodes_do_not_come_at_once() -> None:
    waits = sorted(Backoff(2, 60).wait_seconds(10, Random(seed)) for seed in range(1000))
    assert waits[0] < 33
    assert waits[-1] > 57
    assert max(b - a for a, b in pairwise(waits)) < 0.5


@pytest.mark.parametrize(("first", "most"), [(0, 1), (-1, 1), (2, 1), (math.nan, 1), (1, math.nan), (1, math.inf)])
def test_no_back_off(first: float, most: float) -> None:
    with pytest.raises(ValueError, match="back-off from"):
        Backoff(first, most)
