"""How each message is written as bytes, and where the long ones may be cut.

Pure. The layout is described in ``docs/protocols/wire.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, Final, NamedTuple, Protocol

from pyminuteman.addresses import Endpoint
from pyminuteman.membership.errors import LocalProtocolError
from pyminuteman.membership.messages import (
    Disconnect,
    ForwardJoin,
    Heartbeat,
    IndirectProbe,
    IndirectReply,
    Join,
    JoinDenied,
    Multicast,
    MulticastAnnounce,
    MulticastRequest,
    Neighbor,
    NeighborReply,
    Peer,
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
from pyminuteman.membership.records import VERSION_LAYOUT
from pyminuteman.packing import packb

__all__ = ["CUTTERS", "WRITERS", "Cuttable", "encode_identity"]

_LIST_MAX: Final = 512  # as readers have it
_U8, _U16, _U32 = 0xFF, 0xFFFF, 0xFFFF_FFFF


_HEADER_MAX_BYTES: Final = 5


def _array(count: int) -> bytes:
    if count < 16:  # noqa: PLR2004 - MessagePack's fixarray
        return bytes((0x90 | count,))
    return b"\xdc" + count.to_bytes(2, "big")


def _bin(size: int) -> bytes:
    if size <= _U8:
        return bytes((0xC4, size))
    return b"\xc5" + size.to_bytes(2, "big") if size <= _U16 else b"\xc6" + size.to_bytes(4, "big")


@lru_cache(maxsize=4096)
def _endpoint(endpoint: Endpoint) -> bytes:
    return endpoint.packed


def _peer(peer: Peer) -> tuple[bytes, int, bytes]:
    return peer.id, peer.epoch, _endpoint(peer.endpoint)


def _peers(peers: Iterable[Peer]) -> list[tuple[bytes, int, bytes]]:
    return [_peer(peer) for peer in peers]


def encode_identity(peer: Peer) -> bytes:
    """The pseudo-message of type 0: who speaks."""
    return packb((0, *_peer(peer)))


WRITERS: Final[dict[type[Any], Callable[[Any], bytes]]] = {
    Heartbeat: lambda m: packb((1, m.number, m.echo, m.held_100us, m.table_hash)),
    Probe: lambda m: packb((2, m.number)),
    ProbeReply: lambda m: packb((3, m.number)),
    IndirectProbe: lambda m: packb((4, m.number, m.target)),
    IndirectReply: lambda m: packb((5, m.number, m.target)),
    Join: lambda m: packb((16, m.number)),
    JoinDenied: lambda m: packb((17, m.number, _peers(m.peers))),
    ForwardJoin: lambda m: packb((18, _peer(m.joiner), m.time_to_live)),
    Neighbor: lambda m: packb((19, m.number, int(m.priority), m.interval_ms)),
    NeighborReply: lambda m: packb((20, m.number, m.accepted, m.interval_ms, _peers(m.peers))),
    Disconnect: lambda m: packb((21, int(m.reason), None if m.instead is None else _peer(m.instead))),
    Shuffle: lambda m: packb((22, _peer(m.origin), m.number, m.time_to_live, _peers(m.peers))),
    ShuffleReply: lambda m: packb((23, m.number, _peers(m.peers))),
    TableSummary: lambda m: packb((33, m.hashes)),
    Multicast: lambda m: packb((48, m.id, m.topic, m.time_to_live, m.payload, None if m.route is None else b"".join(m.route))),
    Unicast: lambda m: packb((51, m.topic, m.payload)),
}
"""Of each message that is never cut, how it is written."""


class Cuttable(Protocol):
    """A message of many elements, encoded, that can be cut into several of its kind."""

    def cut(self, room: int) -> list[bytes]:
        """As few messages as hold all elements, each of at most ``room`` bytes unless one element alone takes more."""


class _List(NamedTuple):
    """A message that is a list of independent things, encoded one by one, so that it can be cut between any two."""

    kind: int
    elements: list[bytes]
    header: Callable[[int, int], bytes]
    most: int

    def cut(self, room: int) -> list[bytes]:
        """As few messages as hold all elements, each of at most ``room`` bytes unless one element alone takes more."""
        budget = room - 2 - _HEADER_MAX_BYTES
        parts: list[bytes] = []
        group: list[bytes] = []
        size = 0
        for element in self.elements:
            if group and (size + len(element) > budget or len(group) == self.most):
                parts.append(self._message(group, size))
                group, size = [], 0
            group.append(element)
            size += len(element)
        return [*parts, self._message(group, size)]

    def _message(self, group: list[bytes], size: int) -> bytes:
        return b"".join((bytes((0x92, self.kind)), self.header(len(group), size), *group))


class _Digest(NamedTuple):
    """A table digest. It is cut between buckets: who reads it takes a node that a named bucket does not list for one we lack."""

    bucket_count: int
    buckets: dict[int, bytes]

    def cut(self, room: int) -> list[bytes]:
        """As few digests as hold all buckets, each of at most ``room`` bytes unless one bucket alone takes more."""
        budget = room - 4 - 2 * _HEADER_MAX_BYTES
        parts: list[bytes] = []
        group: dict[int, bytes] = {}
        size = 0
        for bucket, versions in self.buckets.items():
            if group and size + 1 + len(versions) > budget:
                parts.append(self._message(group))
                group, size = {}, 0
            group[bucket] = versions
            size += 1 + len(versions)
        return [*parts, self._message(group)]

    def _message(self, group: dict[int, bytes]) -> bytes:
        return packb((34, self.bucket_count, bytes(group), b"".join(group.values())))


def _digest(message: TableDigest) -> _Digest:
    buckets: dict[int, list[bytes]] = {bucket: [] for bucket in message.buckets}
    for version in message.versions:
        bucket = version.id[0] * message.bucket_count >> 8
        if bucket not in buckets:
            raise LocalProtocolError(f"{version.id.short} is in none of the digest's buckets")
        buckets[bucket].append(VERSION_LAYOUT.pack(*version))
    return _Digest(message.bucket_count, {bucket: b"".join(versions) for bucket, versions in buckets.items()})


def _list_header(count: int, _size: int) -> bytes:
    return _array(count)


def _bin_header(_count: int, size: int) -> bytes:
    return _bin(size)


CUTTERS: Final[dict[type[Any], Callable[[Any], Cuttable]]] = {
    Records: lambda m: _List(32, [packb(record) for record in m.records], _list_header, _LIST_MAX),
    TableDigest: _digest,
    RecordRequest: lambda m: _List(35, list(m.ids), _bin_header, _U32),
    MulticastAnnounce: lambda m: _List(49, [VERSION_LAYOUT.pack(*id_) for id_ in m.ids], _bin_header, _U32),
    MulticastRequest: lambda m: _List(50, [VERSION_LAYOUT.pack(*id_) for id_ in m.ids], _bin_header, _U32),
}
"""Of each message that may be cut, how it is taken apart."""
