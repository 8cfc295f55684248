"""Real connections: counted, listed, drained."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from pyminuteman.ipvs import Counters, Destination, DrainPolicy, ForwardingMethod, IPVSTable, Scope, Service
from tests.support.kernel import ip

pytestmark = pytest.mark.kernel

VIP = "10.7.0.1"
WEB = Service.tcp(VIP, 80, scheduler="rr")
HERE = Destination(VIP, 80, 1, ForwardingMethod.ROUTE)
"""The VIP itself: IPVS finds that it is local, and hands the packets on to who listens there."""


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    ip(f"address add {VIP}/32 dev lo")
    with socket.create_server((VIP, 80)) as server:
        yield server


def connected(server: socket.socket, stack: contextlib.ExitStack) -> socket.socket:
    """A client's connection to the VIP; the server's end closes with the stack."""
    client = stack.enter_context(socket.create_connection((VIP, 80), timeout=5))
    stack.enter_context(server.accept()[0])
    return client


def wait_for(condition: Callable[[], object]) -> None:
    """The kernel adds its counters up every two seconds (estimation_timer in ip_vs_est.c)."""
    end = time.perf_counter() + 6
    while not condition() and time.perf_counter() < end:
        time.sleep(0.05)


def test_connections_are_counted_and_listed(listener: socket.socket) -> None:
    with IPVSTable(scope=Scope.everything()) as table, contextlib.ExitStack() as stack:
        table.converge({WEB: [HERE]})
        clients = [connected(listener, stack) for _ in range(3)]
        clients[0].sendall(b"x" * 1000)
        wait_for(lambda: table.statistics(WEB.key)[WEB.key].counters.connections)
        statistics = table.statistics(WEB.key)[WEB.key]
        found = statistics.destinations[HERE]
        assert (statistics.counters.connections, found.counters.connections) == (3, 3)
        assert statistics.counters.in_packets >= 7
        assert statistics.counters.in_bytes > 1000
        assert found.connections.active + found.connections.inactive == 3
        listed = {(one.client_port, one.virtual, one.virtual_port, one.destination) for one in table.connections()}
        assert listed == {(client.getsockname()[1], VIP, 80, VIP) for client in clients}
        table.zero(WEB.key)
        assert table.statistics(WEB.key)[WEB.key].counters == Counters()


def test_a_drained_destination_keeps_its_connections_until_its_time_is_up(listener: socket.socket) -> None:
    now = [0.0]
    policy = DrainPolicy(30.0)
    with IPVSTable(scope=Scope.everything(), drain=policy, clock=lambda: now[0]) as table, contextlib.ExitStack() as stack:
        table.converge({WEB: [HERE]})
        client = connected(listener, stack)
        report = table.converge({})
        assert [left for _, _, left in report.draining] == [30.0]
        client.sendall(b"still there")
        with pytest.raises(OSError, match=r"refused|timed out|reset"):
            socket.create_connection((VIP, 80), timeout=0.2)
        now[0] = 29.0
        assert len(table.converge({}).draining) == 1
        now[0] = 30.0
        assert not table.converge({}).draining
        assert table.snapshot() == {}


def test_rates_are_the_kernels_estimate(listener: socket.socket) -> None:
    """That it says anything at all shows that the right field is read."""
    with IPVSTable(scope=Scope.everything()) as table, contextlib.ExitStack() as stack:
        table.converge({WEB: [HERE]})
        client = connected(listener, stack)

        def busy() -> object:
            client.sendall(b"x" * 500)
            return table.statistics(WEB.key)[WEB.key].rates.in_packets

        wait_for(busy)
        rates = table.statistics(WEB.key)[WEB.key].rates
        assert rates.in_bytes > rates.in_packets > 0
