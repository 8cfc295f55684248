"""One table, kept: on a double of the kernel, with a host that writes down when it is called."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from pyminuteman.daemon.entries import ClaimTable, encode
from pyminuteman.daemon.ledger import Ledger, LedgerError
from pyminuteman.daemon.outlook import Outlook
from pyminuteman.daemon.reconciler import Reconciler
from pyminuteman.daemon.reconciler_options import ReconcilerOptions
from pyminuteman.host.errors import HostSetupError
from pyminuteman.ipvs import Destination, IPVSTable, Scope, Service, ServiceKey, Snapshot
from pyminuteman.ipvs.plan import AddDestination, AddService, Plan
from pyminuteman.testing.fake_kernel import FakeKernel
from pyminuteman.vips.claims import Claim
from pyminuteman.vips.desired import DesiredState, DesiredTable
from pyminuteman.vips.model import VIP, Backend, VIPKey, VIPSettings
from pyminuteman.vips.policy import Networks, Policy, Rule
from tests.kv.support import node

MANAGED = Scope.networks("11.0.0.0/8")
OPEN = Policy((Rule(vip_networks=Networks("0.0.0.0/0"), backend_networks=Networks("10.0.0.0/8")),))
WEB = ServiceKey.tcp("11.0.0.1", 80)


def state(*vips: VIP) -> DesiredState:
    view = Outlook(ClaimTable(), DesiredTable(), OPEN)
    for key, value in encode([Claim(vip, "file") for vip in vips]).items():
        view.claims.update(node(1), key, value)
    return view.refresh({})


def vip(count: int, host: str = "11.0.0.1", drain_seconds: float = 0.0) -> VIP:
    backends = tuple(Backend(f"10.0.0.{number}", 80) for number in range(1, count + 1))
    return VIP(VIPKey.tcp(host, 80), backends, VIPSettings(drain_seconds=drain_seconds))


class Kernel(FakeKernel):
    """One that outlives those who use it, as kernels do."""

    def close(self) -> None:
        """Stay."""


class Host:
    """Writes down what it is told, and what the kernel had then."""

    def __init__(self, kernel: FakeKernel) -> None:
        self.kernel = kernel
        self.calls: list[tuple[str, list[str], int]] = []
        self.broken = False

    def _note(self, when: str, addresses: Iterable[str]) -> None:
        self.calls.append((when, sorted(addresses), len(self.kernel.services)))
        if self.broken:
            raise HostSetupError("firewall", "it is not to be had")

    def before_ipvs(self, addresses: Iterable[str], services: Iterable[ServiceKey]) -> None:
        del services
        self._note("before", addresses)

    def after_ipvs(self, addresses: Iterable[str], services: Iterable[ServiceKey]) -> None:
        del services
        self._note("after", addresses)

    def audit(self, addresses: Iterable[str], services: Iterable[ServiceKey]) -> bool:
        del services
        self._note("audit", addresses)
        return False


class Bench:
    """A reconciler at work."""

    def __init__(self, kernel: FakeKernel, ledger: Ledger, host: Host | None, options: dict[str, Any]) -> None:
        self.kernel, self.ledger, self.host = kernel, ledger, host
        self.told: list[tuple[str, str]] = []
        self.synced: list[DesiredState] = []
        self.reconciler = Reconciler(
            "",
            open_table=lambda scope, drain: IPVSTable(scope=scope, drain=drain, backend=kernel),
            ledger=ledger,
            options=ReconcilerOptions(**({"managed": MANAGED, "max_loss_percent": 100.0} | options)),
            tell=lambda kind, text, _data: self.told.append((kind, text)),
            host=host,
            synced=self.synced.append,
        )

    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.told]

    def rows(self) -> dict[str, dict[str, int]]:
        snapshot = self.kernel.read()
        return {
            service.key.address: {row.address: row.weight for row in snapshot.destinations(service.key)} for service in snapshot
        }

    async def carry_out(self, wanted: DesiredState) -> None:
        before = self.reconciler.status.syncs_total
        self.reconciler.want(wanted, since=trio.current_time())
        await until(lambda: self.reconciler.status.syncs_total > before)


@asynccontextmanager
async def bench(
    kernel: FakeKernel | None = None, path: Path | None = None, *, host: bool = False, boot: str = "this", **options: Any
) -> AsyncIterator[Bench]:
    kernel = kernel or Kernel()
    one = Bench(kernel, Ledger(path, boot=boot), Host(kernel) if host else None, options)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.reconciler.run)
        yield one
        nursery.cancel_scope.cancel()


async def until(true: Callable[[], object], seconds: float = 10.0) -> None:
    with trio.fail_after(seconds):
        while not true():  # noqa: ASYNC110 - the double tells nobody
            await trio.sleep(0.002)


def put(kernel: FakeKernel, *keys: ServiceKey) -> None:
    """Somebody else's services."""
    table = IPVSTable(scope=Scope.everything(), backend=kernel)
    table.converge({Service(key, "rr"): [Destination("10.9.9.9", 1)] for key in keys})


