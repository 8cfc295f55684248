"""pyminuteman, in three ways, by the first argument.

- ``apply``: ``IPVSTable.apply`` of a plan made beforehand.
- ``converge``: ``IPVSTable.converge(desired)`` from Service and Destination objects: pack, read the kernel's table, diff, apply.
  Where a table is there already, it has been converged to once before the clock starts, as in a program that runs for long;
  that first time, with nothing in memory, is reported too (``cold_ms``).
- ``memory``: the same with ``audit=False``, by the memory of the last call: nothing is read.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from peers.worker import Driver, serve
from workloads import (
    DESTINATION_PORT,
    SERVICE_PORT,
    Workload,
    destination_address,
    service_address,
)

from pyminuteman.ipvs import Destination, IPVSTable, NetlinkBackend, Scope, Service, Snapshot, diff

Table = dict[Service, tuple[Destination, ...]]
EVERYTHING = Scope.everything()


def build(workload: Workload, *, after: bool = False) -> Table:
    """The table as a program would hold it."""
    return {
        Service.tcp(service_address(service), SERVICE_PORT): tuple(
            Destination(destination_address(n), DESTINATION_PORT, workload.weight(n, after=after))
            for n in workload.behind(service)
        )
        for service in range(workload.services)
    }


def targets(workload: Workload, table: Table) -> list[Table]:
    """The tables to converge to, one after the other. What does not change is the very same tuple."""
    if workload.kind == "delta":
        ((service, rows),) = table.items()
        gone = set(workload.delta())
        return [{service: tuple(row for at, row in enumerate(rows) if at not in gone)}, table]
    if workload.kind in {"weights", "one"}:
        heavier = dict(table)
        services = list(table)
        for n in workload.weights():
            service = services[n // workload.per_service]
            rows = list(heavier[service])
            at = n % workload.per_service
            rows[at] = Destination(rows[at].address, rows[at].port, workload.weight(n, after=True))
            heavier[service] = tuple(rows)
        return [heavier]
    return [table]


class Ours(Driver):
    """One of the three ways."""

    def __init__(self, way: str) -> None:
        self.way = way
        self.tables: dict[tuple[int, int], Table] = {}  # kept: building 100,000 objects takes a while

    def open(self) -> None:
        self.backend = NetlinkBackend()
        self.table = IPVSTable(scope=EVERYTHING, backend=self.backend)

    def close(self) -> None:
        self.table.close()

    def prepare(self, workload: Workload) -> None:
        size = workload.services, workload.per_service
        if size not in self.tables:
            self.tables[size] = build(workload)
        table = self.tables[size]
        there = targets(workload, table)
        back = [table] if workload.kind in {"weights", "one"} else there
        self.steps = [there, back]
        self.cold = None
        if self.way == "apply":
            self.plans = []
            before: Table | Snapshot = table if workload.starts_loaded else Snapshot()
            for steps in self.steps:
                plans = []
                for step in steps:
                    plans.append(diff(Snapshot.of(before), step, scope=EVERYTHING))
                    before = step
                self.plans.append(plans)
        elif workload.starts_loaded:
            began = time.perf_counter()
            report = self.table.converge(table)
            self.cold = time.perf_counter() - began
            if report.plan:
                raise AssertionError(report.plan)

    def run(self, workload: Workload, number: int) -> dict[str, Any]:
        calls = self.backend.system_calls
        began = time.perf_counter()
        if self.way == "apply":
            reports = [self.table.apply(plan) for plan in self.plans[number % 2]]
        else:
            reports = [self.table.converge(step, audit=self.way == "converge") for step in self.steps[number % 2]]
        seconds = time.perf_counter() - began
        requests = sum(len(report.plan) for report in reports)
        if requests != (0 if workload.kind == "read" else workload.requests) or any(report.errors for report in reports):
            raise AssertionError(reports)
        return {
            "seconds": seconds,
            "applying_seconds": sum(report.elapsed_seconds for report in reports),
            "cold_seconds": self.cold,
            "system_calls": self.backend.system_calls - calls,
        }


if __name__ == "__main__":
    serve(Ours(sys.argv[1]))
