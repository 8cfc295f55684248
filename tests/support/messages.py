"""Hypothesis strategies for everything that nodes say, and one fixed message of each type."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from hypothesis import strategies as st

from pyminuteman.addresses import Endpoint, NodeId
from pyminuteman.membership.messages import (
    Disconnect,
    DisconnectReason,
    ForwardJoin,
    Heartbeat,
    IndirectProbe,
    IndirectReply,
    Join,
    JoinDenied,
    Message,
    Multicast,
    MulticastAnnounce,
    MulticastRequest,
    Neighbor,
    NeighborReply,
    PacketId,
    Peer,
    Priority,
    Probe,
    ProbeReply,
    RecordRequest,
    Records,
    Shuffle,
    ShuffleReply,
    TableDigest,
    TableSummary,
    Unicast,
)
from pyminuteman.membership.records import EncodedRecord, MemberState, Record, Version

U64 = 2**64 - 1

node_ids = st.binary(min_size=16, max_size=16).map(NodeId)
endpoints = st.builds(
    Endpoint,
    st.sampled_from(["10.0.0.1", "192.168.255.254", "223.255.255.255", "127.0.0.1", "fd00::1", "::1", "2001:db8::ffff"]),
    st.sampled_from([1, 61420, 65535]),
)
numbers = st.one_of(st.integers(0, 3), st.integers(0, U64))
u16 = st.integers(0, 2**16 - 1)
u8 = st.integers(0, 255)
peers = st.builds(Peer, node_ids, numbers, endpoints)
some_peers = st.lists(peers, max_size=9).map(tuple)
packet_ids = st.builds(PacketId, node_ids, numbers, st.integers(1, U64))
versions = st.builds(Version, node_ids, numbers, numbers)
encoded_records = st.builds(EncodedRecord, node_ids, numbers, numbers, st.binary(max_size=200))
intervals = st.integers(1, 60_000)


@st.composite
def digests(draw: st.DrawFn) -> TableDigest:
    """Buckets in order, and the versions in them in the order of the buckets."""
    count = draw(st.sampled_from([16, 32, 64, 128, 256]))
    held = draw(st.lists(versions, max_size=30, unique_by=lambda version: version.id))
    more = draw(st.sets(st.integers(0, count - 1), max_size=5))
    buckets = sorted({version.id[0] * count // 256 for version in held} | more)
    held.sort(key=lambda version: version.id[0] * count // 256)
    return TableDigest(count, tuple(buckets), tuple(held))


BY_TYPE: Final[dict[type[Any], st.SearchStrategy[Any]]] = {
    Heartbeat: st.builds(Heartbeat, u16, u16, u16, st.integers(0, 2**32 - 1)),
    Probe: st.builds(Probe, numbers),
    ProbeReply: st.builds(ProbeReply, numbers),
    IndirectProbe: st.builds(IndirectProbe, numbers, node_ids),
    IndirectReply: st.builds(IndirectReply, numbers, node_ids),
    Join: st.builds(Join, numbers),
    JoinDenied: st.builds(JoinDenied, numbers, some_peers),
    ForwardJoin: st.builds(ForwardJoin, peers, u8),
    Neighbor: st.builds(Neighbor, numbers, st.sampled_from(Priority), intervals),
    NeighborReply: st.builds(NeighborReply, numbers, st.booleans(), intervals, some_peers),
    Disconnect: st.builds(Disconnect, st.sampled_from(DisconnectReason), st.none() | peers),
    Shuffle: st.builds(Shuffle, peers, numbers, u8, some_peers),
    ShuffleReply: st.builds(ShuffleReply, numbers, some_peers),
    Records: st.builds(Records, st.lists(encoded_records, max_size=20).map(tuple)),
    TableSummary: st.sampled_from([16, 32, 64, 128, 256])
    .flatmap(lambda count: st.binary(min_size=4 * count, max_size=4 * count))
    .map(TableSummary),
    TableDigest: digests(),
    RecordRequest: st.builds(RecordRequest, st.lists(node_ids, max_size=80).map(tuple)),
    Multicast: st.builds(
        Multicast,
        packet_ids,
        st.text(max_size=60),
        u8,
        st.binary(max_size=300),
        st.none() | st.lists(node_ids, max_size=5).map(tuple),
    ),
    MulticastAnnounce: st.builds(MulticastAnnounce, st.lists(packet_ids, max_size=40).map(tuple)),
    MulticastRequest: st.builds(MulticastRequest, st.lists(packet_ids, max_size=40).map(tuple)),
    Unicast: st.builds(Unicast, st.text(max_size=60), st.binary(max_size=300)),
}
"""Of each message type, a strategy."""

messages: st.SearchStrategy[Message] = st.sampled_from(sorted(BY_TYPE, key=lambda kind: kind.__name__)).flatmap(
    BY_TYPE.__getitem__
)

_text = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=20)
_words = _text.filter(bool).map(lambda text: text[:10])
_sorted_ids = st.lists(node_ids, max_size=8, unique=True).map(lambda ids: tuple(sorted(ids)))
records = st.builds(
    Record,
    id=node_ids,
    epoch=numbers,
    version=numbers,
    name=_words,
    endpoint=endpoints,
    addresses=st.lists(st.sampled_from(["10.0.0.1", "fd00::1", "192.0.2.9"]), max_size=3).map(tuple),
    tags=st.lists(st.tuples(_words, _text), max_size=4).map(tuple),
    state=st.sampled_from(MemberState),
    neighbours=_sorted_ids,
    accused=st.lists(st.builds(Version, node_ids, numbers, numbers), max_size=8, unique_by=lambda one: one.id).map(
        lambda versions: tuple(sorted(versions))
    ),
    keys=st.lists(st.binary(min_size=4, max_size=4), max_size=3).map(tuple),
    protocol=st.tuples(st.integers(1, 15), st.integers(0, 240)).map(lambda pair: (pair[0], pair[0] + pair[1])),
).map(lambda one: replace(one, neighbours=(), accused=()) if one.state is MemberState.LEFT else one)


def node_id(number: int) -> NodeId:
    """Small numbers as ids, spread over the buckets."""
    return NodeId(bytes((number * 37 & 255,)) + number.to_bytes(15, "big"))


def peer(number: int = 1) -> Peer:
    """One of a kind."""
    return Peer(node_id(number), 1_700_000_000 + number, Endpoint(f"10.0.{number >> 8}.{number & 255}", 61420))


def record(number: int = 1, **changes: Any) -> Record:
    """A usual record: seven neighbours."""
    neighbours = tuple(sorted(node_id(number + 1 + n) for n in range(7)))
    settings: dict[str, Any] = {"name": f"node-{number}", "endpoint": peer(number).endpoint, "neighbours": neighbours}
    return Record(**({"id": node_id(number), "epoch": 1_700_000_000, "version": 3} | settings | changes))


FIXED: Final[tuple[tuple[Message, str], ...]] = (
    (Heartbeat(40000, 50000, 1200, 3_000_000_000), "95 01 cd9c40 cdc350 cd04b0 ceb2d05e00"),
    (Probe(7), "92 02 07"),
    (ProbeReply(7), "92 03 07"),
    (IndirectProbe(7, NodeId(b"T" * 16)), f"93 04 07 c410{'54' * 16}"),
    (IndirectReply(7, NodeId(b"T" * 16)), f"93 05 07 c410{'54' * 16}"),
    (Join(7), "92 10 07"),
    (
        JoinDenied(7, (Peer(NodeId(b"P" * 16), 9, Endpoint("10.0.0.1", 80)),)),
        f"93 11 07 91 93 c410{'50' * 16} 09 c4060a0000010050",
    ),
    (
        ForwardJoin(Peer(NodeId(b"P" * 16), 9, Endpoint("::1", 80)), 5),
        f"93 12 93 c410{'50' * 16} 09 c412{'00' * 15}010050 05",
    ),
    (Neighbor(7, Priority.HIGH, 150), "94 13 07 01 cc96"),
    (NeighborReply(7, True, 150), "95 14 07 c3 cc96 90"),
    (Disconnect(DisconnectReason.LEAVING), "93 15 03 c0"),
    (
        Shuffle(Peer(NodeId(b"P" * 16), 9, Endpoint("10.0.0.1", 80)), 7, 5, ()),
        f"95 16 93 c410{'50' * 16} 09 c4060a0000010050 07 05 90",
    ),
    (ShuffleReply(7, ()), "93 17 07 90"),
    (Records((EncodedRecord(NodeId(b"R" * 16), 9, 2, b"body"),)), f"92 20 91 94 c410{'52' * 16} 09 02 c404626f6479"),
    (TableSummary(bytes(64)), f"92 21 c440{'00' * 64}"),
    (
        TableDigest(16, (0, 5), (Version(NodeId(b"R" * 16), 9, 2),)),
        f"94 22 10 c4020005 c420{'52' * 16}000000000000000900000000000000 02",
    ),
    (RecordRequest((NodeId(b"R" * 16),)), f"92 23 c410{'52' * 16}"),
    (
        Multicast(PacketId(NodeId(b"O" * 16), 9, 1), "kv", 32, b"payload", (NodeId(b"H" * 16),)),
        f"96 30 93 c410{'4f' * 16} 09 01 a26b76 20 c4077061796c6f6164 c410{'48' * 16}",
    ),
    (MulticastAnnounce((PacketId(NodeId(b"O" * 16), 9, 1),)), f"92 31 c420{'4f' * 16}00000000000000090000000000000001"),
    (MulticastRequest((PacketId(NodeId(b"O" * 16), 9, 1),)), f"92 32 c420{'4f' * 16}00000000000000090000000000000001"),
    (Unicast("kv", b"payload"), "93 33 a26b76 c4077061796c6f6164"),
)
"""One message of each type, and its bytes: what is on the wire does not change by accident."""
