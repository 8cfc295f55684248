"""Snapshots, and packing what is desired."""

from __future__ import annotations

import pytest
from hypothesis import given

from pyminuteman.ipvs import (
    Destination,
    ForwardingMethod,
    InvalidDestinationError,
    InvalidServiceError,
    Service,
    ServiceKey,
    Snapshot,
)
from pyminuteman.ipvs.records import destination_keys, destination_rows, flatten
from tests.support.strategies import tables

WEB, SIX = Service.tcp("11.0.0.1", 80), Service.tcp("fd00::1", 80)
A, B = Destination("10.0.0.1", 80), Destination("10.0.0.2", 80)


@given(tables())
def test_a_snapshot_is_the_table_it_was_made_of(table: dict) -> None:
    snapshot = Snapshot.of(table)
    assert snapshot == {service: tuple(sorted(rows)) for service, rows in table.items()}
    assert list(snapshot) == sorted(table)
    assert list(snapshot) == sorted(table)  # from memory, the second time
    assert len(snapshot) == len(table)
    assert snapshot.destination_count == sum(map(len, table.values()))
    for service, rows in table.items():
        assert snapshot.service(service.key) == service
        assert snapshot.destinations(service.key) == tuple(sorted(rows))
    assert Snapshot.of(snapshot) is snapshot


@given(tables())
def test_flat_records_are_the_entries_one_behind_the_other(table: dict) -> None:
    entries = [Snapshot.of(table).entries[service.key.packed] for service in sorted(table)]
    services, rows = flatten(entries)
    assert destination_rows(rows) == [row.packed for service in sorted(table) for row in sorted(table[service])]
    assert destination_keys(rows) == [row.key for service in sorted(table) for row in sorted(table[service])]
    assert [services[at : at + 68] for at in range(0, len(services), 72)] == [service.packed for service in sorted(table)]
    assert [services[at + 68] for at in range(0, len(services), 72)] == [len(table[service]) for service in sorted(table)]


def test_only_an_equal_service_finds_its_destinations() -> None:
    snapshot = Snapshot.of({WEB: [A]})
    assert snapshot[WEB] == (A,)
    for other in (Service.tcp("11.0.0.1", 80, scheduler="rr"), SIX, WEB.key, "web"):
        with pytest.raises(KeyError):
            snapshot[other]  # type: ignore[index]
        assert other not in snapshot


def test_an_unknown_key_has_neither_service_nor_destinations() -> None:
    snapshot = Snapshot.of({WEB: [A]})
    assert snapshot.service(SIX.key) is None
    assert snapshot.destinations(SIX.key) == ()
    assert snapshot.restricted([SIX.key.packed, WEB.key.packed]) == snapshot
    assert snapshot.restricted([]) == {}


def test_a_snapshot_is_short_when_printed_and_equal_to_nothing_else() -> None:
    assert repr(Snapshot.of({WEB: [A, B]})) == "<Snapshot of 1 services, 2 destinations>"
    assert Snapshot() == {}
    assert Snapshot() != 5


@pytest.mark.parametrize(
    ("table", "error", "reason"),
    [
        ({WEB: [], Service.tcp("11.0.0.1", 80, scheduler="rr"): []}, InvalidServiceError, "tcp 11.0.0.1:80 is described twice"),
        ({ServiceKey.tcp("11.0.0.1", 80): []}, InvalidServiceError, "is not a Service"),
        ({WEB: [A, Destination("10.0.0.1", 80, 5)]}, InvalidDestinationError, "destination 10.0.0.1:80 is there twice"),
        ({WEB: [A, B, A]}, InvalidDestinationError, "10.0.0.1:80 is there twice"),
        ({WEB: ["10.0.0.1:80"]}, InvalidDestinationError, "expected a collection of Destination, not"),
        ({WEB: None}, InvalidDestinationError, "expected a collection of Destination, not None"),
        ({WEB: A}, InvalidDestinationError, "expected a collection of Destination"),
        (
            {WEB: [A, Destination("fd00::5", 80)]},
            InvalidDestinationError,
            r"an IPv4 service reaches the IPv6 destination \[fd00::5\]:80 only by a tunnel",
        ),
        ({SIX: [A]}, InvalidDestinationError, "an IPv6 service reaches the IPv4 destination 10.0.0.1:80 only by a tunnel"),
    ],
)
def test_a_table_that_cannot_be_is_refused(table: dict, error: type[Exception], reason: str) -> None:
    with pytest.raises(error, match=reason):
        Snapshot.of(table)


def test_a_tunnel_reaches_the_other_family() -> None:
    rows = (A, Destination("fd00::5", 80, 1, ForwardingMethod.TUNNEL))
    assert Snapshot.of({WEB: rows})[WEB] == rows
