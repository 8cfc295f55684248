"""Once quiet, every node has a route to every other, each step of which is a link that both ends have."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from pyminuteman.testing.checkers.checker import Checker

__all__ = ["RoutesHold"]

_LARGE = 64
"""In larger clusters only the routes of so many nodes are looked at: all of them would take longer than the run."""


class RoutesHold(Checker):
    """Walks the routes."""

    def unsettled(self) -> Iterator[str]:
        """Each route that is missing or broken."""
        self.judged += 1
        links = self.world.truth.links()
        for community in self.world.truth.communities():
            for process in community[:_LARGE]:
                for other in community[:_LARGE]:
                    if other is process:
                        continue
                    route = process.node.route_to(other.id)
                    if route is None:
                        yield f"{process.name} has no route to {other.name}"
                        continue
                    steps = route if route and route[0] == process.id else (process.id, *route)
                    if steps[-1] != other.id or any(
                        b not in links.get(a, ()) or a not in links.get(b, ()) for a, b in pairwise(steps)
                    ):
                        yield f"{process.name} has a route to {other.name} that is none: {' '.join(map(self.world.name_of, steps))}"
