"""IPVSTable: planning, applying, converging, and what happens when somebody else is at work."""

from __future__ import annotations

import threading
from dataclasses import replace
from errno import ECANCELED, EEXIST, EINVAL, ENODATA, ENOENT, EPERM, ESRCH

import pytest
from hypothesis import given

from pyminuteman.ipvs import (
    AddDestination,
    AddService,
    ApplyError,
    Destination,
    EditDestination,
    Features,
    Flush,
    ForwardingMethod,
    InvalidServiceError,
    IPVSTable,
    NoSuchScheduler,
    NoSuchService,
    NotConverged,
    NotPermitted,
    OutsideScope,
    Plan,
    RemoveDestination,
    RemoveService,
    Scope,
    Service,
    Snapshot,
    SnapshotUnstable,
    SyncDaemon,
    SyncRole,
    TableBusy,
    Timeouts,
    Tunnel,
    TunnelFlags,
    TunnelType,
    Unsupported,
)
from pyminuteman.testing.fake_kernel import FakeKernel
from tests.support.strategies import tables

WEB, DNS = Service.tcp("11.0.0.1", 80), Service.udp("11.0.0.1", 53)
FOREIGN = Service.tcp("12.0.0.1", 80)
A, B, C = (Destination(f"10.0.0.{n}", 8080) for n in (1, 2, 3))
ELEVEN = Scope.networks("11.0.0.0/8")


@pytest.fixture
def fake() -> FakeKernel:
    kernel = FakeKernel()
    kernel.execute(Plan.of([AddService(FOREIGN), AddDestination(FOREIGN, A)]))
    return kernel


@pytest.fixture
def table(fake: FakeKernel) -> IPVSTable:
    return IPVSTable(scope=ELEVEN, backend=fake)


def ours(fake: FakeKernel) -> Snapshot:
    return fake.read().restricted([WEB.key.packed, DNS.key.packed])


# Converging


@given(first=tables(), second=tables())
def test_converging_makes_the_table_what_is_desired_and_once_is_enough(first: dict, second: dict) -> None:
    kernel = FakeKernel()
    table = IPVSTable(scope=Scope.everything(), backend=kernel)
    for desired in (first, second):
        assert not table.converge(desired).errors
        assert table.snapshot() == Snapshot.of(desired)
        before = kernel.operations
        report = table.converge(desired)
        assert (report.plan, kernel.operations, report.attempts) == (Plan(), before, 1)
        assert not table.plan(desired)


def test_what_is_not_in_scope_is_left_alone(table: IPVSTable, fake: FakeKernel) -> None:
    table.converge({WEB: [A]})
    table.converge({})
    assert fake.read() == Snapshot.of({FOREIGN: [A]})
    with pytest.raises(OutsideScope):
        table.converge({FOREIGN: []})
    with pytest.raises(OutsideScope):
        table.plan(Snapshot.of({FOREIGN: []}))


def test_the_plan_is_what_converging_does(table: IPVSTable, fake: FakeKernel) -> None:
    plan = table.plan({WEB: [A]})
    assert list(plan) == [AddService(WEB), AddDestination(WEB, A)]
    assert ours(fake) == {}
    assert table.apply(plan).plan is plan
    assert ours(fake) == Snapshot.of({WEB: [A]})


def test_a_snapshot_can_be_put_back(table: IPVSTable, fake: FakeKernel) -> None:
    table.converge({WEB: [A]})
    kept = ours(fake)
    table.converge({DNS: [B]})
    table.converge(kept)
    assert ours(fake) == kept


@pytest.mark.parametrize(
    ("desired", "error"),
    [
        ({WEB: [], Service.tcp("11.0.0.1", 80, scheduler="rr"): []}, InvalidServiceError),
        ({WEB.key: []}, InvalidServiceError),
        ({WEB: None}, ValueError),
    ],
)
def test_a_table_that_cannot_be_is_refused_before_anything_is_read(
    table: IPVSTable, fake: FakeKernel, desired: dict, error: type[Exception]
) -> None:
    with pytest.raises(error):
        table.converge(desired)
    assert (fake.reads, fake.operations) == (0, 2)


