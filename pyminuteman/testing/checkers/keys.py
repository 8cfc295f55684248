"""Keys are changed without loss: nobody ever gets what it holds no key for, and all see which keys each node holds."""

from __future__ import annotations

from collections.abc import Iterator

from pyminuteman.testing.checkers.checker import Checker

__all__ = ["KeysRotate"]

_LOSS = ("unknown_key", "forged")


class KeysRotate(Checker):
    """Looks at what keyrings refused, and at the keys in the records. Has nothing to judge where nothing is sealed."""

    def unsettled(self) -> Iterator[str]:
        """Each node whose keys somebody has wrong."""
        for community in self.world.truth.communities():
            held = {process.id: process.ring.key_ids for process in community if process.ring is not None}
            for process in community:
                for node, member in process.node.members().items():
                    if node in held and member.record.keys != held[node]:
                        yield f"{process.name} does not know which keys {self.world.name_of(node)} holds"

    def concluded(self) -> Iterator[str]:
        """Each process that could not read something."""
        for host in self.world.hosts:
            for life in host.lives:
                if life.ring is None:
                    continue
                self.judged += life.ring.counters["opened"]
                for reason in _LOSS:
                    if life.ring.counters[reason]:
                        yield f"{life.name} refused {life.ring.counters[reason]} times: {reason}"
