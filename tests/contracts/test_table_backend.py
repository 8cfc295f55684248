"""What every TableBackend does: services, destinations, their errors, and reading them."""

# ruff: noqa: S104 - 0.0.0.0 is a mask here, or refused
from __future__ import annotations

from errno import ECANCELED, EEXIST, EINVAL, ENOENT, ERANGE, ESRCH

import pytest
from hypothesis import given, settings

from pyminuteman.addresses import IPV6
from pyminuteman.ipvs import (
    WEIGHT_MAX,
    AddDestination,
    AddService,
    Destination,
    EditDestination,
    EditService,
    Features,
    Flush,
    ForwardingMethod,
    Persistence,
    Plan,
    RemoveDestination,
    RemoveService,
    Scope,
    Service,
    ServiceFlags,
    ServiceKey,
    Snapshot,
    Tunnel,
    TunnelFlags,
    TunnelType,
    Zero,
    diff,
)
from pyminuteman.ipvs.records import DESTINATION
from tests.contracts.conftest import Subject
from tests.support.strategies import SCHEDULERS, tables

WEB = Service.tcp("11.0.0.1", 80)
DNS = Service.udp("11.0.0.1", 53, scheduler="rr")
SIX = Service.tcp("fd00::1", 80, scheduler="rr")
A, B, C = (Destination(f"10.0.0.{n}", 8080) for n in (1, 2, 3))

SERVICES = {
    "tcp": WEB,
    "udp": DNS,
    "sctp": Service.sctp("11.0.0.1", 99),
    "ipv6": SIX,
    "highest port": Service.tcp("255.1.2.3", 65535),
    "mark": Service.fwmark(7),
    "ipv6 mark": Service.fwmark(7, family=IPV6),
    "highest mark": Service.fwmark(2**32 - 1),
    "one packet": Service.udp("11.0.0.1", 53, flags=ServiceFlags.ONE_PACKET),
    "all flags": Service.udp("11.0.0.1", 53, flags=ServiceFlags(4 | 8 | 16 | 32), persistence=Persistence(9)),
    "persistent": Service.tcp("11.0.0.1", 80, persistence=Persistence(360)),
    "every port": Service.tcp("11.0.0.1", 0, persistence=Persistence(2678400)),
    "netmask": Service.tcp("11.0.0.1", 80, persistence=Persistence(1, "255.255.255.0")),
    "no netmask bits": Service.tcp("11.0.0.1", 80, persistence=Persistence(1, "0.0.0.0")),
    "ipv6 prefix": Service.tcp("fd00::1", 443, persistence=Persistence(300, "64")),
    "ipv6 shortest prefix": Service.tcp("fd00::1", 443, persistence=Persistence(300, "1")),
    "engine": Service.udp("11.0.0.1", 5060, persistence=Persistence(60), persistence_engine="sip"),
    **{name: Service.tcp("11.0.0.1", 80, scheduler=name) for name in SCHEDULERS},
}


def tunnel(kind: TunnelType, port: int = 0, flags: TunnelFlags = TunnelFlags.NONE) -> Destination:
    return Destination("10.0.0.1", 80, 1, ForwardingMethod.TUNNEL, tunnel=Tunnel(kind, port, flags))


