"""What we write is what ipvsadm writes, byte for byte, and each reads the other's."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from pyminuteman.addresses import IPV6
from pyminuteman.ipvs import (
    Destination,
    ForwardingMethod,
    IPVSTable,
    Persistence,
    Scope,
    Service,
    ServiceFlags,
    Snapshot,
    Tunnel,
    TunnelFlags,
    TunnelType,
    parse_table,
)
from pyminuteman.testing.network_namespace import fresh_network_namespace
from tests.support.kernel import ipvsadm
from tests.support.strategies import ADDRESSES_V4, SCHEDULERS, tables

pytestmark = pytest.mark.kernel

MASQUERADE, ROUTE, TUNNEL = ForwardingMethod.MASQUERADE, ForwardingMethod.ROUTE, ForwardingMethod.TUNNEL
CHECKSUMS = (TunnelFlags.NONE, TunnelFlags.CHECKSUM, TunnelFlags.REMOTE_CHECKSUM)
TUNNELS = [Tunnel(), *(Tunnel(TunnelType.GUE, 6080, flags) for flags in CHECKSUMS)]
TUNNELS += [Tunnel(TunnelType.GRE, 0, flags) for flags in CHECKSUMS[:2]]


def everything_ipvsadm_has() -> dict[Service, list[Destination]]:
    """One table with each setting in it."""
    table: dict[Service, list[Destination]] = {}
    for at, scheduler in enumerate(SCHEDULERS):
        table[Service.tcp("10.0.0.1", 100 + at, scheduler=scheduler)] = []
    for at, address in enumerate(ADDRESSES_V4):
        table[Service.udp(address, 53, scheduler="rr")] = [Destination(each, 53, at) for each in ADDRESSES_V4]
    for bits in (8, 16, 24, 32, 40, 56):
        for at, scheduler in enumerate(("sh", "mh", "rr")):
            table[Service.tcp("10.0.0.2", bits * 10 + at, scheduler=scheduler, flags=ServiceFlags(bits))] = []
    table[Service.tcp("10.0.0.3", 0, persistence=Persistence(360))] = [Destination("10.1.0.1", 0, 65535, ROUTE)]
    table[Service.tcp("10.0.0.3", 1, persistence=Persistence(1, "255.255.255.0"))] = [Destination("10.1.0.1", 2)]
    table[Service.udp("10.0.0.3", 5060, persistence=Persistence(60), persistence_engine="sip")] = []
    table[Service.udp("10.0.0.3", 1, flags=ServiceFlags.ONE_PACKET | ServiceFlags.SCHEDULER_1, scheduler="sh")] = []
    table[Service.sctp("10.0.0.3", 99)] = [Destination("10.1.0.1", 99, upper_threshold=100, lower_threshold=50)]
    rows = [Destination(f"10.1.0.{n}", 80, n, TUNNEL, tunnel=tunnel) for n, tunnel in enumerate(TUNNELS, 1)]
    table[Service.tcp("10.0.0.4", 80)] = [*rows, Destination("fd00::5", 80, 1, TUNNEL), Destination("10.1.0.9", 80, 0, ROUTE)]
    table[Service.tcp("fd00::1", 443, persistence=Persistence(300, "64"))] = [
        Destination("fd00::5", 8443),
        Destination("10.1.0.1", 443, 1, TUNNEL, tunnel=TUNNELS[2]),
        Destination("2001:db8::1", 443, 1, ROUTE),
    ]
    table[Service.udp("1::", 53)] = []
    for mark in (1, 2, 2**31 - 1, 2**31, 2**32 - 1):
        table[Service.fwmark(mark, scheduler="rr")] = [Destination("10.1.0.1", 0, 1, ROUTE), Destination("10.1.0.1", 80)]
        table[Service.fwmark(mark, family=IPV6, persistence=Persistence(9, "1"))] = [Destination("fd00::5", 0, 1, ROUTE)]
    return table


def sayable(table: dict) -> dict:
    """What ipvsadm can be told: other ports only with NAT, weights of 16 bits, no third flag for sh and mh, marks of 31 bits.

    (It writes larger marks as negative numbers, and then refuses to read them.)
    """
    return {
        service: [
            row
            for row in rows
            if row.weight <= 65535
            and max(row.upper_threshold, row.lower_threshold) < 2**31
            and (row.forward == MASQUERADE or service.key.mark or row.port == service.key.port)
        ]
        for service, rows in table.items()
        if not (service.flags & ServiceFlags.SCHEDULER_3 and service.scheduler in {"sh", "mh"}) and service.key.mark < 2**31
    }


def table_with(desired: dict) -> IPVSTable:
    table = IPVSTable(scope=Scope.everything())
    table.converge(desired)
    return table


def test_a_table_with_every_feature_is_written_as_ipvsadm_writes_it() -> None:
    with table_with(everything_ipvsadm_has()) as table:
        text = table.export()
        assert text.splitlines() == ipvsadm("-Sn").splitlines()
        assert text == ipvsadm("-Sn")


@settings(max_examples=40)
@given(desired=tables(max_services=8, max_destinations=8))
def test_any_table_is_written_as_ipvsadm_writes_it(desired: dict) -> None:
    fresh_network_namespace()
    with table_with(desired) as table:
        assert table.export() == ipvsadm("-Sn")


@settings(max_examples=25)
@given(desired=tables())
def test_ipvsadm_makes_the_same_table_of_what_we_wrote_and_so_do_we(desired: dict) -> None:
    check_both_ways(sayable(desired))


def test_ipvsadm_makes_the_same_table_of_every_feature() -> None:
    check_both_ways(sayable(everything_ipvsadm_has()))


def check_both_ways(desired: dict) -> None:
    fresh_network_namespace()
    with table_with(desired) as table:
        text = table.export(thresholds=True)
        assert Snapshot.of(parse_table(text)) == Snapshot.of(desired)
    fresh_network_namespace()
    ipvsadm("-R", stdin=text)
    with IPVSTable(scope=Scope.everything()) as table:
        assert table.snapshot() == Snapshot.of(desired)
        assert not table.plan(desired)


def test_the_lines_of_a_plan_are_what_ipvsadm_would_be_told() -> None:
    desired = sayable(everything_ipvsadm_has())
    with IPVSTable(scope=Scope.everything()) as table:
        there = str(table.plan(desired))
        ipvsadm("-R", stdin=there)
        assert table.snapshot() == Snapshot.of(desired)
        back = str(table.plan({}))
        ipvsadm("-R", stdin=back)
        assert table.snapshot() == {}
