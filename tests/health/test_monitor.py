"""Many checks at once: with scripted checks on a clock of the test's, and with real ones."""

# ruff: noqa: S311, ASYNC110, ASYNC240 - dice that a seed replays; what a process does is seen in files
from __future__ import annotations

import socket
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from pyminuteman.health.checks import CheckFailed, CommandCheck, TCPCheck
from pyminuteman.health.hysteresis import CheckPolicy, InvalidCheckError
from pyminuteman.health.monitor import Changes, Health, Monitor, Target, open_monitor

POLICY = CheckPolicy(interval_seconds=10, undecided_interval_seconds=1, timeout_seconds=1, rise=2, fall=3, jitter=0.1)


class Scripted:
    """Answers as ``answer`` says: + passes, - fails, h hangs, e cannot ask, b has a bug."""

    def __init__(self, answer: str = "+") -> None:
        self.answer = answer
        self.asked: list[float] = []
        self.running = self.most = 0

    async def run(self) -> None:
        self.asked.append(trio.current_time())
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await trio.sleep(0.01)
            match self.answer:
                case "-":
                    raise CheckFailed("out of order")
                case "h":
                    await trio.sleep_forever()
                case "e":
                    raise OSError(24, "Too many open files")
                case "b":
                    raise ZeroDivisionError
        finally:
            self.running -= 1


def known(monitor: Monitor[str], key: str) -> Health:
    found = monitor.health(key)
    assert found is not None
    return found


async def until(condition: Callable[[], bool]) -> None:
    """Let checks be made until it holds, for 60 s of whichever clock at most."""
    with trio.fail_after(60):
        while not condition():
            await trio.sleep(0.01)


@pytest.mark.trio
async def test_a_backend_falls_after_three_failures_and_rises_after_two_successes(autojump_clock: MockClock) -> None:
    check = Scripted()
    async with open_monitor(dice=Random(1)) as monitor:
        monitor.watch({"web": Target(check, POLICY)})
        assert (known(monitor, "web").healthy, known(monitor, "web").confirmed) == (True, False)
        with monitor.changes() as changes:
            assert [(one.healthy, one.confirmed) for one in (await changes.receive()).values()] == [(True, True)]
            assert len(check.asked) == 2
            check.answer, died = "-", trio.current_time()
            found = (await changes.receive())["web"]
            assert (found.healthy, found.reason) == (False, "out of order")
            assert len(check.asked) == 5
            assert found.since - died <= POLICY.longest_detection_seconds
            assert monitor.effective_weight("web", 7) == 0
            check.answer = "+"
            found = (await changes.receive())["web"]
            assert (found.healthy, found.reason) == (True, "")
            assert len(check.asked) == 7
            assert monitor.effective_weight("web", 7) == 7
    assert monitor.metrics() == {
        "targets": 1,
        "healthy": 1,
        "unconfirmed": 0,
        "running": 0,
        "waiting": 0,
        "checks_total": 7,
        "passed_total": 4,
        "failed_total": 3,
        "timed_out_total": 0,
        "void_total": 0,
        "became_healthy_total": 1,
        "became_unhealthy_total": 1,
        "coalesced_total": 0,
    }
    del autojump_clock


@pytest.mark.trio
async def test_a_backend_that_is_not_checked_keeps_its_weight() -> None:
    monitor: Monitor[str]
    async with open_monitor() as monitor:
        assert monitor.health("web") is None
        assert monitor.effective_weight("web", 3) == 3


@pytest.mark.trio
async def test_checks_that_hang_fail_at_their_deadline(autojump_clock: MockClock) -> None:
    check = Scripted("h")
    async with open_monitor(dice=Random(1)) as monitor:
        monitor.watch({"web": Target(check, POLICY)})
        with monitor.changes() as changes:
            found = (await changes.receive())["web"]
    assert (found.healthy, found.reason, found.took_seconds) == (False, "no answer within 1 s", pytest.approx(1))
    assert monitor.metrics()["timed_out_total"] == 3
    assert all(later - earlier >= 1.9 for earlier, later in pairwise(check.asked)), "never two at a time"
    del autojump_clock