DESTINATIONS = {
    "masquerade": A,
    "route": Destination("10.0.0.1", 80, 1, ForwardingMethod.ROUTE),
    "local": Destination("10.0.0.1", 80, 1, ForwardingMethod.LOCAL),
    "bypass": Destination("10.0.0.1", 80, 1, ForwardingMethod.BYPASS),
    "no weight": Destination("10.0.0.1", 80, 0),
    "weight beyond 16 bits": Destination("10.0.0.1", 80, 65536),
    "highest weight": Destination("10.0.0.1", 80, WEIGHT_MAX),
    "port 0": Destination("10.0.0.1", 0),
    "loopback": Destination("127.0.0.1", 80),
    "upper threshold": Destination("10.0.0.1", 80, upper_threshold=100),
    "both thresholds": Destination("10.0.0.1", 80, upper_threshold=2**31 - 1, lower_threshold=2**31 - 2),
    "ipip": tunnel(TunnelType.IPIP),
    "gue": tunnel(TunnelType.GUE, 6080),
    "gue, checksum": tunnel(TunnelType.GUE, 65535, TunnelFlags.CHECKSUM),
    "gue, remote checksum": tunnel(TunnelType.GUE, 1, TunnelFlags.REMOTE_CHECKSUM),
    "gre": tunnel(TunnelType.GRE),
    "gre, checksum": tunnel(TunnelType.GRE, 0, TunnelFlags.CHECKSUM),
    "ipv6 behind ipv4": Destination("fd00::5", 80, 1, ForwardingMethod.TUNNEL),
}


def forged(base: Destination, place: int, value: object) -> Destination:
    """A destination that the model refuses to build: one field of the record is another."""
    parts = list(DESTINATION.unpack(base.packed))
    parts[place] = value
    return Destination.from_packed(DESTINATION.pack(*parts))


# Services


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
def test_service_is_read_back_with_every_setting(subject: Subject, service: Service) -> None:
    assert subject.do(AddService(service)) == {}
    assert subject.backend.read() == Snapshot.of({service: []})


def test_services_of_one_address_and_port_differ_by_protocol_and_family_of_mark(subject: Subject) -> None:
    table = [Service.tcp("11.0.0.1", 53), Service.udp("11.0.0.1", 53), Service.sctp("11.0.0.1", 53)]
    table += [Service.fwmark(1), Service.fwmark(1, family=IPV6)]
    assert subject.do(*map(AddService, table)) == {}
    assert list(subject.backend.read()) == table


def test_adding_a_service_that_exists_fails_and_leaves_it_as_it_was(subject: Subject) -> None:
    subject.do(AddService(WEB), AddDestination(WEB, A))
    assert subject.do(AddService(Service.tcp("11.0.0.1", 80, scheduler="rr"))) == {0: EEXIST}
    assert subject.backend.read() == Snapshot.of({WEB: [A]})


@pytest.mark.parametrize("after", [SERVICES["all flags"], SERVICES["engine"], DNS], ids=["flags", "engine", "plain"])
def test_editing_a_service_replaces_its_settings_and_keeps_its_destinations(subject: Subject, after: Service) -> None:
    before = Service(after.key, "wrr", ServiceFlags.SCHEDULER_1, Persistence(100, "255.0.0.0"), "sip")
    subject.do(AddService(before), AddDestination(before, A))
    assert subject.do(EditService(after)) == {}
    assert subject.backend.read() == Snapshot.of({after: [A]})


def test_an_unknown_service_can_neither_be_edited_removed_nor_zeroed(subject: Subject) -> None:
    assert subject.do(EditService(WEB), RemoveService(WEB), Zero(WEB)) == {0: ESRCH, 1: ESRCH, 2: ESRCH}


def test_a_removed_service_takes_its_destinations_along(subject: Subject) -> None:
    subject.do(AddService(WEB), AddDestination(WEB, A))
    assert subject.do(RemoveService(WEB)) == {}
    assert subject.backend.read() == {}
    subject.do(AddService(WEB))
    assert subject.backend.read() == Snapshot.of({WEB: []})


def test_an_unknown_scheduler_is_enoent_and_nothing_is_changed(subject: Subject) -> None:
    unknown = Service.tcp("11.0.0.1", 80, scheduler="nonesuch")
    assert subject.do(AddService(unknown), AddService(WEB), EditService(unknown)) == {0: ENOENT, 2: ENOENT}
    assert subject.backend.read() == Snapshot.of({WEB: []})


def test_an_unknown_persistence_engine_is_enoent(subject: Subject) -> None:
    unknown = Service(DNS.key, "rr", persistence=Persistence(), persistence_engine="nonesuch")
    assert subject.do(AddService(unknown), AddService(DNS), EditService(unknown)) == {0: ENOENT, 2: ENOENT}


