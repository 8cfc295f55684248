"""Once quiet, links are symmetric: whoever is in my active view has me in its own."""

from __future__ import annotations

from collections.abc import Iterator

from pyminuteman.testing.checkers.checker import Checker

__all__ = ["LinksSymmetric"]


class LinksSymmetric(Checker):
    """Compares the active views of all that run."""

    def unsettled(self) -> Iterator[str]:
        """Each link that only one end has."""
        self.judged += 1
        links = self.world.truth.links()
        for node, others in links.items():
            for other in sorted(others):
                if other not in links:
                    yield f"{self.world.name_of(node)} has a link to {self.world.name_of(other)}, which does not run"
                elif node not in links[other]:
                    yield f"{self.world.name_of(node)} has a link to {self.world.name_of(other)}, which has none to it"
