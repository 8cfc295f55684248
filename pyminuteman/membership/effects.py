"""What goes into the core and what comes out: inputs, effects, notifications.

Pure. The core is told what happened and when, and answers with a list of effects; only a driver touches the world. It keeps its
own timers: after each call the driver sleeps until :attr:`pyminuteman.membership.node.MembershipNode.next_wake` or until
something arrives, whichever is first, and calls again.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from pyminuteman.addresses import Endpoint, NodeId
from pyminuteman.membership.messages import Message, PacketId, Peer
from pyminuteman.membership.records import Record

__all__ = [
    "Conflict",
    "Delivered",
    "Effect",
    "EpochTaken",
    "LocalStall",
    "MemberDown",
    "MemberLeft",
    "MemberStatus",
    "MemberSuspect",
    "MemberUp",
    "MemberUpdated",
    "Notification",
    "Notify",
    "PartitionSuspected",
    "Received",
    "Send",
    "ViewChanged",
]


class MemberStatus(Enum):
    """What this node holds a member to be."""

    ALIVE = "alive"
    """A path of links that both ends agree on reaches it."""
    SUSPECT = "suspect"
    """No path reaches it: send it no new work. Undone for free."""
    DOWN = "down"
    """And so for longer than a freeze lasts: its work is to be done elsewhere."""
    LEFT = "left"
    """It said goodbye."""


@dataclass(frozen=True, slots=True)
class Received:
    """An authenticated datagram, or a message over TCP.

    Attributes:
        boot: Names the process that sealed it (the keyring's boot id): a later datagram with the same one is from the same process.
        sender: Who it says it is; None when it does not (heartbeats between neighbours leave it out).
        messages: What it says, in order.
        size: Bytes on the wire, for the counters.
    """

    boot: bytes
    sender: Peer | None
    messages: tuple[Message, ...]
    size: int = 0


@dataclass(frozen=True, slots=True)
class Send:
    """Send these messages, as few datagrams as hold them; one that fits in none goes over TCP.

    Attributes:
        to: Where.
        messages: What, in order.
        identify: Whether to say who we are; left out between neighbours, who know.
    """

    to: Endpoint
    messages: tuple[Message, ...]
    identify: bool = True


@dataclass(frozen=True, slots=True)
class MemberUp:
    """A member is alive that was not: new, or back."""

    record: Record


@dataclass(frozen=True, slots=True)
class MemberSuspect:
    """No path reaches the member any more."""

    record: Record


@dataclass(frozen=True, slots=True)
class MemberDown:
    """The member has been out of reach for longer than a freeze lasts."""

    record: Record


@dataclass(frozen=True, slots=True)
class MemberLeft:
    """The member has left on purpose."""

    record: Record


@dataclass(frozen=True, slots=True)
class MemberUpdated:
    """Tags, addresses, endpoint, name or keys of a member changed, or it lives again under a later epoch.

    Of a restart so quick that nobody missed the member, this is all that is told.
    """

    record: Record
    previous: Record


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two living members share a name, or somebody else speaks under our own id."""

    record: Record
    other: Record
    reason: str


@dataclass(frozen=True, slots=True)
class ViewChanged:
    """The active view changed."""

    active: tuple[Peer, ...]


@dataclass(frozen=True, slots=True)
class PartitionSuspected:
    """Many members went out of reach together: more likely the network than they."""

    unreachable: int
    reachable: int


@dataclass(frozen=True, slots=True)
class LocalStall:
    """This process did not run for a while; what it was about to hold against others is forgiven."""

    seconds: float


@dataclass(frozen=True, slots=True)
class EpochTaken:
    """Somebody used our id with a later epoch: we went above it. The driver persists ``epoch``."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Delivered:
    """A multicast packet arrived, for the first and only time.

    Or a payload for this node alone, whose ``id`` then is its sender, the
    sender's epoch, and 0.
    """

    id: PacketId
    topic: str
    payload: bytes
    route: tuple[NodeId, ...] | None = None


Notification: TypeAlias = (
    MemberUp
    | MemberSuspect
    | MemberDown
    | MemberLeft
    | MemberUpdated
    | Conflict
    | ViewChanged
    | PartitionSuspected
    | LocalStall
    | EpochTaken
    | Delivered
)


@dataclass(frozen=True, slots=True)
class Notify:
    """Tell whoever listens."""

    notification: Notification


Effect: TypeAlias = Send | Notify
