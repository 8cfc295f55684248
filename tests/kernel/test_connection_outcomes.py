"""Real connections by way of VIPs: some open, some are refused, some find nobody who answers; and how long a round trip takes."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from queue import Queue

import pytest

from pyminuteman.daemon.connection_watch import ConnectionWatch
from pyminuteman.daemon.outcomes import Outcome, OutcomesReading
from pyminuteman.ipvs import Destination, ForwardingMethod, IPVSTable, NetlinkBackend, Scope, Service
from pyminuteman.ipvs.connections import parse_connections
from pyminuteman.testing.network_namespace import fresh_network_namespace
from pyminuteman.vips.model import BackendKey
from tests.support.kernel import ip
from tests.support.tools import tool

pytestmark = pytest.mark.kernel

DELAY_SECONDS = 0.02
SERVED, REFUSED, DROPPED = 80, 81, 82


class Place:
    """The addresses of one family."""

    def __init__(self, vip: str, director: str, backend: str, prefix: int, host: int) -> None:
        self.vip, self.director, self.backend, self.prefix, self.host = vip, director, backend, prefix, host

    @property
    def iptables(self) -> str:
        return "ip6tables-legacy" if ":" in self.vip else "iptables-legacy"

    def service(self, port: int) -> Service:
        return Service.tcp(self.vip, port, scheduler="rr")


FOUR = Place("11.0.0.1", "10.9.0.1", "10.9.0.2", 24, 32)
SIX = Place("fd01::1", "fd00::1", "fd00::2", 64, 128)


def serve(server: socket.socket) -> None:
    """Close each connection when its client has."""
    with contextlib.suppress(OSError):  # the end of the test
        while True:
            end, _ = server.accept()
            threading.Thread(target=lambda end=end: (end.recv(1), end.close()), daemon=True).start()


def live(place: Place, paths: Queue[str | BaseException], moved: threading.Event, over: threading.Event) -> None:
    """The backend: a namespace of its own, some way off."""
    try:
        fresh_network_namespace()
        paths.put(f"/proc/{os.getpid()}/task/{threading.get_native_id()}/ns/net")
        assert moved.wait(10)
        nodad = " nodad" if place is SIX else ""
        ip(f"address add {place.backend}/{place.prefix} dev far{nodad}", "link set far up")
        ip(f"route add {place.vip}/{place.host} via {place.director}")
        delay = f"{DELAY_SECONDS * 1000:g}ms"
        subprocess.run([tool("tc", "iproute2"), "qdisc", "add", "dev", "far", "root", "netem", "delay", delay], check=True)
        rule = ["-A", "INPUT", "-p", "tcp", "--dport", str(DROPPED), "-j", "DROP"]
        subprocess.run([tool(place.iptables, "iptables"), *rule], check=True)
        family = socket.AF_INET6 if place is SIX else socket.AF_INET
        with socket.create_server((place.backend, SERVED), family=family) as server:
            threading.Thread(target=serve, args=(server,), daemon=True).start()
            paths.put("ready")
            over.wait(60)
            server.shutdown(socket.SHUT_RDWR)
    except BaseException as error:  # noqa: BLE001 - raised again by the test
        paths.put(error)


@pytest.fixture(params=[FOUR, SIX], ids=["IPv4", "IPv6"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """A director, which is this namespace, and a backend behind it."""
    one: Place = request.param
    paths: Queue[str | BaseException] = Queue()
    moved, over = threading.Event(), threading.Event()
    backend = threading.Thread(target=live, args=(one, paths, moved, over))
    backend.start()

    def heard() -> str:
        said = paths.get(timeout=20)
        if isinstance(said, BaseException):
            raise said
        return said

    try:
        ip(f"link add near type veth peer name far netns {heard()}")
        nodad = " nodad" if one is SIX else ""
        ip(f"address add {one.director}/{one.prefix} dev near{nodad}", "link set near up")
        ip(f"address add {one.vip}/{one.host} dev lo{nodad}")
        moved.set()
        assert heard() == "ready"
        yield one
    finally:
        moved.set()
        over.set()
        backend.join(20)


def connect_and_close(address: str, port: int) -> None:
    with socket.create_connection((address, port), timeout=10) as client:
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""


def wait_for(condition: Callable[[], object]) -> None:
    end = time.perf_counter() + 10
    while not condition():
        assert time.perf_counter() < end
        time.sleep(0.02)


def of(reading: OutcomesReading, place: Place, port: int) -> Outcome:
    return reading.backends[place.service(port).key, BackendKey(place.backend, port)]


def rtt_by_iproute2(address: str) -> float:
    """Seconds."""
    told = subprocess.run([tool("ip", "iproute2"), "tcp_metrics", "show", address], capture_output=True, text=True, check=True)
    found = re.search(r" rtt (\d+)us", told.stdout)
    assert found is not None, told.stdout
    return int(found[1]) / 1e6


@pytest.mark.trio
async def test_what_became_of_connections_and_how_long_they_took(place: Place) -> None:
    with contextlib.ExitStack() as stack:
        table = stack.enter_context(IPVSTable(scope=Scope.everything()))
        ports = (SERVED, REFUSED, DROPPED)
        table.converge(
            {place.service(port): [Destination(place.backend, port, 1, ForwardingMethod.MASQUERADE)] for port in ports}
        )
        # Threads of trio may be of an earlier test's namespace; the reader is told which it is to read.
        reader = stack.enter_context(NetlinkBackend(netns="/proc/thread-self/ns/net"))
        hasty = ConnectionWatch(reader, interval_seconds=100, jitter_seconds=0)
        usual = ConnectionWatch(reader)

        connect_and_close(place.vip, SERVED)
        stack.enter_context(socket.create_connection((place.vip, SERVED), timeout=10))
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((place.vip, REFUSED), timeout=10)
        client = stack.enter_context(socket.socket(socket.AF_INET6 if place is SIX else socket.AF_INET))
        client.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            client.connect((place.vip, DROPPED))
        wait_for(lambda: {one.state for one in parse_connections(reader.connection_lines())} >= {"SYN_RECV", "CLOSE"})

        # Nobody has spoken to the backend but by way of the VIP, and it is under the VIP that the kernel knows how that went.
        reading = await hasty.look()
        assert hasty.status.reason == hasty.status.latency_reason == ""
        assert of(reading, place, SERVED) == Outcome(opened=2)
        assert of(reading, place, REFUSED) == Outcome(reset=1)
        assert of(reading, place, DROPPED) == Outcome(failed=1)
        seen = reading.services[place.service(SERVED).key]
        assert seen.count == 2
        assert seen.mean_rtt_seconds == pytest.approx(rtt_by_iproute2(place.vip), abs=2e-6)

        # A check of health does speak to it.
        connect_and_close(place.backend, SERVED)
        connect_and_close(place.vip, SERVED)
        reading = await hasty.look()
        latency = of(reading, place, SERVED).latency
        assert of(reading, place, SERVED).opened == 3
        assert latency is not None
        assert latency.count == 1
        assert DELAY_SECONDS <= latency.mean_rtt_seconds < 10 * DELAY_SECONDS
        assert latency.mean_rtt_seconds == pytest.approx(rtt_by_iproute2(place.backend), abs=2e-6)
        assert latency.mean_rtt_seconds < latency.latest_seconds
        assert of(reading, place, DROPPED) == Outcome(failed=1)

        # With twenty seconds to the next reading, the one that nobody answers has time left: another SYN may do better.
        reading = await usual.look()
        assert of(reading, place, DROPPED) == Outcome(undecided=1)
        assert of(reading, place, SERVED).opened == 3


def test_no_connections_to_anywhere_are_no_metrics() -> None:
    with NetlinkBackend() as reader:
        assert reader.tcp_metrics() == {}
        assert list(parse_connections(reader.connection_lines())) == []