def test_unchanged_tuples_are_packed_once(table: IPVSTable) -> None:
    rows = (A, B)
    table.converge({WEB: rows, DNS: [C]})
    kept = dict(table._packed)
    table.converge({WEB: rows, DNS: [C]})
    assert kept[WEB.packed] is table._packed[WEB.packed]
    assert DNS.packed not in kept


def test_converging_takes_at_least_one_attempt(table: IPVSTable) -> None:
    with pytest.raises(ValueError, match="attempts is 0"):
        table.converge({}, attempts=0)


# Others at work


def test_a_destination_that_somebody_else_added_meanwhile_is_edited(table: IPVSTable, fake: FakeKernel) -> None:
    table.converge({WEB: [A]})
    fake.before_execute.append(lambda: fake.execute(Plan.of([AddDestination(WEB, Destination(B.address, B.port, 9))])))
    report = table.converge({WEB: [A, B]})
    assert (report.errors, report.settled) == ({}, {0})
    assert ours(fake) == Snapshot.of({WEB: [A, B]})


def test_a_service_that_somebody_else_added_meanwhile_is_edited(table: IPVSTable, fake: FakeKernel) -> None:
    other = Service.tcp("11.0.0.1", 80, scheduler="rr")
    fake.before_execute.append(lambda: fake.execute(Plan.of([AddService(other), AddDestination(other, C)])))
    table.converge({WEB: [A]})
    assert ours(fake) == Snapshot.of({WEB: [A]})


def test_with_no_attempt_left_what_was_settled_is_not_looked_at_again(table: IPVSTable, fake: FakeKernel) -> None:
    table.converge({WEB: [A]})
    fake.before_execute.append(lambda: fake.execute(Plan.of([AddDestination(WEB, replace(B, weight=9))])))
    report = table.converge({WEB: [A, B]}, attempts=1)
    assert (report.errors, report.settled, report.attempts) == ({}, {0}, 1)
    assert ours(fake) == Snapshot.of({WEB: [A, B]})


def test_what_somebody_else_removed_meanwhile_is_gone_all_the_same(table: IPVSTable, fake: FakeKernel) -> None:
    table.converge({WEB: [A, B], DNS: [C]})
    fake.before_execute.append(lambda: fake.execute(Plan.of([RemoveDestination(WEB, B), RemoveService(DNS)])))
    report = table.converge({WEB: [A]})
    assert (report.errors, report.settled, report.attempts) == ({}, {0, 1}, 2)  # it looked again
    assert ours(fake) == Snapshot.of({WEB: [A]})


@pytest.mark.parametrize("theirs", [RemoveService(WEB), RemoveDestination(WEB, A)], ids=["service", "destination"])
def test_what_somebody_else_removed_and_we_wanted_is_planned_for_again(
    table: IPVSTable, fake: FakeKernel, theirs: RemoveService | RemoveDestination
) -> None:
    table.converge({WEB: [A]})
    fake.before_execute.append(lambda: fake.execute(Plan.of([theirs])))
    report = table.converge({WEB: [Destination(A.address, A.port, 9), B]})
    assert report.attempts == 2
    assert ours(fake) == Snapshot.of({WEB: [Destination(A.address, A.port, 9), B]})


