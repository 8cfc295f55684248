"""What all sources share: the newest state for a reader who may be slow, and fetching again and again."""

# ruff: noqa: S311 - dice that a seed replays
from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from random import Random

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from pyminuteman.errors import MinutemanError
from pyminuteman.sources.backoff import Backoff
from pyminuteman.sources.base import LatestState, SourceError, SourceProblem, SourceState, SourceStatus, feeding, poll
from pyminuteman.vips.model import VIP, VIPKey, VIPSettings


def state(*ports: int) -> SourceState:
    return SourceState.of(VIP(VIPKey.tcp("11.0.0.1", port)) for port in ports)


def test_a_state_is_in_order_and_of_two_with_one_key_the_first_counts() -> None:
    one, other = VIP(VIPKey.tcp("11.0.0.1", 9)), VIP(VIPKey.tcp("11.0.0.1", 9), settings=VIPSettings("rr"))
    made = SourceState.of([other, VIP(VIPKey.tcp("11.0.0.1", 5)), one], [SourceProblem("z", "r"), SourceProblem("a", "r")])
    assert [vip.key.port for vip in made.vips] == [5, 9]
    assert made.vips[1] is other
    assert [problem.where for problem in made.problems] == ["a", "tcp://11.0.0.1:9", "z"]
    assert made == SourceState.of(made.vips, made.problems)


def test_a_status_tells_since_when_and_how_often() -> None:
    status = SourceStatus()
    status.failed(5.0, "x")
    status.failed(7.0, "y")
    assert (status.failing_since, status.failures, status.reason, status.last_good_at) == (5.0, 2, "y", None)
    status.good(9.0)
    assert (status.failing_since, status.failures, status.reason, status.last_good_at) == (None, 0, "", 9.0)


@pytest.mark.trio
async def test_a_slow_reader_gets_the_newest_state_and_no_state_twice() -> None:
    latest = LatestState()
    assert latest.put(state(1))
    assert not latest.put(state(1))
    assert latest.put(state(2))
    assert latest.replaced == 1
    assert await anext(latest) == state(2)
    assert not latest.put(state(2))
    assert latest.put(state(3))
    assert latest.put(state(2))  # back to what the reader has: there is nothing to tell
    with trio.move_on_after(0.01) as scope:
        await anext(latest)
    assert scope.cancelled_caught
    assert latest.put(state(4))
    latest.end()
    assert [seen async for seen in latest] == [state(4)]


@given(st.lists(st.none() | st.integers(1, 3), max_size=30))
def test_whoever_reads_now_and_then_ends_with_the_last_and_never_sees_one_twice(steps: list[int | None]) -> None:
    async def run() -> None:
        latest, seen, put = LatestState(), list[SourceState](), list[SourceState]()
        for step in [*steps, None]:
            if step is not None:
                put.append(state(step))
                latest.put(put[-1])
                continue
            with trio.move_on_after(0.001):
                seen.append(await anext(latest))
        assert seen[-1:] == put[-1:]
        assert all(one != other for one, other in pairwise(seen))

    trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))


@pytest.mark.trio
async def test_reading_is_a_checkpoint_and_a_reader_who_is_cancelled_loses_nothing() -> None:
    latest = LatestState()
    latest.put(state(1))
    with trio.CancelScope() as scope:
        scope.cancel()
        await anext(latest)
    assert scope.cancelled_caught
    with trio.testing.assert_checkpoints():
        assert await anext(latest) == state(1)
    latest.end()
    with pytest.raises(StopAsyncIteration):
        await anext(latest)


@pytest.mark.trio
async def test_what_feeds_ends_with_the_block_and_an_error_of_the_block_comes_out_as_it_is() -> None:
    ended = trio.Event()

    async def run(latest: LatestState) -> None:
        latest.put(state(1))
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    async def read() -> None:
        async with feeding(run) as states:
            assert await anext(states) == state(1)
            raise SourceError("x")

    with trio.fail_after(5), pytest.raises(SourceError, match="x"):
        await read()
    assert ended.is_set()


