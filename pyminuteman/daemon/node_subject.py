"""A node as the subject of its API: looked at by :mod:`pyminuteman.daemon.observing`, and told what operators want."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pyminuteman.daemon.api.subject import Happenings, NoSuchThing, Reloaded, Verbs
from pyminuteman.daemon.observed import MarkTarget, Observation, OutcomesOf
from pyminuteman.daemon.observing import NodeLike, observe
from pyminuteman.ipvs import ServiceKey
from pyminuteman.sources.base import SourceState
from pyminuteman.sources.push import PushSource
from pyminuteman.vips.model import BackendKey
from pyminuteman.vips.resolution import Target

__all__ = ["NodeSubject", "Operated"]


class _Marking(Protocol):
    """What of :class:`~pyminuteman.daemon.api.subject.Verbs` a node does itself."""

    async def drain(self, target: MarkTarget, *, by: str, reason: str) -> None:
        """See there."""

    async def undrain(self, target: MarkTarget, *, by: str, reason: str) -> None:
        """See there."""

    async def set_weight(self, target: Target, weight: int, *, by: str, reason: str) -> None:
        """See there."""

    async def clear_weight(self, target: Target, *, by: str, reason: str) -> None:
        """See there."""

    async def confirm(self, namespace: str, identity: str) -> None:
        """See there."""


class Operated(NodeLike, _Marking, Protocol):
    """A node that operators can tell what they want."""

    @property
    def events(self) -> Happenings:
        """What has happened."""


@dataclass(kw_only=True)
class NodeSubject(Verbs):
    """The node, for :func:`pyminuteman.daemon.api.open_api`.

    Attributes:
        node: Which.
        cluster: The cluster's name.
        engine: Of the store: ``gossip`` or ``etcd``.
        zone: The DNS zone of named VIPs.
        plain: The configuration without secrets.
        outcomes: Where outcomes of connections are asked for; None for nowhere.
        reloading: What reads the configuration anew.
        event_counts: How many events of each kind there were.
        api_metrics: What the API counts: set it when the API is open.
    """

    node: Operated
    cluster: str
    engine: str
    zone: str
    plain: Callable[[], Mapping[str, Any]]
    reloading: Callable[[], Awaitable[Reloaded]]
    outcomes: Callable[[], Mapping[tuple[ServiceKey, BackendKey], OutcomesOf]] | None = None
    event_counts: Callable[[], Mapping[str, int]] | None = None
    api_metrics: Callable[[], Mapping[str, float]] | None = None

    @property
    def events(self) -> Happenings:
        """What has happened."""
        return self.node.events

    @property
    def pushed_sources(self) -> Sequence[str]:
        """Names of the sources that states can be pushed to."""
        return tuple(feed.name for feed in self.node.feeds if isinstance(feed.source, PushSource))

    async def observe(self, *, statistics: bool = False) -> Observation:
        """How the node is now; ``statistics`` asks the kernel as well."""
        return await observe(
            self.node,
            cluster=self.cluster,
            engine=self.engine,
            zone=self.zone,
            statistics=statistics,
            outcomes=self.outcomes,
            event_counts=self.event_counts() if self.event_counts is not None else None,
            api_metrics=self.api_metrics() if self.api_metrics is not None else None,
        )

    def plain_config(self) -> Mapping[str, Any]:
        """The configuration, without secrets."""
        return self.plain()

    def push(self, source: str, state: SourceState) -> bool:
        """From now on all of this is what that source wants; whether that is anything new.

        Raises:
            NoSuchThing: There is no such source, or it does not take what is pushed.
        """
        for feed in self.node.feeds:
            if feed.name == source and isinstance(feed.source, PushSource):
                return feed.source.push(state)
        raise NoSuchThing(f"there is no source {source!r} that takes what is pushed")

    async def drain(self, target: MarkTarget, *, by: str, reason: str) -> None:
        """Take it out of service, and let it keep its connections."""
        await self.node.drain(target, by=by, reason=reason)

    async def undrain(self, target: MarkTarget, *, by: str, reason: str) -> None:
        """Undo that."""
        await self.node.undrain(target, by=by, reason=reason)

    async def set_weight(self, target: Target, weight: int, *, by: str, reason: str) -> None:
        """Give a backend this weight in place of its source's."""
        await self.node.set_weight(target, weight, by=by, reason=reason)

    async def clear_weight(self, target: Target, *, by: str, reason: str) -> None:
        """Leave its weight to its source again."""
        await self.node.clear_weight(target, by=by, reason=reason)

    async def reload(self) -> Reloaded:
        """Read the configuration anew."""
        return await self.reloading()

    async def confirm(self, namespace: str, identity: str) -> None:
        """Carry out what is held back there, if it is that."""
        await self.node.confirm(namespace, identity)