@pytest.mark.parametrize("prefix", [0, 129])
def test_an_ipv6_netmask_of_no_or_too_many_bits_is_einval(subject: Subject, prefix: int) -> None:
    fine = SERVICES["ipv6 prefix"]
    wrong = Service.from_packed(fine.packed[:-4] + prefix.to_bytes(4, "big"))
    assert subject.do(AddService(wrong), AddService(fine), EditService(wrong)) == {0: EINVAL, 2: EINVAL}


def test_timeout_and_netmask_without_persistence_are_not_read(subject: Subject) -> None:
    odd = Service.from_packed(WEB.packed[:-8] + (77).to_bytes(4, "little") + b"\xff\0\0\0")
    assert subject.do(AddService(odd)) == {}
    assert subject.backend.read() == Snapshot.of({WEB: []})


# Destinations


@pytest.mark.parametrize("destination", DESTINATIONS.values(), ids=DESTINATIONS)
def test_destination_is_read_back_with_every_setting(subject: Subject, destination: Destination) -> None:
    assert subject.do(AddService(WEB), AddDestination(WEB, destination)) == {}
    assert subject.backend.read() == Snapshot.of({WEB: [destination]})


@pytest.mark.parametrize("destination", DESTINATIONS.values(), ids=DESTINATIONS)
def test_editing_a_destination_replaces_its_settings(subject: Subject, destination: Destination) -> None:
    before = forged(tunnel(TunnelType.GUE, 9, TunnelFlags.CHECKSUM), 0, destination.family)
    before = forged(forged(before, 1, destination.packed[2:18]), 2, destination.packed[18:20])
    subject.do(AddService(WEB), AddDestination(WEB, before))
    assert subject.do(EditDestination(WEB, destination)) == {}
    assert subject.backend.read() == Snapshot.of({WEB: [destination]})


def test_ipv4_behind_ipv6_goes_through_a_tunnel(subject: Subject) -> None:
    other = Destination("10.0.0.5", 80, 1, ForwardingMethod.TUNNEL)
    rows = [Destination("fd00::5", 80), other]
    assert subject.do(AddService(SIX), *(AddDestination(SIX, row) for row in rows)) == {}
    assert subject.backend.read() == Snapshot.of({SIX: rows})
    assert subject.do(RemoveDestination(SIX, other)) == {}


def test_destinations_of_one_address_differ_by_port(subject: Subject) -> None:
    rows = [Destination("10.0.0.1", port) for port in (0, 80, 8080)]
    subject.do(AddService(WEB), *(AddDestination(WEB, row) for row in rows))
    assert subject.do(RemoveDestination(WEB, rows[1])) == {}
    assert subject.backend.read() == Snapshot.of({WEB: [rows[0], rows[2]]})


def test_adding_a_destination_that_exists_fails_and_leaves_it_as_it_was(subject: Subject) -> None:
    subject.do(AddService(WEB), AddDestination(WEB, A))
    assert subject.do(AddDestination(WEB, Destination(A.address, A.port, 9))) == {0: EEXIST}
    assert subject.backend.read() == Snapshot.of({WEB: [A]})


def test_an_unknown_destination_is_enoent_and_one_of_an_unknown_service_esrch(subject: Subject) -> None:
    unknown = [EditDestination(WEB, A), RemoveDestination(WEB, A)]
    assert subject.do(*unknown, AddDestination(WEB, A)) == {0: ESRCH, 1: ESRCH, 2: ESRCH}
    subject.do(AddService(WEB))
    assert subject.do(*unknown) == {0: ENOENT, 1: ENOENT}


