"""A named VIP on the kernel: found by its name, balanced, and kept from hosts that are not there."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import dns.message
import dns.rdatatype
import pytest
import trio

from pyminuteman.addresses import Endpoint
from pyminuteman.ipvs import IPVSTable, Scope
from pyminuteman.vips.allocation import IPV4_RANGE
from pyminuteman.vips.claims import Claim
from pyminuteman.vips.desired import DesiredState, DesiredTable
from pyminuteman.vips.dns import DEFAULT_ZONE, Responder
from pyminuteman.vips.dns_server import DNSServer
from pyminuteman.vips.model import VIP, Backend, VIPKey, VIPName, VIPSettings
from pyminuteman.vips.policy import Policy
from pyminuteman.vips.resolution import Reach
from tests.support.kernel import ip

pytestmark = pytest.mark.kernel

ONE, TWO = "10.7.0.1", "10.7.0.2"
KEY = VIPKey.tcp(VIPName("/foo", "marathon"), 80)
ADDRESS = IPV4_RANGE.address(IPV4_RANGE.home("foo.marathon"))
SECONDS = 5.0


def claims(scheduler: str = "rr") -> list[Claim]:
    return [
        Claim(VIP(KEY, (Backend(agent, 8080, agent=agent),), VIPSettings(scheduler)), "test", agent, vouched=frozenset({agent}))
        for agent in (ONE, TWO)
    ]


@pytest.fixture
def backends() -> Iterator[None]:
    """One on each of two addresses: it says where it is, and then whatever is said to it."""

    def serve(server: socket.socket, agent: str) -> None:
        with contextlib.suppress(OSError):  # closed: the test is over
            while True:
                client = server.accept()[0]
                client.sendall(agent.encode() + b"\n")
                threading.Thread(target=repeat, args=(client,), daemon=True).start()

    def repeat(client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            while data := client.recv(100):
                client.sendall(data)

    for address in (ADDRESS, ONE, TWO):
        ip(f"address add {address}/32 dev lo")
    with contextlib.ExitStack() as stack:
        for agent in (ONE, TWO):
            server = stack.enter_context(socket.create_server((agent, 8080)))
            threading.Thread(target=serve, args=(server, agent), daemon=True).start()
        yield


def resolve(state: DesiredState) -> str:
    responder = Responder()
    responder.publish(state.names)
    answer = responder.answer(dns.message.make_query(f"foo.marathon.{DEFAULT_ZONE}", dns.rdatatype.A).to_wire())
    assert answer is not None
    return str(dns.message.from_wire(answer).answer[0][0])


def connect(state: DesiredState) -> tuple[socket.socket, str]:
    client = socket.create_connection((resolve(state), 80), timeout=SECONDS)
    return client, client.makefile().readline().strip()


def who_answers(state: DesiredState) -> set[str]:
    found = set()
    for _ in range(4):
        client, agent = connect(state)
        client.close()
        found.add(agent)
    return found


@pytest.mark.usefixtures("backends")
def test_connections_to_a_name_go_to_hosts_in_reach_and_those_of_a_suspect_go_on() -> None:
    desired = DesiredTable()
    desired.replace(Policy().judge(claims(), {ONE, TWO}).accepted)

    def state(reach: Mapping[str, Reach]) -> DesiredState:
        found = desired.refresh(lambda agent: reach.get(agent, Reach.UP))
        table.converge(found.services)
        return found

    with IPVSTable(scope=Scope.networks("11.0.0.0/8")) as table, contextlib.ExitStack() as stack:
        well = state({})
        assert table.export() == (
            f"-A -t {ADDRESS}:80 -s rr\n-a -t {ADDRESS}:80 -r {ONE}:8080 -m -w 1\n-a -t {ADDRESS}:80 -r {TWO}:8080 -m -w 1\n"
        )
        assert who_answers(well) == {ONE, TWO}
        clients = {agent: stack.enter_context(client) for client, agent in (connect(well), connect(well))}
        silent = state({TWO: Reach.SUSPECT})
        assert who_answers(silent) == {ONE}
        clients[TWO].sendall(b"still there")
        assert clients[TWO].recv(100) == b"still there"
        gone = state({TWO: Reach.DOWN})
        assert who_answers(gone) == {ONE}
        assert who_answers(state({ONE: Reach.DOWN, TWO: Reach.DOWN})) == {ONE, TWO}
        assert not table.converge(state({ONE: Reach.DOWN, TWO: Reach.DOWN}).services).plan


@pytest.mark.usefixtures("backends")
def test_the_systems_own_resolver_finds_the_name(tmp_path: Path) -> None:
    """glibc's, told of no other server, by datagram and (``use-vc``) by stream."""
    desired = DesiredTable()
    desired.replace([Claim(VIP(KEY, (Backend(ONE, 8080), Backend("fd00::1", 8080))))])
    state = desired.refresh(lambda _agent: Reach.UP)
    responder = Responder()
    responder.publish(state.names)
    server = DNSServer(responder, [Endpoint(ONE, 53)])
    told: list[str] = []
    configuration = tmp_path / "resolv.conf"
    ip("address add fd00::1/128 dev lo nodad")  # who has no IPv6 address is told of none (AI_ADDRCONFIG)

    async def ask(options: str) -> list[str]:
        configuration.write_text(f"nameserver {ONE}\noptions {options} timeout:15 attempts:1\n")
        look_up = f"mount --bind {configuration} /etc/resolv.conf && exec getent ahosts foo.marathon.{DEFAULT_ZONE}"
        began, command = time.perf_counter(), ["unshare", "--mount", "sh", "-c", look_up]
        found = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
        told.append(
            f"getent ended with {found.returncode} after {time.perf_counter() - began:.1f} s"
            f" ({found.stderr.decode().strip()}); {server.counters}"
        )
        return sorted({line.split()[0] for line in found.stdout.decode().splitlines()})

    async def main() -> None:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                await nursery.start(server.run)
                assert await ask("single-request") == sorted(state.names["foo.marathon"].addresses), told
                assert (server.counters["datagrams"], server.counters["messages"]) == (2, 0)
                assert await ask("use-vc") == sorted(state.names["foo.marathon"].addresses), told
                assert (server.counters["datagrams"], server.counters["messages"]) == (2, 2)
                nursery.cancel_scope.cancel()

    assert len(state.names["foo.marathon"].addresses) == 2
    trio.run(main)
