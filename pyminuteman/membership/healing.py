"""Trying those who are out of reach: parts of a cluster that lost each other become one again.

Pure. A part that just came off is knocked on by a few, at once (:meth:`Healing.knock`): the grace before its members are suspect is
long enough to mend a tear. Who stays out of reach, and contacts that were never met, are tried now and then, at a rate that the
cluster as a whole can bear (:meth:`Healing.due`).
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Final

from pyminuteman.addresses import Endpoint, NodeId
from pyminuteman.membership.census import Census
from pyminuteman.membership.config import MembershipConfig
from pyminuteman.membership.hyparview import HyParView
from pyminuteman.membership.steps import HealDue, SetTimer, Step

__all__ = ["Healing"]

_LEAST_SECONDS: Final = 1.0
_MOST_SECONDS: Final = 300.0
_IDLE_SECONDS: Final = 1.5
_KNOCKS: Final = 3
"""How many of the cluster, about, knock at once on a part that came off."""


class Healing:
    """Whom to try, and when."""

    def __init__(self, views: HyParView, census: Census, *, config: MembershipConfig, random: Random) -> None:
        self._views = views
        self._census = census
        self._config = config
        self._random = random
        self._begun = False

    def idle(self, now: float) -> list[Step]:
        """Look again soon whether anybody is out of reach."""
        self._begun = False
        return [SetTimer(HealDue(), now + _IDLE_SECONDS * (0.5 + self._random.random()))]

    def knock(self, node: NodeId, now: float) -> list[Step]:
        """A few of us, and sooner those with room, ask one that has just come off for a link."""
        weight = _KNOCKS if self._views.active.is_full else 2 * _KNOCKS
        if self._random.random() * (self._census.members.reachable_count + 1) >= weight:
            return []
        return self._try(node, now)

    def due(self, now: float) -> list[Step]:
        """Try one of those out of reach."""
        members = self._census.members
        unreachable = members.unreachable
        strangers = [contact for contact in self._views.contacts if not self._census.has_member_at(contact)]
        count = len(unreachable) + len(strangers)
        if not count:
            return self.idle(now)
        scale = self._config.heal_interval_seconds * (members.reachable_count + 1) / (count + 1)
        pause = min(_MOST_SECONDS, max(_LEAST_SECONDS, scale))
        if not self._begun:  # everybody has seen it at about the same time: spread the first attempts
            self._begun = True
            return [SetTimer(HealDue(), now + pause * self._random.random())]
        tried = self._try_one(unreachable, strangers, now)
        return [*tried, SetTimer(HealDue(), now + pause * (0.5 + self._random.random()))]

    def _try_one(self, unreachable: Sequence[NodeId], strangers: Sequence[Endpoint], now: float) -> list[Step]:
        chosen = self._random.randrange(len(unreachable) + len(strangers))
        if chosen < len(unreachable):
            return self._try(unreachable[chosen], now)
        return self._views.knock(strangers[chosen - len(unreachable)], now)

    def _try(self, node: NodeId, now: float) -> list[Step]:
        return [step for peer in self._census.peers([node]) for step in self._views.heal(peer, now)]
