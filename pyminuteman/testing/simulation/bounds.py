"""How fast and how sure the protocol has to be, computed from its constants: what the checkers hold it to.

Pure. The formulas follow what :mod:`pyminuteman.membership.failure_detector` promises at its top; no figure is a matter of taste.
With ``T`` the heartbeat interval, ``j`` its jitter, ``t`` an answer's timeout, ``d`` the slowest datagram, ``w`` how late a timer
may fire:

- **suspected**: a victim was heard ``d`` before its death at the latest from its last heartbeat, is overdue ``T (1 + j) + t``
  later, and silent on all paths after another ``t``. Two timers may be late by ``w``. Where at least three neighbours of one node
  die together, it doubts itself first, which costs ``2 t (1 + k)`` for ``k`` dead. The news then takes ``h`` hops of the urgent
  batch and ``d`` each.
- **down**: ``down_after_seconds`` more.
- **never down**: a frozen process is suspected two least timeouts after it froze at the earliest, and down ``down_after_seconds``
  later, unless the news that it is back gets there first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pyminuteman.membership.config import MembershipConfig
from pyminuteman.testing.simulation.faults import Faults

__all__ = ["Bounds"]

_DOUBTFUL = 3
"""From so many neighbours silent at once a node doubts itself."""
_FRESH_LINK_SECONDS = 2.0
"""A link younger than this may not have measured a round trip, and goes by the geometric mean of the timeouts' bounds."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """The bounds for a cluster of so many nodes with these constants, in a world with these faults. All times in seconds."""

    config: MembershipConfig
    faults: Faults
    nodes: int

    @property
    def timeout(self) -> float:
        """The longest that a node in good health waits for an answer, once it has measured round trips.

        A round trip is at most two of the slowest datagrams and a late timer; the mean and four deviations of samples between
        zero and that are at most two and a half times as much.
        """
        round_trip = 2 * self.faults.slowest_seconds + self.faults.wake_late_max_seconds
        return min(self.config.timeout_max_seconds, max(self.config.timeout_min_seconds, 2.5 * round_trip))

    @property
    def fresh_timeout(self) -> float:
        """The same on a link that has measured none yet."""
        return max(self.timeout, math.sqrt(self.config.timeout_min_seconds * self.config.timeout_max_seconds))

    @property
    def fresh_seconds(self) -> float:
        """How long a link counts as new."""
        return _FRESH_LINK_SECONDS

    @property
    def hops(self) -> int:
        """The longest way of news: twice the diameter of a random graph of that degree, since faults take its shortest paths."""
        degree = min(self.config.active_view_size, max(1, self.nodes - 1))
        if self.nodes <= degree + 1:
            return 2
        return 2 * math.ceil(math.log(self.nodes) / math.log(max(2, degree - 1))) + 1

    @property
    def news(self) -> float:
        """How long urgent news takes to everybody, none of it lost."""
        late = self.faults.wake_late_max_seconds
        return self.hops * (self.config.gossip_urgent_seconds + self.faults.slowest_seconds + late)

    @property
    def joined(self) -> float:
        """How long after its start a node counts as a member: two contacts asked in vain, and the news of it everywhere."""
        return 3 * self.config.join_timeout_seconds + self.news + self.repair

    @property
    def repair(self) -> float:
        """How long news takes that was lost on the way: tables differ, are compared, and the difference is sent."""
        beat = self.config.heartbeat_interval_seconds * (1 + self.config.heartbeat_jitter)
        return self.config.repair_after_seconds + 2 * beat + 6 * self.faults.slowest_seconds

    def suspected(self, *, dead: int = 1, fresh: bool = False, health: int = 0) -> float:
        """From a death until everybody suspects the victim.

        Args:
            dead: How many died with it.
            fresh: Whether links of the victim were new.
            health: The worst local-health score that watchers may have had.
        """
        config = self.config
        timeout = (self.fresh_timeout if fresh else self.timeout) * (1 + health)
        heard = self.faults.slowest_seconds + config.heartbeat_interval_seconds * (1 + config.heartbeat_jitter)
        doubt = 0.0
        if dead >= _DOUBTFUL:
            doubt = 2 * timeout * (1 + min(dead, config.active_view_size, config.local_health_max))
        lost = self.repair if self.faults.loss else 0.0
        return heard + 2 * timeout + doubt + 3 * self.faults.wake_late_max_seconds + self.news + lost

    def down(self, *, dead: int = 1, fresh: bool = False, health: int = 0) -> float:
        """From a death until everybody holds the victim for down."""
        late = self.faults.wake_late_max_seconds
        return self.suspected(dead=dead, fresh=fresh, health=health) + self.config.down_after_seconds + late

    @property
    def shortest_suspicion(self) -> float:
        """From the moment when a process freezes until somebody can suspect it, at the earliest."""
        return 2 * self.config.timeout_min_seconds

    @property
    def forgiven_pause(self) -> float:
        """A process frozen for less than this is never down: the news that it is back must be everywhere before that."""
        return self.config.down_after_seconds + self.shortest_suspicion - self.news

    @property
    def recovery(self) -> float:
        """From a thaw until nobody suspects anybody wrongly: 0.3 s on a local network, in proportion on others."""
        return 0.3 * max(1.0, self.config.timeout_min_seconds / 0.05)

    @property
    def settled(self) -> float:
        """From the last fault until everything is as it should be: views, tables, states."""
        config = self.config
        search = 2 * config.neighbor_retry_max_seconds + 2 * config.neighbor_timeout_seconds
        heal = 4 * max(1.0, config.heal_interval_seconds)
        return self.down(dead=config.active_view_size, fresh=True) + search + heal
