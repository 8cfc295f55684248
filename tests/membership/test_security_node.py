"""The threats that the core and the driver face: what a holder of the key, or a flood from anybody, may not bring about."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from dataclasses import fields, is_dataclass, replace
from functools import partial, wraps
from math import inf
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyminuteman.addresses import NodeId
from pyminuteman.membership.bulk import BulkExchange
from pyminuteman.membership.codec import pack, unpack
from pyminuteman.membership.config import MembershipConfig
from pyminuteman.membership.effects import Conflict, Effect, EpochTaken, Received, Send
from pyminuteman.membership.keyring import Key, Keyring
from pyminuteman.membership.messages import (
    Heartbeat,
    IndirectProbe,
    IndirectReply,
    Join,
    Message,
    Multicast,
    MulticastAnnounce,
    Neighbor,
    NeighborReply,
    PacketId,
    Peer,
    Priority,
    Probe,
    ProbeReply,
    RecordRequest,
    Records,
    TableDigest,
)
from pyminuteman.membership.node import MembershipNode
from pyminuteman.membership.node_loop import NodeLoop
from pyminuteman.membership.records import Record
from pyminuteman.membership.stream_session import StreamSession
from pyminuteman.testing.memory_transport import MemoryNetwork
from tests.membership.support import (
    EPOCH,
    START,
    make_boot,
    make_endpoint,
    make_node,
    make_peer,
    make_record,
    reached,
    received,
    said,
    sends,
    told_of,
    versions,
)
from tests.support.messages import messages, node_id

TOP = 2**64 - 1
POOL = 6


def started(config: MembershipConfig | None = None, neighbours: Iterable[int] = (1, 2)) -> MembershipNode:
    """Node 0, with neighbours whose records it has."""
    node = make_node(0, config=config or MembershipConfig())
    node.start(START)
    for number in neighbours:
        record = make_record(number, neighbours=(0,))
        node.handle(received(number, Records((record.encode(),)), Join(1)), START)
        node.handle(received(number, Neighbor(1, Priority.HIGH, 150)), START)
    return node


def run(node: MembershipNode, until: float) -> float:
    """Let time pass."""
    while node.next_wake <= until:
        node.wake(node.next_wake)
    return until


def is_well_said(effects: Iterable[Effect]) -> bool:
    """Whether each other node would understand what is sent."""
    for send in sends(effects):
        datagrams, streams = pack(send.messages, make_peer(0), limit=1159)
        for stream, payloads in ((False, datagrams), (True, streams)):
            for payload in payloads:
                assert not unpack(payload, stream=stream).unknown
    return True


# -- 6: jumps ----------------------------------------------------------------------------------------------------------


def own(node: MembershipNode, **changes: int) -> Records:
    return Records((node.me.encode()._replace(**changes),))


def test_row_6_the_highest_version_in_our_name_does_not_silence_us() -> None:
    node = started()
    for version in (TOP, 2**63, 2**41):
        effects = node.handle(received(1, own(node, version=version)), START)
        assert is_well_said(effects)
        assert node.me.version < 1000
    assert is_well_said(node.update(START, tags={"still": "here"}))


def test_row_6_the_highest_epoch_in_our_name_does_not_lock_us_out() -> None:
    node = started()
    for epoch in (TOP, 2**63, EPOCH + 86_400 * 2):
        effects = node.handle(received(1, own(node, epoch=epoch)), START)
        assert is_well_said(effects)
        assert node.me.epoch == EPOCH
        assert not told_of(effects, EpochTaken)


def test_row_6_within_reason_we_go_above_what_is_said_in_our_name() -> None:
    node = started()
    version = node.me.version
    assert is_well_said(node.handle(received(1, own(node, version=version + 1000)), START))
    assert node.me.version == version + 1001
    effects = node.handle(received(1, own(node, epoch=EPOCH + 5)), START)
    assert [notice.epoch for notice in told_of(effects, EpochTaken)] == [EPOCH + 6]
    assert told_of(effects, Conflict)
    assert node.me.epoch == EPOCH + 6


def test_row_6_nobody_is_evicted_by_the_highest_version_in_his_name() -> None:
    node = started()
    victim = make_record(2, neighbours=(0,), version=TOP)
    for forged in (victim, replace(victim, epoch=TOP, version=1), replace(victim, version=2**40)):
        node.handle(received(1, Records((forged.encode(),))), START)
    assert (node.members()[victim.id].record.epoch, node.members()[victim.id].record.version) == (EPOCH, 1)
    honest = make_record(2, neighbours=(0,), version=2, tags=(("still", "here"),))
    node.handle(received(2, Records((honest.encode(),))), START)
    assert node.members()[victim.id].record == honest
    assert node.metrics()["records_refused_total"] == 3


def test_row_6_a_datagram_of_the_far_future_is_not_heard() -> None:
    node = started()
    assert node.handle(received(2, Probe(1), epoch=TOP), START) == []


def test_row_6_one_of_the_past_is_shown_what_goes_round_in_its_name_and_nothing_else() -> None:
    (sent,) = started().handle(received(2, Probe(1), epoch=EPOCH - 1), START)
    assert isinstance(sent, Send)
    assert [type(message) for message in sent.messages] == [Records]


# -- 7: tables that grow -----------------------------------------------------------------------------------------------


def test_row_7_members_are_bounded_and_those_beyond_counted() -> None:
    node = started(replace(MembershipConfig(), members_max=20))
    for number in range(3, 200):
        node.handle(received(1, Records((make_record(number, neighbours=(1,)).encode(),))), START)
    assert node.metrics()["table_size"] == 20
    assert node.metrics()["records_dropped_total"] == 197 - 17


def test_row_7_so_are_joins_from_names_without_end() -> None:
    node = started()
    for number in range(3, 400):
        assert is_well_said(node.handle(received(number, Join(1)), START + number / 1000))
    assert len(node.active_view) <= 7
    assert len(node.passive_view) <= 42
    assert len(node._admission._neighbours) <= 8
    assert len(node._admission._former) <= 64


def test_row_7_so_are_probes_done_for_others() -> None:
    node = started()
    for number in range(2000):
        node.handle(received(1, IndirectProbe(number, node_id(2))), START + 10)
    assert len(node._relays._under_way) <= 256


def test_row_7_so_are_packets_that_are_announced_and_never_come() -> None:
    node = started()
    ids = tuple(PacketId(node_id(1), EPOCH, number) for number in range(1, 10_001))
    for at in range(0, len(ids), 500):
        node.handle(received(1, MulticastAnnounce(ids[at : at + 500])), START)
    assert len(node._overlay._awaited) <= 4096


def test_row_7_so_are_packets_that_are_kept() -> None:
    config = replace(MembershipConfig(), multicast_keep_bytes=10_000)
    node = started(config)
    for number in range(1, 301):
        packet = Multicast(PacketId(node_id(1), EPOCH, number), "t", 9, bytes(100))
        node.handle(received(1, packet), START)
    assert node._overlay._kept_bytes <= 10_000
    assert len(node._overlay._kept) <= 100


# -- 9: the indirect probe as a port scanner ---------------------------------------------------------------------------


def test_row_9_a_helper_probes_no_address_that_it_is_given() -> None:
    node = started()
    assert sends(node.handle(received(1, IndirectProbe(7, node_id(9))), START + 10)) == []
    assert node.metrics()["indirect_probes_refused_total"] == 1


def test_row_9_a_helper_probes_members_where_their_own_records_say() -> None:
    node = started()
    effects = node.handle(received(1, IndirectProbe(7, node_id(2))), run(node, START + 0.1))
    assert reached(effects, Probe) == {make_endpoint(2)}


def test_row_9_only_the_target_answers_for_itself() -> None:
    node = started(neighbours=(1, 2, 3))
    now = run(node, START + 0.1)
    probes = said(node.handle(received(1, IndirectProbe(7, node_id(2))), now), Probe, to=2)
    number = max(probe.number for probe in probes)
    assert said(node.handle(received(3, ProbeReply(number)), now), IndirectReply) == []
    answers = said(node.handle(received(2, ProbeReply(number)), now), IndirectReply)
    assert answers == [IndirectReply(7, node_id(2))]


# -- 13: speaking for others -------------------------------------------------------------------------------------------


def test_row_13_nobody_speaks_under_our_id() -> None:
    node = started()
    effects = node.handle(Received(b"somebody els", make_peer(0), (Probe(1), Join(1))), START)
    assert effects == []
    assert node.metrics()["datagrams_under_our_id_total"] == 1


def test_row_13_nobody_else_speaks_under_the_id_of_a_neighbour() -> None:
    node = started()
    assert make_peer(2) in node.active_view
    assert node.handle(received(2, Probe(1), boot=b"somebody els"), START) == []
    assert node.metrics()["datagrams_impersonating_total"] == 1
    assert said(node.handle(received(2, Probe(1)), START), ProbeReply)


def test_row_13_a_heartbeat_belongs_to_the_process_that_is_linked() -> None:
    node = started()
    assert node.handle(Received(b"somebody els", None, (Heartbeat(9, 0, 0, 0),)), START) == []
    assert node.metrics()["messages_unknown_sender_total"] == 1


# -- whatever a holder of the key says ---------------------------------------------------------------------------------


def nearby(value: Any) -> Any:
    """With the ids and peers of a small cluster in place of random ones, so that what is said has consequences."""
    if isinstance(value, NodeId):
        return node_id(value[0] % POOL)
    if isinstance(value, Peer):
        number = value.id[0] % POOL
        return make_peer(number, value.epoch if value.epoch % 3 == 0 else EPOCH)
    if isinstance(value, TableDigest):
        return value
    if isinstance(value, tuple):
        inner = [nearby(item) for item in value]
        return type(value)(*inner) if hasattr(value, "_fields") else tuple(inner)
    if is_dataclass(value):
        return replace(value, **{field.name: nearby(getattr(value, field.name)) for field in fields(value)})  # type: ignore[type-var]
    return value


numbers = st.integers(0, POOL - 1)
some = st.sets(numbers, max_size=3)
record_bodies = st.builds(
    lambda number, neighbours, accused, epoch, version: make_record(
        number, neighbours=neighbours, accused=versions(*accused, version=2), epoch=epoch, version=version
    ).encode(),
    numbers,
    some,
    some,
    st.sampled_from([EPOCH - 1, EPOCH, EPOCH + 1, EPOCH + 86_399, TOP]),
    st.sampled_from([0, 1, 2, 3, 1 << 20, TOP]),
)
spoken: st.SearchStrategy[Message] = st.one_of(
    messages.map(nearby),
    st.lists(record_bodies, max_size=3).map(lambda made: Records(tuple(made))),
    st.builds(Join, st.integers(0, 3)),
    st.builds(NeighborReply, st.integers(0, 3), st.booleans(), st.just(150)),
)
datagrams = st.builds(
    lambda number, said_, epoch, boot, named: Received(
        b"somebody els" if boot else make_boot(number, epoch), make_peer(number, epoch) if named else None, tuple(said_)
    ),
    numbers,
    st.lists(spoken, min_size=1, max_size=3),
    st.sampled_from([EPOCH, EPOCH, EPOCH, EPOCH + 1, TOP]),
    st.sampled_from([False, False, False, True]),
    st.sampled_from([True, True, True, False]),
)


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example])
@given(st.lists(st.tuples(datagrams, st.sampled_from([0.0, 0.001, 0.1, 1.0, 40.0])), min_size=1, max_size=25))
def test_whatever_is_said_is_survived_and_answered_in_the_language(story: list[tuple[Received, float]]) -> None:
    node = started(replace(MembershipConfig(), members_max=8))
    now = START
    for heard, pause in story:
        assert is_well_said(node.handle(heard, now))
        now += pause
        for _ in range(50):
            if node.next_wake > now:
                break
            assert is_well_said(node.wake(now))
    assert is_well_said(node.update(now, tags={"still": "here"}))
    assert is_well_said(node.multicast("topic", b"payload", now))
    assert len(node.active_view) <= 7
    assert node.metrics()["table_size"] <= 8
    assert Record.decode(node.me.encode()) == node.me


def test_an_answer_to_a_request_is_no_longer_than_what_was_asked_for() -> None:
    node = started()
    (answer,) = said(node.handle(received(1, RecordRequest((node_id(2), node_id(9), node_id(2)))), START), Records)
    assert {record.id for record in answer.records} == {node_id(2)}


# -- 8 and 10: from outside, by the driver -----------------------------------------------------------------------------

KEY = Key(b"k" * 32)


def in_jumping_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Time passes when nobody has anything to do."""

    @wraps(test)
    def run(**fixtures: Any) -> None:
        trio.run(partial(test, **fixtures), clock=trio.testing.MockClock(autojump_threshold=0))

    return run