def test_an_opponent_who_never_rests_is_given_up_on(table: IPVSTable, fake: FakeKernel) -> None:
    table.converge({WEB: [A]})

    nine = Destination(A.address, A.port, 9)

    def again() -> None:
        fake.carry_out(7, WEB.packed, A.packed)
        fake.before_execute.append(again)

    fake.before_execute[:] = [again]
    undo = fake.read

    def read(previous: Snapshot | None = None, *, kernel_order: bool = False) -> Snapshot:
        fake.carry_out(5, WEB.packed, A.packed)
        return undo(previous, kernel_order=kernel_order)

    fake.read = read  # type: ignore[method-assign]
    once = [again]

    def execute(plan: Plan, *, stop_on_error: bool = False, inner: object = fake.execute) -> object:
        fake.before_execute[:] = []
        once[0]()
        fake.before_execute[:] = []
        return inner(plan, stop_on_error=stop_on_error)  # type: ignore[operator]

    fake.execute = execute  # type: ignore[method-assign, assignment]
    with pytest.raises(NotConverged, match="after 2 attempts 1 operations are still needed") as caught:
        table.converge({WEB: [nine]}, attempts=2)
    assert list(caught.value.remaining) == [EditDestination(WEB, nine)]
    assert caught.value.report is not None
    assert caught.value.report.errors == {0: (ENOENT, "")}


def test_a_lost_answer_is_looked_after(table: IPVSTable, fake: FakeKernel) -> None:
    for done in (True, False):
        fake.fail(0, ENODATA, done=done)
        report = table.converge({WEB: [A]} if done else {})
        assert (report.errors, report.attempts) == ({}, 2)
    assert ours(fake) == {}


def test_what_was_canceled_is_tried_again(table: IPVSTable, fake: FakeKernel) -> None:
    fake.fail(1, ECANCELED)
    assert table.converge({WEB: [A]}).attempts == 2
    assert ours(fake) == Snapshot.of({WEB: [A]})


def test_what_no_second_attempt_can_mend_is_an_error_at_once(table: IPVSTable, fake: FakeKernel) -> None:
    unknown = Service.tcp("11.0.0.1", 80, scheduler="nonesuch")
    with pytest.raises(ApplyError, match="modprobe ip_vs_nonesuch") as caught:
        table.converge({unknown: [A], DNS: [B]})
    report = caught.value.report
    assert {at: errno for at, (errno, _) in report.errors.items()} == {0: ENOENT, 2: ESRCH}
    assert isinstance(report.failed[0], NoSuchScheduler)
    assert ours(fake) == Snapshot.of({DNS: [B]})
    assert fake.reads == 2


def test_an_edit_that_fails_after_an_add_that_existed_is_not_settled(table: IPVSTable, fake: FakeKernel) -> None:
    fake.fail(0, EEXIST)
    with pytest.raises(ApplyError) as caught:
        table.apply(Plan.of([AddService(WEB)]))
    assert caught.value.report.errors == {0: (EEXIST, "")}


# Adding what nobody has


def test_services_are_added_that_nobody_has_and_those_that_are_there_are_left(table: IPVSTable, fake: FakeKernel) -> None:
    table.snapshot()
    fake.execute(Plan.of([AddService(WEB), AddDestination(WEB, A)]))  # since then
    reads = fake.reads
    report = table.add_services([Service.tcp("11.0.0.1", 80, scheduler="lc"), DNS])
    assert {report.plan[at]: errno for at, (errno, _) in report.errors.items()} == {
        AddService(Service.tcp("11.0.0.1", 80, scheduler="lc")): EEXIST
    }
    assert fake.reads == reads
    assert ours(fake) == Snapshot.of({WEB: [A], DNS: []})
    reads = fake.reads
    assert WEB in table.snapshot(audit=False)  # what was remembered was wrong, and is read again
    assert fake.reads == reads + 1
    assert not table.add_services([Service.udp("11.0.0.1", 54)]).errors
    assert len(table.snapshot(audit=False)) == len(fake.services)
    assert fake.reads == reads + 1
    with pytest.raises(OutsideScope):
        table.add_services([Service.udp("11.0.0.1", 55), FOREIGN])
    assert len(fake.services) == 4


# Going by memory


