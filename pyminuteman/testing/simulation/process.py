"""Hosts, and the processes that run on them one after the other: what stays and what a life takes with it."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from pyminuteman.addresses import Endpoint, NodeId
from pyminuteman.membership.effects import Effect, MemberStatus, Received
from pyminuteman.membership.keyring import Keyring
from pyminuteman.membership.messages import Peer
from pyminuteman.membership.records import Record
from pyminuteman.testing.simulation.clock import Clock

__all__ = ["Core", "Disk", "Host", "MemberLike", "Packet", "Parcel", "Process"]


class MemberLike(Protocol):
    """What is asked of an entry of a node's table."""

    @property
    def record(self) -> Record:
        """What the member last said of itself."""

    @property
    def status(self) -> MemberStatus:
        """What the node holds it to be."""


class Core(Protocol):
    """What is simulated: :class:`pyminuteman.membership.node.MembershipNode`, or a stand-in for tests of the simulation.

    Times are seconds of the host's monotonic clock.
    """

    @property
    def next_wake(self) -> float:
        """When it wants to be woken; infinity when nothing is due."""

    @property
    def me(self) -> Record:
        """What the node says of itself."""

    @property
    def active_view(self) -> tuple[Peer, ...]:
        """Its links."""

    @property
    def passive_view(self) -> tuple[Peer, ...]:
        """Its spare contacts."""

    def start(self, now: float, *, contacts: Sequence[Endpoint] = (), known: Sequence[Peer] = ()) -> list[Effect]:
        """Begin."""

    def handle(self, event: Received, now: float) -> list[Effect]:
        """Take what arrived."""

    def wake(self, now: float) -> list[Effect]:
        """Do what is due."""

    def multicast(self, topic: str, payload: bytes, now: float, *, record_route: bool = False) -> list[Effect]:
        """Send a packet to everybody."""

    def update(
        self,
        now: float,
        *,
        tags: Mapping[str, str] | None = None,
        addresses: Sequence[str] | None = None,
        keys: Sequence[bytes] | None = None,
    ) -> list[Effect]:
        """Change what the node says of itself."""

    def leave(self, now: float) -> list[Effect]:
        """Say goodbye."""

    def members(self) -> Mapping[NodeId, MemberLike]:
        """Everybody it knows of."""

    def route_to(self, node: NodeId) -> tuple[NodeId, ...] | None:
        """The way to a member."""


class Parcel(NamedTuple):
    """What is on its way.

    Attributes:
        boot: Names the process that sent it.
        payload: Bytes; or, where the codec is left out, the sender and the messages themselves.
        size: Bytes on the wire, Ethernet's header included.
        stream: The process at the other end when it goes over TCP: with that process it ends. None for a datagram.
    """

    boot: bytes
    payload: object
    size: int
    stream: Process | None


class Packet(NamedTuple):
    """A multicast packet: when it was sent (seconds), by whom, and what it says."""

    time: float
    origin: Process
    payload: bytes


@dataclass(slots=True)
class Disk:
    """What a host keeps when its process dies: who it was, and whom it knew."""

    id: NodeId
    epoch: int
    known: tuple[Peer, ...] = ()


@dataclass(slots=True, eq=False)
class Host:
    """A machine with an address of its own. Its processes come and go.

    Attributes:
        index: Its number, from 0.
        name: For people: ``n01`` and so on.
        endpoint: Where whatever runs here is reached.
        clock: Its clock, which goes on while no process runs.
        protocol: Lowest and highest protocol version that its next process speaks.
        keys: Numbers of the keys that it has on disk, the one to seal with first; none where nothing is sealed.
        disk: What the last process left, or None: fresh, or lost.
        process: What runs now.
        lives: Every process that ever ran here, in order.
    """

    index: int
    name: str
    endpoint: Endpoint
    clock: Clock
    protocol: tuple[int, int] = (1, 1)
    keys: tuple[int, ...] = ()
    disk: Disk | None = None
    process: Process | None = None
    lives: list[Process] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Process:
    """One life of a node. All times are the world's, in seconds.

    Attributes:
        host: Where it runs.
        name: The host's, with a prime for each time that the host lost its disk.
        node: The core.
        id: Who it is.
        epoch: Which life, as its core was told.
        boot: Names this process to those who receive from it.
        ring: What it seals with, if it does.
        started_at: When it was started.
        ended_at: When it died or was stopped; None while it lives.
        left_at: When it said goodbye, if it did.
        pauses: When it did not run: from and to (infinity while it lasts).
        inbox: What waits for it while it does not run.
        wake_at: When its valid wake comes up; other entries in the world's heap are stale.
        wake_for: What the core had asked for then, by the host's clock.
        wanted: What it asks for now.
        local: The last time that the core was told.
        datagrams_sent, bytes_sent, streams_sent: Its traffic; the bytes are those on the wire and include the streams'.
    """

    host: Host
    name: str
    node: Core
    id: NodeId
    epoch: int
    boot: bytes
    ring: Keyring | None
    started_at: float
    ended_at: float | None = None
    left_at: float | None = None
    pauses: list[tuple[float, float]] = field(default_factory=list)
    inbox: deque[Parcel] = field(default_factory=deque)
    wake_at: float = math.inf
    wake_for: float = math.inf
    wanted: float = math.inf
    local: float = -math.inf
    datagrams_sent: int = 0
    bytes_sent: int = 0
    streams_sent: int = 0

    @property
    def paused(self) -> bool:
        """Whether it is frozen now."""
        return bool(self.pauses) and self.pauses[-1][1] == math.inf

    def local_time(self, time: float) -> float:
        """What the core is told of the world's ``time``: never less than before."""
        local = self.host.clock.local(time)
        self.local = max(self.local, local)
        return self.local
