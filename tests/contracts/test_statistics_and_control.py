"""What every TableBackend does besides the table: counters, timeouts, synchronisation daemons; and what old kernels lack."""

from __future__ import annotations

import time
from errno import EEXIST, EINVAL, ENODEV, EPERM, ESRCH

import pytest

from pyminuteman.addresses import IPV6
from pyminuteman.ipvs import (
    AddDestination,
    AddService,
    Connections,
    Counters,
    Destination,
    DestinationStatistics,
    EditDestination,
    Features,
    ForwardingMethod,
    KernelError,
    NoSuchService,
    NotPermitted,
    Plan,
    Rates,
    RemoveDestination,
    Service,
    ServiceStatistics,
    Snapshot,
    SyncDaemon,
    SyncRole,
    Timeouts,
    Tunnel,
    TunnelFlags,
    TunnelType,
    Zero,
)
from tests.contracts.conftest import KERNEL, Subject

WEB, DNS = Service.tcp("11.0.0.1", 80), Service.udp("11.0.0.1", 53)
SIX, MARK = Service.tcp("fd00::1", 80), Service.fwmark(9, family=IPV6)
A, B = Destination("10.0.0.1", 8080), Destination("10.0.0.2", 8080)
NOTHING = DestinationStatistics(Counters(), Rates(), Connections())
MASTER = SyncDaemon(SyncRole.MASTER, "eth0", 7, 1000, "224.0.0.99", 9000, 3)
BACKUP = SyncDaemon(SyncRole.BACKUP, "eth0", 255, 1200, "239.1.2.3", 65535, 255)


def numbers(start: int) -> DestinationStatistics:
    """Every field another number."""
    return DestinationStatistics(
        Counters(*range(start, start + 5)),
        Rates(*range(start + 5, start + 10)),
        Connections(start + 10, start + 11, start + 12),
    )


# Statistics


def test_new_rows_have_counted_nothing(subject: Subject) -> None:
    subject.do(AddService(WEB), AddDestination(WEB, B), AddDestination(WEB, A), AddService(DNS))
    statistics = subject.backend.statistics()
    assert statistics == {
        WEB.key: ServiceStatistics(WEB, Counters(), Rates(), {A: NOTHING, B: NOTHING}),
        DNS.key: ServiceStatistics(DNS, Counters(), Rates(), {}),
    }


def test_statistics_come_in_the_order_of_listing(subject: Subject) -> None:
    subject.do(*map(AddService, [MARK, SIX, DNS, WEB]), *(AddDestination(WEB, row) for row in (B, A)))
    statistics = subject.backend.statistics()
    assert list(statistics) == [WEB.key, DNS.key, SIX.key, MARK.key]
    assert list(statistics[WEB.key].destinations) == [A, B]


@pytest.mark.parametrize("service", [WEB, SIX, MARK], ids=["ipv4", "ipv6", "mark"])
def test_statistics_of_one_service_leave_the_others_out(subject: Subject, service: Service) -> None:
    subject.do(*map(AddService, [WEB, SIX, MARK]))
    assert list(subject.backend.statistics(service.key)) == [service.key]


def test_statistics_of_an_unknown_service_are_an_error(subject: Subject) -> None:
    with pytest.raises(NoSuchService) as caught:
        subject.backend.statistics(WEB.key)
    assert (caught.value.errno, str(WEB.key) in str(caught.value)) == (ESRCH, True)


def test_every_counter_has_its_place(double: Subject) -> None:
    """Beyond 32 bits where the kernel counts so far; what the kernel's own traffic shows is in tests/kernel."""
    double.do(AddService(WEB), AddDestination(WEB, A), AddDestination(WEB, B))
    own, first, second = numbers(2**40), numbers(100), numbers(200)
    own = DestinationStatistics(own.counters, own.rates, Connections())
    double.doubles_only().count(WEB.key, own)
    double.doubles_only().count(WEB.key, first, A)
    double.doubles_only().count(WEB.key, second, B)
    assert double.backend.statistics() == {WEB.key: ServiceStatistics(WEB, own.counters, own.rates, {A: first, B: second})}