@pytest.mark.trio
async def test_old_addresses_go_before_ipvs_and_new_ones_come_behind_it() -> None:
    async with bench(host=True, audit_seconds=3600) as one:
        assert one.host is not None
        await one.carry_out(state(vip(1)))
        assert one.host.calls[0] == ("before", ["11.0.0.1"], 0)
        assert one.host.calls[-1] == ("after", ["11.0.0.1"], 1)
        one.host.calls.clear()
        await one.carry_out(state(vip(1, "11.0.0.2")))
        assert one.host.calls[0] == ("before", ["11.0.0.2"], 1)
        assert one.host.calls[-1] == ("after", ["11.0.0.2"], 1)
        assert one.synced[-1].services.keys() == state(vip(1, "11.0.0.2")).services.keys()


@pytest.mark.trio
async def test_what_drains_keeps_its_address_until_it_is_gone() -> None:
    kernel = Kernel()
    async with bench(kernel, host=True, audit_seconds=3600) as one:
        assert one.host is not None
        await one.carry_out(state(vip(1, drain_seconds=0.3)))
        one.host.calls.clear()
        one.reconciler.want(state())
        await until(lambda: not kernel.services)
        await until(lambda: one.host is not None and one.host.calls[-1][1] == [])
        assert one.host.calls[0] == ("before", ["11.0.0.1"], 1)
        await until(lambda: WEB not in one.ledger)


@pytest.mark.trio
async def test_a_host_that_cannot_be_set_up_does_not_keep_ipvs_from_being_right() -> None:
    async with bench(host=True) as one:
        assert one.host is not None
        one.host.broken = True
        await one.carry_out(state(vip(2)))
        assert one.rows() == {"11.0.0.1": {"10.0.0.1": 1, "10.0.0.2": 1}}
        assert one.kinds().count("host") == 1


@pytest.mark.trio
async def test_a_restart_with_nothing_changed_writes_nothing(tmp_path: Path) -> None:
    kernel, path = Kernel(), tmp_path / "ledger.json"
    async with bench(kernel, path) as one:
        await one.carry_out(state(vip(2)))
    before = {key: (row.record, dict(row.destinations)) for key, row in kernel.services.items()}
    text = path.read_text()
    async with bench(kernel, path) as again:
        await again.carry_out(state(vip(2)))
        assert "sync" not in again.kinds()
    assert {key: (row.record, dict(row.destinations)) for key, row in kernel.services.items()} == before
    assert path.read_text() == text