def ring(key: Key = KEY) -> Keyring:
    return Keyring([key], cluster="test")


@in_jumping_time
async def test_row_8_a_stranger_gets_no_byte_back_by_datagram() -> None:
    network = MemoryNetwork()
    ours, stranger = network.transport("10.0.0.1:61420"), network.transport("10.0.0.2:61420")
    recorded = ring().seal(pack([Join(1)], make_peer(2), limit=1159)[0][0])
    loop = NodeLoop(make_node(0), transport=ours, ring=ring(), datagram_max_bytes=1200, notify=lambda _: None)
    async with trio.open_nursery() as nursery:
        loop.perform(loop.node.start(trio.current_time()))
        nursery.start_soon(loop.run)
        for forged in (
            b"",
            b"x" * 1200,
            b"\xa1" + KEY.id + b"b" * 12 + bytes(7) + b"\1" + bytes(60),
            ring(Key(b"e" * 32)).seal(b"x"),
            Keyring([KEY], cluster="else").seal(b"x"),
            recorded[:-1],
        ):
            stranger.send(forged, ours.advertised)
        await trio.sleep(5)
        assert ours.counters.datagrams_sent == 0
        # What was recorded is answered once, and to the address that was sealed in it, not to whoever sends it.
        for _ in range(20):
            stranger.send(recorded, ours.advertised)
        await trio.sleep(0.1)
        assert stranger.receive() is not None, "it was sealed by 10.0.0.2, and says so"
        metrics = loop.metrics()
        assert metrics["refused_replayed_total"] == 19
        assert sum(value for name, value in metrics.items() if name.startswith("refused_")) == 6 + 19
        nursery.cancel_scope.cancel()