def test_without_an_audit_nothing_is_read_and_only_changes_are_made(table: IPVSTable, fake: FakeKernel) -> None:
    table.converge({WEB: [A]})
    reads = fake.reads
    assert len(table.converge({WEB: [A, B]}, audit=False).plan) == 1
    assert not table.converge({WEB: [A, B]}, audit=False).plan
    assert len(table.converge({}, audit=False).plan) == 1
    assert fake.reads == reads
    assert ours(fake) == {}


def test_the_table_as_it_is_remembered_is_what_was_made_and_not_what_others_made_of_it(
    table: IPVSTable, fake: FakeKernel
) -> None:
    table.converge({WEB: [A]})
    reads = fake.reads
    fake.services.clear()
    assert WEB in table.snapshot(audit=False)
    assert fake.reads == reads
    assert WEB not in table.snapshot()
    assert WEB not in table.snapshot(audit=False)


def test_what_was_packed_and_is_the_same_tuple_is_not_packed_again(table: IPVSTable) -> None:
    rows = (A, B)
    first = table.pack({WEB: rows})
    assert first == Snapshot.of({WEB: rows})
    again, other = table.pack({WEB: rows}), table.pack({WEB: (A, B)})
    assert again.entries[WEB.key.packed] is first.entries[WEB.key.packed]
    assert other == again
    with pytest.raises(OutsideScope):
        table.pack({Service.tcp("12.0.0.1", 80): rows})


def test_the_first_time_there_is_nothing_to_remember(table: IPVSTable, fake: FakeKernel) -> None:
    table.converge({WEB: [A]}, audit=False)
    assert fake.reads == 1


def test_what_others_did_is_seen_at_the_next_audit(table: IPVSTable, fake: FakeKernel) -> None:
    table.converge({WEB: [A]})
    fake.execute(Plan.of([RemoveDestination(WEB, A)]))
    assert not table.converge({WEB: [A]}, audit=False).plan
    assert list(table.converge({WEB: [A]}).plan) == [AddDestination(WEB, A)]


def test_a_failure_is_no_thing_to_remember(table: IPVSTable, fake: FakeKernel) -> None:
    table.converge({WEB: [A]})
    fake.fail(0, EINVAL)
    with pytest.raises(ApplyError):
        table.converge({WEB: [A, B]}, audit=False)
    reads = fake.reads
    assert list(table.converge({WEB: [A, B]}, audit=False).plan) == [AddDestination(WEB, B)]
    assert fake.reads == reads + 1


def test_after_a_plan_of_ones_own_the_table_is_read_again(table: IPVSTable, fake: FakeKernel) -> None:
    table.converge({WEB: [A]})
    table.apply(Plan.of([AddDestination(WEB, B)]))
    reads = fake.reads
    assert list(table.converge({WEB: [A]}, audit=False).plan) == [RemoveDestination(WEB, B)]
    assert fake.reads == reads + 1


def test_memory_of_something_that_is_gone_is_mended_by_a_second_look(table: IPVSTable, fake: FakeKernel) -> None:
    table.converge({WEB: [A]})
    fake.execute(Plan.of([RemoveService(WEB)]))
    report = table.converge({WEB: [Destination(A.address, A.port, 9)]}, audit=False)
    assert report.attempts == 2
    assert ours(fake) == Snapshot.of({WEB: [Destination(A.address, A.port, 9)]})


# Applying


def test_past_a_failure_the_others_are_carried_out(table: IPVSTable, fake: FakeKernel) -> None:
    with pytest.raises(ApplyError, match="1 of 3 operations failed") as caught:
        table.apply(Plan.of([AddService(WEB), EditDestination(WEB, A), AddDestination(WEB, B)]))
    assert list(caught.value.report.applied) == [AddService(WEB), AddDestination(WEB, B)]
    assert ours(fake) == Snapshot.of({WEB: [B]})


