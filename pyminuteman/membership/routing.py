"""Who is in reach, and by which path: a spanning tree kept up to date, and exact breadth-first trees when asked for.

Pure. An edge counts when both ends claim it. :class:`Reachability` is asked at every change, so its cost grows with the change and
not with the cluster: a new edge hangs on what it brings in; a lost one matters only when the tree used it, and then the child
mostly has another parent. Only when it has none is the tree grown anew.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable
from typing import Final

from pyminuteman.addresses import NodeId
from pyminuteman.membership.adjacency import AdjacencyTable

__all__ = ["Reachability", "Routes", "breadth_first"]

_TREES_KEPT: Final = 64


def breadth_first(table: AdjacencyTable, root: NodeId) -> dict[NodeId, NodeId]:
    """Parents in the tree of shortest paths from ``root`` over links that both ends claim; the root is its own parent.

    Neighbours are visited in order of id, so every node with the same table grows the same tree.
    """
    parents = {root: root}
    queue = deque([root])
    while queue:
        node = queue.popleft()
        for neighbour in table.linked_neighbours(node):
            if neighbour not in parents:
                parents[neighbour] = node
                queue.append(neighbour)
    return parents


class Reachability:
    """The nodes that some path of links reaches from this one."""

    def __init__(self, table: AdjacencyTable) -> None:
        self._table = table
        self._root = table.me
        self._parents: dict[NodeId, NodeId] = {table.me: table.me}
        self._depths: dict[NodeId, int] = {table.me: 0}
        self._stale = False
        self.rebuilds = 0

    def __contains__(self, node: NodeId) -> bool:
        return node in self._parents

    def __len__(self) -> int:
        return len(self._parents)

    def nodes(self) -> Iterable[NodeId]:
        """The nodes in reach, this one included."""
        return self._parents.keys()

    @property
    def is_stale(self) -> bool:
        """Whether the tree has lost a branch that only :meth:`refresh` can judge."""
        return self._stale

    def changed(self, node: NodeId, before: Iterable[NodeId], after: Iterable[NodeId]) -> list[NodeId]:
        """Take in that the neighbours of a node have changed; returns who came into reach by it.

        Whoever fell out of reach is known after :meth:`refresh`, which :attr:`is_stale` calls for; then who came in meanwhile, too.
        """
        old, new = frozenset(before), frozenset(after)
        for neighbour in sorted(old - new):
            self._cut(node, neighbour)
        gained: list[NodeId] = []
        if self._stale:
            return gained  # what a tree to be grown anew takes in may hang on a branch that is cut off
        for neighbour in sorted(new - old):
            if self._table.are_linked(node, neighbour):
                gained += self._join(node, neighbour)
        return gained

    def forget(self, node: NodeId, neighbours: Iterable[NodeId]) -> None:
        """The node has left the table."""
        for neighbour in neighbours:
            self._cut(node, neighbour)

    def refresh(self) -> tuple[list[NodeId], list[NodeId]]:
        """Grow the tree anew, if it must be: returns who came into reach and who fell out of it."""
        if not self._stale:
            return [], []
        self.rebuilds += 1
        self._stale = False
        before = self._parents
        self._parents = breadth_first(self._table, self._root)
        depths: dict[NodeId, int] = {}
        for node, parent in self._parents.items():  # breadth first: a parent stands before its children
            depths[node] = 0 if node == parent else depths[parent] + 1
        self._depths = depths
        gained = [node for node in self._parents if node not in before]
        lost = [node for node in before if node not in self._parents]
        return gained, lost

    def _cut(self, one: NodeId, other: NodeId) -> None:
        if self._stale:
            return
        if self._parents.get(other) == one and other != one:
            child = other
        elif self._parents.get(one) == other and other != one:
            child = one
        else:
            return
        depth = self._depths[child]
        for neighbour in self._table.linked_neighbours(child):
            # A parent as near to the root as the lost one keeps every depth below right.
            if self._depths.get(neighbour, depth) == depth - 1:
                self._parents[child] = neighbour
                return
        self._stale = True

    def _join(self, one: NodeId, other: NodeId) -> list[NodeId]:
        if (one in self._parents) == (other in self._parents):
            return []
        inside, outside = (one, other) if one in self._parents else (other, one)
        gained = [outside]
        self._hang(outside, inside)
        queue = deque([outside])
        while queue:
            node = queue.popleft()
            for neighbour in self._table.linked_neighbours(node):
                if neighbour not in self._parents:
                    self._hang(neighbour, node)
                    gained.append(neighbour)
                    queue.append(neighbour)
        return gained

    def _hang(self, child: NodeId, parent: NodeId) -> None:
        self._parents[child] = parent
        self._depths[child] = self._depths[parent] + 1


class Routes:
    """Exact trees by root, kept until the graph changes."""

    def __init__(self, table: AdjacencyTable) -> None:
        self._table = table
        self._trees: OrderedDict[NodeId, dict[NodeId, NodeId]] = OrderedDict()
        self._children: dict[NodeId, list[NodeId]] = {}

    def invalidate(self) -> None:
        """The graph has changed."""
        self._trees.clear()
        self._children.clear()

    def tree(self, root: NodeId) -> dict[NodeId, NodeId]:
        """Parents in the tree rooted there (see :func:`breadth_first`)."""
        tree = self._trees.get(root)
        if tree is None:
            tree = self._trees[root] = breadth_first(self._table, root)
            if len(self._trees) > _TREES_KEPT:
                gone, _ = self._trees.popitem(last=False)
                self._children.pop(gone, None)
        return tree

    def children(self, root: NodeId, node: NodeId) -> list[NodeId]:
        """To whom ``node`` passes on what comes from ``root``. Asked about one node only (this one), so it is cached by root."""
        found = self._children.get(root)
        if found is None:
            found = [child for child, parent in self.tree(root).items() if parent == node and child != root]
            self._children[root] = found
        return found

    def path(self, target: NodeId) -> tuple[NodeId, ...] | None:
        """The nodes from this one to ``target``, both included; None when no path reaches it."""
        tree = self.tree(self._table.me)
        if target not in tree:
            return None
        path = [target]
        while path[-1] != self._table.me:
            path.append(tree[path[-1]])
        return tuple(reversed(path))