def test_thresholds_upside_down_and_a_negative_weight_are_erange(subject: Subject) -> None:
    subject.do(AddService(WEB), AddDestination(WEB, A))
    for wrong in (forged(A, 5, 1), forged(A, 3, 2**31), forged(A, 3, 2**32 - 1)):
        assert subject.do(EditDestination(WEB, wrong), AddDestination(WEB, wrong)) == {0: ERANGE, 1: ERANGE}
    assert subject.backend.read() == Snapshot.of({WEB: [A]})


def test_an_upper_threshold_of_32_bits_is_taken_or_einval(subject: Subject) -> None:
    """Linux 6.1.176 takes it; 6.1.192, which keeps the limit as a signed number, does not."""
    huge = Destination("10.0.0.1", 80, upper_threshold=2**32 - 1, lower_threshold=2**32 - 2)
    failed = subject.do(AddService(WEB), AddDestination(WEB, huge))
    assert failed in ({}, {1: EINVAL})
    assert subject.backend.read() == Snapshot.of({WEB: [] if failed else [huge]})


@pytest.mark.parametrize("address", ["0.0.0.0", "224.0.0.1", "239.255.255.255", "255.255.255.255"])
def test_an_address_that_is_not_unicast_is_einval(subject: Subject, address: str) -> None:
    packed = bytes(map(int, address.split(".")))
    subject.do(AddService(WEB))
    assert subject.do(AddDestination(WEB, forged(A, 1, packed))) == {0: EINVAL}


@pytest.mark.parametrize("head", ["00", "ff02", "fe80", "febf"])
def test_an_ipv6_address_that_is_not_unicast_is_einval(subject: Subject, head: str) -> None:
    packed = bytes.fromhex(head).ljust(15, b"\0") + (b"\0" if head == "00" else b"\1")
    subject.do(AddService(SIX))
    assert subject.do(AddDestination(SIX, forged(Destination("fd00::9", 80), 1, packed))) == {0: EINVAL}


def test_another_family_without_a_tunnel_is_einval(subject: Subject) -> None:
    subject.do(AddService(WEB), AddService(SIX))
    six = Destination("fd00::5", 80)
    routed = Destination("fd00::5", 80, 1, ForwardingMethod.ROUTE)
    assert subject.do(AddDestination(WEB, six), AddDestination(WEB, routed), AddDestination(SIX, A)) == dict.fromkeys(
        range(3), EINVAL
    )
    subject.do(AddDestination(WEB, DESTINATIONS["ipv6 behind ipv4"]))
    assert subject.do(EditDestination(WEB, six)) == {0: EINVAL}


def test_a_gue_tunnel_without_a_port_is_einval(subject: Subject) -> None:
    gue = tunnel(TunnelType.GUE, 6080)
    subject.do(AddService(WEB), AddDestination(WEB, gue))
    assert subject.do(EditDestination(WEB, forged(gue, 8, 0))) == {0: EINVAL}


# Batches


def test_an_error_does_not_stop_what_comes_behind_it(subject: Subject) -> None:
    plan = [AddDestination(WEB, A), AddService(WEB), AddService(WEB), AddDestination(WEB, B), EditDestination(WEB, A)]
    assert subject.do(*plan) == {0: ESRCH, 2: EEXIST, 4: ENOENT}
    assert subject.backend.read() == Snapshot.of({WEB: [B]})


def test_stopping_at_the_first_error_cancels_the_rest(subject: Subject) -> None:
    plan = [AddService(WEB), AddService(WEB), AddDestination(WEB, A), RemoveService(WEB)]
    assert subject.do(*plan, stop_on_error=True) == {1: EEXIST, 2: ECANCELED, 3: ECANCELED}
    assert subject.backend.read() == Snapshot.of({WEB: []})
    assert subject.do(AddDestination(WEB, A), stop_on_error=True) == {}


def test_an_empty_plan_does_nothing(subject: Subject) -> None:
    assert subject.backend.execute(Plan()) == {}


