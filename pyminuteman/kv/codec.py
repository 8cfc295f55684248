"""What stores say, as bytes.

Pure. One byte of version, then one MessagePack array ``[type, fields...]``, as ``docs/protocols/store.md`` lists them. A LogPart that
its owner sends itself names neither the owner nor the epoch: both are in the packet that carries it. What comes from the network is
held to the caps below before it becomes a message: a wrong type, a number out of range, a list too long, or a byte too many refuses
the whole payload. Fields behind those that are known are skipped: later releases add them.
"""

from __future__ import annotations

from struct import Struct
from typing import Any, Final, assert_never

import msgpack

from pyminuteman.addresses import NodeId
from pyminuteman.kv.errors import RemoteStoreError
from pyminuteman.kv.messages import (
    BUCKETS,
    HASH_BYTES,
    Buckets,
    Change,
    LogPart,
    LogWant,
    Message,
    Row,
    Rows,
    Same,
    SharedRow,
    SharedState,
    States,
    Summary,
    Want,
)
from pyminuteman.kv.operations import Kind, SharedKey, check_key
from pyminuteman.kv.state_codec import decode_state, encode_state
from pyminuteman.kv.versions import Actor
from pyminuteman.packing import packb

__all__ = ["PAYLOAD_MAX_BYTES", "decode", "encode"]

PAYLOAD_MAX_BYTES: Final = 8 * 1024 * 1024
"""Larger ones are refused unread. Nothing that is sent comes near it but the rows of 100,000 owners."""
_VERSION: Final = 1
_LOG_PART, _STATES, _SUMMARY, _SAME, _BUCKETS, _ROWS, _WANT = range(1, 8)
_VERSION_MAX: Final = 1 << 62
_U64: Final = 0xFFFF_FFFF_FFFF_FFFF
_LIST_MAX: Final = 1 << 20
_CAPS: Final[dict[str, Any]] = {
    "raw": False,
    "strict_map_key": True,
    "max_map_len": 0,
    "max_ext_len": 0,
    "max_array_len": _LIST_MAX,
    "max_bin_len": PAYLOAD_MAX_BYTES,
    "max_str_len": 1024,
}
_ROW: Final = Struct(">16sQQ")
_SHARED_ROW: Final = Struct(f">{HASH_BYTES}s{HASH_BYTES}s")


def encode(message: Message, *, origin: Actor | None = None) -> bytes:
    """A message as it is sent; ``origin`` is who sends it, where the packet that carries it says so."""
    packed = packb(_fields(message, origin))
    return bytes([_VERSION]) + packed


def _fields(message: Message, origin: Actor | None) -> list[Any]:  # noqa: PLR0911 - a table
    match message:
        case LogPart():
            return _log_part(message, origin)
        case States():
            return [_STATES, [[int(key.kind), key.name, encode_state(state)] for key, state in message.states]]
        case Summary():
            return [_SUMMARY, message.own, message.shared]
        case Same():
            return [_SAME]
        case Buckets():
            return [_BUCKETS, message.own, message.shared]
        case Rows():
            return [
                _ROWS,
                bytes(message.own_buckets),
                b"".join([_ROW.pack(*row) for row in message.own]),
                bytes(message.shared_buckets),
                b"".join([_SHARED_ROW.pack(*row) for row in message.shared]),
            ]
        case Want():
            return [_WANT, b"".join([_ROW.pack(*want) for want in message.own]), b"".join(message.shared)]
        case _:
            assert_never(message)


def _log_part(part: LogPart, origin: Actor | None) -> list[Any]:
    changes: list[Any] = []
    at = part.low
    for change in part.changes:
        changes += (change.version - at, change.key, change.value)
        at = change.version
    fields = [_LOG_PART, part.low, part.high - part.low, part.base, part.final - part.high, part.forgotten, changes]
    return fields if origin == (part.owner, part.epoch) else [*fields, bytes(part.owner), part.epoch]


def decode(payload: bytes, *, origin: Actor | None = None) -> Message | None:
    """The message, or None when this release does not know its type.

    Args:
        payload: What has arrived.
        origin: Whose packet it was in.

    Raises:
        RemoteStoreError: It is not what another store must send. Drop it.
    """
    if not 1 < len(payload) <= PAYLOAD_MAX_BYTES or payload[0] != _VERSION:
        raise RemoteStoreError(f"a payload of {len(payload)} bytes, beginning with {payload[:1].hex() or 'nothing'}")
    try:
        kind, *fields = _list(msgpack.unpackb(memoryview(payload)[1:], **_CAPS))
        return _message(_integer(kind, _U64), fields, origin)
    except (ValueError, TypeError, IndexError, msgpack.UnpackException) as error:
        raise RemoteStoreError(f"{type(error).__name__}: {error!s:.200}") from None


