"""Who speaks: which name a process may speak under, and which neighbour a process is that gives no name.

Pure. Invariants:

1. A datagram without a name is of the neighbour whose process sealed it, or of one that was a neighbour until lately.
2. An epoch that is over is not listened to, and its owner is shown the later one; an epoch far ahead of our clock is refused.
3. One life is one process: another one under the same id and epoch, while the first is our neighbour, is an impostor.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import Final

from pyminuteman.addresses import NodeId
from pyminuteman.membership.census import Census
from pyminuteman.membership.config import MembershipConfig
from pyminuteman.membership.failure_detector import FailureDetector
from pyminuteman.membership.hyparview import HyParView
from pyminuteman.membership.messages import Peer
from pyminuteman.membership.steps import Step

__all__ = ["Admission"]

_FORMER_MAX: Final = 64


class Admission:
    """The processes that are known, by their boots: what names a process in the datagrams that it seals."""

    def __init__(
        self,
        views: HyParView,
        census: Census,
        detector: FailureDetector,
        *,
        config: MembershipConfig,
        counters: Counter[str],
        wall_offset: float,
    ) -> None:
        self._views = views
        self._census = census
        self._detector = detector
        self._config = config
        self._counters = counters
        self._wall_offset = wall_offset
        self._neighbours: dict[bytes, NodeId] = {}
        self._former: OrderedDict[bytes, Peer] = OrderedDict()

    def neighbour(self, boot: bytes) -> NodeId | None:
        """Which neighbour that process is."""
        return self._neighbours.get(boot)

    def former(self, boot: bytes) -> Peer | None:
        """Which neighbour that process was until lately."""
        return self._former.get(boot)

    def linked(self, peer: Peer, boot: bytes) -> None:
        """The process is a neighbour now."""
        self._neighbours[boot] = peer.id
        self._former.pop(boot, None)

    def unlinked(self, peer: Peer) -> None:
        """The peer is no neighbour any more."""
        for boot in [boot for boot, linked in self._neighbours.items() if linked == peer.id]:
            del self._neighbours[boot]
            self._former[boot] = peer
            if len(self._former) > _FORMER_MAX:
                self._former.popitem(last=False)

    def admit(self, sender: Peer, boot: bytes, now: float) -> tuple[bool, list[Step]]:
        """Whether the sender may speak under that name; what it is known by is brought up to date."""
        if sender.id == self._census.me.id:
            self._counters["datagrams_under_our_id"] += 1
            return False, []
        if sender.epoch > now + self._wall_offset + self._config.clock_skew_max_seconds:
            self._counters["datagrams_epoch_ahead"] += 1
            return False, []
        record = self._census.table.record(sender.id)
        if record is not None and sender.epoch < record.epoch:
            self._counters["datagrams_old_epoch"] += 1
            return False, self._census.correct(sender)
        steps: list[Step] = []
        link = self._views.active.get(sender.id)
        if link is not None:
            if link.boot == boot:
                watch = self._detector.watches[sender.id]
                watch.peer = sender
                if sender.epoch > link.peer.epoch:
                    self._views.active.add(link._replace(peer=sender))  # the same process, reborn
                self._detector.heard(watch, now)
            elif sender.epoch == link.peer.epoch:
                # The same life in another process: a copy of the state directory, or somebody who lies.
                self._counters["datagrams_impersonating"] += 1
                return False, []
            else:
                steps += self._views.supersede(sender.id, now)
        return True, [*steps, *self._census.heard_of(sender.id, now)]