def test_zeroing_one_service_spares_the_others_and_what_is_connected_now(double: Subject) -> None:
    double.do(AddService(WEB), AddDestination(WEB, A), AddService(DNS), AddDestination(DNS, A))
    fake = double.doubles_only()
    for service in (WEB, DNS):
        fake.count(service.key, numbers(10))
        fake.count(service.key, numbers(100), A)
    assert double.do(Zero(WEB)) == {}
    statistics = double.backend.statistics()
    assert statistics[WEB.key].counters == Counters()
    assert statistics[WEB.key].destinations[A] == DestinationStatistics(Counters(), Rates(), Connections(110, 111, 112))
    assert statistics[DNS.key].counters == numbers(10).counters
    assert double.do(Zero(None)) == {}
    assert double.backend.statistics()[DNS.key].counters == Counters()


def test_zeroing_an_empty_table_is_no_error(subject: Subject) -> None:
    assert subject.do(Zero(None)) == {}


def test_a_row_that_is_added_again_counts_from_zero(double: Subject) -> None:
    double.do(AddService(WEB), AddDestination(WEB, A), AddDestination(WEB, B))
    double.doubles_only().connect(WEB.key, A, 5)
    double.doubles_only().connect(WEB.key, B, 6, 7)
    double.do(RemoveDestination(WEB, A), AddDestination(WEB, A))
    found = double.backend.statistics()[WEB.key].destinations
    assert [found[A].connections, found[B].connections] == [Connections(), Connections(6, 7)]


# Settings


def test_version_and_size_are_told(subject: Subject) -> None:
    information = subject.backend.information()
    assert information.version >= (1, 2, 1)
    assert information.connection_table_size >= 256


def test_timeouts_are_the_kernels_defaults_until_set(subject: Subject) -> None:
    assert subject.backend.timeouts() == Timeouts(900, 120, 300)
    subject.backend.set_timeouts(Timeouts(1800, 60, 10))
    assert subject.backend.timeouts() == Timeouts(1800, 60, 10)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (Timeouts(tcp=1), Timeouts(1, 120, 300)),
        (Timeouts(tcp_fin=2147483), Timeouts(900, 2147483, 300)),
        (Timeouts(udp=5), Timeouts(900, 120, 5)),
        (Timeouts(), Timeouts(900, 120, 300)),
    ],
)
def test_a_timeout_of_0_leaves_it_as_it_is(subject: Subject, change: Timeouts, expected: Timeouts) -> None:
    subject.backend.set_timeouts(change)
    assert subject.backend.timeouts() == expected


# Synchronisation daemons


def start(subject: Subject, daemon: SyncDaemon) -> None:
    """Start one, and let its thread run: a kernel that is told to stop one that has not run yet does so and answers nothing.

    (kthread_stop gives EINTR then, which netlink_rcv_skb takes for a reason not to acknowledge.)
    """
    subject.backend.start_sync_daemon(daemon)
    if subject.kind == "kernel":
        time.sleep(0.02)


def test_no_synchronisation_daemon_runs_by_itself(subject: Subject) -> None:
    assert subject.backend.sync_daemons() == ()


@pytest.mark.usefixtures("interface")
def test_a_master_and_a_backup_are_listed_with_every_setting_and_stopped(subject: Subject) -> None:
    start(subject, BACKUP)
    start(subject, MASTER)
    assert subject.backend.sync_daemons() == (MASTER, BACKUP)
    subject.backend.stop_sync_daemon(SyncRole.MASTER)
    assert subject.backend.sync_daemons() == (BACKUP,)
    subject.backend.stop_sync_daemon(SyncRole.BACKUP)
    assert subject.backend.sync_daemons() == ()


