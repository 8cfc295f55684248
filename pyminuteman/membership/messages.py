"""What nodes say to each other, under the papers' names.

Pure. Each message is a frozen dataclass that cannot hold a value out of range as far as types go; sizes and ranges of what
comes from the network are checked where bytes become messages, in :mod:`pyminuteman.membership.codec`.

=====================  =================================================================================================
 family                 messages
=====================  =================================================================================================
 HyParView              Join, JoinDenied, ForwardJoin, Neighbor, NeighborReply, Disconnect, Shuffle, ShuffleReply
 failure detector       Heartbeat, Probe, ProbeReply, IndirectProbe, IndirectReply
 adjacency              Records, TableSummary, TableDigest, RecordRequest
 multicast              Multicast, MulticastAnnounce, MulticastRequest
 users' own             Unicast
=====================  =================================================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple, TypeAlias

from pyminuteman.addresses import Endpoint, NodeId
from pyminuteman.membership.records import EncodedRecord, Version

__all__ = [
    "Disconnect",
    "DisconnectReason",
    "ForwardJoin",
    "Heartbeat",
    "IndirectProbe",
    "IndirectReply",
    "Join",
    "JoinDenied",
    "Message",
    "Multicast",
    "MulticastAnnounce",
    "MulticastRequest",
    "Neighbor",
    "NeighborReply",
    "PacketId",
    "Peer",
    "Priority",
    "Probe",
    "ProbeReply",
    "RecordRequest",
    "Records",
    "Shuffle",
    "ShuffleReply",
    "TableDigest",
    "TableSummary",
    "Unicast",
]


class Peer(NamedTuple):
    """Whom to talk to: a node, its epoch (which life of it), and where it is reached."""

    id: NodeId
    epoch: int
    endpoint: Endpoint


class PacketId(NamedTuple):
    """Which multicast packet: the origin, its epoch, and the number it gave (from 1, without gaps)."""

    origin: NodeId
    epoch: int
    number: int


class Priority(IntEnum):
    """How much a node wants to be a neighbour (HyParView section 4.3)."""

    LOW = 0
    """Taken only where there is room."""
    HIGH = 1
    """The asker has no neighbour, or too few: taken always, at the cost of a random link."""
    WALK = 2
    """The end of a forwarded join's walk offers itself to the joiner: taken where there is room."""


class DisconnectReason(IntEnum):
    """Why a link ends."""

    REPLACED = 0
    """Evicted for somebody who needed the link more."""
    FAILED = 1
    """Taken for dead. If it reads this, it is not."""
    NOT_LINKED = 2
    """The answer to a heartbeat from somebody who is no neighbour."""
    LEAVING = 3
    """The sender leaves the cluster."""
    FULL = 4
    """An accepted request came too late: there is no room any more."""
    PATH = 5
    """The peer lives, others say, but not on this path."""


@dataclass(frozen=True, slots=True)
class Join:
    """Let me in."""

    number: int


@dataclass(frozen=True, slots=True)
class JoinDenied:
    """Too many joins here: ask one of these."""

    number: int
    peers: tuple[Peer, ...]


@dataclass(frozen=True, slots=True)
class ForwardJoin:
    """Somebody has joined: walk on, and offer it a link where the walk ends."""

    joiner: Peer
    time_to_live: int


@dataclass(frozen=True, slots=True)
class Neighbor:
    """Be my neighbour. ``interval_ms`` is how often the asker will send heartbeats (1 to 60,000)."""

    number: int
    priority: Priority
    interval_ms: int


@dataclass(frozen=True, slots=True)
class NeighborReply:
    """The answer to a Join or Neighbor: taken or not, and some members to try besides."""

    number: int
    accepted: bool
    interval_ms: int
    peers: tuple[Peer, ...] = ()


@dataclass(frozen=True, slots=True)
class Disconnect:
    """We are neighbours no longer. ``instead`` has room: the place the sender gave away is one more there."""

    reason: DisconnectReason
    instead: Peer | None = None


@dataclass(frozen=True, slots=True)
class Shuffle:
    """Some of the origin's contacts, for some of those of whoever ends the walk."""

    origin: Peer
    number: int
    time_to_live: int
    peers: tuple[Peer, ...]


@dataclass(frozen=True, slots=True)
class ShuffleReply:
    """The other half of an exchange of contacts."""

    number: int
    peers: tuple[Peer, ...]


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """I live, and this is the last I heard of you (RFC 5880's asynchronous mode, with its echo folded in).

    Attributes:
        number: Counts up by one a heartbeat on this link, modulo 65,536.
        echo: The last ``number`` received from the other end; 0 when none.
        held_100us: How long ago that was, in units of 100 us; 65,535 when longer, and no round trip is measured then.
        table_hash: 32 bits over every reachable member's newest (epoch, version): equal tables have equal hashes.
    """

    number: int
    echo: int
    held_100us: int
    table_hash: int


@dataclass(frozen=True, slots=True)
class Probe:
    """Answer at once."""

    number: int


@dataclass(frozen=True, slots=True)
class ProbeReply:
    """The answer to a Probe."""

    number: int


@dataclass(frozen=True, slots=True)
class IndirectProbe:
    """Probe this node for me. Done only for a node that the helper knows, at the address that the helper has for it."""

    number: int
    target: NodeId


@dataclass(frozen=True, slots=True)
class IndirectReply:
    """The target has answered the helper."""

    number: int
    target: NodeId


@dataclass(frozen=True, slots=True)
class Records:
    """News: records newer than what the receiver may have. Opened only where they are."""

    records: tuple[EncodedRecord, ...]


@dataclass(frozen=True, slots=True)
class TableSummary:
    """Hashes of a table cut in ``len(hashes) / 4`` buckets (a power of two, 16 to 256) by the first bits of the node id."""

    hashes: bytes


@dataclass(frozen=True, slots=True)
class TableDigest:
    """The versions held in the buckets that differ."""

    bucket_count: int
    buckets: tuple[int, ...]
    versions: tuple[Version, ...]


@dataclass(frozen=True, slots=True)
class RecordRequest:
    """Send me these nodes' records."""

    ids: tuple[NodeId, ...]


@dataclass(frozen=True, slots=True)
class Multicast:
    """A packet for every member. ``route`` lists who handed it on, when the origin asked for that; else it is None."""

    id: PacketId
    topic: str
    time_to_live: int
    payload: bytes
    route: tuple[NodeId, ...] | None = None


@dataclass(frozen=True, slots=True)
class MulticastAnnounce:
    """I have these packets."""

    ids: tuple[PacketId, ...]


@dataclass(frozen=True, slots=True)
class MulticastRequest:
    """Send me these packets: they did not come by the tree."""

    ids: tuple[PacketId, ...]


@dataclass(frozen=True, slots=True)
class Unicast:
    """A payload for the receiver alone, from whoever sends the datagram. Neither repeated nor acknowledged."""

    topic: str
    payload: bytes


Message: TypeAlias = (
    Join
    | JoinDenied
    | ForwardJoin
    | Neighbor
    | NeighborReply
    | Disconnect
    | Shuffle
    | ShuffleReply
    | Heartbeat
    | Probe
    | ProbeReply
    | IndirectProbe
    | IndirectReply
    | Records
    | TableSummary
    | TableDigest
    | RecordRequest
    | Multicast
    | MulticastAnnounce
    | MulticastRequest
    | Unicast
)
