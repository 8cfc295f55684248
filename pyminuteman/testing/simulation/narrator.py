"""Tells the story of what nodes report: links made and broken, members up, suspect, down, left, changed."""

from __future__ import annotations

from pyminuteman.addresses import NodeId
from pyminuteman.membership.effects import (
    Conflict,
    Delivered,
    EpochTaken,
    LocalStall,
    MemberDown,
    MemberLeft,
    MemberSuspect,
    MemberUp,
    MemberUpdated,
    Notification,
    PartitionSuspected,
    ViewChanged,
)
from pyminuteman.testing.simulation.process import Process
from pyminuteman.testing.simulation.world import Simulation

__all__ = ["Narrator"]

_VERBS = {MemberUp: "sees {} up", MemberSuspect: "suspects {}", MemberDown: "gives {} up", MemberLeft: "sees {} leave"}


class Narrator:
    """An observer that adds a line to the world's story for everything a node reports."""

    def __init__(self, world: Simulation) -> None:
        self._world = world
        self._active: dict[Process, tuple[NodeId, ...]] = {}

    def notified(self, time: float, process: Process, notification: Notification) -> None:
        """Tell it."""
        self._world.story.tell(time, process.name, self._words(process, notification))

    def _words(self, process: Process, notification: Notification) -> str:  # noqa: PLR0911 - one a kind
        name = self._world.name_of
        match notification:
            case MemberUp() | MemberSuspect() | MemberDown() | MemberLeft():
                return _VERBS[type(notification)].format(name(notification.record.id))
            case MemberUpdated(record, previous):
                return f"sees {name(record.id)} changed, from version {previous.version} to {record.version}"
            case ViewChanged(active):
                return self._links(process, tuple(peer.id for peer in active))
            case Delivered(packet, _, payload):
                return f"gets packet {payload.split(b' ', 1)[0].decode(errors='replace')} of {name(packet.origin)}"
            case LocalStall(seconds):
                return f"notices that it did not run for {seconds:.3f} s"
            case PartitionSuspected(unreachable, reachable):
                return f"takes it for a partition: {unreachable} out of reach, {reachable} in reach"
            case Conflict(record, other, reason):
                return f"sees {name(record.id)} and {name(other.id)} in conflict: {reason}"
            case EpochTaken(epoch):
                return f"goes to epoch {epoch}, somebody had its own"

    def _links(self, process: Process, active: tuple[NodeId, ...]) -> str:
        before = self._active.get(process, ())
        self._active[process] = active
        made = [f"+{self._world.name_of(node)}" for node in active if node not in before]
        broken = [f"-{self._world.name_of(node)}" for node in before if node not in active]
        return f"links {' '.join((*made, *broken))} ({len(active)})"