class Listener:
    """A bulk exchange that takes payloads."""

    def __init__(self) -> None:
        self.network = MemoryNetwork()
        self.transport = self.network.transport("10.0.0.1:61420")
        self.taken: list[bytes] = []
        self.exchange = BulkExchange(self.transport, ring(), lambda _boot, plain: self.taken.append(plain))

    async def connect(self, number: int) -> trio.abc.Stream:
        return await self.network.open_stream(make_endpoint(number), self.transport.advertised)


async def closed(stream: trio.abc.Stream, within: float = inf) -> bool:
    """Whether the other end closes, without having said a byte."""
    with trio.move_on_after(within):
        try:
            data = await stream.receive_some(100)
        except trio.BrokenResourceError:
            return True
        assert not data, "a byte for a stranger"
        return True
    return False


@in_jumping_time
async def test_row_10_who_says_nothing_or_little_is_cut_off() -> None:
    server = Listener()
    async with trio.open_nursery() as nursery:
        await nursery.start(server.exchange.run)
        silent, slow = await server.connect(1), await server.connect(2)

        async def drip() -> None:
            hello = StreamSession(ring(), server=False).client_hello()
            for byte in hello:
                try:
                    await slow.send_all(bytes((byte,)))
                except trio.BrokenResourceError:
                    return
                await trio.sleep(1)

        nursery.start_soon(drip)
        began = trio.current_time()
        assert await closed(silent)
        assert await closed(slow)
        assert trio.current_time() - began <= 6
        nursery.cancel_scope.cancel()
    assert server.taken == []


