"""Nothing to do costs nothing, and ten thousand reconciles leave no trace in the process."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pyminuteman.ipvs import Destination, IPVSTable, NetlinkBackend, Scope, Service, Snapshot

pytestmark = pytest.mark.kernel

PAGE = os.sysconf("SC_PAGE_SIZE")


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


def table_of(weight: int) -> dict[Service, tuple[Destination, ...]]:
    return {
        Service.tcp(f"11.0.0.{n}", 80): tuple(Destination(f"10.0.{n}.{m}", 80, weight if m == 1 else 1) for m in range(1, 5))
        for n in range(1, 3)
    }


def test_ten_thousand_reconciles_take_no_more_memory_than_two_thousand() -> None:
    """Half with an audit, half without; one in four changes a weight and one a whole service."""
    backend = NetlinkBackend()
    with IPVSTable(scope=Scope.everything(), backend=backend) as table:
        desired = [table_of(weight) for weight in (1, 2, 3)]
        desired.append(dict(list(desired[0].items())[:1]))
        before, files = 0, 0
        for turn in range(10_000):
            if turn == 2_000:
                before, files = resident(), descriptors()
            table.converge(desired[turn // 4 % 4], audit=bool(turn % 2))
        grown = resident() - before
        assert table.snapshot() == Snapshot.of(desired[9_999 // 4 % 4])
    assert descriptors() < files
    assert grown < 1 << 20, grown


def test_after_a_restart_with_nothing_changed_nothing_is_written() -> None:
    desired = {service: rows for n in range(1, 4) for service, rows in table_of(n).items()}
    with IPVSTable(scope=Scope.everything()) as table:
        table.converge(desired)
    backend = NetlinkBackend()
    with IPVSTable(scope=Scope.everything(), backend=backend) as table:
        table.snapshot()
        reading = backend.system_calls
        report = table.converge(desired)
        assert not report.plan
        assert backend.system_calls == 2 * reading
        assert not table.converge(desired, audit=False).plan
        assert backend.system_calls == 2 * reading


def test_a_large_table_takes_few_system_calls() -> None:
    rows = tuple(Destination(f"10.{n // 250}.{n % 250}.1", 80) for n in range(2000))
    backend = NetlinkBackend()
    with IPVSTable(scope=Scope.everything(), backend=backend) as table:
        table.snapshot()
        before = backend.system_calls
        table.converge({Service.tcp("11.0.0.1", 80): rows}, audit=False)
        assert backend.system_calls - before < 20