def test_what_is_left_at_0_takes_the_kernels_defaults(subject: Subject, interface: str) -> None:
    start(subject, SyncDaemon(SyncRole.MASTER, interface))
    (daemon,) = subject.backend.sync_daemons()
    assert daemon == SyncDaemon(SyncRole.MASTER, interface, 0, 1472, "224.0.0.81", 8848, 1)
    subject.backend.stop_sync_daemon(SyncRole.MASTER)


@pytest.mark.parametrize(
    ("role", "group", "payload"),
    [
        (SyncRole.MASTER, "224.0.0.81", (1, 1)),
        (SyncRole.BACKUP, "224.0.0.81", (1, 1024)),
        (SyncRole.MASTER, "224.0.0.81", (65535, 65535 - 28)),
        (SyncRole.BACKUP, "ff02::81", (65535, 65535 - 48)),
        (SyncRole.BACKUP, "ff02::81", (0, 1500 - 48)),
    ],
)
def test_the_payload_is_kept_within_what_a_datagram_holds(
    subject: Subject, interface: str, role: SyncRole, group: str, payload: tuple[int, int]
) -> None:
    asked, given = payload
    start(subject, SyncDaemon(role, interface, payload_bytes=asked, group=group))
    assert [one.payload_bytes for one in subject.backend.sync_daemons()] == [given]
    subject.backend.stop_sync_daemon(role)


def test_a_daemon_may_use_an_ipv6_group(subject: Subject, interface: str) -> None:
    six = SyncDaemon(SyncRole.BACKUP, interface, 1, 1100, "ff02::81", 8848, 1)
    start(subject, six)
    assert subject.backend.sync_daemons() == (six,)
    subject.backend.stop_sync_daemon(SyncRole.BACKUP)


@pytest.mark.usefixtures("interface")
def test_one_daemon_of_each_role_and_no_more(subject: Subject) -> None:
    start(subject, MASTER)
    with pytest.raises(KernelError, match=r"start the master .* one of this role runs already") as caught:
        subject.backend.start_sync_daemon(MASTER)
    assert (type(caught.value), caught.value.errno) == (KernelError, EEXIST)
    subject.backend.stop_sync_daemon(SyncRole.MASTER)


def test_stopping_a_daemon_that_does_not_run_is_esrch(subject: Subject) -> None:
    with pytest.raises(KernelError, match=r"stop the backup .* none of this role runs") as caught:
        subject.backend.stop_sync_daemon(SyncRole.BACKUP)
    assert (type(caught.value), caught.value.errno) == (KernelError, ESRCH)


def test_a_daemon_needs_an_interface_that_is_there_and_a_multicast_group(subject: Subject, interface: str) -> None:
    for daemon, errno in [
        (SyncDaemon(SyncRole.MASTER, "nonesuch0"), ENODEV),
        (SyncDaemon(SyncRole.MASTER, interface, group="10.0.0.1"), EINVAL),
        (SyncDaemon(SyncRole.MASTER, interface, group="fd00::1"), EINVAL),
    ]:
        with pytest.raises(KernelError) as caught:
            subject.backend.start_sync_daemon(daemon)
        assert caught.value.errno == errno
    assert subject.backend.sync_daemons() == ()


@pytest.mark.usefixtures("interface")
def test_daemons_and_mixed_families_exclude_each_other(subject: Subject) -> None:
    mixed = Destination("fd00::5", 80, 1, ForwardingMethod.TUNNEL)
    subject.do(AddService(WEB), AddDestination(WEB, mixed))
    with pytest.raises(KernelError) as caught:
        subject.backend.start_sync_daemon(MASTER)
    assert caught.value.errno == EINVAL
    subject.do(RemoveDestination(WEB, mixed))
    start(subject, MASTER)
    assert subject.do(AddDestination(WEB, mixed)) == {0: EINVAL}
    subject.backend.stop_sync_daemon(SyncRole.MASTER)


