"""A node's record: what it says of itself, and the form in which others pass it on.

Pure. A record is made by its owner alone, versioned by (epoch, version), and flooded as bytes: whoever has that version
already does not open it, and whoever passes it on does not make it anew.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from hashlib import blake2b
from itertools import pairwise
from operator import ge
from struct import Struct
from typing import Any, Final, NamedTuple, NoReturn

import msgpack

from pyminuteman.addresses import Endpoint, NodeId, parse_address
from pyminuteman.membership.errors import LocalProtocolError, RemoteProtocolError
from pyminuteman.packing import packb

__all__ = [
    "ACCUSED_MAX",
    "BODY_MAX_BYTES",
    "MSGPACK_CAPS",
    "NAME_MAX_BYTES",
    "VERSION_LAYOUT",
    "EncodedRecord",
    "MemberState",
    "Record",
    "Version",
    "unpack_endpoint",
]

NAME_MAX_BYTES: Final = 64
"""Longest name of a node, in UTF-8."""
BODY_MAX_BYTES: Final = 8192
"""Largest body of a record."""
ACCUSED_MAX: Final = 16
"""How many a record may accuse."""
VERSION_LAYOUT: Final = Struct(">16sQQ")
"""A :class:`Version` as it travels."""
_NEIGHBOURS_MAX: Final = 64
_ADDRESSES_MAX: Final = 16
_TAGS_MAX: Final = 64
_KEYS_MAX: Final = 16
_TEXT_MAX_BYTES: Final = 4096
_MULTICAST_V4: Final = 224  # and what is above it: reserved, and broadcast
_MULTICAST_V6: Final = 0xFF
_PROTOCOL_MAX: Final = 255  # a byte of each payload
_FIELDS_MIN: Final = 9
_CONTROL: Final = re.compile("[\0-\x1f\x7f-\x9f]")
"""What no name or tag holds: they are shown on terminals. Other characters pass, printable or not: which ones are depends on the
Unicode that a Python knows, and a node must not be refused for being newer."""


def _refuse(*_value: object) -> NoReturn:
    raise ValueError("a map or an extension")


MSGPACK_CAPS: Final[dict[str, Any]] = {
    "max_map_len": 0,
    "max_ext_len": 0,
    "object_hook": _refuse,  # a length of 0 lets the empty ones through
    "ext_hook": _refuse,
    "strict_map_key": True,
    "raw": False,
}
"""How MessagePack is read wherever it comes from a peer: arrays, numbers, texts and bytes, and no other things."""


class MemberState(IntEnum):
    """What a node says it is. Whether it can be reached is for others to see."""

    ALIVE = 0
    LEFT = 1


class Version(NamedTuple):
    """How new a record is: the newer (epoch, version) of one owner wins."""

    id: NodeId
    epoch: int
    version: int


class EncodedRecord(NamedTuple):
    """A record as it travels: whose, how new, and the rest unopened."""

    id: NodeId
    epoch: int
    version: int
    body: bytes

    @property
    def hash(self) -> int:
        """64 bits that differ for different (id, epoch, version), the same on every machine: tables are compared by their sum."""
        return int.from_bytes(blake2b(b"%b%d.%d" % (self.id, self.epoch, self.version), digest_size=8).digest(), "big")


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What a node says of itself.

    Attributes:
        id: Who.
        epoch: Which life of it: later lives have higher ones. Seconds of wall time at most, so that a lost file does no harm.
        version: Counts up with each change within the epoch.
        name: A label for people, up to 64 bytes of UTF-8. Two nodes should not share one.
        endpoint: Where its membership is reached.
        addresses: Other addresses of this host, for those who map backends to nodes.
        tags: What the operator wants known of it: names to values.
        state: Alive, or left for good.
        neighbours: Its active view, sorted.
        accused: Nodes that it has cut off as failed and not heard of since, sorted by id, each in the version known then: what an
            accused node says in a later one, it says alive.
        keys: Ids of the keys it holds, the one that it seals with first.
        protocol: Lowest and highest protocol version that it speaks.
    """

    id: NodeId
    epoch: int
    version: int
    name: str
    endpoint: Endpoint
    addresses: tuple[str, ...] = ()
    tags: tuple[tuple[str, str], ...] = ()
    state: MemberState = MemberState.ALIVE
    neighbours: tuple[NodeId, ...] = ()
    accused: tuple[Version, ...] = ()
    keys: tuple[bytes, ...] = ()
    protocol: tuple[int, int] = (1, 1)

    def encode(self) -> EncodedRecord:
        """As it travels.

        Raises:
            LocalProtocolError: It holds more than others take: a name above 64 bytes, or above 16 addresses, 64 tags, 64 neighbours,
                16 accused, 16 keys, or 8192 bytes in all.
        """
        for what, size, most in (
            ("bytes of name", len(self.name.encode()), NAME_MAX_BYTES),
            ("addresses", len(self.addresses), _ADDRESSES_MAX),
            ("tags", len(self.tags), _TAGS_MAX),
            ("neighbours", len(self.neighbours), _NEIGHBOURS_MAX),
            ("accused", len(self.accused), ACCUSED_MAX),
            ("keys", len(self.keys), _KEYS_MAX),
        ):
            if size > most:
                raise LocalProtocolError(f"a record with {size} {what}: others take {most}")
        body = packb(
            (
                self.name,
                self.endpoint.packed,
                self.addresses,
                self.tags,
                int(self.state),
                b"".join(self.neighbours),
                b"".join([VERSION_LAYOUT.pack(*version) for version in self.accused]),
                self.keys,
                self.protocol,
            )
        )
        if len(body) > BODY_MAX_BYTES:
            raise LocalProtocolError(f"a record of {len(body)} bytes: others take {BODY_MAX_BYTES}")
        return EncodedRecord(self.id, self.epoch, self.version, body)

    @classmethod
    def decode(cls, encoded: EncodedRecord) -> Record:
        """Open one. Fields behind those known here, from a later version, are left alone.

        Raises:
            RemoteProtocolError: It is not what :meth:`encode` makes; nothing of it was used.
        """
        try:
            return cls._decode(encoded)
        except (ValueError, TypeError, IndexError, msgpack.UnpackException) as error:
            raise RemoteProtocolError(f"record of {encoded.id.short}: {error}") from None

    @classmethod
    def _decode(cls, encoded: EncodedRecord) -> Record:
        if len(encoded.body) > BODY_MAX_BYTES:
            raise ValueError(f"{len(encoded.body)} bytes")
        body = msgpack.unpackb(
            encoded.body,
            **MSGPACK_CAPS,
            max_array_len=_TAGS_MAX + 1,
            max_str_len=_TEXT_MAX_BYTES,
            max_bin_len=BODY_MAX_BYTES,
        )
        if not isinstance(body, list) or len(body) < _FIELDS_MIN:
            raise ValueError("not enough fields")
        name, endpoint, addresses, tags, state, neighbours, accused, keys, protocol = body[:_FIELDS_MIN]
        if not isinstance(name, str) or len(name.encode()) > NAME_MAX_BYTES or not name or _CONTROL.search(name):
            raise ValueError("name")
        low, high, *_ = _items(protocol, _TAGS_MAX)
        if not (type(low) is type(high) is int and 1 <= low <= high <= _PROTOCOL_MAX):  # bool is an int, and none here
            raise ValueError("protocol versions")
        if type(state) is not int:
            raise ValueError("state")
        if state == MemberState.LEFT and (neighbours or accused):
            raise ValueError("who has left has no neighbours, and accuses nobody")
        return cls(
            id=encoded.id,
            epoch=encoded.epoch,
            version=encoded.version,
            name=name,
            endpoint=unpack_endpoint(endpoint),
            addresses=tuple(_address(address) for address in _strings(addresses, _ADDRESSES_MAX)),
            tags=tuple(_tag(*_strings(pair, 2)) for pair in _items(tags, _TAGS_MAX)),
            state=MemberState(state),
            neighbours=_ids(neighbours),
            accused=_versions(accused),
            keys=tuple(_key(key) for key in _items(keys, _KEYS_MAX)),
            protocol=(low, high),
        )