def _message(kind: int, fields: list[Any], origin: Actor | None) -> Message | None:  # noqa: PLR0911 - a table
    match kind:
        case 1:
            return _read_log_part(fields, origin)
        case 2:
            return States(tuple([_shared_state(one) for one in _list(fields[0])]))
        case 3:
            return Summary(_hash(fields[0]), _hash(fields[1]))
        case 4:
            return Same()
        case 5:
            return Buckets(_bytes(fields[0], 4, BUCKETS, BUCKETS), _bytes(fields[1], 4, BUCKETS, BUCKETS))
        case 6:
            return Rows(
                _buckets(fields[0]),
                tuple([Row(NodeId(node), epoch, version) for node, epoch, version in _unpack(_ROW, fields[1])]),
                _buckets(fields[2]),
                tuple([SharedRow(key, state) for key, state in _unpack(_SHARED_ROW, fields[3])]),
            )
        case 7:
            hashes = _bytes(fields[1], HASH_BYTES, _LIST_MAX)
            return Want(
                tuple([LogWant(NodeId(node), epoch, since) for node, epoch, since in _unpack(_ROW, fields[0])]),
                tuple([hashes[at : at + HASH_BYTES] for at in range(0, len(hashes), HASH_BYTES)]),
            )
        case _:
            return None


def _read_log_part(fields: list[Any], origin: Actor | None) -> LogPart:
    low, span, base, rest, forgotten = (_integer(field, _VERSION_MAX) for field in fields[:5])
    packed = _list(fields[5])
    if len(fields) > 7:  # noqa: PLR2004 - the owner and its epoch are named
        owner, epoch = NodeId(_bytes(fields[6], 1, NodeId.SIZE, NodeId.SIZE)), _integer(fields[7], _VERSION_MAX)
    elif origin is not None:
        owner, epoch = origin
    else:
        raise ValueError("whose log it is a part of is not said")
    if len(packed) % 3 or not base:
        raise ValueError("a part of a log that is cut off, or has no base")
    changes = []
    at = low
    for place in range(0, len(packed), 3):
        key, value = packed[place + 1], packed[place + 2]
        at += _integer(packed[place], _VERSION_MAX, 1)
        check_key(key)
        if value is not None and type(value) is not bytes:
            raise ValueError("a value is bytes")
        changes.append(Change(at, key, value))
    if at > low + span or len({change.key for change in changes}) != len(changes):
        raise ValueError("changes beyond their part, or a key twice")
    return LogPart(owner, epoch, base, low, low + span, low + span + rest, tuple(changes), forgotten)


def _shared_state(value: object) -> SharedState:
    kind, name, state, *_ = _list(value)
    check_key(name)
    key = SharedKey(Kind(_integer(kind, max(Kind), 1)), name)
    return SharedState(key, decode_state(key.kind, state))


def _integer(value: object, most: int, least: int = 0) -> int:
    if type(value) is not int or not least <= value <= most:  # bool is an int, and none here
        raise ValueError(f"{value!r:.40} is not a number from {least} to {most}")
    return value


def _bytes(value: object, unit: int, most: int, least: int = 0) -> bytes:
    if type(value) is not bytes or len(value) % unit or not unit * least <= len(value) <= unit * most:
        raise ValueError(f"not {least} to {most} times {unit} bytes")
    return value


def _hash(value: object) -> bytes:
    return _bytes(value, HASH_BYTES, 1, 1)


def _buckets(value: object) -> tuple[int, ...]:
    buckets = tuple(_bytes(value, 1, BUCKETS))
    if any(bucket >= BUCKETS for bucket in buckets) or len(set(buckets)) != len(buckets):
        raise ValueError("buckets that there are not, or twice")
    return buckets


def _unpack(layout: Struct, value: object) -> list[tuple[Any, ...]]:
    return list(layout.iter_unpack(_bytes(value, layout.size, _LIST_MAX)))


def _list(value: object) -> list[Any]:
    if type(value) is not list:
        raise ValueError("not a list")
    return value
