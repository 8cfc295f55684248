"""The node as the API has it: looks at its parts, and hands on what operators want.

What is needed of each part is said by a protocol here; the parts themselves know nothing of the API.
"""

from __future__ import annotations

import errno
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import Final, Protocol

import trio

from pyminuteman.addresses import NodeId
from pyminuteman.daemon.observed import (
    Buckets,
    Faults,
    FeedObserved,
    HostObserved,
    KernelObserved,
    Mark,
    Moment,
    Observation,
    OutcomesOf,
    StoreObserved,
)
from pyminuteman.health.monitor import Monitor
from pyminuteman.ipvs import ServiceKey, ServiceStatistics
from pyminuteman.kv.store import Store
from pyminuteman.membership import Membership
from pyminuteman.sources.base import Source, SourceState, SourceStatus
from pyminuteman.vips.desired import DesiredState
from pyminuteman.vips.model import BackendKey
from pyminuteman.vips.policy import Judgement
from pyminuteman.vips.resolution import Target

__all__ = ["FeedLike", "MarksLike", "NodeLike", "ReconcilerLike", "observe"]

_DISTRIBUTION: Final = "pyminuteman"


class FeedLike(Protocol):
    """One source, as the node feeds on it."""

    @property
    def name(self) -> str:
        """What the operators call it."""

    @property
    def source(self) -> Source:
        """Where it is read."""

    @property
    def state(self) -> SourceState | None:
        """What is desired, or was last said."""

    @property
    def stale(self) -> bool:
        """Silent for longer than it may be."""

    @property
    def age_seconds(self) -> float | None:
        """Since it was last known to be good."""


class MarksLike(Protocol):
    """Operators' marks."""

    @property
    def node_drains(self) -> Mapping[NodeId, Mark]:
        """Nodes that are drained."""

    @property
    def backend_drains(self) -> Mapping[Target, Mark]:
        """Backends that are drained by themselves."""

    @property
    def weights(self) -> Mapping[Target, tuple[int, Mark]]:
        """Weights that operators have set."""


class HistogramLike(Protocol):
    """Counts of values by their size."""

    @property
    def bounds(self) -> Sequence[float]:
        """Upper bounds, without the infinite one."""

    @property
    def counts(self) -> Sequence[int]:
        """How many at or below each bound, not cumulated; the last one above all."""

    @property
    def sum(self) -> float:
        """Of all values."""


class LossesLike(Protocol):
    """What a plan that is held back would lose; its text says how much."""

    @property
    def identity(self) -> str:
        """What names just that."""

    @property
    def losses(self) -> Iterable[tuple[ServiceKey, int]]:
        """Services, with how many destinations each would lose."""


class ReconcilerStatusLike(Protocol):
    """What a reconciler has done. Times are seconds of the epoch."""

    @property
    def services(self) -> int:
        """In the kernel, of ours."""

    @property
    def destinations(self) -> int:
        """Behind these."""

    @property
    def last_sync_at(self) -> float | None:
        """When the kernel was last known to be as desired."""

    @property
    def last_sync_seconds(self) -> float | None:
        """How long that took."""

    @property
    def last_queued_at(self) -> float | None:
        """When a change was last asked for."""

    @property
    def syncs_total(self) -> int:
        """How many there were."""

    @property
    def errors(self) -> Mapping[tuple[str, int], int]:
        """By operation and errno."""

    @property
    def draining(self) -> int:
        """Destinations that keep their connections a little longer."""

    @property
    def held(self) -> LossesLike | None:
        """What is held back."""

    @property
    def foreign(self) -> Sequence[ServiceKey]:
        """Services in our networks that are not ours."""

    @property
    def error(self) -> str:
        """Why the last sync failed."""

    @property
    def sync(self) -> HistogramLike:
        """How long syncs took."""

    @property
    def programming(self) -> HistogramLike:
        """From an event to the kernel's acknowledgement."""


class ReconcilerLike(Protocol):
    """Keeps one namespace's table."""

    @property
    def status(self) -> ReconcilerStatusLike:
        """How it is."""

    async def statistics(self) -> Mapping[ServiceKey, ServiceStatistics]:
        """What the kernel counts."""


class HostStepLike(Protocol):
    """A step of the host's set-up."""

    @property
    def step(self) -> str:
        """Its name."""

    @property
    def ok(self) -> bool:
        """Whether it stands."""

    @property
    def reason(self) -> str:
        """Why not."""


class NodeLike(Protocol):
    """The parts of a node."""

    @property
    def started_at(self) -> float:
        """Seconds of the epoch."""

    @property
    def membership(self) -> Membership:
        """Who is alive."""

    @property
    def store(self) -> Store:
        """What all say."""

    @property
    def feeds(self) -> Sequence[FeedLike]:
        """Its sources."""

    @property
    def state(self) -> DesiredState:
        """What is desired, or was last said."""

    @property
    def judgement(self) -> Judgement:
        """Which claims count."""

    @property
    def marks(self) -> MarksLike:
        """Of operators."""

    @property
    def faults(self) -> Faults:
        """What does not count, and what could not be said."""

    @property
    def monitor(self) -> Monitor[BackendKey]:
        """Health checks."""

    @property
    def reconcilers(self) -> Mapping[str, ReconcilerLike]:
        """By namespace; the host's own is empty."""

    @property
    def host(self) -> Sequence[HostStepLike]:
        """The host's set-up."""