@lru_cache(maxsize=4096)
def unpack_endpoint(packed: bytes) -> Endpoint:
    """Where a peer says that a node is reached: an address of one host, and a port.

    Raises:
        ValueError: Not an endpoint, or one that nobody can be reached at (port 0, an unspecified, multicast or broadcast address):
            a peer must not make us send there.
    """
    endpoint = Endpoint.unpack(packed)
    address = packed[:-2]
    if len(address) == 4:  # noqa: PLR2004 - the size of an IPv4 address
        nowhere = address[0] == 0 or address[0] >= _MULTICAST_V4
    else:
        nowhere = address[0] == _MULTICAST_V6 or not any(address)
    if nowhere or endpoint.port == 0:
        raise ValueError(f"{endpoint} is no place to reach a node")
    return endpoint


def _items(value: object, most: int) -> list[object]:
    if not isinstance(value, list) or len(value) > most:
        raise ValueError("not a list, or too long a one")
    return value


def _strings(value: object, most: int) -> list[str]:
    items = _items(value, most)
    if not all(isinstance(item, str) for item in items):
        raise ValueError("not a text")
    return items  # type: ignore[return-value]


def _tag(key: str, value: str) -> tuple[str, str]:
    if _CONTROL.search(key) or _CONTROL.search(value):
        raise ValueError("a control character in a tag")
    return key, value


def _ids(packed: bytes) -> tuple[NodeId, ...]:
    if not isinstance(packed, bytes) or len(packed) % NodeId.SIZE or len(packed) > _NEIGHBOURS_MAX * NodeId.SIZE:
        raise ValueError("node ids")
    # Of the right size already, so NodeId's own check is left out: with seven neighbours that is a third of the whole decoding.
    ids = tuple([bytes.__new__(NodeId, packed[at : at + NodeId.SIZE]) for at in range(0, len(packed), NodeId.SIZE)])
    if any(map(ge, ids, ids[1:])):
        raise ValueError("node ids out of order")
    return ids


def _versions(packed: bytes) -> tuple[Version, ...]:
    if not isinstance(packed, bytes) or len(packed) % VERSION_LAYOUT.size or len(packed) > ACCUSED_MAX * VERSION_LAYOUT.size:
        raise ValueError("versions")
    versions = tuple([Version(NodeId(id_), *rest) for id_, *rest in VERSION_LAYOUT.iter_unpack(packed)])
    if any(one.id >= other.id for one, other in pairwise(versions)):
        raise ValueError("versions out of order")
    return versions


def _address(text: str) -> str:
    parse_address(text)
    return text


def _key(value: object) -> bytes:
    if not isinstance(value, bytes) or not 0 < len(value) <= NodeId.SIZE:
        raise ValueError("key id")
    return value