@pytest.mark.trio
async def test_what_is_somebody_elses_is_left_alone_and_told_of_once() -> None:
    kernel = Kernel()
    outside, unwanted = ServiceKey.tcp("12.0.0.1", 80), ServiceKey.tcp("11.0.0.9", 80)
    put(kernel, WEB, outside, unwanted)
    async with bench(kernel, max_loss_percent=0.0) as one:
        await one.carry_out(state(vip(1), vip(1, "11.0.0.2"), vip(1, "12.0.0.2")))
        await one.carry_out(state(vip(1), vip(2, "11.0.0.2")))
        assert one.rows()["11.0.0.1"] == one.rows()["12.0.0.1"] == one.rows()["11.0.0.9"] == {"10.9.9.9": 1}
        assert "12.0.0.2" not in one.rows()
        assert one.reconciler.status.foreign == (WEB,)
        assert one.kinds().count("foreign") == 1


def slip_in(kernel: FakeKernel, *keys: ServiceKey) -> None:
    """Somebody else makes these, beside what is there."""
    row = Destination("10.9.9.9", 1)
    plan = Plan.of(step for key in keys for step in (AddService(Service(key, "rr")), AddDestination(Service(key, "rr"), row)))
    IPVSTable(scope=Scope.everything(), backend=kernel).apply(plan)


@pytest.mark.trio
async def test_what_somebody_made_since_the_table_was_read_is_not_taken_over(tmp_path: Path) -> None:
    kernel, ledger = Kernel(), tmp_path / "ledger.json"
    async with bench(kernel, ledger, host=True, audit_seconds=3600) as one:
        await one.carry_out(state(vip(1, "11.0.0.2")))
        slip_in(kernel, WEB)
        await one.carry_out(state(vip(2), vip(1, "11.0.0.2"), vip(1, "11.0.0.3")))
        assert one.rows() == {"11.0.0.1": {"10.9.9.9": 1}, "11.0.0.2": {"10.0.0.1": 1}, "11.0.0.3": {"10.0.0.1": 1}}
        assert one.reconciler.status.foreign == (WEB,)
        assert one.reconciler.status.error == ""
        assert one.kinds().count("foreign") == 1
        assert one.host is not None
        assert one.host.calls[-1] == ("after", ["11.0.0.2", "11.0.0.3"], 3)
        assert WEB not in Ledger(ledger, boot="this")
        await one.carry_out(state(vip(1, "11.0.0.2")))  # nor is it removed when it is no longer desired
        assert set(one.rows()) == {"11.0.0.1", "11.0.0.2"}


@pytest.mark.trio
async def test_nor_is_what_somebody_makes_between_the_reading_and_the_adding() -> None:
    class Busy(Kernel):
        fast = False

        def read(self, previous: Snapshot | None = None, *, kernel_order: bool = False) -> Snapshot:
            snapshot = super().read(previous, kernel_order=kernel_order)
            if self.fast:
                self.fast = False
                slip_in(self, WEB)
            return snapshot

    kernel = Busy()
    async with bench(kernel) as one:
        kernel.fast = True
        await one.carry_out(state(vip(2), vip(1, "11.0.0.2")))
        assert one.rows() == {"11.0.0.1": {"10.9.9.9": 1}, "11.0.0.2": {"10.0.0.1": 1}}
        assert one.reconciler.status.foreign == (WEB,)
        IPVSTable(scope=Scope.services([WEB]), backend=kernel).flush()
        one.reconciler.wake(audit=True)  # it is free now
        await until(lambda: one.reconciler.status.foreign == ())
        assert one.rows()["11.0.0.1"] == {"10.0.0.1": 1, "10.0.0.2": 1}


