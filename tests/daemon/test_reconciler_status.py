"""How a reconciler stands, and what is told of it."""

from __future__ import annotations

from typing import Any

from pyminuteman.daemon.programmer import Done
from pyminuteman.daemon.reconciler_status import Teller
from pyminuteman.ipvs import ApplyReport, NotConverged, NotPermitted, Service, ServiceKey
from pyminuteman.ipvs.plan import AddService, Plan
from pyminuteman.ipvs.shrinkage import Shrinkage

WEB = ServiceKey.tcp("11.0.0.1", 80)


class Told:
    """A teller, and what it told."""

    def __init__(self, name: str = "") -> None:
        self.events: list[tuple[str, str]] = []
        self.data: list[dict[str, Any]] = []
        self.teller = Teller(name, self._tell)

    def _tell(self, kind: str, text: str, data: Any) -> None:
        self.events.append((kind, text))
        self.data.append(dict(data))


def done(*, made: ApplyReport | None = None, foreign: tuple[ServiceKey, ...] = (), host: tuple[str, ...] = ()) -> Done:
    nothing = ApplyReport(Plan(), 0.0)
    return Done(made or nothing, nothing, services=2, destinations=5, foreign=foreign, host_errors=host, failure=None)


def test_a_failure_is_told_once_counted_each_time_and_told_again_after_it_was_well() -> None:
    told = Told()
    for _ in range(3):
        told.teller.failed(NotPermitted(1, "GET_INFO"))
    assert [kind for kind, _ in told.events] == ["sync_failed"]
    assert told.teller.status.errors == {("read", 1): 3}
    assert told.teller.status.error == str(NotPermitted(1, "GET_INFO"))
    assert told.teller.done(done(), at=9.0, took=0.1, programmed=None) is False
    assert (told.teller.status.error, told.teller.status.last_sync_at, told.teller.status.syncs_total) == ("", 9.0, 1)
    told.teller.failed(NotPermitted(1, "GET_INFO"))
    assert len(told.events) == 2


def test_who_raced_us_without_a_report_is_no_error_of_the_kernel() -> None:
    told = Told()
    told.teller.failed(NotConverged(3, Plan(), None))
    assert not told.teller.status.errors
    assert told.events[0][0] == "sync_failed"


def test_the_ledgers_problem_is_told_if_it_has_one() -> None:
    told = Told("blue")
    told.teller.problem_of_ledger("")
    assert told.events == []
    told.teller.problem_of_ledger("it cannot be read")
    assert told.events == [("sync_failed", "blue: it cannot be read")]
    assert told.data == [{"namespace": "blue"}]


def test_what_is_done_is_told_each_time_and_what_lasts_only_when_it_changes() -> None:
    told = Told()
    made = ApplyReport(Plan.of([AddService(Service(WEB, "rr"))]), 0.002)
    for _ in range(2):
        assert told.teller.done(done(made=made, foreign=(WEB,), host=("no nft", "no nft")), at=1.0, took=0.1, programmed=0.5)
    assert [kind for kind, _ in told.events] == ["foreign", "host", "sync", "sync"]
    assert told.events[1] == ("host", "no nft")
    assert told.events[2][1].endswith("in 2.0 ms")
    assert told.teller.status.foreign == (WEB,)
    assert sum(told.teller.status.programming.counts) == 2


def test_of_many_foreign_services_some_are_named() -> None:
    told = Told()
    foreign = tuple(ServiceKey.tcp("11.0.0.1", port) for port in range(1, 200))
    told.teller.done(done(foreign=foreign), at=1.0, took=0.1, programmed=None)
    assert "and 194 more" in told.events[0][1]
    assert len(told.data[0]["services"]) == 100


def test_what_is_held_back_stands_until_something_is_done() -> None:
    told = Told()
    loss = Shrinkage(((WEB, 10),), lost=10, present=20)
    told.teller.held(loss, 50.0)
    told.teller.held(loss, 50.0)
    assert [kind for kind, _ in told.events] == ["held_back"]
    assert told.teller.status.held is loss
    told.teller.done(done(), at=1.0, took=0.1, programmed=None)
    assert told.teller.status.held is None
    told.teller.held(loss, 50.0)
    assert len(told.events) == 2
