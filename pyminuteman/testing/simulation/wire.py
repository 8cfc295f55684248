"""How messages travel in a simulation: through the codec, held to the datagram's size, counted as on the wire.

:class:`CodecWire` leaves out only the sealing, which costs more than everything else; :class:`SealedWire` has that too.
:class:`ObjectWire` hands the messages over as they are, for clusters of ten thousand. Every wire speaks to each node in the highest
protocol version that both know, and to one whose version it does not know in its own lowest, as the driver does.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, cast

from pyminuteman.addresses import Endpoint
from pyminuteman.membership.codec import PROTOCOL_VERSIONS, agree, pack, unpack
from pyminuteman.membership.config import MembershipConfig
from pyminuteman.membership.effects import MemberUp, MemberUpdated, Notification, Received, Send
from pyminuteman.membership.messages import Message, Multicast, Peer, Records
from pyminuteman.packing import packb
from pyminuteman.testing.simulation.process import Parcel, Process

__all__ = ["FRAME_BYTES", "LATER_MESSAGE", "SEALING_BYTES", "CodecWire", "ObjectWire"]

SEALING_BYTES: Final = 41
"""What sealing adds to a payload."""
FRAME_BYTES: Final = 42
"""Headers of UDP, IPv4 and Ethernet: 8, 20 and 14 bytes. TCP's are counted as the same, its handshake left out."""
LATER_MESSAGE: Final = packb((127, "of a later version"))
"""A message that only a later protocol version knows; nodes that speak one add it to what they send to each other."""


class WireFault(Exception):
    """A node sent what must not be sent: a datagram that is too large."""


class CodecWire:
    """Messages become bytes and messages again.

    Args:
        config: Says how large a datagram may be.
    """

    def __init__(self, config: MembershipConfig) -> None:
        self._limit = config.datagram_max_bytes - SEALING_BYTES
        self._protocols: dict[tuple[Process, Endpoint], tuple[int, int]] = {}
        self.skipped = 0
        """Messages of a later version that were passed over."""

    def notified(self, _time: float, process: Process, notification: Notification) -> None:
        """Learn, as a driver would, which protocol versions the members speak that a process hears of."""
        if not isinstance(notification, MemberUp | MemberUpdated):
            return
        record = notification.record
        if record.protocol != PROTOCOL_VERSIONS:
            self._protocols[process, record.endpoint] = record.protocol
        else:
            self._protocols.pop((process, record.endpoint), None)

    def pack(self, process: Process, send: Send, target: Process | None) -> Iterable[Parcel]:
        """What goes out for one effect."""
        sender = _identity(process) if send.identify else None
        mine, theirs = process.host.protocol, self._protocols.get((process, send.to), PROTOCOL_VERSIONS)
        version = agree(mine, theirs) or mine[0]
        small, large = pack(send.messages, sender, limit=self._limit, version=version)
        if version > PROTOCOL_VERSIONS[1]:
            small = [
                payload + LATER_MESSAGE if len(payload) + len(LATER_MESSAGE) <= self._limit else payload for payload in small
            ]
        for payload in small:
            if len(payload) > self._limit:
                raise WireFault(f"a payload of {len(payload)} bytes in a datagram that takes {self._limit}")
        parcels = [self._parcel(process, payload, None) for payload in small]
        if target is not None:
            parcels += [self._parcel(process, payload, target) for payload in large]
        return parcels

    def _parcel(self, process: Process, payload: bytes, stream: Process | None) -> Parcel:
        return Parcel(process.boot, payload, len(payload) + SEALING_BYTES + FRAME_BYTES, stream)

    def unpack(self, _process: Process, parcel: Parcel) -> Received | None:
        """What a process gets of it."""
        payload = parcel.payload
        assert isinstance(payload, bytes)  # noqa: S101 - this wire made it
        sender, messages, unknown = unpack(payload, stream=parcel.stream is not None)
        self.skipped += unknown
        return Received(parcel.boot, sender, messages, parcel.size)


class ObjectWire:
    """Messages are handed over as they are, and their size on the wire is estimated: for speed where numbers are large.

    The estimate is that of the codec for the first message of each type and number of elements.
    """

    def __init__(self, config: MembershipConfig) -> None:
        self._limit = config.datagram_max_bytes - SEALING_BYTES
        self._sizes: dict[tuple[object, ...], int] = {}

    def notified(self, _time: float, _process: Process, _notification: Notification) -> None:
        """Nothing to learn: here all speak one version."""

    def pack(self, process: Process, send: Send, target: Process | None) -> Iterable[Parcel]:
        """What goes out for one effect: one parcel, counted as the datagrams that it would be."""
        sender = _identity(process) if send.identify else None
        size = sum(map(self._size, send.messages)) + (40 if send.identify else 1)
        datagrams = -(-size // self._limit)
        stream = target if datagrams > 8 else None  # noqa: PLR2004 - as the codec does
        return (Parcel(process.boot, (sender, send.messages), size + datagrams * (SEALING_BYTES + FRAME_BYTES), stream),)

    def _size(self, message: Message) -> int:
        if isinstance(message, Records):
            return 3 + sum(30 + len(record.body) for record in message.records)
        if isinstance(message, Multicast):
            return 50 + len(message.topic) + len(message.payload)
        return self._measured(message)

    def _measured(self, message: Message) -> int:
        kind = type(message)
        lengths = tuple(
            len(value) for name in kind.__dataclass_fields__ if isinstance(value := getattr(message, name), tuple | bytes)
        )
        key = (kind, lengths)
        if key not in self._sizes:
            small, large = pack((message,), None, limit=self._limit)
            self._sizes[key] = sum(len(payload) - 1 for payload in (*small, *large))
        return self._sizes[key]

    def unpack(self, _process: Process, parcel: Parcel) -> Received | None:
        """What a process gets of it."""
        sender, messages = cast(tuple[Peer | None, tuple[Message, ...]], parcel.payload)
        return Received(parcel.boot, sender, messages, parcel.size)


def _identity(process: Process) -> Peer:
    return Peer(process.id, process.node.me.epoch, process.host.endpoint)