@pytest.mark.trio
async def test_one_service_that_the_kernel_refuses_keeps_no_other_out() -> None:
    kernel = Kernel()
    async with bench(kernel, host=True) as one:
        bad = VIP(VIPKey.tcp("11.0.0.1", 80), (Backend("10.0.0.1", 80),), VIPSettings("nosuch"))
        wanted = state(bad, vip(1, "11.0.0.2"))
        one.reconciler.want(wanted)
        await until(lambda: one.reconciler.status.error)
        assert one.rows() == {"11.0.0.2": {"10.0.0.1": 1}}
        assert one.host is not None
        assert one.host.calls[-1] == ("after", ["11.0.0.2"], 1)
        assert one.synced == [wanted]
        assert one.ledger.keys == {ServiceKey.tcp("11.0.0.2", 80)}
        assert (one.kinds().count("sync"), one.kinds().count("sync_failed")) == (1, 1)
        slip_in(kernel, WEB)  # of what was not made nothing is ours
        await until(lambda: one.reconciler.status.foreign == (WEB,))
        assert one.rows()["11.0.0.1"] == {"10.9.9.9": 1}


@pytest.mark.trio
async def test_of_what_is_held_back_nothing_is_written_down_as_ours(tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    async with bench(path=path, max_loss_percent=50.0) as one:
        await one.carry_out(state(vip(10)))
        one.reconciler.want(state(vip(1), vip(1, "11.0.0.2")))
        await until(lambda: one.reconciler.status.held)
        assert Ledger(path, boot="this").keys == one.ledger.keys == {WEB}
        assert set(one.rows()) == {"11.0.0.1"}


@pytest.mark.trio
async def test_adoption_takes_over_what_is_desired_or_all_that_is_managed() -> None:
    for adopt, left in (("desired", {"11.0.0.1", "11.0.0.9", "12.0.0.1"}), ("everything", {"11.0.0.1", "12.0.0.1"})):
        kernel = Kernel()
        put(kernel, WEB, ServiceKey.tcp("11.0.0.9", 80), ServiceKey.tcp("12.0.0.1", 80))
        async with bench(kernel, adopt=adopt) as one:
            await one.carry_out(state(vip(1)))
            assert set(one.rows()) == left
            assert one.rows()["11.0.0.1"] == {"10.0.0.1": 1}


@pytest.mark.trio
async def test_a_great_loss_is_held_back_until_it_is_confirmed_or_not_desired_any_more() -> None:
    async with bench(max_loss_percent=50.0) as one:
        await one.carry_out(state(vip(10)))
        assert not one.reconciler.confirm("")
        one.reconciler.want(state(vip(2)))
        await until(lambda: one.reconciler.status.held)
        assert len(one.rows()["11.0.0.1"]) == 10
        assert one.kinds().count("held_back") == 1
        await one.carry_out(state(vip(9)))
        assert one.reconciler.status.held is None
        one.reconciler.want(state(vip(2)))
        await until(lambda: one.reconciler.status.held)
        held = one.reconciler.status.held
        assert held is not None
        one.reconciler.want(state(vip(3)))
        await until(lambda: one.reconciler.status.held != held)
        assert not one.reconciler.confirm(held.identity)  # it is something else by now
        assert one.reconciler.status.held is not None
        assert one.reconciler.confirm(one.reconciler.status.held.identity)
        await until(lambda: len(one.rows()["11.0.0.1"]) == 3)


@pytest.mark.trio
async def test_what_somebody_else_changed_is_put_right_by_an_audit() -> None:
    kernel = Kernel()
    async with bench(kernel, audit_seconds=0.05) as one:
        await one.carry_out(state(vip(2)))
        put(kernel)
        assert not kernel.services
        await until(lambda: len(one.rows().get("11.0.0.1", {})) == 2)
        for _ in range(4):
            put(kernel)
            await until(lambda: len(one.rows().get("11.0.0.1", {})) == 2)
        await until(lambda: any("keeps changing" in text for _, text in one.told))


@pytest.mark.trio
async def test_of_many_desires_only_the_newest_is_carried_out() -> None:
    async with bench() as one:
        states = [state(vip(number)) for number in range(1, 30)]
        for wanted in states * 10:
            one.reconciler.want(wanted)
        await until(lambda: len(one.rows().get("11.0.0.1", {})) == 29)
        assert one.reconciler.status.syncs_total <= 3


@pytest.mark.trio
async def test_a_failure_is_told_counted_and_tried_again() -> None:
    kernel = Kernel()
    async with bench(kernel) as one:
        bad = VIP(VIPKey.tcp("11.0.0.1", 80), (Backend("10.0.0.1", 80),), VIPSettings("nosuch"))
        one.reconciler.want(state(bad))
        await until(lambda: one.reconciler.status.error)
        assert one.kinds().count("sync_failed") == 1
        assert sum(one.reconciler.status.errors.values()) >= 1
        await one.carry_out(state(vip(1)))
        assert one.reconciler.status.error == ""


@pytest.mark.trio
async def test_at_the_end_the_table_stays_or_what_is_ours_goes() -> None:
    for on_exit, left in (("keep", {"11.0.0.1", "12.0.0.1"}), ("flush", {"12.0.0.1"}), ("drain", {"12.0.0.1"})):
        kernel = Kernel()
        put(kernel, ServiceKey.tcp("12.0.0.1", 80))
        async with bench(kernel, on_exit=on_exit) as one:
            await one.carry_out(state(vip(1)))
        assert set(one.rows()) == left


@pytest.mark.trio
async def test_at_the_end_a_ledger_that_cannot_be_written_is_told_and_raises_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, kernel = tmp_path / "ledger.json", Kernel()
    async with bench(kernel, path, on_exit="flush") as one:
        await one.carry_out(state(vip(1)))
        path.unlink()
        path.mkdir()
    assert not one.rows()
    assert "cannot be written" in caplog.text


def test_a_ledger_of_another_boot_or_that_is_broken_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    ledger = Ledger(path, boot="one")
    ledger.add([WEB])
    assert WEB in Ledger(path, boot="one")
    assert WEB not in Ledger(path, boot="two")
    for text in ("{", "[]", '{"version": 2}', '{"version": 1, "boot": "one", "services": ["zz"]}', json.dumps({"version": 1})):
        path.write_text(text)
        broken = Ledger(path, boot="one")
        assert (broken.keys, "left alone" in broken.problem) == (frozenset(), True)
    path.unlink()
    path.mkdir()
    with pytest.raises(LedgerError):
        ledger.strike([WEB])
    assert WEB not in ledger  # whatever the disk says
    path.rmdir()
    ledger.strike([])
    assert ledger.keys == frozenset()
    assert Ledger(path, boot="one").keys == frozenset()


@pytest.mark.trio
async def test_when_the_ledger_cannot_be_written_nothing_is_added_and_the_rest_is_looked_after(tmp_path: Path) -> None:
    kernel, path = Kernel(), tmp_path / "there" / "ledger.json"
    path.parent.mkdir()
    async with bench(kernel, path) as one:
        await one.carry_out(state(vip(1)))
        path.unlink()
        path.parent.rmdir()
        one.reconciler.want(state(vip(2), vip(1, "11.0.0.2")))
        await until(lambda: "cannot be written" in one.reconciler.status.error)
        assert one.rows() == {"11.0.0.1": {"10.0.0.1": 1, "10.0.0.2": 1}}
        path.parent.mkdir()
        await until(lambda: set(one.rows()) == {"11.0.0.1", "11.0.0.2"})
    with pytest.raises(LedgerError, match="cannot be written"):
        Ledger(tmp_path / "nowhere" / "ledger.json", boot="x").add([WEB])


@pytest.mark.trio
async def test_statistics_are_of_what_is_ours_and_a_second_old_at_most() -> None:
    kernel = Kernel()
    put(kernel, ServiceKey.tcp("12.0.0.1", 80))
    async with bench(kernel) as one:
        await one.carry_out(state(vip(1)))
        assert set(await one.reconciler.statistics()) == {WEB}
        first = await one.reconciler.statistics()
        assert await one.reconciler.statistics() == first