def now() -> Moment:
    """This moment, on both clocks."""
    return Moment(time.time(), trio.current_time())  # noqa: TID251 - shown to people


def software() -> str:
    """Name and version of this package."""
    try:
        return f"{_DISTRIBUTION} {version(_DISTRIBUTION)}"
    except PackageNotFoundError:
        return _DISTRIBUTION


_SOFTWARE: Final = software()
_BUILD: Final = {
    "version": _SOFTWARE.rpartition(" ")[2],
    "python": platform.python_version(),
    "kernel": platform.release(),
}


async def observe(
    node: NodeLike,
    *,
    cluster: str,
    engine: str,
    zone: str,
    statistics: bool = False,
    outcomes: Callable[[], Mapping[tuple[ServiceKey, BackendKey], OutcomesOf]] | None = None,
    event_counts: Mapping[str, int] | None = None,
    api_metrics: Mapping[str, float] | None = None,
) -> Observation:
    """Take a look. But for the kernel's statistics, nothing is waited for: the parts are as they are at one moment.

    Args:
        node: Whose parts.
        cluster: The cluster's name.
        engine: Of the store: ``gossip`` or ``etcd``.
        zone: The DNS zone of named VIPs.
        statistics: Ask the kernel for its counters too.
        outcomes: Where outcomes of connections are asked for.
        event_counts: How many events of each kind there were.
        api_metrics: What the API counts.
    """
    found: Mapping[ServiceKey, ServiceStatistics] = {}
    own = node.reconcilers.get("")
    if statistics and own is not None:
        found = await own.statistics()
    membership, store, monitor = node.membership, node.store, node.monitor
    store_metrics = store.metrics()
    problem = store.problem
    return Observation(
        moment=now(),
        software=_SOFTWARE,
        build=_BUILD,
        started_at=node.started_at,
        cluster=cluster,
        me=membership.me,
        members={key: member for key, member in membership.members().items() if key != membership.me.id},
        neighbours=tuple(peer.id for peer in membership.active_view),
        store=StoreObserved(engine, ready=not problem, problem=problem, entries=int(store_metrics.get("store_entries", 0))),
        feeds=tuple(
            FeedObserved(feed.name, feed.source.name, feed.state, _copied(feed.source.status), feed.stale, feed.age_seconds)
            for feed in node.feeds
        ),
        desired=node.state,
        judgement=node.judgement,
        node_drains=dict(node.marks.node_drains),
        backend_drains=dict(node.marks.backend_drains),
        weights=dict(node.marks.weights),
        faults=node.faults,
        health=monitor.known(),
        kernels=tuple(kernel(name, node.reconcilers[name].status) for name in sorted(node.reconcilers)),
        statistics=found,
        outcomes={} if outcomes is None else outcomes(),
        host=tuple(HostObserved(step.step, step.ok, step.reason) for step in node.host),
        membership_metrics=membership.metrics(),
        store_metrics=store_metrics,
        health_metrics=monitor.metrics(),
        event_counts=dict(event_counts or {}),
        api_metrics=dict(api_metrics or {}),
        zone=zone,
    )


def _copied(status: SourceStatus) -> SourceStatus:
    """What a thread reads must not change meanwhile."""
    return replace(status, counters=dict(status.counters))


def kernel(namespace: str, status: ReconcilerStatusLike) -> KernelObserved:
    """One reconciler."""
    held = status.held
    queued, synced = status.last_queued_at, status.last_sync_at
    return KernelObserved(
        namespace=namespace,
        services=status.services,
        destinations=status.destinations,
        last_sync_at=synced,
        last_sync_seconds=status.last_sync_seconds,
        last_queued_at=queued,
        syncs_total=status.syncs_total,
        changes_pending=int(queued is not None and (synced is None or queued > synced)),
        errors={(operation, symbol(number)): count for (operation, number), count in status.errors.items()},
        draining=status.draining,
        held="" if held is None else str(held),
        held_id="" if held is None else held.identity,
        held_services=() if held is None else tuple(str(key) for key, _ in held.losses),
        foreign=tuple(str(key) for key in status.foreign),
        error=status.error,
        sync=_buckets(status.sync),
        programming=_buckets(status.programming),
    )


def symbol(number: int | str) -> str:
    """``ENOMEM`` of 12."""
    return number if isinstance(number, str) else errno.errorcode.get(abs(number), str(number))


def _buckets(histogram: HistogramLike) -> Buckets:
    return Buckets(tuple(histogram.bounds), tuple(histogram.counts), float(histogram.sum))
