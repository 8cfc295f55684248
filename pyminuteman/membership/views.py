"""The two partial views of HyParView: bounded by construction, and never with one node in both.

Pure. Dicts, not sets, hold the members: their order is that of insertion, the same in every process.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from random import Random
from typing import NamedTuple

from pyminuteman.addresses import NodeId
from pyminuteman.membership.messages import Peer

__all__ = ["ActiveView", "Link", "PassiveView"]


class Link(NamedTuple):
    """A neighbour: who, in which process (``boot``), and how often it will be heard (``interval``, seconds)."""

    peer: Peer
    boot: bytes
    interval: float


class ActiveView:
    """The links: at most ``capacity`` of them, each agreed on by both ends."""

    __slots__ = ("_links", "capacity")

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._links: dict[NodeId, Link] = {}

    def __len__(self) -> int:
        return len(self._links)

    def __contains__(self, node: NodeId) -> bool:
        return node in self._links

    def __iter__(self) -> Iterator[Link]:
        return iter(self._links.values())

    def get(self, node: NodeId) -> Link | None:
        """The link to that node, or None."""
        return self._links.get(node)

    @property
    def is_full(self) -> bool:
        """Whether another link needs one to go first."""
        return len(self._links) >= self.capacity

    def add(self, link: Link) -> None:
        """Take a link, or its newer form.

        Raises:
            OverflowError: There is no room: the caller forgot to make some.
        """
        if link.peer.id not in self._links and self.is_full:
            raise OverflowError(f"an active view of {self.capacity} is full")
        self._links[link.peer.id] = link

    def remove(self, node: NodeId) -> Link | None:
        """Drop the link to that node, and return it."""
        return self._links.pop(node, None)

    def peers(self, *exclude: NodeId) -> list[Peer]:
        """The neighbours, but those."""
        return [link.peer for link in self._links.values() if link.peer.id not in exclude]


class PassiveView:
    """Spare contacts: at most ``capacity``, a random one giving way to the next."""

    __slots__ = ("_peers", "_random", "capacity")

    def __init__(self, capacity: int, random: Random) -> None:
        self.capacity = capacity
        self._random = random
        self._peers: dict[NodeId, Peer] = {}

    def __len__(self) -> int:
        return len(self._peers)

    def __contains__(self, node: NodeId) -> bool:
        return node in self._peers

    def __iter__(self) -> Iterator[Peer]:
        return iter(self._peers.values())

    def add(self, peer: Peer) -> None:
        """Remember a contact; of one node, the later epoch."""
        known = self._peers.get(peer.id)
        if known is not None:
            if peer.epoch >= known.epoch:
                self._peers[peer.id] = peer
            return
        if len(self._peers) >= self.capacity:
            del self._peers[self._random.choice(list(self._peers))]
        self._peers[peer.id] = peer

    def remove(self, node: NodeId) -> None:
        """Forget a contact, if it is one."""
        self._peers.pop(node, None)

    def sample(self, most: int, exclude: Iterable[NodeId] = ()) -> list[Peer]:
        """Up to ``most`` contacts at random, without those."""
        without = frozenset(exclude)
        eligible = [peer for node, peer in self._peers.items() if node not in without]
        return self._random.sample(eligible, min(most, len(eligible)))