def test_stopping_at_an_error_leaves_the_rest_untried(table: IPVSTable, fake: FakeKernel) -> None:
    fake.fail(1, EINVAL, "no")
    with pytest.raises(ApplyError) as caught:
        table.apply(Plan.of([AddService(WEB), AddDestination(WEB, A), AddDestination(WEB, B)]), stop_on_error=True)
    assert caught.value.report.errors == {1: (EINVAL, "no"), 2: (ECANCELED, "")}


def long_plan(count: int) -> Plan:
    return Plan.of(
        [AddService(WEB), *(AddDestination(WEB, Destination(f"10.1.{n // 250}.{n % 250 + 1}", 80)) for n in range(count))]
    )


def test_progress_is_told_now_and_then(table: IPVSTable) -> None:
    told: list[tuple[int, int]] = []
    table.apply(long_plan(4500), progress=lambda *progress: told.append(progress))
    assert told == [(2000, 4501), (4000, 4501), (4501, 4501)]


def test_stopping_at_an_error_stops_the_parts_behind_it_too(table: IPVSTable, fake: FakeKernel) -> None:
    told: list[tuple[int, int]] = []
    fake.fail(2500, EPERM)
    with pytest.raises(ApplyError) as caught:
        table.apply(long_plan(4500), stop_on_error=True, progress=lambda *progress: told.append(progress))
    assert sorted(caught.value.report.errors) == list(range(2500, 4501))
    assert told == [(2000, 4501)]


def test_the_place_of_an_error_counts_from_the_plans_beginning(table: IPVSTable, fake: FakeKernel) -> None:
    fake.fail(2500, EPERM)
    with pytest.raises(ApplyError) as caught:
        table.apply(long_plan(4500), progress=lambda *_: None)
    assert caught.value.report.errors == {2500: (EPERM, "")}
    assert isinstance(caught.value.report.failed[0], NotPermitted)


def test_applying_nothing_takes_no_time(table: IPVSTable, fake: FakeKernel) -> None:
    assert table.apply(Plan()).elapsed_seconds == 0.0
    assert fake.operations == 2


# The rest


def test_flush_empties_the_scope(table: IPVSTable, fake: FakeKernel) -> None:
    table.converge({WEB: [A], DNS: []})
    assert table.flush().plan.summary() == "remove 2 services"
    assert fake.read() == Snapshot.of({FOREIGN: [A]})
    everything = IPVSTable(scope=Scope.everything(), backend=fake)
    assert list(everything.flush().plan) == [Flush()]
    assert fake.read() == {}
    assert not everything.flush().plan


def test_a_flush_that_fails_is_an_error(table: IPVSTable, fake: FakeKernel) -> None:
    table.converge({WEB: [A]})
    fake.fail(0, EPERM)
    with pytest.raises(ApplyError):
        table.flush()


def test_zeroing(table: IPVSTable) -> None:
    table.converge({WEB: [A]})
    table.zero(WEB.key)
    table.zero()
    with pytest.raises(NoSuchService, match=r"-Z -u 11.0.0.1:53"):
        table.zero(DNS.key)


def test_what_the_backend_says_is_passed_on(table: IPVSTable, fake: FakeKernel) -> None:
    table.converge({WEB: [A]})
    fake.connections.append("TCP 0A000009 8A3C 0B000001 0050 0A000001 1F90 ESTABLISHED 899")
    assert [str(one) for one in table.connections()] == ["TCP 10.0.0.9:35388 > 11.0.0.1:80 > 10.0.0.1:8080 ESTABLISHED 899"]
    assert list(table.statistics()) == [WEB.key, FOREIGN.key]
    assert list(table.statistics(WEB.key)) == [WEB.key]
    assert table.information().version == (1, 2, 1)
    table.set_timeouts(Timeouts(udp=5))
    assert table.timeouts() == Timeouts(900, 120, 5)
    assert table.export().splitlines() == [
        "-A -t 11.0.0.1:80 -s wlc",
        "-a -t 11.0.0.1:80 -r 10.0.0.1:8080 -m -w 1",
        "-A -t 12.0.0.1:80 -s wlc",
        "-a -t 12.0.0.1:80 -r 10.0.0.1:8080 -m -w 1",
    ]


