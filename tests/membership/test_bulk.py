"""Bulk over streams: what arrives, and what whoever has no key, no manners or no time costs us."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial, wraps
from typing import Any

import pytest
import trio
import trio.testing

from pyminuteman.addresses import Endpoint
from pyminuteman.membership.bulk import BulkExchange, TokenBuckets
from pyminuteman.membership.keyring import Key, Keyring, PlainRing, Ring
from pyminuteman.membership.stream_session import StreamSession
from pyminuteman.testing.memory_transport import MemoryNetwork, MemoryTransport

KEY = Key(bytes(range(32)))


def in_jumping_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @wraps(test)
    def run(**fixtures: Any) -> None:
        trio.run(partial(test, **fixtures), clock=trio.testing.MockClock(autojump_threshold=0))

    return run


class Node:
    """An exchange, and what it took."""

    def __init__(self, network: MemoryNetwork, endpoint: str, ring: Ring) -> None:
        self.transport: MemoryTransport = network.transport(endpoint)
        self.ring = ring
        self.taken: list[tuple[bytes, bytes]] = []
        self.bulk = BulkExchange(self.transport, ring, lambda boot, payload: self.taken.append((boot, payload)))

    @property
    def endpoint(self) -> Endpoint:
        return self.transport.advertised

    def count(self, name: str) -> int | float:
        return self.bulk.metrics()[f"bulk_{name}"]


def keyring() -> Keyring:
    return Keyring([KEY], cluster="test")


@asynccontextmanager
async def two_nodes(
    make_ring: Callable[[], Ring] = keyring, other_ring: Callable[[], Ring] | None = None, **network: Any
) -> AsyncIterator[tuple[Node, Node, MemoryNetwork]]:
    made = MemoryNetwork(**network)
    one, two = Node(made, "10.0.0.1:1", make_ring()), Node(made, "10.0.0.2:1", (other_ring or make_ring)())
    async with trio.open_nursery() as nursery:
        for node in (one, two):
            await nursery.start(node.bulk.run)
        yield one, two, made
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("make_ring", [keyring, lambda: PlainRing(cluster="test")], ids=["keyed", "plain"])
@in_jumping_time
async def test_payloads_arrive_in_order_over_one_connection(make_ring: Callable[[], Ring]) -> None:
    async with two_nodes(make_ring) as (one, two, _):
        payloads = [b"first", bytes(3_000_000), b"third"]
        for payload in payloads:
            one.bulk.send(two.endpoint, payload)
        assert one.count("queued_bytes") == sum(map(len, payloads))
        await trio.sleep(0.5)
        one.bulk.send(two.endpoint, b"later, and the connection is still there")
        await trio.sleep(0.5)
        assert two.count("connections") == 1
        await trio.sleep(10)
        assert [payload for _, payload in two.taken] == [*payloads, b"later, and the connection is still there"]
        assert {boot for boot, _ in two.taken} == {one.ring.boot}
        assert (one.count("sent_total"), two.count("received_total")) == (4, 4)
        assert (one.count("queued_bytes"), two.count("connections")) == (0, 0)
        assert one.count("failed_total") == two.count("failed_total") == two.count("unauthenticated_total") == 0
        one.bulk.send(two.endpoint, b"on a new one")
        await trio.sleep(1)
        assert two.taken[-1][1] == b"on a new one"


@in_jumping_time
async def test_whoever_has_another_key_is_not_heard_and_hears_nothing() -> None:
    other = partial(Keyring, [Key(bytes(32))], cluster="test")
    async with two_nodes(keyring, other) as (one, two, _):
        one.bulk.send(two.endpoint, b"secret")
        await trio.sleep(20)
        assert two.taken == []
        assert two.count("unauthenticated_total") == 1
        assert (one.count("failed_total"), one.count("dropped_total"), one.count("queued_bytes")) == (1, 1, 0)


@in_jumping_time
async def test_no_byte_for_whoever_says_nothing_or_nonsense() -> None:
    async with two_nodes() as (_, two, network):
        stranger = network.transport("10.0.0.9:1")
        for said in (b"", b"GET / HTTP/1.1\r\n\r\n" * 10, bytes(50)):
            stream = await stranger.connect(two.endpoint)
            before = trio.current_time()
            await stream.send_all(said)
            assert await stream.receive_some(100) == b""
            assert trio.current_time() - before <= 5.1  # the deadline of the handshake, at the latest
        assert two.count("unauthenticated_total") == 3
        assert two.count("connections") == 0


@in_jumping_time
async def test_who_drips_is_cut_off() -> None:
    async with two_nodes() as (_, two, network):
        stream = await network.transport("10.0.0.9:1").connect(two.endpoint)
        before = trio.current_time()
        with pytest.raises(trio.BrokenResourceError):  # noqa: PT012
            while trio.current_time() < before + 60:
                await stream.send_all(b"\xa2")
                await trio.sleep(0.5)
        assert trio.current_time() - before < 6


@in_jumping_time
async def test_who_has_a_key_and_nothing_to_say_is_cut_off_too() -> None:
    async with two_nodes() as (one, two, _):
        stream = await one.transport.connect(two.endpoint)
        session = StreamSession(keyring(), server=False)
        await stream.send_all(session.client_hello())
        while not session.ready:
            session.feed(bytes(await stream.receive_some(100)))
        assert await stream.receive_some(100) == b""
        assert two.count("failed_total") == 1
        assert two.count("connections") == 0


@in_jumping_time
async def test_too_many_connections_of_one_source_and_of_all() -> None:
    async with two_nodes() as (_, two, network):
        stranger = network.transport("10.0.0.9:1")
        streams = [await stranger.connect(two.endpoint) for _ in range(40)]
        await trio.testing.wait_all_tasks_blocked()
        assert two.count("connections") == 32
        assert two.count("refused_total") == 8
        for number in range(10, 20):
            source = network.transport(f"10.0.0.{number}:1")
            streams += [await source.connect(two.endpoint) for _ in range(30)]
        await trio.testing.wait_all_tasks_blocked()
        assert two.count("connections") == 128
        await trio.sleep(6)
        assert two.count("connections") == 0
        assert len(streams) == 340


@in_jumping_time
async def test_too_often() -> None:
    async with two_nodes() as (_, two, network):
        stranger = network.transport("10.0.0.9:1")
        for _ in range(100):
            await (await stranger.connect(two.endpoint)).aclose()
            await trio.testing.wait_all_tasks_blocked()
        assert two.count("refused_total") == 36


@in_jumping_time
async def test_a_peer_that_is_away_costs_its_payloads_and_no_others() -> None:
    async with two_nodes() as (one, two, network):
        away, cut = Endpoint("10.0.0.77", 1), network.transport("10.0.0.78:1").advertised
        network.cut(one.endpoint, cut)
        for to in (away, cut, two.endpoint):
            one.bulk.send(to, b"x")
        await trio.sleep(1)
        assert len(two.taken) == 1
        await trio.sleep(10)
        assert one.count("failed_total") == 2
        assert one.count("dropped_total") == 2
        assert one.count("queued_bytes") == 0


@in_jumping_time
async def test_what_waits_is_bounded() -> None:
    async with two_nodes() as (one, two, network):
        network.cut(one.endpoint, two.endpoint)
        for _ in range(300):
            one.bulk.send(two.endpoint, b"x")
        assert one.count("dropped_total") == 44
        for number in range(20):
            one.bulk.send(Endpoint("10.0.0.3", number + 1), bytes(8_000_000))
        assert one.count("queued_bytes") <= 64 * 1024 * 1024
        assert one.count("dropped_total") == 44 + 12
        await trio.sleep(60)
        assert one.count("queued_bytes") == 0


@in_jumping_time
async def test_more_receivers_than_connections() -> None:
    async with two_nodes() as (one, _, network):
        others = [Node(network, f"10.0.1.{number + 1}:1", keyring()) for number in range(30)]
        async with trio.open_nursery() as nursery:
            for other in others:
                await nursery.start(other.bulk.run)
                one.bulk.send(other.endpoint, b"hello")
            await trio.sleep(20)
            assert all(len(other.taken) == 1 for other in others)
            nursery.cancel_scope.cancel()


def test_before_it_runs_nothing_is_sent() -> None:
    node = Node(MemoryNetwork(), "10.0.0.1:1", keyring())
    node.bulk.send(Endpoint("10.0.0.2", 1), b"x")
    assert node.count("dropped_total") == 1


def test_token_buckets() -> None:
    buckets = TokenBuckets(2.0, sources_max=3)
    assert [buckets.take("10.0.0.1", 0.0) for _ in range(5)] == [True] * 4 + [False]
    assert [buckets.take("10.0.0.1", 1.0) for _ in range(3)] == [True, True, False]
    assert buckets.take("10.0.0.2", 1.0)
    assert not any(buckets.take("10.0.0.1", 1.0) for _ in range(3))
    # All of a /64 is one source.
    assert [buckets.take(f"fd00:1:2:3::{number}", 0.0) for number in range(1, 6)] == [True] * 4 + [False]
    # One that was forgotten starts anew.
    for number in range(3, 6):
        buckets.take(f"10.0.0.{number}", 1.0)
    assert buckets.take("10.0.0.1", 1.0)
