"""Writing ipvsadm's text; that it equals ipvsadm's own is tests/kernel's to show."""

from __future__ import annotations

import pytest
from hypothesis import given

from pyminuteman.addresses import IPV6
from pyminuteman.ipvs import (
    Destination,
    ForwardingMethod,
    Persistence,
    Service,
    ServiceFlags,
    ServiceKey,
    Snapshot,
    Tunnel,
    TunnelFlags,
    TunnelType,
    format_table,
    parse_table,
)
from pyminuteman.ipvs.ipvsadm import format_destination, format_key, format_service
from pyminuteman.ipvs.records import DESTINATION, SERVICE_SIZE
from tests.support.strategies import tables

WEB = Service.tcp("10.0.0.1", 80)
TUNNEL = ForwardingMethod.TUNNEL


@pytest.mark.parametrize(
    ("service", "line"),
    [
        (WEB, "-A -t 10.0.0.1:80 -s wlc"),
        (Service.tcp("10.0.0.1", 80, scheduler="mh", flags=ServiceFlags(24)), "-A -t 10.0.0.1:80 -s mh -b mh-fallback,mh-port"),
        (Service.tcp("10.0.0.1", 80, scheduler="sh", flags=ServiceFlags(8)), "-A -t 10.0.0.1:80 -s sh -b sh-fallback"),
        (Service.tcp("10.0.0.1", 80, scheduler="sh", flags=ServiceFlags(32)), "-A -t 10.0.0.1:80 -s sh -b "),
        (
            Service.tcp("10.0.0.1", 80, scheduler="rr", flags=ServiceFlags(56)),
            "-A -t 10.0.0.1:80 -s rr -b flag-1,flag-2,flag-3",
        ),
        (Service.udp("10.0.0.1", 53, flags=ServiceFlags.ONE_PACKET), "-A -u 10.0.0.1:53 -s wlc -o"),
        (
            Service.udp("10.0.0.1", 5060, persistence=Persistence(60), persistence_engine="sip"),
            "-A -u 10.0.0.1:5060 -s wlc -p 60 --pe sip",
        ),
        (Service.sctp("10.0.0.1", 99, scheduler="rr"), "-A --sctp-service 10.0.0.1:99 -s rr"),
        (Service.tcp("fd00::1", 443, persistence=Persistence(300, "64")), "-A -t [fd00::1]:443 -s wlc -p 300 -M 64"),
        (Service.tcp("10.0.0.1", 0, persistence=Persistence(360, "24")), "-A -t 10.0.0.1:0 -s wlc -p 360 -M 255.255.255.0"),
        (Service.fwmark(8, family=IPV6, scheduler="rr"), "-A -f 8 -6 -s rr"),
        (Service.fwmark(2**32 - 1), "-A -f -1 -s wlc"),
    ],
)
def test_a_service_is_one_line(service: Service, line: str) -> None:
    assert format_service(service) == line


@pytest.mark.parametrize(
    ("destination", "rest"),
    [
        (Destination("10.1.0.1", 8080, 3), "10.1.0.1:8080 -m -w 3"),
        (Destination("fd00::5", 80, 0, ForwardingMethod.ROUTE), "[fd00::5]:80 -g -w 0"),
        (Destination("10.1.0.1", 80, 1, ForwardingMethod.LOCAL), "10.1.0.1:80 -g -w 1"),
        (Destination("10.1.0.1", 80, 1, TUNNEL), "10.1.0.1:80 -i -w 1 --tun-type ipip"),
        (
            Destination("10.1.0.1", 80, 1, TUNNEL, tunnel=Tunnel(TunnelType.GUE, 6080, TunnelFlags.CHECKSUM)),
            "10.1.0.1:80 -i -w 1 --tun-type gue --tun-port 6080 --tun-csum",
        ),
        (
            Destination("10.1.0.1", 80, 1, TUNNEL, tunnel=Tunnel(TunnelType.GUE, 1, TunnelFlags.REMOTE_CHECKSUM)),
            "10.1.0.1:80 -i -w 1 --tun-type gue --tun-port 1 --tun-remcsum",
        ),
        (
            Destination("10.1.0.1", 80, 1, TUNNEL, tunnel=Tunnel(TunnelType.GRE)),
            "10.1.0.1:80 -i -w 1 --tun-type gre --tun-nocsum",
        ),
        (Destination("10.1.0.1", 80, 1, upper_threshold=9, lower_threshold=5), "10.1.0.1:80 -m -w 1 -x 9 -y 5"),
    ],
)
def test_a_destination_is_one_line(destination: Destination, rest: str) -> None:
    assert format_destination(WEB.key, destination, thresholds=True) == f"-a -t 10.0.0.1:80 -r {rest}"


