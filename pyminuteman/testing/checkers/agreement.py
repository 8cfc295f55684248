"""Once quiet, everybody knows the same: whom the network lets it reach is alive, with its newest record, and nobody else is.

A node that is cut off from everybody need not hold them for dead: "I hear nobody" is not "everybody is dead".
"""

from __future__ import annotations

from collections.abc import Iterator

from pyminuteman.addresses import NodeId
from pyminuteman.membership.effects import MemberStatus
from pyminuteman.testing.checkers.checker import Checker
from pyminuteman.testing.simulation.process import Process

__all__ = ["MembersAgree"]

_MOST = 2000
_SAMPLE = 50
"""In clusters of more, so many nodes' tables are looked at: all of them would take longer than the run."""
_GONE = (MemberStatus.DOWN, MemberStatus.LEFT)


class MembersAgree(Checker):
    """Compares each node's table with the truth."""

    def unsettled(self) -> Iterator[str]:
        """Each entry that is wrong."""
        self.judged += 1
        for community in self.world.truth.communities():
            newest = {process.id: process for process in community}
            for process in community[:: len(community) // _SAMPLE if len(community) > _MOST else 1]:
                yield from self._differences(process, newest)

    def _differences(self, process: Process, newest: dict[NodeId, Process]) -> Iterator[str]:
        members = process.node.members()
        for other in newest.values():
            if other is process:
                continue
            member = members.get(other.id)
            if member is None:
                yield f"{process.name} does not know {other.name}"
            elif member.status is not MemberStatus.ALIVE:
                yield f"{process.name} holds {other.name} for {_word(member.status)}, which it could reach"
            elif (member.record.epoch, member.record.version) != (other.node.me.epoch, other.node.me.version):
                yield f"{process.name} has an old record of {other.name}"
        if len(newest) == 1:
            return
        for node in sorted(members):
            if node not in newest and members[node].status not in _GONE:
                yield f"{process.name} holds {self.world.name_of(node)} for {_word(members[node].status)}, which it cannot reach"


def _word(status: object) -> str:
    return status.value if isinstance(status, MemberStatus) else str(status)
