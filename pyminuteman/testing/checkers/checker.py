"""What a checker is: one property, told of everything that nodes report, asked when things are quiet and at the end."""

from __future__ import annotations

from collections.abc import Iterator

from pyminuteman.addresses import NodeId
from pyminuteman.membership.effects import Notification
from pyminuteman.testing.simulation.bounds import Bounds
from pyminuteman.testing.simulation.process import Process
from pyminuteman.testing.simulation.world import Simulation

__all__ = ["Checker"]


class Checker:
    """One property of a world. A finding is a sentence that begins with the time, where there is one, and names hosts.

    Args:
        world: What is watched.
        bounds: What the protocol is held to.
    """

    def __init__(self, world: Simulation, bounds: Bounds) -> None:
        self.world = world
        self.bounds = bounds
        self.findings: list[str] = []
        """What was wrong, noted while it happened."""
        self.judged = 0
        """How often there was something to judge: a checker that never has is worth nothing."""

    def notified(self, time: float, process: Process, notification: Notification) -> None:
        """A node told its user something."""

    def unsettled(self) -> Iterator[str]:
        """What is not yet as it must be once the world has been quiet for long enough."""
        yield from ()

    def concluded(self) -> Iterator[str]:
        """What was wrong in the whole run. Called once, when the world is quiet."""
        yield from self.findings

    def found(self, time: float, process: Process, what: str) -> None:
        """Note a finding."""
        self.findings.append(f"{time:.4f} {process.name} {what}")

    def names(self, nodes: object) -> str:
        """Nodes as the story calls them, in order."""
        known = (
            [node for node in nodes if isinstance(node, NodeId)] if isinstance(nodes, tuple | list | set | frozenset) else []
        )
        return " ".join(sorted(map(self.world.name_of, known)))
