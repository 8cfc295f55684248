"""What the parts of the core tell the node that composes them: timers to set, links made and lost, verdicts.

Pure. These never leave the core; what does is in :mod:`pyminuteman.membership.effects`. A timer carries what makes it stale
(a serial, a number, a time), so nothing is ever cancelled: one that no longer matters does nothing when it fires.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from pyminuteman.addresses import NodeId
from pyminuteman.membership.effects import Effect
from pyminuteman.membership.messages import DisconnectReason, Peer

__all__ = [
    "Accused",
    "AnnounceDue",
    "DeadlineDue",
    "Departed",
    "DownDue",
    "FlushDue",
    "ForgetDue",
    "HealDue",
    "HeartbeatDue",
    "JoinDue",
    "LinkLost",
    "LinkMade",
    "LinkSilent",
    "MissingDue",
    "OrphanDue",
    "Reborn",
    "RefreshDue",
    "RequestDue",
    "ReturnDue",
    "SearchDue",
    "SetTimer",
    "ShuffleDue",
    "Step",
    "Timer",
    "Torn",
]


@dataclass(frozen=True, slots=True)
class HeartbeatDue:
    """Time to be heard on a link; stale when the link's ``serial`` is another."""

    node: NodeId
    serial: int


@dataclass(frozen=True, slots=True)
class DeadlineDue:
    """A neighbour should have been heard by now; stale when the link's ``serial`` is another."""

    node: NodeId
    serial: int


@dataclass(frozen=True, slots=True)
class RequestDue:
    """A request has had its time; stale when it was answered."""

    number: int


@dataclass(frozen=True, slots=True)
class JoinDue:
    """Try to join again, unless there are neighbours by now."""


@dataclass(frozen=True, slots=True)
class SearchDue:
    """Look for neighbours, if there is room."""


@dataclass(frozen=True, slots=True)
class ShuffleDue:
    """Exchange contacts."""


@dataclass(frozen=True, slots=True)
class HealDue:
    """Try somebody who is out of reach."""


@dataclass(frozen=True, slots=True)
class FlushDue:
    """Send the gossip that waits."""


@dataclass(frozen=True, slots=True)
class RefreshDue:
    """Recompute who is in reach."""


@dataclass(frozen=True, slots=True)
class OrphanDue:
    """A member has been out of reach, unaccused, for its grace; stale when ``since`` is another."""

    node: NodeId
    since: float


@dataclass(frozen=True, slots=True)
class DownDue:
    """A suspect has been silent long enough; stale when ``since`` is another."""

    node: NodeId
    since: float


@dataclass(frozen=True, slots=True)
class ReturnDue:
    """One that was down has been back in reach for a while; stale when ``since`` is another."""

    node: NodeId
    since: float


@dataclass(frozen=True, slots=True)
class ForgetDue:
    """Look for members to forget."""


@dataclass(frozen=True, slots=True)
class AnnounceDue:
    """Announce multicast packets to the neighbours they were not sent to."""

    again: bool


@dataclass(frozen=True, slots=True)
class MissingDue:
    """Ask for packets that were announced and did not come."""


Timer: TypeAlias = (
    HeartbeatDue
    | DeadlineDue
    | RequestDue
    | JoinDue
    | SearchDue
    | ShuffleDue
    | HealDue
    | FlushDue
    | RefreshDue
    | OrphanDue
    | DownDue
    | ReturnDue
    | ForgetDue
    | AnnounceDue
    | MissingDue
)


@dataclass(frozen=True, slots=True)
class SetTimer:
    """Fire ``timer`` at ``due`` (seconds of the node's clock)."""

    timer: Timer
    due: float


@dataclass(frozen=True, slots=True)
class LinkMade:
    """Both ends agreed. ``interval`` is how often the peer will be heard, in seconds.

    ``joined`` says that the peer comes new into the cluster, and wants everything.
    """

    peer: Peer
    boot: bytes
    interval: float
    joined: bool = False


@dataclass(frozen=True, slots=True)
class LinkLost:
    """A link has ended, by us or by the peer. ``accuse`` says that we hold the peer for dead."""

    peer: Peer
    reason: DisconnectReason
    accuse: bool = False


@dataclass(frozen=True, slots=True)
class LinkSilent:
    """The failure detector's verdict on a neighbour: dead (``FAILED``), or alive on other paths only (``PATH``)."""

    node: NodeId
    reason: DisconnectReason


@dataclass(frozen=True, slots=True)
class Accused:
    """Somebody has cut off that node as failed: if it is our neighbour too, see to it now."""

    node: NodeId


@dataclass(frozen=True, slots=True)
class Torn:
    """That node fell out of reach and nobody accuses it: the graph may be torn, and somebody should see."""

    node: NodeId


@dataclass(frozen=True, slots=True)
class Departed:
    """That node has left, or is forgotten: it is no contact any more."""

    node: NodeId


@dataclass(frozen=True, slots=True)
class Reborn:
    """We go under another epoch from now on."""

    me: Peer


Step: TypeAlias = Effect | SetTimer | LinkMade | LinkLost | LinkSilent | Accused | Torn | Departed | Reborn