# Rights, and the end


def test_without_the_right_everything_is_eperm(double: Subject) -> None:
    double.do(AddService(WEB))
    double.doubles_only().denied = True
    backend = double.backend
    assert double.do(AddDestination(WEB, A), Zero(None)) == {0: EPERM, 1: EPERM}
    for call in (
        backend.read,
        backend.statistics,
        backend.information,
        backend.timeouts,
        backend.sync_daemons,
        lambda: backend.set_timeouts(Timeouts(1)),
        lambda: backend.start_sync_daemon(MASTER),
        lambda: backend.stop_sync_daemon(SyncRole.MASTER),
    ):
        with pytest.raises(NotPermitted, match="CAP_NET_ADMIN") as caught:
            call()
        assert caught.value.errno == EPERM


@pytest.mark.parametrize("subject", ["fake", KERNEL], indirect=True)  # they are a file, so no puppet can answer
def test_the_connections_begin_with_their_heading(subject: Subject) -> None:
    lines = list(subject.backend.connection_lines())
    assert [line.split()[:2] for line in lines] == [["Pro", "FromIP"]]


def test_a_closed_table_refuses_further_calls(subject: Subject) -> None:
    subject.backend.close()
    subject.backend.close()
    for call in (
        subject.backend.read,
        subject.backend.statistics,
        subject.backend.timeouts,
        lambda: list(subject.backend.connection_lines()),
        lambda: subject.do(AddService(WEB)),
    ):
        with pytest.raises(ValueError, match="closed"):
            call()


# Kernels of old


GRE = Destination("10.0.0.1", 80, 1, ForwardingMethod.TUNNEL, tunnel=Tunnel(TunnelType.GRE, 0, TunnelFlags.CHECKSUM))


@pytest.mark.parametrize(
    ("lacking", "read_back"),
    [
        (Features.TUNNEL_FLAGS, Tunnel(TunnelType.GRE)),
        (Features.TUNNEL | Features.TUNNEL_FLAGS, Tunnel()),
        (Features.STATS64, GRE.tunnel),
    ],
)
def test_what_an_old_kernel_does_not_know_it_ignores(double: Subject, lacking: Features, read_back: Tunnel) -> None:
    double.doubles_only().features = Features.ALL & ~lacking
    assert double.backend.read().features == Features.ALL  # an empty table shows nothing
    assert double.do(AddService(WEB), AddDestination(WEB, GRE), EditDestination(WEB, GRE)) == {}
    snapshot = double.backend.read()
    assert snapshot.features == Features.ALL & ~lacking
    assert snapshot[WEB][0].tunnel == read_back


def test_an_old_kernel_takes_every_destination_for_its_services_family(double: Subject) -> None:
    double.doubles_only().features = Features.STATS64
    assert (
        double.do(AddService(WEB), AddDestination(WEB, A), AddService(SIX), AddDestination(SIX, Destination("fd00::5", 80)))
        == {}
    )
    assert double.backend.read() == Snapshot.of({WEB: [A], SIX: [Destination("fd00::5", 80)]})
    other = Destination("fd00::5", 80, 1, ForwardingMethod.TUNNEL)
    assert double.do(AddDestination(WEB, other)) == {}
    assert [row.address for row in double.backend.read()[WEB]] == ["10.0.0.1", "253.0.0.0"]


def test_32_bit_counters_serve_where_there_are_no_others(double: Subject) -> None:
    double.doubles_only().features = Features.NONE
    double.do(AddService(WEB), AddDestination(WEB, A))
    double.doubles_only().count(WEB.key, numbers(100), A)
    assert double.backend.statistics()[WEB.key].destinations == {A: numbers(100)}


def test_a_plan_of_nothing_needs_no_right(double: Subject) -> None:
    double.doubles_only().denied = True
    assert double.backend.execute(Plan()) == {}
