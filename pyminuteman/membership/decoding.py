"""How each message is read from what MessagePack made of it, and the caps that it is held to.

Pure. The layout is described in ``docs/protocols/wire.md``. Readers raise ValueError, TypeError or IndexError for what no writer
makes; :mod:`pyminuteman.membership.codec` turns these into one error.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Any, Final, TypeAlias

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
from pyminuteman.membership.records import BODY_MAX_BYTES, VERSION_LAYOUT, EncodedRecord, Version, unpack_endpoint

__all__ = ["LIST_MAX", "READERS", "TOPIC_MAX_BYTES", "Fields", "read_peer"]

LIST_MAX: Final = 512
"""Most elements of any MessagePack array."""
TOPIC_MAX_BYTES: Final = 255
"""Longest topic of a multicast, in UTF-8; no other text is as long."""

_PEERS_MAX: Final = 128
_ROUTE_MAX: Final = 256
_BUCKET_COUNTS: Final = (16, 32, 64, 128, 256)
_INTERVAL_MAX_MS: Final = 60_000
_U8, _U16, _U32, _U64 = 0xFF, 0xFFFF, 0xFFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFF
_ID: Final = Struct(">16s")


Fields: TypeAlias = list[Any]
"""A message as MessagePack has it: its type, then its fields."""


def _integer(value: object, most: int, least: int = 0) -> int:
    if type(value) is not int or not least <= value <= most:  # bool is an int, and none here
        raise ValueError(f"{value!r:.40} is not a number from {least} to {most}")
    return value


def _node_id(value: object) -> NodeId:
    if type(value) is not bytes:
        raise ValueError("a node id is bytes")
    return NodeId(value)


def _bytes(value: object, unit: int, most: int) -> bytes:
    if type(value) is not bytes or len(value) % unit or len(value) > unit * most:
        raise ValueError(f"not up to {most} times {unit} bytes")
    return value


def _list(value: object, most: int) -> list[Any]:
    if type(value) is not list or len(value) > most:
        raise ValueError(f"not a list of up to {most}")
    return value


def read_peer(value: object) -> Peer:
    """``[id, epoch, endpoint]``, and whatever a later version puts behind.

    Raises:
        ValueError: It is not.
    """
    id_, epoch, endpoint, *_ = _list(value, LIST_MAX)
    return Peer(_node_id(id_), _integer(epoch, _U64), _read_endpoint(endpoint))


def _read_endpoint(value: object) -> Endpoint:
    if type(value) is not bytes:
        raise ValueError("an endpoint is bytes")
    return unpack_endpoint(value)


def _read_peers(value: object) -> tuple[Peer, ...]:
    return tuple([read_peer(peer) for peer in _list(value, _PEERS_MAX)])


def _read_ids(value: object, most: int) -> tuple[NodeId, ...]:
    return tuple([NodeId(id_) for (id_,) in _ID.iter_unpack(_bytes(value, _ID.size, most))])


def _packet_id(id_: bytes, epoch: int, number: int) -> PacketId:
    return PacketId(NodeId(id_), epoch, _integer(number, _U64, 1))


def _packet_ids(value: object) -> tuple[PacketId, ...]:
    return tuple([_packet_id(*fields) for fields in VERSION_LAYOUT.iter_unpack(_bytes(value, VERSION_LAYOUT.size, _U32))])


def _heartbeat(fields: Fields) -> Heartbeat:
    number, echo, held, table_hash = fields[1:5]
    # Written out: every node reads fifty of these a second.
    if (
        type(number) is type(echo) is type(held) is type(table_hash) is int
        and 0 <= number <= _U16
        and 0 <= echo <= _U16
        and 0 <= held <= _U16
        and 0 <= table_hash <= _U32
    ):
        return Heartbeat(number, echo, held, table_hash)
    raise ValueError("a heartbeat has three numbers of 16 bits and one of 32")


def _record(value: object) -> EncodedRecord:
    id_, epoch, version, body, *_ = _list(value, LIST_MAX)
    return EncodedRecord(_node_id(id_), _integer(epoch, _U64), _integer(version, _U64), _bytes(body, 1, BODY_MAX_BYTES))


def _summary(fields: Fields) -> TableSummary:
    hashes = _bytes(fields[1], 4, _BUCKET_COUNTS[-1])
    if len(hashes) // 4 not in _BUCKET_COUNTS:
        raise ValueError(f"a summary of {len(hashes)} bytes")
    return TableSummary(hashes)


def _read_digest(fields: Fields) -> TableDigest:
    count = _integer(fields[1], _U16)
    buckets = _bytes(fields[2], 1, count)
    packed = _bytes(fields[3], VERSION_LAYOUT.size, _U32)
    if count not in _BUCKET_COUNTS or any(bucket >= count for bucket in buckets) or len(set(buckets)) != len(buckets):
        raise ValueError("buckets of a digest")
    named = set(buckets)
    if any(id_[0] * count >> 8 not in named for id_, _, _ in VERSION_LAYOUT.iter_unpack(packed)):
        raise ValueError("a version outside the digest's buckets")
    return TableDigest(
        count, tuple(buckets), tuple([Version(NodeId(id_), *rest) for id_, *rest in VERSION_LAYOUT.iter_unpack(packed)])
    )


def _flag(value: object) -> bool:
    if type(value) is not bool:
        raise ValueError(f"{value!r:.40} is not a boolean")
    return value


def _topic(value: object) -> str:
    if type(value) is not str or len(value.encode()) > TOPIC_MAX_BYTES:
        raise ValueError(f"a topic is a text of up to {TOPIC_MAX_BYTES} bytes")
    return value


def _multicast(fields: Fields) -> Multicast:
    origin, epoch, number = _list(fields[1], 3)
    payload, route = fields[4], fields[5]
    return Multicast(
        PacketId(_node_id(origin), _integer(epoch, _U64), _integer(number, _U64, 1)),
        _topic(fields[2]),
        _integer(fields[3], _U8),
        _bytes(payload, 1, _U32),
        None if route is None else _read_ids(route, _ROUTE_MAX),
    )


READERS: Final[dict[int, Callable[[Fields], Message]]] = {
    1: _heartbeat,
    2: lambda f: Probe(_integer(f[1], _U64)),
    3: lambda f: ProbeReply(_integer(f[1], _U64)),
    4: lambda f: IndirectProbe(_integer(f[1], _U64), _node_id(f[2])),
    5: lambda f: IndirectReply(_integer(f[1], _U64), _node_id(f[2])),
    16: lambda f: Join(_integer(f[1], _U64)),
    17: lambda f: JoinDenied(_integer(f[1], _U64), _read_peers(f[2])),
    18: lambda f: ForwardJoin(read_peer(f[1]), _integer(f[2], _U8)),
    19: lambda f: Neighbor(_integer(f[1], _U64), Priority(_integer(f[2], max(Priority))), _integer(f[3], _INTERVAL_MAX_MS, 1)),
    20: lambda f: NeighborReply(_integer(f[1], _U64), _flag(f[2]), _integer(f[3], _INTERVAL_MAX_MS, 1), _read_peers(f[4])),
    21: lambda f: Disconnect(
        DisconnectReason(_integer(f[1], max(DisconnectReason))), None if f[2] is None else read_peer(f[2])
    ),
    22: lambda f: Shuffle(read_peer(f[1]), _integer(f[2], _U64), _integer(f[3], _U8), _read_peers(f[4])),
    23: lambda f: ShuffleReply(_integer(f[1], _U64), _read_peers(f[2])),
    32: lambda f: Records(tuple([_record(record) for record in _list(f[1], LIST_MAX)])),
    33: _summary,
    34: _read_digest,
    35: lambda f: RecordRequest(_read_ids(f[1], _U32)),
    48: _multicast,
    49: lambda f: MulticastAnnounce(_packet_ids(f[1])),
    50: lambda f: MulticastRequest(_packet_ids(f[1])),
    51: lambda f: Unicast(_topic(f[1]), _bytes(f[2], 1, _U32)),
}
"""Of each type, how its fields become a message."""
