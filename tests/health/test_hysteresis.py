"""Rise, fall and the time of the next check."""

# ruff: noqa: S311 - dice that a seed replays
from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyminuteman.health.hysteresis import CheckPolicy, Hysteresis, InvalidCheckError

POLICY = CheckPolicy(rise=2, fall=3)


def fed(policy: CheckPolicy, results: str) -> Hysteresis:
    """After these results: + passed, - failed."""
    state = Hysteresis(policy, Random(1), 0.0)
    for result in results:
        state.record(result == "+", 0.0)
    return state


@pytest.mark.parametrize(
    ("results", "healthy"),
    [
        ("", True),
        ("--", True),
        ("---", False),
        ("--+--", True),
        ("--+---", False),
        ("---+", False),
        ("---+-+", False),
        ("---++", True),
        ("---+++--", True),
    ],
)
def test_it_takes_so_many_alike_in_a_row(results: str, healthy: bool) -> None:
    assert fed(POLICY, results).healthy is healthy


def test_a_backend_that_starts_unhealthy_has_to_pass_first() -> None:
    policy = CheckPolicy(rise=2, starts_healthy=False)
    assert [fed(policy, "+" * n).healthy for n in range(4)] == [False, False, True, True]


def test_what_it_is_taken_for_is_confirmed_by_results_too() -> None:
    assert [fed(POLICY, "+" * n).confirmed for n in range(3)] == [False, False, True]
    assert [fed(POLICY, "-" * n).confirmed for n in range(4)] == [False, False, False, True]
    assert not fed(POLICY, "+-+-").confirmed


def test_only_the_result_that_changes_it_says_so() -> None:
    state = Hysteresis(POLICY, Random(1), 0.0)
    assert [state.record(result == "+", 0.0) for result in "---+++---"] == [
        *(False, False, True),
        *(False, True, False),
        *(False, False, True),
    ]


def test_while_nothing_is_decided_checks_come_at_the_shorter_interval() -> None:
    policy = CheckPolicy(interval_seconds=10, undecided_interval_seconds=1, jitter=0, rise=2, fall=2)
    state = Hysteresis(policy, Random(1), 100.0)
    assert 100 <= state.due <= 101
    waits = []
    for result in "++-+--+":
        state.record(result == "+", 1000.0)
        waits.append(state.due - 1000)
    assert waits == [1, 10, 1, 10, 1, 10, 1]
    state.postpone(2000.0)
    assert state.due == 2001


@given(st.text("+-", max_size=60), st.integers(1, 5), st.integers(1, 5), st.booleans())
def test_between_two_changes_are_as_many_results_as_it_takes(results: str, rise: int, fall: int, starts: bool) -> None:
    state = Hysteresis(CheckPolicy(rise=rise, fall=fall, starts_healthy=starts), Random(1), 0.0)
    for at, result in enumerate(results, 1):
        changed = state.record(result == "+", 0.0)
        row = len(results[:at]) - len(results[:at].rstrip(result))
        needed = rise if result == "+" else fall
        assert not changed or row == needed
        assert row < needed or state.healthy == (result == "+")


@given(st.integers(), st.floats(0, 0.5), st.booleans())
def test_the_next_check_is_due_within_the_jitter_of_its_interval(seed: int, jitter: float, settled: bool) -> None:
    policy = CheckPolicy(interval_seconds=8, undecided_interval_seconds=2, jitter=jitter, rise=1)
    state = Hysteresis(policy, Random(seed), 0.0)
    state.record(True, 0.0)
    state.record(settled, 50.0)
    interval = 8 if settled else 2
    assert interval * (1 - jitter) - 1e-9 <= state.due - 50 <= interval * (1 + jitter) + 1e-9


@given(
    st.integers(),
    st.builds(
        CheckPolicy,
        interval_seconds=st.floats(0.1, 100),
        undecided_interval_seconds=st.floats(0.1, 100),
        timeout_seconds=st.floats(0.1, 100),
        fall=st.integers(1, 10),
        jitter=st.floats(0, 0.5),
        rise=st.just(1),
    ),
)
def test_a_death_is_known_within_the_time_that_the_policy_says(seed: int, policy: CheckPolicy) -> None:
    state = Hysteresis(policy, Random(seed), 0.0)
    state.record(True, 0.0)
    died = now = 0.0
    while state.healthy:
        now = state.due + policy.timeout_seconds
        state.record(False, now)
    assert now - died <= policy.longest_detection_seconds + 1e-6


@pytest.mark.parametrize(
    "wrong",
    [
        {"interval_seconds": 0},
        {"interval_seconds": 3601},
        {"undecided_interval_seconds": float("nan")},
        {"timeout_seconds": float("inf")},
        {"timeout_seconds": "1"},
        {"rise": 0},
        {"rise": 1.5},
        {"fall": 101},
        {"fall": True},
        {"jitter": 0.51},
        {"jitter": -0.1},
    ],
)
def test_what_is_out_of_range_is_refused_with_the_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidCheckError, match=f"{next(iter(wrong))} .* number from [0-9.]+ to [0-9]"):
        CheckPolicy(**wrong)


def test_whole_numbers_do_for_seconds() -> None:
    assert CheckPolicy(interval_seconds=3).interval_seconds == 3
