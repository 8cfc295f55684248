"""tcp_metrics: records, and the C module with a puppet for a kernel."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from errno import EBADMSG, ENOENT, ETIMEDOUT

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyminuteman.ipvs import KernelError, NetlinkBackend, SnapshotUnstable
from pyminuteman.ipvs.tcp_metrics import METRIC, TCPMetric, read_metrics
from tests.support import netlink_messages as netlink
from tests.support.puppet import PuppetKernel

FOUR, SIX = socket.inet_pton(socket.AF_INET, "10.0.0.5"), socket.inet_pton(socket.AF_INET6, "fd00::5")
ROW = netlink.metric_attributes(FOUR, age_ms=1500, rtt=160_004, deviation=80_002)
MAXIMUM = 2**32 - 1


def record(address: bytes = FOUR, age: int = 0, rtt: int = 8_000_000, deviation: int = 4_000_000) -> bytes:
    return METRIC.pack(2 if len(address) == 4 else 10, address, age, rtt, deviation)


def test_eighths_and_quarters_of_microseconds_are_seconds() -> None:
    assert read_metrics(record(rtt=160_000, deviation=40_000, age=2500)) == {"10.0.0.5": TCPMetric(0.02, 0.01, 2.5)}
    assert read_metrics(record(rtt=160_000, deviation=40_000))["10.0.0.5"].estimate_seconds == pytest.approx(0.05)


def test_a_row_needs_both_a_round_trip_and_a_deviation() -> None:
    assert read_metrics(b"") == {}
    assert read_metrics(record(rtt=0) + record(deviation=0)) == {}
    assert list(read_metrics(record(rtt=0, age=1) + record(SIX) + record(age=9))) == ["fd00::5", "10.0.0.5"]


@given(st.lists(st.integers(0, MAXIMUM), min_size=1, unique=True))
def test_of_several_sources_the_newest_row_counts(ages: list[int]) -> None:
    found = read_metrics(b"".join(record(age=age) for age in ages))
    assert [one.age_seconds for one in found.values()] == [min(ages) / 1000]


# The C module

Make = Callable[..., NetlinkBackend]
Misbehave = Callable[[netlink.Request, list[bytes]], list[bytes] | None]


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[tuple[PuppetKernel, NetlinkBackend]] = []

    def build(metrics: list[bytes] | None, misbehave: Misbehave | None = None) -> NetlinkBackend:
        puppet = PuppetKernel(misbehave=misbehave)
        puppet.metrics = metrics
        made.append((puppet, puppet.backend(0.3)))
        return made[-1][1]

    yield build
    for puppet, backend in made:
        backend.close()
        puppet.close()


def fails(backend: NetlinkBackend, errno: int) -> None:
    with pytest.raises(KernelError, match="tcp_metrics") as caught:
        backend.tcp_metrics()
    assert caught.value.errno == errno


def at(family: int, change: Misbehave) -> Misbehave:
    return lambda request, answer: change(request, answer) if request.type == family else answer


def test_rows_of_a_puppet_are_read_and_the_table_after_them(make: Make) -> None:
    six = netlink.metric_attributes(SIX, age_ms=2**40, rtt=MAXIMUM, deviation=1)
    bare = netlink.metric_attributes(bytes(4), age_ms=0, rtt=0, deviation=0)
    fast_open = netlink.attribute(1, FOUR) + netlink.u16(7, 1460)
    unknown = netlink.attribute(77, b"x") + ROW
    backend = make([ROW, six, bare, fast_open, unknown])
    want = {
        "10.0.0.5": TCPMetric(160_004 / 8e6, 80_002 / 4e6, 1.5),
        "fd00::5": TCPMetric(MAXIMUM / 8e6, 1 / 4e6, MAXIMUM / 1000),
    }
    for _ in range(2):  # the second time the family is known
        assert backend.tcp_metrics() == want
        assert backend.read() == {}


def test_no_rows_of_a_puppet_are_no_metrics_and_many_come_in_several_datagrams(make: Make) -> None:
    assert make([]).tcp_metrics() == {}
    rows = [netlink.metric_attributes(number.to_bytes(4, "big"), age_ms=1, rtt=8, deviation=4) for number in range(1, 501)]
    assert len(make(rows).tcp_metrics()) == 500


def test_a_puppet_without_the_family_says_so_and_goes_on(make: Make) -> None:
    backend = make(None)
    fails(backend, ENOENT)
    fails(backend, ENOENT)
    assert backend.read() == {}


@pytest.mark.parametrize(
    "parts",
    [b"", netlink.attribute(1, b"\1"), netlink.u16(1, 0), netlink.u16(1, netlink.CONTROLLER)],
    ids=["missing", "short", "none", "the controller's own"],
)
def test_a_misbehaviour_of_the_controller_is_an_error_and_asked_again(make: Make, parts: bytes) -> None:
    def lie(request: netlink.Request, _: list[bytes]) -> list[bytes]:
        return [netlink.row(request.sequence, 1, parts, flags=0, family=netlink.CONTROLLER)]

    backend = make([ROW], at(netlink.CONTROLLER, lie))
    fails(backend, EBADMSG)
    fails(backend, EBADMSG)


@pytest.mark.parametrize(
    "row",
    [b"", netlink.u64(3, 5), netlink.attribute(1, b"\12\0\0"), netlink.attribute(2, bytes(15))],
    ids=["empty", "no address", "short", "short, of IPv6"],
)
def test_a_misbehaviour_of_rows_is_an_error(make: Make, row: bytes) -> None:
    fails(make([ROW, row]), EBADMSG)


def test_misbehaviour_values_of_another_size_are_not_known(make: Make) -> None:
    odd = netlink.attribute(1, FOUR) + netlink.nest(6, netlink.u16(6, 8), netlink.u16(7, 4))
    assert make([odd]).tcp_metrics() == {}


def test_a_misbehaviour_of_silence_has_its_deadline_and_the_next_call_a_new_socket(make: Make) -> None:
    silent = [True]
    backend = make([ROW], at(netlink.METRICS_FAMILY, lambda _, answer: [] if silent[0] else answer))
    fails(backend, ETIMEDOUT)
    silent.clear()
    silent.append(False)
    assert list(backend.tcp_metrics()) == ["10.0.0.5"]


def test_an_interrupted_puppet_says_so(make: Make) -> None:
    def interrupt(request: netlink.Request, _: list[bytes]) -> list[bytes]:
        flags = netlink.F_MULTI | netlink.F_DUMP_INTR
        return [
            netlink.row(request.sequence, 1, ROW, flags=flags, family=netlink.METRICS_FAMILY) + netlink.done(request.sequence)
        ]

    with pytest.raises(SnapshotUnstable):
        make([ROW], at(netlink.METRICS_FAMILY, interrupt)).tcp_metrics()


def test_a_misbehaviour_of_any_length_is_an_error_or_an_answer(make: Make) -> None:
    whole = netlink.row(0, 1, ROW, family=netlink.METRICS_FAMILY)
    seen: set[object] = set()
    for length in range(16, len(whole) + 1):

        def cut(request: netlink.Request, _: list[bytes], length: int = length) -> list[bytes]:
            body = netlink.row(request.sequence, 1, ROW, family=netlink.METRICS_FAMILY)[16:length]
            row = netlink.message(netlink.METRICS_FAMILY, netlink.F_MULTI, request.sequence, body)
            return [row + netlink.done(request.sequence)]

        backend = make([ROW], at(netlink.METRICS_FAMILY, cut))
        try:
            found = backend.tcp_metrics()
        except KernelError as error:
            seen.add(error.errno)
        else:
            seen |= set(found)
    assert seen == {EBADMSG, "10.0.0.5"}
