"""Who of the hosts that run backends is in reach: from members and their addresses to what the desired table asks.

Pure. A host is named by an address: the one that a member's membership is reached at, or another that it says it has.

1. A host that is a member's is in reach as that member is: alive is UP, suspect is SUSPECT, down and left are DOWN.
2. Where two members name one address, the one that is better in reach counts: a host that was set up anew has its old record about.
3. An address that no member has is held in reach: its host takes no part in the cluster, and nobody can say it is gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from pyminuteman.addresses import NodeId
from pyminuteman.membership.effects import MemberStatus
from pyminuteman.membership.members import Member
from pyminuteman.membership.records import Record
from pyminuteman.vips.resolution import Reach

__all__ = ["addresses_of", "hosts_of", "reach_of_status", "reach_table"]

_REACHES: Final = {
    MemberStatus.ALIVE: Reach.UP,
    MemberStatus.SUSPECT: Reach.SUSPECT,
    MemberStatus.DOWN: Reach.DOWN,
    MemberStatus.LEFT: Reach.DOWN,
}


def reach_of_status(status: MemberStatus) -> Reach:
    """How a host is in reach whose member is held to be so."""
    return _REACHES[status]


def addresses_of(record: Record) -> tuple[str, ...]:
    """The addresses of a member's host: where its membership is reached, then the others."""
    return tuple(dict.fromkeys((record.endpoint.address, *record.addresses)))


def reach_table(members: Mapping[NodeId, Member]) -> dict[str, Reach]:
    """How each host is in reach, by address; hosts that are not in it are no member's."""
    table: dict[str, Reach] = {}
    for member in members.values():
        reach = _REACHES[member.status]
        for address in addresses_of(member.record):
            table[address] = max(reach, table.get(address, reach))
    return table


def hosts_of(records: Iterable[Record]) -> dict[str, NodeId]:
    """Whose each address is, for those who show backends with their nodes; of two, the lesser id."""
    table: dict[str, NodeId] = {}
    for record in sorted(records, key=lambda one: one.id, reverse=True):
        table.update(dict.fromkeys(addresses_of(record), record.id))
    return table