def test_synchronisation_daemons_are_started_and_stopped(table: IPVSTable, fake: FakeKernel) -> None:
    table.start_sync_daemon(SyncDaemon(SyncRole.BACKUP, "eth0"))
    assert [daemon.role for daemon in table.sync_daemons()] == [SyncRole.BACKUP]
    table.stop_sync_daemon(SyncRole.BACKUP)
    start = fake.start_sync_daemon
    fake.start_sync_daemon = lambda daemon: start(SyncDaemon(daemon.role, daemon.interface))  # type: ignore[method-assign]
    with pytest.raises(Unsupported, match="this kernel started the daemon with port 8848 in place of 9000"):
        table.start_sync_daemon(SyncDaemon(SyncRole.MASTER, "eth0", port=9000))
    table.stop_sync_daemon(SyncRole.MASTER)
    fake.start_sync_daemon = start  # type: ignore[method-assign]
    table.start_sync_daemon(SyncDaemon(SyncRole.BACKUP, "eth0", payload_bytes=500))  # too small, so it becomes 1024


def test_closing_a_table_closes_its_backend(fake: FakeKernel) -> None:
    with IPVSTable(scope=ELEVEN, backend=fake) as table:
        table.snapshot()
    assert fake.closed
    with pytest.raises(ValueError, match="closed"):
        table.snapshot()


def test_a_second_thread_is_told_so(table: IPVSTable, fake: FakeKernel) -> None:
    told: list[BaseException] = []

    def other() -> None:
        try:
            table.snapshot()
        except TableBusy as error:
            told.append(error)

    def meanwhile() -> None:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()

    fake.before_execute.append(meanwhile)
    table.converge({WEB: [A]})
    assert "another thread is using this IPVSTable" in str(told[0])
    assert table.snapshot()


def test_an_unstable_table_is_an_error_and_the_table_usable_after_it(table: IPVSTable, fake: FakeKernel) -> None:
    fake.unstable_reads = 1
    with pytest.raises(SnapshotUnstable):
        table.converge({WEB: [A]})
    assert not table.converge({WEB: [A]}).errors


# Old kernels


GUE = Tunnel(TunnelType.GUE, 6080)
BEHIND = Destination("fd00::5", 80, 1, ForwardingMethod.TUNNEL)


@pytest.mark.parametrize(
    ("lacking", "row", "what"),
    [
        (Features.ADDRESS_FAMILY, BEHIND, "destinations of another address family than their service's"),
        (Features.TUNNEL, Destination("10.0.0.1", 80, 1, ForwardingMethod.TUNNEL, tunnel=GUE), "GUE and GRE tunnels"),
        (
            Features.TUNNEL_FLAGS,
            Destination("10.0.0.1", 80, 1, ForwardingMethod.TUNNEL, tunnel=Tunnel(TunnelType.GRE, 0, TunnelFlags.CHECKSUM)),
            "tunnel checksums",
        ),
    ],
)
def test_what_an_old_kernel_would_ignore_is_refused(fake: FakeKernel, lacking: Features, row: Destination, what: str) -> None:
    fake.features = Features.ALL & ~lacking
    table = IPVSTable(scope=ELEVEN, backend=fake)
    operations = fake.operations
    with pytest.raises(Unsupported, match=f"this kernel's IPVS has no {what}; a newer kernel has"):
        table.converge({WEB: [row]})
    assert fake.operations == operations
    plain = Destination("10.0.0.1", 80, 1, ForwardingMethod.TUNNEL)
    table.converge({WEB: [plain]})
    assert ours(fake) == Snapshot.of({WEB: [plain]})