@in_jumping_time
async def test_row_10_one_source_does_not_take_all_places() -> None:
    server = Listener()
    async with trio.open_nursery() as nursery:
        await nursery.start(server.exchange.run)
        held = [await server.connect(1) for _ in range(500)]
        await trio.sleep(0.1)
        assert server.exchange.metrics()["bulk_connections"] <= 32
        honest = await server.connect(2)
        session = StreamSession(ring(), server=False)
        await honest.send_all(session.client_hello())
        session.feed(bytes(await honest.receive_some(100)))
        await honest.send_all(session.seal_frame(b"payload"))
        await trio.sleep(0.1)
        assert server.taken == [b"payload"]
        assert server.exchange.metrics()["bulk_refused_total"] >= 468
        await trio.sleep(30)
        assert server.exchange.metrics()["bulk_connections"] == 0
        assert held
        nursery.cancel_scope.cancel()


@in_jumping_time
async def test_row_10_nor_do_all_sources_together_take_more_than_there_are() -> None:
    server = Listener()
    async with trio.open_nursery() as nursery:
        await nursery.start(server.exchange.run)
        held = [await server.connect(number % 50) for number in range(1000)]
        await trio.sleep(0.1)
        assert server.exchange.metrics()["bulk_connections"] <= 128
        assert held
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n" * 9, bytes(57), b"\xff" * 70_000], ids=["http", "zeros", "much"])
@in_jumping_time
async def test_row_10_who_says_something_else_is_cut_off_at_once(data: bytes) -> None:
    server = Listener()
    async with trio.open_nursery() as nursery:
        await nursery.start(server.exchange.run)
        stream = await server.connect(1)
        await stream.send_all(data)
        assert await closed(stream, 0.1)
        assert server.exchange.metrics()["bulk_unauthenticated_total"] == 1
        nursery.cancel_scope.cancel()
