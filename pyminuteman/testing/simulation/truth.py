"""What is really so, for checkers to hold against what the nodes believe.

The world tells of every fault; this keeps when, and answers whether two nodes could talk, for how long nothing has been
disturbed, and whether a fault took the graph of the survivors apart.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from pyminuteman.addresses import NodeId
from pyminuteman.testing.simulation.process import Host, Process

if TYPE_CHECKING:
    from pyminuteman.testing.simulation.world import Simulation

__all__ = ["Disturbance", "Truth", "pieces"]

_TAKES_LINKS = frozenset({"kill", "pause", "cut"})


class Disturbance(NamedTuple):
    """Something was done to the world: when (seconds), what, and to which hosts."""

    time: float
    what: str
    hosts: tuple[Host, ...]


def pieces(nodes: Iterable[NodeId], links: dict[NodeId, frozenset[NodeId]]) -> list[list[NodeId]]:
    """The connected components of a graph of these nodes, taking only links that both ends have; in the order of the nodes."""
    left = dict.fromkeys(nodes)
    found = []
    while left:
        first = next(iter(left))
        del left[first]
        piece = [first]
        for node in piece:
            for other in sorted(links.get(node, ())):
                if other in left and node in links.get(other, ()):
                    del left[other]
                    piece.append(other)
        found.append(piece)
    return found


class Truth:
    """The history of one world, and questions about it. Times are the world's, in seconds."""

    def __init__(self, world: Simulation) -> None:
        self._world = world
        self.disturbances: list[Disturbance] = []
        self.torn_at: list[float] = []
        """When a fault left the survivors' links in more pieces than the network: then even healthy nodes may lose each other."""
        self._came_right_at = [0.0]
        self._cuts: list[tuple[float, list[tuple[int, int]]]] = []

    # -- told by the world ---------------------------------------------------------------------------------------------
    def changed(self, what: str, hosts: tuple[Host, ...]) -> None:
        """Something was done to the world."""
        now = self._world.now
        self.disturbances.append(Disturbance(now, what, hosts))
        if what in ("cut", "heal"):
            self._cuts.append((now, sorted(self._world.network.blocked)))
        if what in _TAKES_LINKS and self._torn():
            self.torn_at.append(now)

    def came_right(self) -> None:
        """Everything is as it should be: what was done before excuses nothing that comes after."""
        self._came_right_at.append(self._world.now)

    def wrong_since(self, time: float) -> float:
        """When everything was last as it should be, before ``time``."""
        return max(at for at in self._came_right_at if at <= time)

    def _torn(self) -> bool:
        links = self.links()
        return any(len(pieces([process.id for process in group], links)) > 1 for group in self.communities())

    # -- now -----------------------------------------------------------------------------------------------------------
    def healthy(self) -> list[Process]:
        """Those that run, are not frozen and have not said goodbye."""
        return [process for process in self._world.processes if not process.paused and process.left_at is None]

    def links(self) -> dict[NodeId, frozenset[NodeId]]:
        """The active view of every process that runs."""
        return {process.id: frozenset(peer.id for peer in process.node.active_view) for process in self._world.processes}

    def communities(self) -> list[list[Process]]:
        """The healthy ones, in groups that can talk, directly or through each other."""
        healthy = self.healthy()
        network = self._world.network
        if not network.blocked:
            return [healthy] if healthy else []
        reachable = {
            one.id: frozenset(other.id for other in healthy if network.connected(one.host.index, other.host.index))
            for one in healthy
        }
        by_id = {process.id: process for process in healthy}
        return [[by_id[node] for node in piece] for piece in pieces(by_id, reachable)]

    def quiet_since(self) -> float:
        """When something was last done to the world."""
        return self.disturbances[-1].time if self.disturbances else 0.0

    # -- then ----------------------------------------------------------------------------------------------------------
    def torn(self, since: float, until: float) -> bool:
        """Whether a fault in that time took the survivors' graph apart."""
        return any(since <= at <= until for at in self.torn_at)

    def cut_apart(self, one: Host, other: Host, since: float, until: float) -> bool:
        """Whether the network was cut, in either direction, between two hosts at any moment of that time."""
        wanted = ((one.index, other.index), (other.index, one.index))
        for number, (began, blocked) in enumerate(self._cuts):
            ended = self._cuts[number + 1][0] if number + 1 < len(self._cuts) else math.inf
            if began <= until and ended >= since and any(pair in blocked for pair in wanted):
                return True
        return False

    def any_cut(self, since: float, until: float) -> bool:
        """Whether anything was cut from anything at any moment of that time."""
        for number, (began, blocked) in enumerate(self._cuts):
            ended = self._cuts[number + 1][0] if number + 1 < len(self._cuts) else math.inf
            if blocked and began <= until and ended >= since:
                return True
        return False

    @staticmethod
    def frozen(process: Process, since: float, until: float) -> bool:
        """Whether a process was paused at any moment of that time."""
        return any(began <= until and ended >= since for began, ended in process.pauses)

    @staticmethod
    def ran(process: Process, since: float, until: float) -> bool:
        """Whether a process ran all of that time: started before, neither dead nor gone after it, never frozen."""
        ended = math.inf if process.ended_at is None else process.ended_at
        left = math.inf if process.left_at is None else process.left_at
        return process.started_at <= since and min(ended, left) > until and not Truth.frozen(process, since, until)

    def life_of(self, node: NodeId, epoch: int) -> Process | None:
        """The process that had that id and epoch when it started, or raised it to that later."""
        lives = [life for life in self._world.lives.get(node, ()) if life.epoch <= epoch]
        return lives[-1] if lives else None
