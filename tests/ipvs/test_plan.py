"""Plans, and the laws of the difference."""

from __future__ import annotations

from errno import EEXIST, EPERM

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyminuteman.ipvs import (
    AddDestination,
    AddService,
    ApplyReport,
    Destination,
    EditDestination,
    EditService,
    Flush,
    InvalidServiceError,
    OutsideScope,
    Plan,
    RemoveDestination,
    RemoveService,
    Scope,
    Service,
    ServiceKey,
    Snapshot,
    Zero,
    diff,
)
from pyminuteman.ipvs.plan import select
from pyminuteman.ipvs.records import Command
from pyminuteman.testing.fake_kernel import FakeKernel
from tests.support.strategies import keys, tables

WEB, DNS = Service.tcp("11.0.0.1", 80), Service.udp("11.0.0.1", 53, scheduler="rr")
A, B = Destination("10.0.0.1", 8080), Destination("10.0.0.2", 8080, 5)
ONE_OF_EACH = [
    AddService(WEB),
    AddDestination(WEB, A),
    EditService(DNS),
    EditDestination(WEB, B),
    RemoveDestination(WEB, A),
    RemoveService(DNS),
    Zero(WEB),
    Zero(None),
    Flush(),
]
EVERYTHING = Scope.everything()


def fake_with(table: dict) -> FakeKernel:
    fake = FakeKernel()
    assert fake.execute(diff(Snapshot(), table, scope=EVERYTHING)) == {}
    return fake


# Laws


@given(before=tables(), after=tables())
def test_carrying_out_the_difference_makes_one_table_the_other(before: dict, after: dict) -> None:
    fake = fake_with(before)
    assert fake.execute(diff(fake.read(), after, scope=EVERYTHING)) == {}
    assert fake.read() == Snapshot.of(after)
    assert not diff(fake.read(), after, scope=EVERYTHING)


@given(before=tables(), after=tables())
def test_at_no_moment_are_there_fewer_working_destinations_than_before_or_after(before: dict, after: dict) -> None:
    """For each service, and with each prefix of the plan carried out."""
    fake = fake_with(before)
    plan = diff(fake.read(), after, scope=EVERYTHING)
    first, last = working(fake.read()), working(Snapshot.of(after))
    least = {key: min(first.get(key, 0), last.get(key, 0)) for key in first | last}
    for at in range(len(plan)):
        assert fake.execute(select(plan, [at])) == {}
        now = working(fake.read())
        assert all(now.get(key, 0) >= number for key, number in least.items()), plan[: at + 1]


def working(snapshot: Snapshot) -> dict[ServiceKey, int]:
    """Destinations with a weight, by service."""
    return {service.key: sum(row.weight > 0 for row in rows) for service, rows in snapshot.items()}


@given(before=tables(), after=tables(), ours=st.frozensets(keys, max_size=4))
def test_what_is_not_in_scope_is_never_touched(before: dict, after: dict, ours: frozenset[ServiceKey]) -> None:
    scope = Scope.services([*ours, *(service.key for service in list(after)[:2])])
    wanted = {service: rows for service, rows in after.items() if service.key in scope}
    plan = diff(Snapshot.of(before), wanted, scope=scope)
    assert all(operation.service.key in scope for operation in plan)
    fake = fake_with(before)
    assert fake.execute(plan) == {}
    expected = {service: rows for service, rows in before.items() if service.key not in scope}
    assert fake.read() == Snapshot.of(expected | wanted)


@given(before=tables(), after=tables())
def test_operations_come_in_their_phases(before: dict, after: dict) -> None:
    order = [1, 5, 2, 6, 7, 3]
    commands = [order.index(operation.command) for operation in diff(Snapshot.of(before), after, scope=EVERYTHING)]
    assert commands == sorted(commands)


def test_a_weight_that_rises_is_set_before_one_that_falls() -> None:
    before = {WEB: [A, B]}
    plan = diff(
        Snapshot.of(before), {WEB: [Destination(A.address, A.port, 0), Destination(B.address, B.port, 6)]}, scope=EVERYTHING
    )
    assert [operation.destination.weight for operation in plan] == [6, 0]


def test_a_desired_service_outside_the_scope_is_refused() -> None:
    with pytest.raises(OutsideScope, match=r"tcp 11.0.0.1:80 is desired but outside the scope \(10.0.0.0/8\)") as caught:
        diff(Snapshot(), {WEB: []}, scope=Scope.networks("10.0.0.0/8"))
    assert isinstance(caught.value, InvalidServiceError)


# Plans


def test_a_plan_gives_back_what_it_was_made_of() -> None:
    plan = Plan.of(ONE_OF_EACH)
    assert list(plan) == ONE_OF_EACH
    assert (plan[0], plan[-1]) == (ONE_OF_EACH[0], ONE_OF_EACH[-1])
    assert plan[1:4] == ONE_OF_EACH[1:4]
    assert plan[::-1] == ONE_OF_EACH[::-1]
    with pytest.raises(IndexError):
        plan[len(plan)]


def test_a_plan_reads_as_ipvsadm_lines() -> None:
    assert str(Plan.of(ONE_OF_EACH)).splitlines() == [
        "-A -t 11.0.0.1:80 -s wlc",
        "-a -t 11.0.0.1:80 -r 10.0.0.1:8080 -m -w 1",
        "-E -u 11.0.0.1:53 -s rr",
        "-e -t 11.0.0.1:80 -r 10.0.0.2:8080 -m -w 5",
        "-d -t 11.0.0.1:80 -r 10.0.0.1:8080",
        "-D -u 11.0.0.1:53",
        "-Z -t 11.0.0.1:80",
        "-Z",
        "-C",
    ]


def test_plans_are_equal_when_they_ask_for_the_same_in_the_same_order() -> None:
    plan = Plan.of(ONE_OF_EACH)
    assert plan == Plan(plan.services + DNS.packed + bytes(4), plan.operations)
    assert plan != Plan.of(ONE_OF_EACH[:-1])
    assert plan != Plan.of([*ONE_OF_EACH[:-1], Zero(None)])
    assert plan != ONE_OF_EACH
    with pytest.raises(TypeError):
        hash(plan)


def test_a_plan_is_summed_up() -> None:
    plan = Plan.of([*ONE_OF_EACH, AddDestination(WEB, B)])
    assert plan.summary() == (
        "add 1 service, add 2 destinations, edit 1 service, edit 1 destination, remove 1 destination, remove 1 service, "
        "zero 2 times, flush 1 time"
    )
    assert repr(Plan()) == "<Plan: nothing to do>"
    assert plan.tally()[Command.ZERO] == 2
    assert not Plan()
    assert Plan() == Plan.of([])


def test_a_report_of_operations_without_a_service_names_them_all_the_same() -> None:
    report = ApplyReport(
        Plan.of([Flush(), Zero(None), AddService(WEB)]), 0.0, {0: (EPERM, ""), 1: (EPERM, ""), 2: (EEXIST, "")}
    )
    assert [failure.operation for failure in report.failed] == ["-C", "-Z", "-A -t 11.0.0.1:80 -s wlc"]
