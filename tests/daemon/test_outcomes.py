"""Outcomes of connections: the samples of Minuteman and of its library ip_vs_conn, and what these did not have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyminuteman.daemon.outcomes import LATENCY_BOUNDS_SECONDS, Outcome, Outcomes, OutcomesReading
from pyminuteman.ipvs.connections import Connection, parse_connections
from pyminuteman.ipvs.service import ServiceKey
from pyminuteman.ipvs.tcp_metrics import TCPMetric
from pyminuteman.vips.model import BackendKey
from tests.conftest import ROOT

DATA = ROOT / "tests/data"
WEB, DNS = ServiceKey.tcp("11.0.0.1", 80), ServiceKey.tcp("fd00::1", 53)
ONE = BackendKey("10.0.0.5", 8080)
OPEN = Connection("TCP", "10.0.0.9", 4711, WEB.address, WEB.port, ONE.address, ONE.port, "ESTABLISHED", 899)
HALF = replace(OPEN, state="SYN_RECV", expires_seconds=59)
SIX = Connection("TCP", "fd00::9", 4711, DNS.address, DNS.port, "fd00::5", 53, "ESTABLISHED", 899)
METRIC = TCPMetric(0.02, 0.01, 1.0)


def look(
    tracker: Outcomes, *connections: Connection, now: float = 0.0, metrics: Mapping[str, TCPMetric] | None = None
) -> OutcomesReading:
    return tracker.observe(connections, metrics or {}, now)


def sums(reading: OutcomesReading) -> tuple[int, int, int, int]:
    """opened, failed, reset, undecided."""
    rows = reading.backends.values()
    opened, failed = sum(row.opened for row in rows), sum(row.failed for row in rows)
    return opened, failed, sum(row.reset for row in rows), sum(row.undecided for row in rows)


def after(*readings: Iterable[Connection], step: float = 20.0) -> tuple[int, int, int, int]:
    """The sums after readings at intervals."""
    tracker, reading = Outcomes(), OutcomesReading()
    for number, connections in enumerate(readings):
        reading = tracker.observe(connections, {}, number * step)
    return sums(reading)


def sample(name: str) -> list[Connection]:
    return list(parse_connections((DATA / name).read_text().splitlines()))


# The samples


@pytest.mark.parametrize(
    ("name", "interval", "jitter", "want"),
    [
        ("minuteman/proc_ip_vs_conn1", 20, 2, (1, 0, 0, 0)),
        ("minuteman/proc_ip_vs_conn2", 20, 2, (5, 0, 0, 4)),
        ("minuteman/proc_ip_vs_conn2", 100, 0, (5, 2, 0, 2)),
        ("minuteman/proc_ip_vs_conn3", 20, 2, (6, 0, 0, 4)),
        ("minuteman/proc_ip_vs_conn3", 100, 0, (6, 2, 0, 2)),
        ("ip_vs_conn/proc_ip_vs_conn", 20, 2, (0, 0, 0, 3)),
        ("ip_vs_conn/proc_ip_vs_conn", 57, 1, (0, 1, 0, 2)),
        ("ip_vs_conn/proc_ip_vs_conn2", 20, 2, (3, 0, 0, 1)),
    ],
)
def test_the_samples_are_counted_as_the_originals_rule_says_and_once(
    name: str, interval: float, jitter: float, want: tuple[int, int, int, int]
) -> None:
    tracker = Outcomes(interval_seconds=interval, jitter_seconds=jitter)
    assert sums(look(tracker, *sample(name))) == want
    assert sums(look(tracker, *sample(name), now=1)) == want


def test_the_samples_rows_say_what_went_where() -> None:
    reading = look(Outcomes(), *sample("minuteman/proc_ip_vs_conn3"))
    rows = {f"{service.address}:{service.port} {backend}": one for (service, backend), one in reading.backends.items()}
    assert rows == {
        "10.0.79.182:8080 10.0.79.182:8081": Outcome(opened=4, undecided=4),
        "11.0.0.91:8080 10.0.79.182:8080": Outcome(opened=1),
        "11.0.0.91:8082 10.0.79.182:8082": Outcome(opened=1),
    }


# Once each


def test_an_open_one_is_counted_once_and_again_when_it_was_gone_meanwhile() -> None:
    assert after([OPEN], [OPEN], [replace(OPEN, state="TIME_WAIT")]) == (1, 0, 0, 0)
    assert after([OPEN], [], [OPEN]) == (2, 0, 0, 0)


@pytest.mark.parametrize("state", ["ESTABLISHED", "FIN_WAIT", "TIME_WAIT", "CLOSE_WAIT", "LAST_ACK", "LISTEN"])
def test_a_half_open_one_is_counted_when_it_is_decided(state: str) -> None:
    assert after([HALF]) == (0, 0, 0, 1)
    assert after([HALF], [HALF]) == (0, 0, 0, 1)
    assert after([HALF], [replace(HALF, state=state)]) == (1, 0, 0, 0)


@pytest.mark.parametrize("state", ["SYN_SENT", "SYN_RECV", "SYNACK"])
def test_one_about_to_die_half_open_has_failed_and_dies_without_another_word(state: str) -> None:
    dying = replace(HALF, state=state, expires_seconds=21)
    assert after([dying]) == (0, 1, 0, 0)
    assert after([HALF], [dying], []) == (0, 1, 0, 0)
    assert after([HALF], [dying], [replace(dying, expires_seconds=59)], [dying]) == (0, 1, 0, 0)  # another SYN of the same one


def test_the_window_is_the_longest_time_to_the_next_reading() -> None:
    assert Outcomes(interval_seconds=20, jitter_seconds=2).window_seconds == 22
    assert after([replace(HALF, expires_seconds=22)]) == (0, 0, 0, 1)


@pytest.mark.parametrize("state", ["SYN_SENT", "SYN_RECV"])
@pytest.mark.parametrize(("window", "failed"), [(100, 1), (25, 0)])
def test_half_open_ones_fail_by_the_window_as_in_minuteman(state: str, window: float, failed: int) -> None:
    tracker = Outcomes(interval_seconds=window, jitter_seconds=0)
    assert sums(look(tracker, replace(HALF, state=state, expires_seconds=50))) == (0, failed, 0, 1 - failed)


def test_one_that_opens_after_all_counts_as_both() -> None:
    assert after([replace(HALF, expires_seconds=5)], [OPEN], [OPEN]) == (1, 1, 0, 0)


def test_one_that_is_reset_after_it_had_failed_has_failed() -> None:
    assert after([replace(HALF, expires_seconds=5)], [replace(OPEN, state="CLOSE")]) == (0, 1, 0, 0)


def test_one_first_seen_reset_is_neither_opened_nor_failed() -> None:
    refused = replace(HALF, state="CLOSE", expires_seconds=9)
    assert after([refused], [refused]) == (0, 0, 1, 0)
    assert after([HALF], [refused]) == (0, 0, 1, 0)
    assert after([OPEN], [refused]) == (1, 0, 0, 0)


def test_a_half_open_one_that_vanished_was_reset_before_its_time_and_had_failed_after_it() -> None:
    assert after([HALF], [], step=20) == (0, 0, 1, 0)
    assert after([HALF], [], step=59) == (0, 1, 0, 0)


@pytest.mark.parametrize(
    ("first", "then", "opened"),
    [
        ("TIME_WAIT", "ESTABLISHED", 2),
        ("TIME_WAIT", "FIN_WAIT", 2),
        ("CLOSE_WAIT", "ESTABLISHED", 2),
        ("ESTABLISHED", "TIME_WAIT", 1),
        ("FIN_WAIT", "CLOSE", 1),
        ("TIME_WAIT", "CLOSE", 1),
    ],
)
def test_a_port_that_is_used_again_is_another_connection(first: str, then: str, opened: int) -> None:
    assert after([replace(OPEN, state=first)], [replace(OPEN, state=then)]) == (opened, 0, 0, 0)


def test_a_port_that_is_used_again_may_fail() -> None:
    ended = replace(OPEN, state="TIME_WAIT")
    assert after([ended], [HALF]) == (1, 0, 0, 1)
    assert after([ended], [HALF], [replace(HALF, expires_seconds=3)]) == (1, 1, 0, 0)
    assert after([ended], [replace(HALF, expires_seconds=3)]) == (1, 1, 0, 0)
    assert after([ended], [HALF], [ended]) == (2, 0, 0, 0)


def test_a_port_that_went_to_another_backend_is_another_connection() -> None:
    assert after([OPEN], [replace(OPEN, destination="10.0.0.6")]) == (2, 0, 0, 0)


def test_one_that_is_listed_twice_counts_once() -> None:
    assert after([OPEN, OPEN]) == (1, 0, 0, 0)
    assert after([HALF, HALF]) == (0, 0, 0, 1)
    assert after([HALF, OPEN], [OPEN, HALF]) == (1, 0, 0, 0)


@pytest.mark.parametrize(
    "other",
    [
        replace(OPEN, client_port=0),
        replace(OPEN, client_port=0, protocol="IP", state="NONE"),
        replace(OPEN, protocol="UDP", state="UDP"),
        replace(OPEN, protocol="SCTP"),
        replace(OPEN, state="NONE"),
        replace(OPEN, state="BUG!"),
    ],
    ids=str,
)
def test_what_is_no_tcp_connection_is_not_judged(other: Connection) -> None:
    reading = look(Outcomes(), other)
    assert (reading.backends, reading.metrics["connections"]) == ({}, 0)


def test_ipv6_counts_as_well() -> None:
    reading = look(Outcomes(), SIX, replace(SIX, destination=ONE.address, destination_port=ONE.port))
    assert list(reading.backends) == [(DNS, ONE), (DNS, BackendKey("fd00::5", 53))]


# Latency


def test_each_that_opens_gives_one_sample_of_its_backends_address() -> None:
    tracker = Outcomes()
    metrics = {ONE.address: METRIC}
    two = [OPEN, replace(OPEN, client_port=4712)]
    row = look(tracker, *two, SIX, metrics=metrics).backends[WEB, ONE]
    assert row.latency is not None
    assert row.latency.count == 2
    assert row.latency.counts[LATENCY_BOUNDS_SECONDS.index(0.05)] == 2
    assert row.latency.sum == pytest.approx(0.1)
    assert row.latency.mean_rtt_seconds == pytest.approx(0.02)
    assert row.latency_seconds == pytest.approx(0.05)
    again = look(tracker, *two, SIX, metrics={ONE.address: TCPMetric(1, 1, 0)}).backends[WEB, ONE]
    assert again == row


def test_nothing_known_of_an_address_is_no_latency() -> None:
    row = look(Outcomes(), OPEN, metrics={"10.0.0.6": METRIC}).backends[WEB, ONE]
    assert (row.opened, row.latency, row.latency_seconds) == (1, None, None)


@pytest.mark.parametrize(
    "one", [HALF, replace(HALF, expires_seconds=1), replace(OPEN, state="CLOSE")], ids=lambda one: one.state
)
def test_one_that_did_not_open_gives_no_sample(one: Connection) -> None:
    reading = look(Outcomes(), one, metrics={ONE.address: METRIC, WEB.address: METRIC})
    assert (reading.backends[WEB, ONE].latency, reading.services) == (None, {})


def test_what_is_known_of_the_virtual_address_is_the_services() -> None:
    other = replace(OPEN, destination="10.0.0.6")
    reading = look(Outcomes(), OPEN, other, SIX, metrics={WEB.address: TCPMetric(9.0, 0.5, 0.0)})
    assert {service: one.counts[-1] for service, one in reading.services.items()} == {WEB: 2}
    assert all(row.latency is None for row in reading.backends.values())


@pytest.mark.parametrize(("seconds", "at"), [(0.0004, 0), (0.0005, 0), (0.00051, 1), (5.0, 12), (5.1, 13)])
def test_a_bound_belongs_to_its_bucket(seconds: float, at: int) -> None:
    latency = look(Outcomes(), OPEN, metrics={ONE.address: TCPMetric(seconds, 0.0, 0.0)}).backends[WEB, ONE].latency
    assert latency is not None
    assert latency.counts[at] == 1
    assert len(latency.counts) == len(latency.bounds) + 1


# Bounds


def many(number: int) -> list[Connection]:
    return [replace(OPEN, client_port=port) for port in range(1, number + 1)]


def test_connections_that_cannot_be_remembered_are_counted_as_such_and_not_twice() -> None:
    tracker = Outcomes(connections_max=3)
    reading = look(tracker, *many(5))
    assert (sums(reading), reading.metrics["connections_unremembered_total"]) == ((3, 0, 0, 0), 2)
    # Those that are known stay so, though others are listed first.
    reading = look(tracker, *reversed(many(5)))
    assert (sums(reading), reading.metrics["connections_unremembered_total"]) == ((3, 0, 0, 0), 4)
    look(tracker, *many(2))
    assert sums(look(tracker, *many(3))) == (4, 0, 0, 0)


def test_backends_that_do_not_fit_are_counted_as_such_and_idle_ones_make_room() -> None:
    tracker = Outcomes(backends_max=1, idle_seconds=100)
    other = replace(OPEN, destination="10.0.0.6")
    reading = look(tracker, OPEN, other, now=0)
    assert (list(reading.backends), reading.metrics["connections_uncounted_total"]) == ([(WEB, ONE)], 1)
    third = replace(HALF, destination="10.0.0.7")
    reading = look(tracker, other, third, now=99, metrics={WEB.address: METRIC})
    assert (list(reading.backends), reading.metrics["connections_uncounted_total"]) == ([(WEB, ONE)], 2)
    reading = look(tracker, other, replace(third, client_port=1), now=101)
    assert list(reading.backends) == [(WEB, BackendKey("10.0.0.7", ONE.port))]
    assert reading.backends[WEB, BackendKey("10.0.0.7", ONE.port)].undecided == 1


def test_a_backend_with_an_undecided_connection_is_not_idle() -> None:
    tracker = Outcomes(backends_max=1, idle_seconds=0)
    look(tracker, HALF)
    reading = look(tracker, HALF, replace(OPEN, destination="10.0.0.6"), now=10)
    assert list(reading.backends) == [(WEB, ONE)]


def test_services_that_are_gone_are_forgotten_but_not_their_connections() -> None:
    tracker = Outcomes()
    metrics = {WEB.address: METRIC, DNS.address: METRIC}
    look(tracker, OPEN, SIX, metrics=metrics)
    tracker.keep_only([DNS])
    reading = tracker.reading()
    assert ([service for service, _ in reading.backends], list(reading.services)) == ([DNS], [DNS])
    assert sums(look(tracker, OPEN, SIX, metrics=metrics)) == (1, 0, 0, 0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"interval_seconds": 0},
        {"interval_seconds": float("nan")},
        {"jitter_seconds": -1},
        {"idle_seconds": -1},
        {"connections_max": 0},
        {"backends_max": 0},
    ],
    ids=str,
)
def test_numbers_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="more than 0"):
        Outcomes(**wrong)  # type: ignore[arg-type]


# Whatever happens

STATES = ["SYN_RECV", "SYN_SENT", "ESTABLISHED", "FIN_WAIT", "TIME_WAIT", "CLOSE_WAIT", "LAST_ACK", "CLOSE"]
CONNECTIONS = st.builds(
    replace,
    st.just(OPEN),
    client_port=st.integers(1, 4),
    destination_port=st.integers(1, 2),
    state=st.sampled_from(STATES),
    expires_seconds=st.integers(0, 120),
)
READINGS = st.lists(
    st.lists(CONNECTIONS, max_size=8, unique_by=lambda one: (one.client_port, one.destination_port)), max_size=8
)


@given(READINGS, st.randoms(use_true_random=False))
def test_the_order_of_the_lines_does_not_matter(readings: list[list[Connection]], dice: object) -> None:
    one, other = Outcomes(), Outcomes()
    for now, connections in enumerate(readings):
        mixed = connections.copy()
        dice.shuffle(mixed)  # type: ignore[attr-defined]
        assert one.observe(connections, {}, now * 20.0) == other.observe(mixed, {}, now * 20.0)


@given(READINGS, st.integers(1, 6), st.integers(1, 2))
def test_counters_only_rise_and_memory_is_bounded(readings: list[list[Connection]], most: int, backends: int) -> None:
    tracker, before = Outcomes(connections_max=most, backends_max=backends), (0, 0, 0)
    for now, connections in enumerate(readings):
        reading = tracker.observe(connections, {}, now * 20.0)
        *counters, undecided = sums(reading)
        assert all(old <= new for old, new in zip(before, counters, strict=True))
        before = counters[0], counters[1], counters[2]
        assert undecided == reading.metrics["connections_undecided"] <= reading.metrics["connections"] <= most
        assert reading.metrics["backends"] <= backends


LIVES = st.lists(
    st.tuples(
        st.integers(0, 4),
        st.lists(st.sampled_from(["SYN_RECV", "ESTABLISHED", "FIN_WAIT", "TIME_WAIT"]), min_size=1, max_size=4),
    ),
    max_size=10,
)


@given(LIVES)
def test_each_connection_that_goes_forward_is_counted_exactly_once(lives: list[tuple[int, list[str]]]) -> None:
    order = ["SYN_RECV", "ESTABLISHED", "FIN_WAIT", "TIME_WAIT"]
    tracker = Outcomes()
    for turn in range(10):
        listed = [
            replace(HALF, client_port=1 + number, state=sorted(states, key=order.index)[turn - start])
            for number, (start, states) in enumerate(lives)
            if 0 <= turn - start < len(states)
        ]
        reading = look(tracker, *listed, now=turn * 20.0)
    never_open = sum(set(states) == {"SYN_RECV"} for _, states in lives)
    assert sums(reading) == (len(lives) - never_open, 0, never_open, 0)
