"""Whose word counts: the lives that the membership knows, and for how long those that went are remembered.

Pure. Times are seconds of one clock that does not jump.

=========  =======================================================================  =========================================
 state      begins with                                                             its log
=========  =======================================================================  =========================================
 unknown    nothing                                                                 is not taken; one from disk is held a lease
 alive      MemberUp; a MemberSuspect changes nothing, nor a MemberUpdated          counts
 away       MemberDown                                                              counts for a lease, then lapses
 left       MemberLeft                                                              lapses at once
=========  =======================================================================  =========================================

A log of a later epoch than the membership knows is not taken: epochs are bounded there, and whoever makes one up locks nobody out.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass
from enum import Enum

from pyminuteman.addresses import NodeId

__all__ = ["Lives", "Presence"]


class Presence(Enum):
    """What a member is to the store."""

    ALIVE = "alive"
    AWAY = "away"
    LEFT = "left"


@dataclass(slots=True)
class _Life:
    epoch: int
    presence: Presence
    since: float


class Lives:
    """The members as the store sees them.

    Args:
        lease_seconds: How long entries outlive their owner.
    """

    def __init__(self, lease_seconds: float) -> None:
        self._lease = lease_seconds
        self._lives: dict[NodeId, _Life] = {}
        self._unknown: dict[NodeId, float] = {}

    def notice(self, node: NodeId, epoch: int, presence: Presence | None, now: float) -> None:
        """The membership has told of a member. What concerns a life before the one we know changes nothing.

        Args:
            node: The member.
            epoch: Its life.
            presence: What it is to the store; None: as it was, though its life may be a later one.
            now: When that was told.
        """
        life = self._lives.get(node)
        if presence is None:
            presence = Presence.ALIVE if life is None else life.presence
        if life is not None and (epoch < life.epoch or (epoch == life.epoch and presence is life.presence)):
            return
        since = life.since if life is not None and presence is life.presence is Presence.AWAY else now
        self._unknown.pop(node, None)
        self._lives[node] = _Life(epoch, presence, since)

    def presume(self, node: NodeId, now: float) -> None:
        """There is a log of somebody whom the membership has not told of."""
        if node not in self._lives:
            self._unknown[node] = now

    def forget(self, keep: Container[NodeId]) -> None:
        """Forget whom the membership has forgotten: all but these."""
        for node in [node for node in self._lives if node not in keep]:
            del self._lives[node]

    def counts(self, node: NodeId, epoch: int, now: float) -> bool:
        """Whether what is received of this life is taken."""
        life = self._lives.get(node)
        return life is not None and epoch <= life.epoch and not self._over(life, now)

    def lapsed(self, owners: Iterable[tuple[NodeId, int]], now: float) -> list[NodeId]:
        """Those of the owners (with the epochs of their logs) whose entries go now."""
        gone = [owner for owner, epoch in owners if self._gone(owner, epoch, now)]
        for owner in gone:
            self._unknown.pop(owner, None)
        return gone

    def _over(self, life: _Life, now: float) -> bool:
        return life.presence is Presence.LEFT or (life.presence is Presence.AWAY and now >= life.since + self._lease)

    def _gone(self, owner: NodeId, epoch: int, now: float) -> bool:
        life = self._lives.get(owner)
        if life is None:
            return now >= self._unknown.setdefault(owner, now) + self._lease
        if life.epoch > epoch:  # a later life that has never opened its store, or not said all that it began with
            return now >= life.since + self._lease
        return self._over(life, now)
