"""The DNS server over real sockets, asked by dnspython and by clients that misbehave."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import dns.asyncquery
import dns.flags
import dns.message
import dns.rcode
import pytest
import trio

from pyminuteman.addresses import Endpoint
from pyminuteman.errors import ConfigurationError
from pyminuteman.ipvs.service import Protocol
from pyminuteman.vips.desired import NameRecord
from pyminuteman.vips.dns import DEFAULT_ZONE, Responder
from pyminuteman.vips.dns_server import DNSServer, ServerLimits

FOO = f"foo.marathon.{DEFAULT_ZONE}"
MANY = f"_vip._tcp.many.ports.{DEFAULT_ZONE}"
NAMES = {
    "foo.marathon": NameRecord(("11.0.0.35", "fd01:c::35"), ((Protocol.TCP, 80),)),
    "many.ports": NameRecord(("11.0.0.9",), tuple((Protocol.TCP, port) for port in range(1, 101))),
}
HERE = Endpoint("127.0.0.1", 0)
pytestmark = pytest.mark.trio
SECONDS = 10.0
"""No test waits longer."""


@asynccontextmanager
async def serving(*endpoints: Endpoint, limits: ServerLimits | None = None) -> AsyncIterator[DNSServer]:
    responder = Responder()
    responder.publish(NAMES)
    server = DNSServer(responder, endpoints or [HERE], limits)
    with trio.fail_after(3 * SECONDS):
        async with trio.open_nursery() as nursery:
            assert await nursery.start(server.run) == server.endpoints
            yield server
            nursery.cancel_scope.cancel()


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(SECONDS):
        while not condition():  # noqa: ASYNC110 - the server tells nobody when it counts
            await trio.sleep(0.005)


async def connect(server: DNSServer) -> trio.SocketStream:
    return await trio.open_tcp_stream(*server.endpoints[0])


def framed(query: dns.message.Message) -> bytes:
    return query.to_wire(prepend_length=True)


async def read_answer(stream: trio.SocketStream) -> dns.message.Message:
    found = b""
    while len(found) < 2 or len(found) < 2 + int.from_bytes(found[:2], "big"):
        chunk = await stream.receive_some()
        assert chunk
        found += chunk
    return dns.message.from_wire(found[2:])


async def until_broken(stream: trio.SocketStream, data: bytes) -> None:
    """Send, and read nothing, until the other end has had enough."""
    with trio.fail_after(SECONDS):
        while True:
            try:
                await stream.send_all(data)
            except trio.BrokenResourceError:
                return


async def is_closed(stream: trio.SocketStream) -> bool:
    try:
        return await stream.receive_some() == b""
    except trio.BrokenResourceError:
        return True


# -- as a resolver asks ------------------------------------------------------------------------------------------------


async def test_a_name_is_found_by_datagram_and_by_stream() -> None:
    async with serving() as server:
        where, port = server.endpoints[0]
        asked = dns.message.make_query(FOO, "A")
        for answer in (
            await dns.asyncquery.udp(asked, where, port=port, timeout=SECONDS),
            await dns.asyncquery.tcp(asked, where, port=port, timeout=SECONDS),
        ):
            assert str(answer.answer[0][0]) == "11.0.0.35"
        assert (server.counters["datagrams"], server.counters["messages"]) == (1, 1)
        await until(lambda: server.connections == 0)


async def test_what_is_cut_short_in_a_datagram_is_whole_over_a_stream() -> None:
    async with serving() as server:
        where, port = server.endpoints[0]
        asked = dns.message.make_query(MANY, "SRV")
        short = await dns.asyncquery.udp(asked, where, port=port, timeout=SECONDS)
        assert short.flags & dns.flags.TC
        answer, over_tcp = await dns.asyncquery.udp_with_fallback(asked, where, port=port, timeout=SECONDS)
        assert over_tcp
        assert len(answer.answer[0]) == 100


async def test_ipv6_and_several_endpoints_are_served() -> None:
    async with serving(HERE, Endpoint("::1", 0)) as server:
        for where, port in server.endpoints:
            answer = await dns.asyncquery.udp(dns.message.make_query(FOO, "AAAA"), where, port=port, timeout=SECONDS)
            assert str(answer.answer[0][0]) == "fd01:c::35"


async def test_a_stream_carries_several_queries_even_at_once() -> None:
    async with serving() as server, await connect(server) as stream:
        queries = [dns.message.make_query(FOO, "A") for _ in range(20)]
        await stream.send_all(b"".join(map(framed, queries[:-1])))
        found = b""
        while found.count(b"\x0b\0\0\x23") < 19:
            found += await stream.receive_some()
        await stream.send_all(framed(queries[-1]))
        assert (await read_answer(stream)).id == queries[-1].id


async def test_new_names_are_served_at_once() -> None:
    async with serving() as server:
        where, port = server.endpoints[0]
        asked = dns.message.make_query(f"new.marathon.{DEFAULT_ZONE}", "A")
        assert (await dns.asyncquery.udp(asked, where, port=port, timeout=SECONDS)).rcode() == dns.rcode.NXDOMAIN
        server._responder.publish({"new.marathon": NameRecord(("11.0.0.1",))})
        assert (await dns.asyncquery.udp(asked, where, port=port, timeout=SECONDS)).rcode() == dns.rcode.NOERROR


# -- as nobody should --------------------------------------------------------------------------------------------------


async def test_junk_is_not_answered_and_ends_nothing() -> None:
    async with serving() as server:
        with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            answer = dns.message.make_response(dns.message.make_query(FOO, "A")).to_wire()
            for junk in (b"", b"x", answer, b"\0\1" + bytes(5000)):
                await client.sendto(junk, server.endpoints[0])
            await client.sendto(dns.message.make_query(FOO, "A", id=5).to_wire(), server.endpoints[0])
            with trio.fail_after(SECONDS):
                assert dns.message.from_wire(await client.recv(4096)).id == 5
        assert server.counters["oversized"] == 1
        assert server._responder.counters["ignored"] == 3


async def test_an_answer_that_cannot_be_sent_is_counted() -> None:
    async with serving() as server:

        class Deaf:
            """Two datagrams: one that the system fails to hand over, one whose answer it does not take."""

            def __init__(self) -> None:
                self.results: list[object] = [OSError("down"), (dns.message.make_query(FOO, "A").to_wire(), ("127.0.0.1", 0))]

            async def recvfrom(self, _size: int) -> object:
                if not self.results:
                    await trio.sleep_forever()
                result = self.results.pop(0)
                if isinstance(result, OSError):
                    raise result
                return result

            async def sendto(self, _answer: bytes, _peer: object) -> None:
                raise OSError("a port of 0")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(server._answer_datagrams, Deaf())  # type: ignore[arg-type]
            await until(lambda: server.counters["unsent"] == 1)
            nursery.cancel_scope.cancel()
        assert server.counters["receive_errors"] == 1


@pytest.mark.parametrize("sent", [b"", b"\0", b"\0\x20\0"])
async def test_a_client_that_does_not_finish_its_message_is_cut_off(sent: bytes) -> None:
    async with serving(limits=ServerLimits(idle_seconds=0.1)) as server, await connect(server) as stream:
        await stream.send_all(sent)
        assert await is_closed(stream)
        await until(lambda: server.counters["connections_timed_out"] == 1 and server.connections == 0)


async def test_dripping_bytes_does_not_wind_the_clock_up() -> None:
    async with serving(limits=ServerLimits(idle_seconds=0.2)) as server, await connect(server) as stream:
        began = trio.current_time()
        query = framed(dns.message.make_query(FOO, "A"))
        try:
            for at in range(len(query)):
                await stream.send_all(query[at : at + 1])
                await trio.sleep(0.05)
        except trio.BrokenResourceError:
            pass
        assert await is_closed(stream)
        await until(lambda: server.counters["connections_timed_out"] == 1)
        assert trio.current_time() - began < 0.05 * len(query)


async def test_a_client_that_does_not_read_is_cut_off() -> None:
    async with serving(limits=ServerLimits(idle_seconds=0.2)) as server, await connect(server) as stream:
        query = framed(dns.message.make_query(MANY, "SRV")) * 500
        await until_broken(stream, query)
        assert server.counters["connections_timed_out"] == 1


@pytest.mark.parametrize("sent", [b"\0\0", b"\x10\x01" + bytes(4097), b"\0\x0c" + b"\0\0\x80" + bytes(9)])
async def test_a_message_that_is_none_ends_its_connection(sent: bytes) -> None:
    """Of no bytes; of more than are looked at; an answer."""
    async with serving() as server, await connect(server) as stream:
        await stream.send_all(sent)
        assert await is_closed(stream)
        await until(lambda: server.connections == 0)
        assert server.counters["oversized"] == (sent[0] == 0x10)


async def test_a_client_that_leaves_in_the_middle_leaves_nothing_behind() -> None:
    async with serving() as server:
        for sent in (b"", b"\0", b"\0\x20\0"):
            async with await connect(server) as stream:
                await stream.send_all(sent)
        await until(lambda: server.counters["connections"] == 3 and server.connections == 0)
        with socket.socket() as rude:
            rude.connect(server.endpoints[0])
            await until(lambda: server.connections == 1)
            rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await until(lambda: server.counters["connections_broken"] == 1 and server.connections == 0)


@pytest.mark.parametrize("limits", [ServerLimits(connections_max=2), ServerLimits(connections_per_source_max=2)])
async def test_connections_beyond_the_limit_are_closed_at_once_and_others_are_served(limits: ServerLimits) -> None:
    async with serving(limits=limits) as server, await connect(server), await connect(server) as second:
        await until(lambda: server.connections == 2)
        async with await connect(server) as third:
            assert await is_closed(third)
        assert server.counters["connections_refused"] == 1
        await second.send_all(framed(dns.message.make_query(FOO, "A")))
        assert (await read_answer(second)).rcode() == dns.rcode.NOERROR


async def test_a_client_that_is_gone_before_it_is_looked_at_is_counted() -> None:
    async with serving() as server:
        stream, other = trio.testing.memory_stream_pair()

        class Gone:
            def getpeername(self) -> object:
                raise OSError("not connected")

        stream.socket = Gone()  # type: ignore[attr-defined]
        await server._answer_stream(stream)  # type: ignore[arg-type]
        assert server.counters["connections_broken"] == 1
        assert await other.receive_some() == b""


# -- what it needs -----------------------------------------------------------------------------------------------------


async def run(*endpoints: Endpoint) -> None:
    with trio.fail_after(SECONDS):
        await DNSServer(Responder(), endpoints).run()


async def test_a_place_that_is_taken_is_said_to_be_and_nothing_stays_bound() -> None:
    async with serving() as server:
        taken = server.endpoints[0]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            first = Endpoint("127.0.0.1", free.getsockname()[1])
        with pytest.raises(ConfigurationError, match=f"{taken} cannot be bound for TCP: Address already in use"):
            await run(first, taken)
        with socket.socket() as again:
            again.bind(first)


async def test_a_port_that_only_udp_has_no_more_is_said_so() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(ConfigurationError, match="cannot be bound for UDP"):
            await run(Endpoint("127.0.0.1", taken.getsockname()[1]))


async def test_a_port_chosen_for_tcp_that_udp_has_no_more_is_chosen_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyminuteman.vips import dns_server  # noqa: PLC0415 - to be patched

    bind, refusals = dns_server._bind_one, [2]

    async def picky(endpoint: Endpoint, kind: socket.SocketKind) -> trio.socket.SocketType:
        if kind == socket.SOCK_DGRAM and refusals[0]:
            refusals[0] -= 1
            raise ConfigurationError(None, "dns.listen", "taken")
        return await bind(endpoint, kind)

    monkeypatch.setattr(dns_server, "_bind_one", picky)
    async with serving() as server:
        assert server.endpoints[0].port
    assert refusals == [0]
    refusals[0] = 1000
    with pytest.raises(ConfigurationError, match="taken"):
        await run(HERE)
    assert refusals == [1000 - 32]


async def test_an_endpoint_has_an_address() -> None:
    with pytest.raises(ConfigurationError, match="'web' is not an IP address"):
        await run(Endpoint("web", 53))
    with pytest.raises(ConfigurationError, match="expected at least one ADDRESS:PORT"):
        DNSServer(Responder(), [])


@pytest.mark.parametrize("name", ["connections_max", "connections_per_source_max", "idle_seconds", "query_max_bytes"])
@pytest.mark.parametrize("value", [0, -1, float("inf"), float("nan"), True, "1"])
async def test_a_limit_is_above_0(name: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=f"dns.{name}: .* is not a number above 0"):
        ServerLimits(**{name: value})  # type: ignore[arg-type]
