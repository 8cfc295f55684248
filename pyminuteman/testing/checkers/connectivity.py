"""Once quiet, the graph of links is connected: one piece for all that the network lets talk."""

from __future__ import annotations

from collections.abc import Iterator

from pyminuteman.testing.checkers.checker import Checker
from pyminuteman.testing.simulation.truth import pieces

__all__ = ["GraphConnected"]


class GraphConnected(Checker):
    """Counts the pieces of each community."""

    def unsettled(self) -> Iterator[str]:
        """Each community in pieces."""
        self.judged += 1
        links = self.world.truth.links()
        for community in self.world.truth.communities():
            found = pieces([process.id for process in community], links)
            if len(found) > 1:
                yield f"the graph is in {len(found)} pieces: {' | '.join(map(self.names, found))}"
