"""The driver, with a scripted reader on a clock of the test's."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from errno import ENOENT, EPERM
from random import Random

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from pyminuteman.daemon.connection_watch import ConnectionWatch
from pyminuteman.ipvs.errors import KernelError, kernel_error
from pyminuteman.ipvs.service import ServiceKey
from pyminuteman.ipvs.tcp_metrics import TCPMetric
from pyminuteman.vips.model import BackendKey

HEADING = "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData\n"
WEB = ServiceKey.tcp("11.0.0.1", 80)
ONE = BackendKey("10.0.0.5", 8080)


def line(port: int, state: str = "ESTABLISHED", expires: int = 899) -> str:
    return f"TCP 0A000009 {port:04X} 0B000001 0050 0A000005 1F90 {state:<11} {expires:7}\n"


class Scripted:
    """Says what it is told to, and when it was asked."""

    def __init__(self, *lines: str) -> None:
        self.lines: list[str] = list(lines)
        self.metrics: Mapping[str, TCPMetric] | KernelError = {}
        self.error: Exception | None = None
        self.asked: list[float] = []
        self.read = 0

    def connection_lines(self) -> Iterator[str]:
        self.asked.append(trio.from_thread.run_sync(trio.current_time))
        if self.error is not None:
            raise self.error
        for one in [HEADING, *self.lines]:
            self.read += 1
            yield one

    def tcp_metrics(self) -> Mapping[str, TCPMetric]:
        if isinstance(self.metrics, KernelError):
            raise self.metrics
        return self.metrics


def counts(watch: ConnectionWatch) -> tuple[int, int, int] | None:
    row = watch.reading.backends.get((WEB, ONE))
    return None if row is None else (row.opened, row.failed, row.undecided)


@pytest.mark.trio
async def test_a_look_counts_and_joins() -> None:
    reader = Scripted(line(1), line(2, "SYN_RECV", 3), line(3, "SYN_RECV", 59))
    reader.metrics = {ONE.address: TCPMetric(0.02, 0.01, 0.0)}
    watch = ConnectionWatch(reader)
    assert (counts(watch), watch.status.read_at) == (None, None)
    assert await watch.look() is watch.reading
    assert counts(watch) == (1, 1, 1)
    assert watch.reading.backends[WEB, ONE].latency_seconds == pytest.approx(0.05)
    assert (watch.status.reason, watch.status.latency_reason) == ("", "")
    assert watch.status.read_at is not None
    metrics = watch.metrics()
    assert (metrics["readings_total"], metrics["connections"], metrics["readings_skipped_total"]) == (1, 3, 0)


class Loaded(Random):
    """Dice that fall as they should."""

    def __init__(self, *throws: float) -> None:
        super().__init__(0)
        self.throws = iter(throws)

    def random(self) -> float:
        return next(self.throws)


@pytest.mark.trio
async def test_readings_are_an_interval_and_up_to_the_jitter_apart(mock_clock: MockClock) -> None:
    reader = Scripted()
    watch = ConnectionWatch(reader, interval_seconds=20, jitter_seconds=2, dice=Loaded(0.0, 0.5, 1.0, 0.0))

    async def until_read(times: int) -> None:
        """The thread that reads lives by another clock."""
        end = time.perf_counter() + 10
        while watch.reading.metrics.get("readings_total", 0) < times and time.perf_counter() < end:
            await trio.lowlevel.checkpoint()
        await wait_all_tasks_blocked()
        assert len(reader.asked) == times

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.run)
        for times, gap in enumerate([20, 21, 22], 1):
            await until_read(times)
            mock_clock.jump(gap - 0.1)
            await until_read(times)
            mock_clock.jump(0.1)
            await until_read(times + 1)
        nursery.cancel_scope.cancel()


@pytest.mark.trio
async def test_a_table_that_is_too_long_is_left_alone_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    reader = Scripted(*(line(port) for port in range(1, 11)))
    watch = ConnectionWatch(reader, lines_max=10)
    await watch.look()
    assert counts(watch) == (10, 0, 0)
    reader.lines += [line(port) for port in range(11, 1000)]
    reader.read = 0
    for _ in range(2):
        await watch.look()
    assert reader.read == 2 * 12  # the heading, and one more than may be
    assert counts(watch) == (10, 0, 0)
    assert watch.metrics()["readings_skipped_total"] == 2
    assert [record.message for record in caplog.records] == [
        "outcomes of connections are not counted: more than 10 connections: reading them would cost too much"
    ]
    del reader.lines[9:]
    await watch.look()
    assert (counts(watch), watch.status.reason) == ((10, 0, 0), "")


@pytest.mark.trio
@pytest.mark.parametrize("error", [kernel_error(EPERM, 0, "read it"), OSError(5, "Input/output error")], ids=repr)
async def test_a_reading_that_fails_counts_nothing_and_the_next_goes_on(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    reader = Scripted(line(1))
    watch = ConnectionWatch(reader)
    await watch.look()
    read_at, reader.error = watch.status.read_at, error
    for _ in range(2):
        await watch.look()
    assert (counts(watch), watch.status.reason, watch.status.read_at) == ((1, 0, 0), str(error), read_at)
    assert watch.metrics()["readings_failed_total"] == 2
    assert len(caplog.records) == 1
    reader.error = None
    reader.lines.append(line(2))
    await watch.look()
    assert (counts(watch), watch.status.reason) == ((2, 0, 0), "")


@pytest.mark.trio
async def test_without_tcp_metrics_there_are_outcomes_without_latency_and_that_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    reader = Scripted(line(1))
    reader.metrics = kernel_error(ENOENT, 0, "read tcp_metrics")
    watch = ConnectionWatch(reader)
    for port in (2, 3):
        await watch.look()
        reader.lines.append(line(port))
    assert (counts(watch), watch.reading.backends[WEB, ONE].latency) == ((2, 0, 0), None)
    assert watch.status.reason == ""
    assert "tcp_metrics" in watch.status.latency_reason
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "come without latencies" in caplog.text
    reader.metrics = {ONE.address: TCPMetric(0.02, 0.01, 0.0)}
    await watch.look()
    assert watch.status.latency_reason == ""
    assert watch.reading.backends[WEB, ONE].latency is not None


@pytest.mark.trio
async def test_a_failed_reading_does_not_forget_that_latencies_are_missing(caplog: pytest.LogCaptureFixture) -> None:
    reader = Scripted(line(1))
    reader.metrics = kernel_error(ENOENT, 0, "read tcp_metrics")
    watch = ConnectionWatch(reader, lines_max=5)
    await watch.look()
    reader.error = OSError(5, "Input/output error")
    await watch.look()
    reader.error = None
    reader.lines = [line(port) for port in range(1, 9)]
    await watch.look()
    reader.lines = []
    await watch.look()
    assert sum("without latencies" in record.message for record in caplog.records) == 1


@pytest.mark.trio
async def test_services_that_went_are_forgotten_at_the_next_look() -> None:
    watch = ConnectionWatch(Scripted(line(1)))
    await watch.look()
    watch.keep_only([ServiceKey.tcp("11.0.0.2", 80)])
    assert counts(watch) == (1, 0, 0)
    await watch.look()
    assert counts(watch) is None
    watch.keep_only([WEB])
    await watch.look()
    assert counts(watch) is None


@pytest.mark.trio
async def test_whoever_cancels_waits_for_no_more_than_a_thousand_lines() -> None:
    under_way = threading.Event()

    class Endless(Scripted):
        def connection_lines(self) -> Iterable[str]:
            while True:
                self.read += 1
                under_way.set()
                yield line(self.read % 60_000)

    reader = Endless()
    watch = ConnectionWatch(reader, lines_max=1_000_000_000)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch.run)
            await trio.to_thread.run_sync(under_way.wait)
            nursery.cancel_scope.cancel()
    read = reader.read
    assert read % 1000 == 0
    assert counts(watch) is None


@pytest.mark.trio
async def test_two_looks_at_once_are_one_after_the_other() -> None:
    reader = Scripted(line(1))
    watch = ConnectionWatch(reader)
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(watch.look)
    assert (counts(watch), watch.metrics()["readings_total"]) == ((1, 0, 0), 3)


@pytest.mark.parametrize("wrong", [{"interval_seconds": 0}, {"jitter_seconds": -1}, {"lines_max": 0}], ids=str)
def test_numbers_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="more than 0"):
        ConnectionWatch(Scripted(), **wrong)  # type: ignore[arg-type]
