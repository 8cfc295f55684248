"""Draining: destinations that are no longer desired finish their connections first."""

from __future__ import annotations

import pytest

from pyminuteman.ipvs import AddDestination, AddService, Destination, DrainPolicy, IPVSTable, Plan, Scope, Service
from pyminuteman.ipvs.statistics import DestinationStatistics
from pyminuteman.testing.fake_kernel import FakeKernel

WEB, DNS = Service.tcp("11.0.0.1", 80), Service.udp("11.0.0.1", 53)
A, B, C = (Destination(f"10.0.0.{n}", 8080, 3) for n in (1, 2, 3))
A0 = Destination(A.address, A.port, 0)


class Clock:
    """Stands still until told to move."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Setting:
    """A table with a drain of ten seconds, and the fake behind it."""

    def __init__(self, service: Service = WEB, **policy: object) -> None:
        self.fake, self.clock, self.service = FakeKernel(), Clock(), service
        self.policy = DrainPolicy(10.0, **policy)  # type: ignore[arg-type]
        self.fake.execute(Plan.of([AddService(service), *(AddDestination(service, row) for row in (A, B))]))
        self.restart()

    def restart(self) -> None:
        self.table = IPVSTable(scope=Scope.everything(), drain=self.policy, backend=self.fake, clock=self.clock)

    def converge(self, *rows: Destination) -> list[tuple[Destination, float]]:
        report = self.table.converge({self.service: rows} if rows else {})
        return [(destination, left) for _, destination, left in report.draining]

    def rows(self) -> tuple[Destination, ...]:
        return self.fake.read().destinations(self.service.key)


def test_a_removed_destination_takes_no_new_connections_and_keeps_the_old_ones() -> None:
    setting = Setting()
    setting.fake.connect(WEB.key, A, 1)
    assert setting.converge(B) == [(A, 10.0)]
    assert setting.rows() == (A0, B)


def test_it_is_removed_when_its_connections_have_ended() -> None:
    setting = Setting()
    setting.fake.connections.append("TCP 0A000009 8A3C 0B000001 0050 0A000001 1F90 FIN_WAIT 110")
    for active, inactive in [(2, 0), (1, 5), (0, 1)]:
        setting.fake.connect(WEB.key, A, active, inactive)
        setting.clock.now += 1
        assert len(setting.converge(B)) == 1
        assert setting.rows() == (A0, B)
    setting.fake.connect(WEB.key, A, 0)
    assert setting.converge(B) == []
    assert setting.rows() == (B,)


def test_it_is_removed_when_its_time_is_up_whatever_is_connected() -> None:
    setting = Setting()
    setting.fake.connect(WEB.key, A, 99)
    assert setting.converge(B) == [(A, 10.0)]
    setting.clock.now += 9.5
    assert setting.converge(B) == [(A0, 0.5)]
    setting.clock.now += 0.5
    assert setting.converge(B) == []
    assert setting.rows() == (B,)


def test_without_a_connection_it_still_goes_by_way_of_weight_0() -> None:
    """A connection may begin between our look at the counts and the removal; at weight 0 none can."""
    setting = Setting()
    assert len(setting.converge(B)) == 1
    assert setting.converge(B) == []
    assert setting.rows() == (B,)


def test_one_that_is_desired_again_gets_its_weight_back() -> None:
    setting = Setting()
    setting.fake.connect(WEB.key, A, 1)
    setting.converge(B)
    assert setting.converge(A, B) == []
    assert setting.rows() == (A, B)
    setting.clock.now += 9
    assert setting.converge(B) == [(A, 10.0)], "a new drain has all of its time"


def test_a_restart_goes_on_with_the_drain() -> None:
    setting = Setting()
    setting.fake.connect(WEB.key, A, 1)
    setting.converge(B)
    setting.clock.now += 8
    setting.restart()
    assert setting.converge(B) == [(A0, 10.0)]
    setting.clock.now += 10
    assert setting.converge(B) == []
    assert setting.rows() == (B,)


def test_a_removed_service_stays_until_its_destinations_are_done() -> None:
    setting = Setting()
    setting.fake.connect(WEB.key, B, 1)
    assert [destination for destination, _ in setting.converge()] == [A, B]
    assert {row.weight for row in setting.rows()} == {0}
    assert [destination.address for destination, _ in setting.converge()] == [B.address]
    setting.fake.connect(WEB.key, B, 0)
    assert setting.converge() == []
    assert setting.fake.services == {}


def test_a_service_without_destinations_goes_at_once() -> None:
    setting = Setting()
    setting.fake.services[WEB.key.packed].destinations.clear()
    assert setting.converge() == []
    assert setting.fake.services == {}


def test_udp_destinations_go_at_once() -> None:
    setting = Setting(DNS)
    setting.fake.connect(DNS.key, A, 0, 9)
    assert setting.converge(B) == []
    assert setting.rows() == (B,)


def test_udp_destinations_are_drained_if_asked_for() -> None:
    setting = Setting(DNS, drain_udp=True)
    setting.fake.connect(DNS.key, A, 0, 9)
    assert setting.converge(B) == [(A, 10.0)]
    setting.fake.connect(DNS.key, A, 0)
    assert setting.converge(B) == []


def test_other_changes_of_the_service_are_made_meanwhile() -> None:
    setting = Setting()
    setting.fake.connect(WEB.key, A, 1)
    assert setting.converge(C) == [(A, 10.0), (B, 10.0)]
    assert {row.key: row.weight for row in setting.rows()} == {A.key: 0, B.key: 0, C.key: 3}


def test_a_service_that_vanishes_while_it_is_counted_is_no_obstacle() -> None:
    setting = Setting()
    setting.converge(B)
    vanish = setting.fake.statistics

    def statistics(key: object = None) -> object:
        setting.fake.services.clear()
        return vanish(key)  # type: ignore[arg-type]

    setting.fake.statistics = statistics  # type: ignore[method-assign, assignment]
    setting.converge(B)
    setting.fake.statistics = vanish  # type: ignore[method-assign]
    assert setting.converge(B) == []
    assert setting.rows() == (B,)


def test_a_drain_is_quiet_when_nothing_changes() -> None:
    setting = Setting()
    setting.fake.connect(WEB.key, A, 1)
    setting.converge(B)
    before = setting.fake.operations
    for _ in range(5):
        setting.clock.now += 1
        assert len(setting.converge(B)) == 1
    assert setting.fake.operations == before


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan")])
def test_a_drain_takes_some_time(seconds: float) -> None:
    with pytest.raises(ValueError, match="is not positive"):
        DrainPolicy(seconds)


def test_statistics_of_the_fake_are_there_for_the_asking() -> None:
    assert DestinationStatistics.from_packed(bytes(96)).connections.active == 0


def test_services_may_drain_each_for_a_time_of_its_own() -> None:
    """And the one that asks for none loses its destinations at once."""
    times = {WEB.key: 3.0}
    setting = Setting(timeout_of=lambda key: times[key])
    setting.fake.connect(WEB.key, A, 1)
    assert setting.converge(B) == [(A, 3.0)]
    times[WEB.key] = 0.0
    assert setting.converge(B) == []
    assert setting.rows() == (B,)
    assert DrainPolicy(drain_udp=False, timeout_of=lambda _key: 5.0).timeout(DNS.key) == 0
