"""Rates from the differences of counters. Pure.

The kernel's own estimates are smoothed over some eight seconds and whole numbers; these are what happened between two readings.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from pyminuteman.cli.desired import to_plain
from pyminuteman.cli.listing import large_number, service_name
from pyminuteman.ipvs import Counters, ServiceKey, ServiceStatistics

__all__ = ["TITLE", "Table", "busiest", "format_sample", "plain_sample", "rates"]

Table = Mapping[ServiceKey, ServiceStatistics]
_FIELDS = [field.name for field in dataclasses.fields(Counters)]

TITLE = (
    "Prot LocalAddress:Port                CPS    InPPS   OutPPS    InBPS   OutBPS Weight ActiveConn InActConn\n"
    "  -> RemoteAddress:Port"
)


def rates(before: Counters | None, after: Counters, seconds: float) -> dict[str, float] | None:
    """A second, by the names of :class:`Counters`; None where nothing is known of before.

    A counter that has gone down was set to zero in between, or its row was added anew: it is taken from zero.
    """
    if before is None or seconds <= 0:
        return None
    pairs = ((name, getattr(before, name), getattr(after, name)) for name in _FIELDS)
    return {name: (new - old if new >= old else new) / seconds for name, old, new in pairs}


def _counters(table: Table | None, key: ServiceKey) -> Counters | None:
    service = table.get(key) if table else None
    return service.counters if service else None


def _destination_counters(table: Table | None, key: ServiceKey) -> dict[bytes, Counters]:
    service = table.get(key) if table else None
    return {row.key: one.counters for row, one in service.destinations.items()} if service else {}


def busiest(before: Table | None, after: Table, seconds: float) -> list[ServiceStatistics]:
    """Services, those with the most new connections (then bytes) first."""

    def order(service: ServiceStatistics) -> tuple[float, float]:
        found = rates(_counters(before, service.service.key), service.counters, seconds)
        return (-found["connections"], -found["in_bytes"] - found["out_bytes"]) if found else (0.0, 0.0)

    return sorted(after.values(), key=order)


def _columns(found: dict[str, float] | None) -> str:
    if found is None:
        return f"{'-':>9}" * len(_FIELDS)
    return "".join(large_number(round(found[name])) for name in _FIELDS)


def format_sample(before: Table | None, after: Table, seconds: float, *, busiest_first: bool = False) -> Iterator[str]:
    """Lines, without their ends, beneath :data:`TITLE`."""
    services = busiest(before, after, seconds) if busiest_first else list(after.values())
    for service in services:
        key = service.service.key
        own = rates(_counters(before, key), service.counters, seconds)
        yield f"{service_name(key):33}{_columns(own)}"
        old = _destination_counters(before, key)
        for row, one in service.destinations.items():
            now = one.connections
            columns = _columns(rates(old.get(row.key), one.counters, seconds))
            yield f"  -> {row!s:28}{columns} {row.weight:<6} {now.active:<10} {now.inactive:<10}"


def plain_sample(before: Table | None, after: Table, seconds: float, time: str) -> dict[str, Any]:
    """One sample as data."""
    services = []
    for key, service in after.items():
        (plain,) = to_plain([(service.service, tuple(service.destinations))])
        plain["rates"] = _rounded(rates(_counters(before, key), service.counters, seconds))
        plain["statistics"] = dataclasses.asdict(service.counters)
        old = _destination_counters(before, key)
        for row, (destination, one) in zip(plain["destination"], service.destinations.items(), strict=True):
            row["rates"] = _rounded(rates(old.get(destination.key), one.counters, seconds))
            row["statistics"] = dataclasses.asdict(one.counters)
            row["active_connections"] = one.connections.active
            row["inactive_connections"] = one.connections.inactive
        services.append(plain)
    return {"version": 1, "time": time, "interval_seconds": round(seconds, 3), "service": services}


def _rounded(found: dict[str, float] | None) -> dict[str, float] | None:
    return {name: round(value, 3) for name, value in found.items()} if found else None
