"""What counts as a loss."""

from __future__ import annotations

from hypothesis import given

from pyminuteman.ipvs import Destination, Scope, Service, ServiceKey, Snapshot
from pyminuteman.ipvs.shrinkage import shrinkage
from tests.support.strategies import tables

WEB, API = Service.tcp("11.0.0.1", 80), Service.tcp("11.0.0.2", 80)
EVERYTHING = Scope.everything()


def rows(*numbers: int, weight: int = 1) -> tuple[Destination, ...]:
    return tuple(Destination(f"10.0.0.{n}", 8080, weight) for n in numbers)


def loss(current: dict[Service, tuple[Destination, ...]], wanted: dict[Service, tuple[Destination, ...]]) -> tuple[int, int]:
    found = shrinkage(Snapshot.of(current), Snapshot.of(wanted), EVERYTHING)
    return found.lost, found.present


def test_a_service_that_goes_loses_all_and_one_that_stays_what_it_has_fewer() -> None:
    found = shrinkage(
        Snapshot.of({WEB: rows(1, 2, 3), API: rows(1, 2, 3, 4)}), Snapshot.of({API: rows(1, 2, 3)}), Scope.everything()
    )
    assert found.losses == ((ServiceKey.tcp("11.0.0.1", 80), 3), (ServiceKey.tcp("11.0.0.2", 80), 1))
    assert (found.lost, found.present) == (4, 7)
    assert str(found) == "4 of 7 destinations (57 %)"
    assert found.exceeds(50)
    assert not found.exceeds(58)


def test_backends_that_are_replaced_are_no_loss() -> None:
    assert loss({WEB: rows(1, 2)}, {WEB: rows(3, 4)}) == (0, 2)
    assert loss({WEB: rows(1, 2)}, {WEB: rows(3)}) == (1, 2)


def test_what_one_service_gains_does_not_make_up_for_what_another_loses() -> None:
    assert loss({WEB: rows(1, 2), API: rows(1)}, {WEB: (), API: rows(1, 2, 3)}) == (2, 3)


def test_what_drains_already_counts_neither_as_present_nor_as_lost() -> None:
    assert loss({WEB: rows(1) + rows(2, 3, weight=0)}, {WEB: rows(1)}) == (0, 1)
    assert loss({WEB: rows(1, 2) + rows(3, weight=0)}, {}) == (2, 2)


def test_a_backend_that_is_desired_with_weight_0_is_present() -> None:
    assert loss({WEB: rows(1, 2, weight=0)}, {WEB: rows(1, 2, weight=0)}) == (0, 2)
    assert loss({WEB: rows(1, 2, weight=0)}, {WEB: rows(1)}) == (0, 1)
    assert loss({WEB: rows(1, 2)}, {WEB: rows(1, 2, weight=0)}) == (0, 2)


def test_what_is_out_of_scope_is_none_of_ours() -> None:
    current = Snapshot.of({WEB: rows(1, 2), API: rows(1)})
    found = shrinkage(current, Snapshot(), Scope.services([API.key]))
    assert (found.lost, found.present) == (1, 1)
    assert str(found) == "1 of 1 destination (100 %)"


def test_of_nothing_nothing_is_lost() -> None:
    found = shrinkage(Snapshot(), Snapshot.of({WEB: rows(1)}), EVERYTHING)
    assert (found.percent, found.exceeds(0)) == (0.0, False)


@given(tables(), tables())
def test_no_more_is_lost_than_was_there_and_nothing_of_a_table_that_stays(
    one: dict[Service, tuple[Destination, ...]], other: dict[Service, tuple[Destination, ...]]
) -> None:
    current, wanted = Snapshot.of(one), Snapshot.of(other)
    found = shrinkage(current, wanted, EVERYTHING)
    assert 0 <= found.lost <= found.present <= current.destination_count
    assert shrinkage(current, current, EVERYTHING).lost == 0
    assert found.lost == sum(count for _, count in found.losses)
