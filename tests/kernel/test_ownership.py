"""A reconciler on a real kernel, with ipvsadm at work beside it: what somebody else made in time is not taken over."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import trio

from pyminuteman.daemon.ledger import Ledger
from pyminuteman.daemon.reconciler import Reconciler
from pyminuteman.daemon.reconciler_options import ReconcilerOptions
from pyminuteman.ipvs import ApplyReport, IPVSTable, Scope, Service, ServiceKey
from tests.daemon.test_reconciler import state, vip
from tests.support.kernel import ipvsadm

pytestmark = pytest.mark.kernel

MANAGED = Scope.networks("11.0.0.0/8")
THEIRS = "-A -t 11.0.0.1:80 -s lc\n-a -t 11.0.0.1:80 -r 10.9.9.9:80 -m -w 7\n"
OURS = "-A -t 11.0.0.2:80 -s wlc\n-a -t 11.0.0.2:80 -r 10.0.0.1:80 -m -w 1\n"


class Raced(IPVSTable):
    """Somebody makes a service in the very moment before we add ours."""

    raced = False

    def add_services(self, services: Iterable[Service]) -> ApplyReport:
        """When all that was read is of before."""
        if not self.raced:
            self.raced = True
            trio.from_thread.run_sync(lambda: ipvsadm("-R", stdin=THEIRS))
        return super().add_services(services)


async def _until(true: Callable[[], object]) -> None:
    with trio.fail_after(30):
        while not true():  # noqa: ASYNC110 - the kernel tells nobody
            await trio.sleep(0.01)


async def _race(path: Path, table: type[IPVSTable], between: Callable[[], object]) -> None:
    told: list[str] = []
    ledger = Ledger(path)
    here = f"/proc/{os.getpid()}/ns/net"  # of this thread: a worker may be left over from a test in another namespace
    one = Reconciler(
        "",
        open_table=lambda scope, drain: table(scope=scope, drain=drain, netns=here),
        ledger=ledger,
        options=ReconcilerOptions(managed=MANAGED, audit_seconds=3600.0, max_loss_percent=100.0),
        tell=lambda kind, text, _data: told.append(f"{kind}: {text}"),
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.run)
        one.want(state())
        await _until(lambda: one.status.syncs_total == 1)
        between()
        one.want(state(vip(2), vip(1, "11.0.0.2")))
        await _until(lambda: one.status.syncs_total == 2)
        assert ipvsadm("-Sn") == THEIRS + OURS, told
        assert one.status.foreign == (ServiceKey.tcp("11.0.0.1", 80),), told
        one.want(state())
        await _until(lambda: one.status.syncs_total == 3)
        assert ipvsadm("-Sn") == THEIRS, told
        assert ledger.keys == Ledger(path).keys == frozenset()
        nursery.cancel_scope.cancel()
    ipvsadm("-C")


@pytest.mark.trio
async def test_a_service_that_somebody_made_since_the_last_reading_stays_theirs(tmp_path: Path) -> None:
    await _race(tmp_path / "ledger.json", IPVSTable, lambda: ipvsadm("-R", stdin=THEIRS))


@pytest.mark.trio
async def test_so_does_one_that_is_made_in_the_moment_before_ours(tmp_path: Path) -> None:
    await _race(tmp_path / "ledger.json", Raced, lambda: None)
