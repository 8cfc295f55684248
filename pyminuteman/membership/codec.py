"""Messages to bytes and back: what a datagram says, before it is sealed.

Pure. The layout is described in ``docs/protocols/wire.md``. One byte of protocol version, then MessagePack arrays one behind the
other, each ``[type, fields...]``; type 0 says who speaks. What comes from the network is held to the caps below before it becomes
a message: a wrong type, a number out of range, a list too long, or a byte too many refuses the whole payload. Types that are not
known are skipped, and so are fields behind those that are: later minor versions add them.

Many ids go as one byte string (16 bytes each, 32 with epoch and version), which decodes ten times faster than a list of lists and
cannot nest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgpack

from pyminuteman.membership.decoding import LIST_MAX, READERS, TOPIC_MAX_BYTES, read_peer
from pyminuteman.membership.encoding import CUTTERS, WRITERS, encode_identity
from pyminuteman.membership.errors import LocalProtocolError, RemoteProtocolError
from pyminuteman.membership.messages import Message, Peer
from pyminuteman.membership.records import MSGPACK_CAPS

__all__ = ["PROTOCOL_VERSIONS", "STREAM_MAX_BYTES", "Unpacked", "agree", "pack", "unpack"]

PROTOCOL_VERSIONS: Final = (1, 1)
"""Lowest and highest protocol version that this release speaks. Versions of one major (``version >> 4``) differ only by messages
and fields that the older of them skip."""
STREAM_MAX_BYTES: Final = 16 * 1024 * 1024
"""Largest payload over TCP, in bytes."""

_DATAGRAM_MAX_BYTES: Final = 9000
_DATAGRAMS_A_MESSAGE: Final = 8  # beyond, the chance that all of them arrive on a lossy path is poor, and a burst fills queues
_DATAGRAM_MESSAGES: Final = 64
_STREAM_MESSAGES: Final = 4096
_IDENTITY: Final = 0
_TYPE_MAX: Final = 127  # one byte


class Unpacked(NamedTuple):
    """What a payload said.

    Attributes:
        sender: Who it says it is; None when it does not.
        messages: In order.
        unknown: How many messages were skipped because this release does not know their type.
    """

    sender: Peer | None
    messages: tuple[Message, ...]
    unknown: int


def agree(mine: tuple[int, int], theirs: tuple[int, int]) -> int | None:
    """The highest protocol version in both ranges (lowest, highest), or None when they have none in common."""
    version = min(mine[1], theirs[1])
    return version if version >= max(mine[0], theirs[0]) else None


def pack(
    messages: Sequence[Message], sender: Peer | None, *, limit: int, version: int = PROTOCOL_VERSIONS[0]
) -> tuple[list[bytes], list[bytes]]:
    """Write messages as payloads, as few as hold them, in order.

    A message that fits no datagram goes over TCP. Records, digests, announcements and requests are cut instead, as long as
    at most eight datagrams hold them; a digest is cut between its buckets, so that each part is complete for those it names.

    Args:
        messages: What to say.
        sender: Said first in every payload, unless None.
        limit: Most bytes of a payload in a datagram: the datagram's size less the keyring's ``overhead``.
        version: The protocol version to write: the highest shared with the receiver (:func:`agree`); without knowing that, the
            lowest of ours.

    Returns:
        Payloads of datagrams, each of at most ``limit`` bytes, and payloads for TCP, each of at most :data:`STREAM_MAX_BYTES`.

    Raises:
        LocalProtocolError: A message is too large even for TCP, or a digest has a version outside its buckets.
    """
    head = bytes((version,)) if sender is None else bytes((version,)) + encode_identity(sender)
    room, stream_room = limit - len(head), STREAM_MAX_BYTES - len(head)
    small: list[bytes] = []
    large: list[bytes] = []
    for message in messages:
        whole = WRITERS.get(type(message))
        if whole is not None:
            piece = whole(message)
            (small if len(piece) <= room else large).append(piece)
            continue
        parts = CUTTERS[type(message)](message)
        pieces = parts.cut(room)
        if len(pieces) <= _DATAGRAMS_A_MESSAGE and all(len(piece) <= room for piece in pieces):
            small += pieces
        else:
            large += parts.cut(stream_room)
    for piece in large:
        if len(piece) > stream_room:
            raise LocalProtocolError(f"a message of {len(piece)} bytes is above the {STREAM_MAX_BYTES} that a payload may have")
    return _fill(head, small, room, _DATAGRAM_MESSAGES), _fill(head, large, stream_room, _STREAM_MESSAGES)


def _fill(head: bytes, pieces: list[bytes], room: int, most: int) -> list[bytes]:
    if len(pieces) <= 1:
        return [head + piece for piece in pieces]
    payloads, group, size = [], [head], 0
    for piece in pieces:
        if size + len(piece) > room or len(group) > most:
            payloads.append(b"".join(group))
            group, size = [head], 0
        group.append(piece)
        size += len(piece)
    return [*payloads, b"".join(group)]


_CAPS: Final = {**MSGPACK_CAPS, "max_array_len": LIST_MAX, "max_str_len": TOPIC_MAX_BYTES}
_DATAGRAM_CAPS: Final = {**_CAPS, "max_bin_len": _DATAGRAM_MAX_BYTES}
_STREAM_CAPS: Final = {**_CAPS, "max_bin_len": STREAM_MAX_BYTES}


def unpack(plain: bytes, *, stream: bool = False) -> Unpacked:
    """Read a payload that has been authenticated.

    Args:
        plain: The payload.
        stream: Whether it came over TCP, where more is allowed.

    Raises:
        RemoteProtocolError: It is not what :func:`pack` writes, now or in a later version of the same major. Nothing of it is
            used, however good its beginning.
    """
    size, most = (STREAM_MAX_BYTES, _STREAM_MESSAGES) if stream else (_DATAGRAM_MAX_BYTES, _DATAGRAM_MESSAGES)
    if not 1 < len(plain) <= size:
        raise RemoteProtocolError(f"a payload of {len(plain)} bytes")
    lowest, highest = PROTOCOL_VERSIONS
    if not lowest <= plain[0] <= highest | 15:
        raise RemoteProtocolError(
            f"protocol version {plain[0]}: this node speaks {lowest} to {highest}, so one of us is to be upgraded"
        )
    try:
        return _read(_arrays(plain, most, _STREAM_CAPS if stream else _DATAGRAM_CAPS))
    except (ValueError, TypeError, IndexError, msgpack.UnpackException) as error:
        raise RemoteProtocolError(f"payload: {error}") from None


def _arrays(plain: bytes, most: int, caps: dict[str, Any]) -> list[Any]:
    body = plain[1:]
    if body[1:2] != b"\0":  # else the identity is first, so there is more
        try:
            return [msgpack.unpackb(body, **caps)]  # most payloads are one heartbeat, and this takes a quarter of the time
        except msgpack.ExtraData:
            pass
    unpacker = msgpack.Unpacker(None, read_size=len(body), max_buffer_size=len(body), **caps)
    unpacker.feed(body)
    arrays: list[Any] = []
    end = 0
    # Not by iteration: that ends as silently within a message as behind the last.
    while end < len(body):
        if len(arrays) > most:  # the identity is one more than the messages
            raise ValueError(f"more than {most} messages")
        arrays.append(unpacker.unpack())
        end = unpacker.tell()
    return arrays


def _read(arrays: list[Any]) -> Unpacked:
    sender, unknown = None, 0
    messages: list[Message] = []
    for position, fields in enumerate(arrays):
        if type(fields) is not list or not fields:
            raise ValueError("a message is a list that begins with its type")
        kind = fields[0]
        if type(kind) is not int or not 0 <= kind <= _TYPE_MAX:
            raise ValueError(f"message type {kind!r:.40}")
        reader = READERS.get(kind)
        if reader is not None:
            messages.append(reader(fields))
        elif kind != _IDENTITY:
            unknown += 1
        elif position == 0:
            sender = read_peer(fields[1:])
        else:
            raise ValueError("who speaks is said first, or not at all")
    return Unpacked(sender, tuple(messages), unknown)
