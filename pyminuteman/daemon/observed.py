"""One look at a node: everything that the API, the page and the metrics tell, taken at one moment. Pure.

:func:`observe` runs in the node's loop and only takes references and small copies; what is made of them (:mod:`~pyminuteman.daemon.views`,
:mod:`~pyminuteman.daemon.metrics`) may then run in a thread, where ten thousand backends hold up no heartbeat.

The protocols say what is needed of a node, and no more: tests have doubles of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol, TypeAlias

from pyminuteman.addresses import NodeId
from pyminuteman.health.monitor import Health
from pyminuteman.ipvs import ServiceKey, ServiceStatistics
from pyminuteman.membership import Member, Record
from pyminuteman.sources.base import SourceState, SourceStatus
from pyminuteman.vips.desired import DesiredState
from pyminuteman.vips.model import BackendKey
from pyminuteman.vips.policy import Judgement
from pyminuteman.vips.resolution import Target

__all__ = [
    "Buckets",
    "FaultObserved",
    "Faults",
    "FeedObserved",
    "Happening",
    "HostObserved",
    "KernelObserved",
    "Mark",
    "MarkTarget",
    "Moment",
    "Names",
    "Observation",
    "OutcomesOf",
    "StoreObserved",
    "rfc3339",
]


def rfc3339(wall: float) -> str:
    """``2026-11-28T04:18:00.123Z``. ``wall`` is in seconds of the epoch."""
    return datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class Moment:
    """Now, on both clocks.

    Attributes:
        wall: Seconds of the epoch.
        clock: Seconds of the loop's clock (:func:`trio.current_time`), which intervals are measured by.
    """

    wall: float
    clock: float

    def wall_of(self, clock: float) -> float:
        """When it was by the wall, if the wall clock went as it should since."""
        return self.wall - (self.clock - clock)

    def text(self, clock: float | None) -> str | None:
        """The time of the loop's clock in RFC 3339, or None for never."""
        return None if clock is None else rfc3339(self.wall_of(clock))

    @property
    def now(self) -> str:
        """This moment, in RFC 3339."""
        return rfc3339(self.wall)


@dataclass(frozen=True, slots=True)
class Mark:
    """What an operator has laid down, and who, when and why. ``at`` is in seconds of the epoch."""

    by: str
    at: float
    reason: str = ""


MarkTarget: TypeAlias = NodeId | Target
"""A node with all its backends; or a backend, behind one VIP or (with None) behind all."""


@dataclass(frozen=True, slots=True)
class FeedObserved:
    """One source of this node.

    Attributes:
        name: What the operators call it.
        place: Where it is read, without secrets.
        state: Its last good state; None before the first.
        status: How it is.
        stale: It has been silent for longer than it may.
        age_seconds: Since it was last known to be good; None for never.
    """

    name: str
    place: str
    state: SourceState | None
    status: SourceStatus
    stale: bool = False
    age_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Buckets:
    """A histogram: counts of values at or below each bound, not cumulated; the last count is of those above all bounds."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    sum: float


@dataclass(frozen=True, slots=True)
class KernelObserved:
    """What one reconciler has done in its network namespace. Times are seconds of the epoch; None for never.

    Attributes:
        namespace: Its name; empty for the host's own.
        services: In the kernel, of ours.
        destinations: Behind these.
        last_sync_at: When a difference was last applied, or seen to be none.
        last_sync_seconds: How long that took.
        last_queued_at: When a change was last asked for.
        syncs_total: How many syncs there were.
        changes_pending: Changes that wait for a sync.
        errors: How often each operation failed, with which errno (its symbol).
        draining: Destinations that keep their connections a little longer.
        held: What a plan would lose that is held back; empty text when nothing is.
        held_id: What names just that.
        held_services: The services that would lose it.
        foreign: Services in our networks that are not ours, and left alone.
        error: Why the last sync failed; empty when it did not.
        sync: How long syncs took, in seconds.
        programming: From a source's event to the kernel's acknowledgement, in seconds.
    """

    namespace: str = ""
    services: int = 0
    destinations: int = 0
    last_sync_at: float | None = None
    last_sync_seconds: float | None = None
    last_queued_at: float | None = None
    syncs_total: int = 0
    changes_pending: int = 0
    errors: Mapping[tuple[str, str], int] = field(default_factory=dict)
    draining: int = 0
    held: str = ""
    held_id: str = ""
    held_services: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()
    error: str = ""
    sync: Buckets | None = None
    programming: Buckets | None = None


@dataclass(frozen=True, slots=True)
class OutcomesOf:
    """How connections to one backend of one service ended, as far as this host's kernel has seen.

    Attributes:
        opened: Connections that were established.
        failed: Connections that died half open.
        latency: Round trips of new connections, in seconds; None where nothing is known.
        latency_seconds: An estimate just now: the round trip and three of its deviations.
    """

    opened: int = 0
    failed: int = 0
    latency: Buckets | None = None
    latency_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class HostObserved:
    """One step of the host's set-up: whether it stands, and why not."""

    step: str
    ok: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class FaultObserved:
    """Something in the store that cannot be read, or does not count.

    Attributes:
        kind: ``claim``, ``mark`` or ``health``.
        node: The id of the node that says so, in text; empty for marks, which are nobody's own.
        key: Under which key.
        reason: What is wrong with it.
    """

    kind: str
    node: str
    key: str
    reason: str