def test_a_mark_of_ipv6_says_so_in_every_line() -> None:
    table = {Service.fwmark(8, family=IPV6): [Destination("fd00::5", 80)]}
    assert format_table(table) == "-A -f 8 -6 -s wlc\n-a -f 8 -6 -r [fd00::5]:80 -m -w 1\n"


def test_thresholds_are_left_out_unless_asked_for() -> None:
    table = {WEB: [Destination("10.1.0.1", 80, upper_threshold=9)]}
    assert format_table(table) == "-A -t 10.0.0.1:80 -s wlc\n-a -t 10.0.0.1:80 -r 10.1.0.1:80 -m -w 1\n"
    assert format_table(table, thresholds=True).endswith(" -w 1 -x 9 -y 0\n")


def test_what_others_left_in_the_kernel_is_written_all_the_same() -> None:
    odd = ServiceKey.from_packed(bytes([0, 2, 47, 0, 1, 2, 3, 4]) + bytes(16))
    assert format_key(odd) == "--protocol-47 1.2.3.4:0"
    row = Destination.from_packed(DESTINATION.pack(2, bytes([10, 0, 0, 1]), b"\0\x50", 1, 0, 0, TUNNEL, 9, 0, 3))
    assert format_destination(WEB.key, row) == "-a -t 10.0.0.1:80 -r 10.0.0.1:80 -i -w 1 --tun-type 9 --tun-nocsum"
    assert format_service(Service.from_packed(odd.packed + bytes(SERVICE_SIZE - 24))) == "-A --protocol-47 1.2.3.4:0 -s "


def test_rows_are_sorted_by_wrapped_differences() -> None:
    """192.168.0.1 is less than 10.0.0.1, for their difference does not fit a signed number."""
    rows = [Destination(address, 80) for address in ("10.0.0.1", "192.168.0.1", "10.0.0.2")]
    table = format_table(Snapshot.of({WEB: rows, Service.tcp("192.168.0.1", 1): [], Service.tcp("10.0.0.1", 70): []}))
    assert [line.split()[-4] if "-r" in line else line.split()[2] for line in table.splitlines()] == [
        "192.168.0.1:1",
        "10.0.0.1:70",
        "10.0.0.1:80",
        "192.168.0.1:80",
        "10.0.0.1:80",
        "10.0.0.2:80",
    ]


def test_services_stand_by_family_and_protocol_and_marks_last() -> None:
    table = [Service.fwmark(7), Service.tcp("fd00::2", 1), Service.tcp("fd00::1", 1), Service.sctp("9.0.0.1", 1)]
    table += [Service.udp("9.0.0.1", 1), Service.tcp("9.0.0.1", 1)]
    marks = [key.split(" -s")[0] for key in format_table(dict.fromkeys(table, ())).splitlines()]
    assert marks == [
        "-A -t 9.0.0.1:1",
        "-A -u 9.0.0.1:1",
        "-A --sctp-service 9.0.0.1:1",
        "-A -t [fd00::1]:1",
        "-A -t [fd00::2]:1",
        "-A -f 7",
    ]


@given(tables())
def test_what_was_written_is_read_again(table: dict) -> None:
    """But for what the text cannot say: forwarding to another port without NAT."""
    said = {
        service: [
            row
            for row in rows
            if (row.forward == ForwardingMethod.MASQUERADE and row.port)
            or (row.port == service.key.port and not service.key.mark)
        ]
        for service, rows in table.items()
        if not (service.flags & ServiceFlags.SCHEDULER_3 and service.scheduler in {"sh", "mh"})
    }
    assert Snapshot.of(parse_table(format_table(said, thresholds=True))) == Snapshot.of(said)