@pytest.mark.trio
async def test_those_that_hang_hold_up_nobody_who_answers(autojump_clock: MockClock) -> None:
    """A hundred hang, and there are only four places at a time."""
    good, bad = Scripted(), [Scripted("h") for _ in range(100)]
    targets = {f"bad{n}": Target(check, POLICY) for n, check in enumerate(bad)}
    async with open_monitor(concurrency=4, dice=Random(1)) as monitor:
        monitor.watch(targets | {"good": Target(good, POLICY)})
        await trio.sleep(60)  # by now each has hung once, in the lane of the innocent
        start = len(good.asked)
        await trio.sleep(300)
        gaps = [later - earlier for earlier, later in pairwise(good.asked[start - 1 :])]
        assert len(gaps) > 20
        assert max(gaps) <= 11 + 0.02
        metrics = monitor.metrics()
        assert metrics["running"] <= 8
        assert metrics["waiting"] > 50
        assert all(not known(monitor, key).healthy for key in targets)
        bad[0].answer = "+"
        await until(lambda: known(monitor, "bad0").healthy)
    del autojump_clock


@pytest.mark.trio
async def test_never_more_run_than_may(autojump_clock: MockClock) -> None:
    check = Scripted()
    async with open_monitor(concurrency=3, dice=Random(1)) as monitor:
        monitor.watch({str(n): Target(check, POLICY) for n in range(500)})
        await trio.sleep(60)
    assert check.most == 3
    assert len(check.asked) > 2000
    del autojump_clock


@pytest.mark.trio
async def test_checks_of_many_backends_do_not_come_all_at_once(autojump_clock: MockClock) -> None:
    check = Scripted()
    async with open_monitor(concurrency=1000, dice=Random(1)) as monitor:
        monitor.watch({str(n): Target(check, POLICY) for n in range(200)})
        await trio.sleep(120)
    late = sorted(at for at in check.asked if at > 60 + check.asked[0])
    assert max(sum(1 for at in late if first <= at < first + 0.1) for first in late) < 40
    del autojump_clock


@pytest.mark.parametrize(("answer", "reason"), [("e", "Too many open files"), ("b", "ZeroDivisionError")])
@pytest.mark.trio
async def test_a_check_that_could_not_be_made_says_nothing_of_the_backend(
    autojump_clock: MockClock, answer: str, reason: str
) -> None:
    check = Scripted()
    async with open_monitor(dice=Random(1)) as monitor:
        monitor.watch({"web": Target(check, POLICY)})
        await trio.sleep(20)
        check.answer = answer
        await trio.sleep(100)
        found = known(monitor, "web")
        assert found.healthy
        assert reason in found.reason
        assert monitor.metrics()["void_total"] > 5
        assert monitor.metrics()["failed_total"] == 0
    del autojump_clock


@pytest.mark.trio
async def test_a_deadline_that_we_slept_through_says_nothing_of_the_backend(mock_clock: MockClock) -> None:
    check = Scripted("h")
    async with open_monitor(dice=Random(1)) as monitor:
        monitor.watch({"web": Target(check, POLICY)})
        for _ in range(6):
            await wait_all_tasks_blocked()
            mock_clock.jump(2)
        await wait_all_tasks_blocked()
        found = known(monitor, "web")
        assert found.healthy
        assert "this process did not run for 1.0 s" in found.reason
        assert monitor.metrics()["void_total"] > 1
        assert monitor.metrics()["failed_total"] == 0


@pytest.mark.trio
async def test_targets_that_stay_keep_their_state_and_changed_ones_their_verdict(autojump_clock: MockClock) -> None:
    one, two, three = Scripted("-"), Scripted("-"), Scripted("-")
    async with open_monitor(dice=Random(1)) as monitor:
        monitor.watch({name: Target(check, POLICY) for name, check in (("one", one), ("two", two), ("three", three))})
        await trio.sleep(30)
        assert monitor.metrics()["healthy"] == 0
        since = known(monitor, "two").since
        monitor.watch({"one": Target(one, POLICY), "two": Target(two, CheckPolicy(fall=100, rise=2))})
        assert [known(monitor, name).healthy for name in ("one", "two")] == [False, False]
        assert monitor.health("three") is None
        assert monitor.known() == {name: monitor.health(name) for name in ("one", "two")}
        asked, others = len(three.asked), len(one.asked)
        await trio.sleep(30)
        assert len(three.asked) == asked
        assert len(one.asked) > others
        assert (known(monitor, "two").healthy, known(monitor, "two").since) == (False, since)
        monitor.watch({"two": Target(Scripted(), CheckPolicy(rise=2))})
        assert not known(monitor, "two").healthy
        await trio.sleep(30)
        assert known(monitor, "two").healthy
        monitor.watch({})
        monitor.watch({"two": Target(two, POLICY)})
        assert known(monitor, "two").healthy, "what was not checked meanwhile begins anew"
    del autojump_clock