@dataclass(frozen=True, slots=True)
class Faults:
    """What does not count of what nodes say, and what this node could not say.

    Attributes:
        counts: How many there are now, by kind.
        shown: Some of them, 100 of a kind at most.
        claims_total: Entries of claims that could not be read since the start.
        untold: VIPs of which the store does not take all, and why.
    """

    counts: Mapping[str, int] = field(default_factory=dict)
    shown: tuple[FaultObserved, ...] = ()
    claims_total: int = 0
    untold: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StoreObserved:
    """How the store is."""

    engine: str
    ready: bool
    problem: str = ""
    entries: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """A node at one moment. Not to be changed; nothing in it changes."""

    moment: Moment
    software: str
    """Name and version: ``pyminuteman 0.1.0``."""
    build: Mapping[str, str] = field(default_factory=dict)
    """What else is to be told of it: ``version``, ``python``, ``kernel``."""
    started_at: float
    """Seconds of the epoch."""
    cluster: str
    me: Record
    members: Mapping[NodeId, Member]
    """The others."""
    neighbours: tuple[NodeId, ...] = ()
    store: StoreObserved
    feeds: tuple[FeedObserved, ...] = ()
    desired: DesiredState = field(default_factory=DesiredState)
    judgement: Judgement = field(default_factory=Judgement)
    node_drains: Mapping[NodeId, Mark] = field(default_factory=dict)
    backend_drains: Mapping[Target, Mark] = field(default_factory=dict)
    weights: Mapping[Target, tuple[int, Mark]] = field(default_factory=dict)
    faults: Faults = field(default_factory=Faults)
    health: Mapping[BackendKey, Health] = field(default_factory=dict)
    """Of the backends that are checked."""
    kernels: tuple[KernelObserved, ...] = ()
    """The host's own first, then namespaces by name."""
    statistics: Mapping[ServiceKey, ServiceStatistics] = field(default_factory=dict)
    """Of the host's own kernel table."""
    outcomes: Mapping[tuple[ServiceKey, BackendKey], OutcomesOf] = field(default_factory=dict)
    host: tuple[HostObserved, ...] = ()
    membership_metrics: Mapping[str, float] = field(default_factory=dict)
    store_metrics: Mapping[str, float] = field(default_factory=dict)
    health_metrics: Mapping[str, float] = field(default_factory=dict)
    event_counts: Mapping[str, int] = field(default_factory=dict)
    """How many events of each kind there were."""
    api_metrics: Mapping[str, float] = field(default_factory=dict)
    zone: str = "l4lb.minuteman"
    """The DNS zone that named VIPs are in."""

    def names(self) -> Names:
        """What its nodes are called. Made anew at each call: keep it while many are asked for."""
        return Names((self.me, *(member.record for member in self.members.values())))

    def nodes_by_address(self) -> dict[str, Record]:
        """Which node has which address: that of its endpoint, and the others that it tells. This node's own come first."""
        found: dict[str, Record] = {}
        for record in (self.me, *(member.record for member in self.members.values())):
            for address in (record.endpoint.address, *record.addresses):
                found.setdefault(address, record)
        return found


class Names:
    """What people call nodes: by name, and where several have one name, each with the first digits of its id (``web1 (8c0e1a2b)``)."""

    def __init__(self, records: Iterable[Record]) -> None:
        found = {record.id: (record.name, f"{record.name} ({record.id.short})") for record in records}
        plain = Counter(name for name, _ in found.values())
        told_apart = Counter(longer for _, longer in found.values())
        self._names: dict[str, str] = {}
        for node, (name, longer) in found.items():
            unique = longer if told_apart[longer] == 1 else f"{name} ({node})"
            self._names[str(node)] = name if plain[name] == 1 else unique

    def __call__(self, node: NodeId | str) -> str:
        """A node's, by its id; the id where it is not known."""
        return self._names.get(str(node), str(node))


class Happening(Protocol):
    """An event as the log has it."""

    @property
    def id(self) -> int:
        """Counts up from 1."""

    @property
    def time(self) -> float:
        """Seconds of the epoch."""

    @property
    def kind(self) -> str:
        """``member_down`` and so on."""

    @property
    def text(self) -> str:
        """For people."""

    @property
    def data(self) -> Mapping[str, Any]:
        """For programs."""
