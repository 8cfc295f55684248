"""Connections that have ended, but are still in the kernel's list, do not hold a drain back."""

from __future__ import annotations

import pytest

from pyminuteman.ipvs import Destination, DrainPolicy, IPVSTable, Scope, Service
from pyminuteman.ipvs.connections import parse_connections
from pyminuteman.testing.fake_kernel import FakeKernel

WEB = Service.tcp("11.0.0.1", 80)
STAYS, LEAVES = Destination("10.0.0.5", 8080), Destination("10.0.0.6", 8080)


def line(state: str, *, client_port: str = "1267", virtual: str = "0B000001", destination: str = "0A000006") -> str:
    return f"TCP 0A000009 {client_port} {virtual} 0050 {destination} 1F90 {state}     100"


def draining_table(lines: list[str], active: int, inactive: int, service: Service = WEB) -> int:
    """How much is still draining at the second look."""
    kernel = FakeKernel()
    table = IPVSTable(scope=Scope.everything(), backend=kernel, drain=DrainPolicy(60), clock=lambda: 0.0)
    table.converge({service: (STAYS, LEAVES)})
    assert len(table.converge({service: (STAYS,)}).draining) == 1
    leaving = next(row for row in table.snapshot().destinations(service.key) if row.key == LEAVES.key)
    kernel.connect(service.key, leaving, active=active, inactive=inactive)
    kernel.connections = lines
    return len(table.converge({service: (STAYS,)}).draining)


@pytest.mark.parametrize("state", ["TIME_WAIT", "CLOSE", "CLOSED"])
def test_an_ended_connection_holds_nothing_back(state: str) -> None:
    assert draining_table([line(state)], active=0, inactive=1) == 0


@pytest.mark.parametrize("state", ["FIN_WAIT", "SYN_RECV", "LAST_ACK", "CLOSE_WAIT"])
def test_one_that_is_ending_does(state: str) -> None:
    assert draining_table([line("TIME_WAIT"), line(state)], active=0, inactive=2) == 1


def test_an_established_one_does_and_the_list_is_not_read() -> None:
    assert draining_table([], active=1, inactive=0) == 1


def test_connections_of_others_do_not() -> None:
    others = [
        line("FIN_WAIT", destination="0A000005"),
        line("FIN_WAIT", virtual="0B000002"),
        line("NONE", client_port="0000"),
    ]
    assert draining_table(others, active=0, inactive=1) == 0


def test_of_a_firewall_mark_every_virtual_address_counts() -> None:
    assert draining_table([line("FIN_WAIT", virtual="0B000007")], active=0, inactive=1, service=Service.fwmark(7)) == 1


def test_port_0_stands_for_every_port() -> None:
    key = Service.tcp("11.0.0.1", 80).key
    (one,) = parse_connections([line("ESTABLISHED")])
    assert one.concerns(key, LEAVES)
    assert not one.concerns(Service.tcp("11.0.0.1", 81).key, LEAVES)
