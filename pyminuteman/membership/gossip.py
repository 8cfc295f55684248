"""News on its way: records wait a moment for others to share their datagrams, then go to every neighbour that has not sent them.

Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from typing import Final

from pyminuteman.addresses import NodeId
from pyminuteman.membership.config import MembershipConfig
from pyminuteman.membership.effects import Send
from pyminuteman.membership.messages import Peer, Records
from pyminuteman.membership.records import EncodedRecord
from pyminuteman.membership.steps import FlushDue, SetTimer, Step

__all__ = ["Gossip"]


_OWN_PAUSE_SECONDS: Final = 0.1
"""Least time between two versions of our own record, unless one brings news of a failure: while a cluster forms, links come and go
by the dozen a second, and only the last state of them matters."""
_OWN_PAUSE_PER_MEMBER_SECONDS: Final = 0.002
_OWN_PAUSE_MOST_SECONDS: Final = 5.0
"""Each version costs every member some datagrams, so the pause grows with the cluster."""


class Gossip:
    """The records that wait to be flooded: of each node the newest only, so the table bounds it."""

    def __init__(self, config: MembershipConfig) -> None:
        self._config = config
        self._pending: dict[NodeId, tuple[EncodedRecord, dict[NodeId, None]]] = {}
        self._due = inf
        self._own: EncodedRecord | None = None
        self._own_due = inf
        self._own_sent_at = -inf

    def add(self, encoded: EncodedRecord, source: NodeId, now: float, *, urgent: bool) -> list[Step]:
        """Pass on a record that the neighbour ``source`` brought."""
        self._pending[encoded.id] = (encoded, {source: None, encoded.id: None})
        self._due = min(self._due, now + (self._config.gossip_urgent_seconds if urgent else self._config.gossip_batch_seconds))
        return self._timer()

    def has_it(self, encoded: EncodedRecord, neighbour: NodeId) -> None:
        """The neighbour has sent a record that waits to be passed on: it need not be told. After a death this halves the traffic."""
        waiting = self._pending.get(encoded.id)
        if waiting is not None and waiting[0].version <= encoded.version and waiting[0].epoch == encoded.epoch:
            waiting[1][neighbour] = None

    def add_own(self, encoded: EncodedRecord, now: float, *, urgent: bool, members: int) -> list[Step]:
        """Spread a new version of our own record among so many members."""
        if urgent:
            due = now + self._config.gossip_urgent_seconds
        else:
            pause = min(_OWN_PAUSE_MOST_SECONDS, _OWN_PAUSE_SECONDS + members * _OWN_PAUSE_PER_MEMBER_SECONDS)
            due = max(now + self._config.gossip_batch_seconds, self._own_sent_at + pause)
        self._own_due = due if self._own is None else min(self._own_due, due)
        self._own = encoded
        return self._timer()

    def flush(self, now: float, peers: Sequence[Peer], is_unsure: Callable[[NodeId], bool]) -> list[Step]:
        """Send what waits. ``is_unsure`` tells of a neighbour whether it may not know us by our boot."""
        pending = list(self._pending.values())
        self._pending = {}
        self._due = inf
        own = self._own
        if own is not None and self._own_due <= now + self._config.gossip_urgent_seconds:
            self._own, self._own_due, self._own_sent_at = None, inf, now
            pending.append((own, {}))
        steps: list[Step] = []
        for peer in peers:
            news = tuple(encoded for encoded, has_it in pending if peer.id not in has_it)
            if news:
                steps.append(Send(peer.endpoint, (Records(news),), identify=is_unsure(peer.id)))
        return [*steps, *self._timer()]

    def _timer(self) -> list[Step]:
        due = min(self._due, self._own_due)
        return [SetTimer(FlushDue(), due)] if due < inf else []