@pytest.mark.trio
async def test_an_answer_that_comes_when_nobody_asks_any_more_is_dropped(autojump_clock: MockClock) -> None:
    class Last:
        async def run(self) -> None:
            await trio.lowlevel.checkpoint()
            monitor.watch({})

    async with open_monitor(dice=Random(1)) as monitor:
        monitor.watch({"web": Target(Last(), CheckPolicy(rise=1))})
        with monitor.changes() as changes, trio.move_on_after(30) as scope:
            await changes.receive()
        assert scope.cancelled_caught
        assert monitor.metrics()["checks_total"] == 0
    del autojump_clock


@pytest.mark.trio
async def test_whoever_reads_late_sees_how_things_are_and_not_how_they_came_to_be(autojump_clock: MockClock) -> None:
    check, gone = Scripted(), Scripted("-")
    target = Target(check, CheckPolicy(rise=1, fall=1))
    async with open_monitor(dice=Random(1)) as monitor:
        with monitor.changes() as late, monitor.changes() as prompt:
            monitor.watch({"web": target, "gone": Target(gone, POLICY)})
            for answer, healthy in zip("+-+-", [True, False, True, False], strict=True):
                check.answer = answer
                while "web" not in (found := await prompt.receive()):
                    pass
                assert found["web"].healthy is healthy
            await trio.sleep(30)
            monitor.watch({"web": target})
            assert {key: health.healthy for key, health in (await late.receive()).items()} == {"web": False}
            assert (late.coalesced, prompt.coalesced) == (3, 0)
            assert monitor.metrics()["coalesced_total"] == 3
        with pytest.raises(trio.ClosedResourceError):
            await late.receive()
        check.answer = "+"
        await trio.sleep(30)
        assert monitor.metrics()["coalesced_total"] == 3, "nothing is kept for those who closed"
    del autojump_clock


@pytest.mark.trio
async def test_news_of_a_target_that_is_no_more_wakes_nobody_up(autojump_clock: MockClock) -> None:
    async with open_monitor(dice=Random(1)) as monitor:
        with monitor.changes() as changes:
            monitor.watch({"web": Target(Scripted("-"), POLICY)})
            await trio.sleep(30)
            monitor.watch({"other": Target(Scripted(), POLICY)})
            async for found in changes:
                assert list(found) == ["other"]
                break
    del autojump_clock


def test_a_reader_that_never_reads_costs_a_state_a_backend() -> None:
    changes: Changes[int] = Changes(set())
    for turn in range(1000):
        changes.put(turn % 3, Health(healthy=True, confirmed=True, since=0))
    assert len(changes._pending) == 3
    assert changes.coalesced == 997
    changes.close()
    changes.close()


@pytest.mark.parametrize("concurrency", [0, 10_001])
@pytest.mark.trio
async def test_a_concurrency_out_of_range_is_refused(concurrency: int) -> None:
    with pytest.raises(InvalidCheckError, match="1 to 10000"):
        async with open_monitor(concurrency=concurrency):
            pass  # pragma: no cover


# -- real ones ---------------------------------------------------------------------------------------------------------

QUICK = CheckPolicy(interval_seconds=0.05, undecided_interval_seconds=0.05, timeout_seconds=2, rise=2, fall=2)


@pytest.mark.trio
async def test_a_real_server_that_goes_and_comes_back() -> None:
    async with open_monitor() as monitor:
        with socket.create_server(("127.0.0.1", 0)) as server:
            address, port = server.getsockname()
            monitor.watch({"web": Target(TCPCheck(address, port), QUICK)})
            await until(lambda: known(monitor, "web").confirmed)
            assert known(monitor, "web").healthy
        await until(lambda: not known(monitor, "web").healthy)
        assert "Connection refused" in known(monitor, "web").reason
        with socket.create_server((address, port)):
            await until(lambda: known(monitor, "web").healthy)
        assert monitor.metrics()["became_healthy_total"] == 1


@pytest.mark.trio
async def test_when_the_monitor_ends_so_do_the_commands_that_it_runs(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    text = f"trap '' TERM; echo $$ >{path}; exec sleep 1000"
    async with open_monitor() as monitor:
        monitor.watch({"web": Target(CommandCheck(("/bin/sh", "-c", text)), CheckPolicy(timeout_seconds=60))})
        await until(lambda: path.exists() and path.read_text().endswith("\n"))
    assert not Path(f"/proc/{path.read_text().strip()}").exists()