def test_each_error_of_a_long_plan_stands_at_its_place(subject: Subject) -> None:
    rows = [Destination(f"10.1.{n // 250}.{n % 250 + 1}", 80) for n in range(2000)]
    plan = [AddService(WEB), *(AddDestination(WEB, row) for row in rows)]
    wrong = dict.fromkeys(range(7, 2000, 333), ENOENT)
    for place in wrong:
        plan[place] = RemoveDestination(WEB, Destination("10.200.0.1", place))
    assert subject.do(*plan) == wrong
    assert subject.backend.read().destination_count == 2000 - len(wrong)
    assert subject.do(*plan[1:]) == {at - 1: ENOENT if at in wrong else EEXIST for at in range(1, 2001)}


# Reading


def test_an_empty_table_is_empty(subject: Subject) -> None:
    snapshot = subject.backend.read()
    assert (len(snapshot), snapshot.destination_count, snapshot) == (0, 0, {})


def test_destinations_come_sorted_whatever_the_order_of_adding(subject: Subject) -> None:
    rows = [Destination(f"10.0.0.{n}", port) for n in (9, 1, 5, 7, 3) for port in (80, 8080)]
    subject.do(AddService(WEB), *(AddDestination(WEB, row) for row in rows))
    assert subject.backend.read()[WEB] == tuple(sorted(rows))


def test_the_kernels_own_order_has_the_newest_destination_first(subject: Subject) -> None:
    rows = [B, C, A]
    subject.do(AddService(WEB), *(AddDestination(WEB, row) for row in rows))
    subject.do(EditDestination(WEB, Destination(B.address, B.port, 5)))
    assert [row.address for row in subject.backend.read(kernel_order=True)[WEB]] == [A.address, C.address, B.address]


def test_entries_that_did_not_change_are_the_same_objects(subject: Subject) -> None:
    subject.do(AddService(WEB), AddDestination(WEB, A), AddService(DNS), AddDestination(DNS, B), AddService(SIX))
    before = subject.backend.read()
    subject.do(EditDestination(DNS, Destination(B.address, B.port, 5)), EditService(Service(SIX.key, "wrr")))
    after = subject.backend.read(before)
    kept = {key for key, entry in after.entries.items() if entry is before.entries[key]}
    assert kept == {WEB.key.packed}
    assert after[DNS] == (Destination(B.address, B.port, 5),)


def test_a_modern_kernel_has_every_feature(subject: Subject) -> None:
    assert subject.backend.read().features == Features.ALL
    subject.do(AddService(WEB), AddDestination(WEB, A))
    assert subject.backend.read().features == Features.ALL


def test_flush_removes_everything(subject: Subject) -> None:
    subject.do(AddService(WEB), AddDestination(WEB, A), AddService(SIX), AddService(SERVICES["mark"]))
    assert subject.do(Flush()) == {}
    assert subject.backend.read() == {}


# The difference


@given(before=tables(), after=tables())
def test_the_difference_is_that_of_the_readable_diff(double: Subject, before: dict, after: dict) -> None:
    current, wanted = Snapshot.of(before), Snapshot.of(after)
    assert double.backend.diff(current, wanted) == diff(current, wanted, scope=Scope.everything())


@given(table=tables())
def test_equal_tables_have_no_difference(double: Subject, table: dict) -> None:
    assert not double.backend.diff(Snapshot.of(table), Snapshot.of(dict(reversed(table.items()))))


@settings(max_examples=50)
@given(table=tables())
def test_carrying_out_the_difference_makes_the_table(subject: Subject, table: dict) -> None:
    """Each example goes on from the last one's table."""
    wanted = Snapshot.of(table)
    plan = subject.backend.diff(subject.backend.read(), wanted)
    assert subject.backend.execute(plan) == {}
    now = subject.backend.read()
    assert now == wanted
    assert not subject.backend.diff(now, wanted)


def test_a_key_outside_the_model_is_no_obstacle() -> None:
    odd = ServiceKey.from_packed(bytes([0, 2, 47, 0]) + bytes(20))
    assert (odd.protocol, odd.address, str(odd)) == (47, "0.0.0.0", "protocol 47 0.0.0.0:0")