@pytest.mark.trio
async def test_what_feeds_may_end_by_itself_and_its_own_errors_are_not_swallowed() -> None:
    async def done(latest: LatestState) -> None:
        latest.put(state(1))

    async def wrong(_latest: LatestState) -> None:
        raise ZeroDivisionError

    with trio.fail_after(5):
        async with feeding(done) as states:
            assert [seen async for seen in states] == [state(1)]
        with pytest.raises(ExceptionGroup) as caught:
            async with feeding(wrong) as states:
                await anext(states)
    assert caught.group_contains(ZeroDivisionError)


class Fetches:
    """Answers in turn, and when each was asked for."""

    def __init__(self, *answers: SourceState | Exception | None) -> None:
        self.answers = list(answers)
        self.times: list[float] = []
        self.status = SourceStatus()

    async def __call__(self) -> SourceState | None:
        self.times.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    @property
    def gaps(self) -> list[float]:
        return [after - before for before, after in pairwise(self.times)]

    async def poll(self, seconds: float, seen: Callable[[SourceState], None] = lambda _: None) -> None:
        async def run(latest: LatestState) -> None:
            await poll(self, latest, self.status, interval_seconds=10, backoff=Backoff(1, 60), random=Random(3))

        with trio.move_on_after(seconds):
            async with feeding(run) as states:
                async for found in states:
                    seen(found)


class BusyError(MinutemanError):
    def __init__(self, seconds: float) -> None:
        super().__init__("busy")
        self.retry_after_seconds = seconds


@pytest.mark.trio
async def test_polling_tells_what_differs_at_its_pace(autojump_clock: trio.testing.MockClock) -> None:  # noqa: ARG001
    fetches = Fetches(state(1), state(1), None, state(2))
    seen: list[SourceState] = []
    await fetches.poll(100, seen.append)
    assert seen == [state(1), state(2)]
    assert all(9 <= gap <= 10 for gap in fetches.gaps)
    assert len(set(fetches.gaps)) > 5
    assert fetches.status.counters == {"fetches": len(fetches.times), "states": 2, "failures": 0}
    assert fetches.status.last_good_at == pytest.approx(fetches.times[-1])


@pytest.mark.trio
async def test_failures_keep_the_state_and_are_tried_again_ever_more_slowly(autojump_clock: trio.testing.MockClock) -> None:  # noqa: ARG001
    fetches = Fetches(state(1), *[SourceError("it is down")] * 12, state(1), state(2))
    seen: list[SourceState] = []
    await fetches.poll(8, seen.append)
    assert fetches.status.reason == ""
    fetches.times.clear()
    await fetches.poll(1000, seen.append)
    assert seen == [state(1), state(1), state(2)]  # the second run has a reader of its own
    for failures, gap in enumerate(fetches.gaps[:11], 1):
        whole = min(60, 2 ** (failures - 1))
        assert whole / 2 <= gap <= whole
    assert fetches.status.counters["failures"] == 12
    assert (fetches.status.reason, fetches.status.failures) == ("", 0)


@pytest.mark.trio
async def test_while_it_fails_the_reason_is_there(autojump_clock: trio.testing.MockClock) -> None:  # noqa: ARG001
    fetches = Fetches(SourceError("it is down"))
    await fetches.poll(30, lambda _: pytest.fail("there is no state"))
    assert fetches.status.reason == "it is down"
    assert fetches.status.last_good_at is None
    assert fetches.status.failing_since == pytest.approx(fetches.times[0])
    assert fetches.status.failures == len(fetches.times)


@pytest.mark.trio
@pytest.mark.parametrize(("asked", "least", "most"), [(30.0, 30, 31), (1e9, 600, 601), (0.0, 0.5, 1)])
async def test_a_server_that_asks_to_be_left_alone_is_for_a_while(
    autojump_clock: trio.testing.MockClock,  # noqa: ARG001
    asked: float,
    least: float,
    most: float,
) -> None:
    fetches = Fetches(BusyError(asked), state(1))
    await fetches.poll(1000)
    assert least <= fetches.gaps[0] <= most


@pytest.mark.trio
async def test_an_error_of_our_own_making_is_not_taken_for_a_failure() -> None:
    with trio.fail_after(5), pytest.raises(ExceptionGroup) as caught:
        await Fetches(ZeroDivisionError()).poll(4)
    assert caught.group_contains(ZeroDivisionError)
