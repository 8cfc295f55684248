"""Ten thousand nodes in the memory of one machine: what all of them know alike is held once.

A node of 10,000 knows 10,000 others, a kilobyte and a half each; in one process that would be 150 GB. Nearly all of it is the same
for everybody. After a warm start one node, the model, is given everybody's record; the tables of all the others become layers over
its own (:class:`~pyminuteman.testing.simulation.layered.Layered`), and only what they learn later is theirs. The trees that say who
is in reach may be rooted anywhere, since links are symmetric: all are rooted at the model, and held as differences.

This reaches into the core, deliberately and only here: it changes where things are kept, and not what is done with them.
``tests/simulation/test_shared_tables.py`` holds it to clusters that share nothing.
"""
# ruff: noqa: SLF001

from __future__ import annotations

from collections import OrderedDict
from copy import copy

from pyminuteman.addresses import NodeId
from pyminuteman.membership.adjacency import AdjacencyTable
from pyminuteman.membership.census import Census
from pyminuteman.membership.node import MembershipNode
from pyminuteman.membership.routing import Reachability, Routes, breadth_first
from pyminuteman.testing.simulation.layered import Layered
from pyminuteman.testing.simulation.process import Process

__all__ = ["share_tables"]

_TREES_KEPT = 256


class _Trees:
    """Trees that several nodes need, by what their tables hold."""

    def __init__(self, root: NodeId) -> None:
        self.root = root
        self._kept: OrderedDict[tuple[object, ...], dict[NodeId, NodeId]] = OrderedDict()

    def of(self, table: AdjacencyTable, root: NodeId) -> dict[NodeId, NodeId]:
        """The tree rooted there, over the links in that table. Not to be changed: it is everybody's who has the same table."""
        key = (root, table._sum, len(table._included), tuple(sorted(table._void)))
        tree = self._kept.get(key)
        if tree is None:
            tree = self._kept[key] = breadth_first(table, root)
            if len(self._kept) > _TREES_KEPT:
                self._kept.popitem(last=False)
        return tree


class _SharedReachability(Reachability):
    """Reach by the model's tree instead of one's own."""

    trees: _Trees
    base_parents: dict[NodeId, NodeId]
    base_depths: dict[NodeId, int]

    def refresh(self) -> tuple[list[NodeId], list[NodeId]]:
        """As the original, over a tree that others have too."""
        before = self._parents
        if not self._stale or not isinstance(before, Layered):
            return super().refresh()
        tree = self.trees.of(self._table, self.trees.root)
        if self._root not in tree:
            return super().refresh()  # cut off from the model: from now on on its own
        self.rebuilds += 1
        self._stale = False
        depths: dict[NodeId, int] = {}
        for node, parent in tree.items():
            depths[node] = 0 if node == parent else depths[parent] + 1
        gone = [node for node in self.base_parents if node not in tree]
        base_parents, base_depths = self.base_parents, self.base_depths
        moved = {node: parent for node, parent in tree.items() if base_parents.get(node) != parent}
        shifted = {node: depth for node, depth in depths.items() if base_depths.get(node) != depth}
        after = Layered(base_parents, moved, gone)
        self._parents, self._depths = after, Layered(base_depths, shifted, gone)
        touched = dict.fromkeys([*before.differing, *after.differing])
        gained = [node for node in touched if node in after and node not in before]
        lost = [node for node in touched if node in before and node not in after]
        return gained, lost


class _SharedRoutes(Routes):
    """Trees of others' roots, each held once."""

    trees: _Trees

    def tree(self, root: NodeId) -> dict[NodeId, NodeId]:
        """As the original."""
        return self.trees.of(self._table, root)


def share_tables(model: Process, processes: list[Process]) -> None:
    """Let all that were given their neighbours' records know what ``model`` knows, which was given everybody's."""
    census = _census(model)
    trees = _Trees(model.id)
    tree = trees.of(census.table, model.id)
    depths: dict[NodeId, int] = {}
    for node, parent in tree.items():
        depths[node] = 0 if node == parent else depths[parent] + 1
    entries, included = dict(census.table._entries), dict(census.table._included)
    states = {node: copy(state) for node, state in census.members._states.items()}  # the model changes its own in place
    names = {name: dict(holders) for name, holders in census._names.items()}
    some = next(iter(states.values()))
    for process in processes:
        if process is model:
            continue
        mine = _census(process)
        table, members = mine.table, mine.members
        if table.own.encoded != entries[process.id].encoded:
            raise ValueError(f"the model has an old record of {process.name}")
        table._entries = Layered(entries)
        table._included = Layered(included)
        table._sum = census.table._sum
        members._states = Layered(states, {model.id: copy(some)}, [process.id], copy=copy)
        members._unreachable = {}
        members._reachable = len(processes) - 1
        mine._names = Layered(names, copy=dict.copy)
        mine.reach.__class__ = _SharedReachability
        reach = mine.reach
        assert isinstance(reach, _SharedReachability)  # noqa: S101 - made one just now
        reach.trees, reach.base_parents, reach.base_depths = trees, tree, depths
        reach._parents, reach._depths, reach._stale = Layered(tree), Layered(depths), False
        mine.routes.__class__ = _SharedRoutes
        assert isinstance(mine.routes, _SharedRoutes)  # noqa: S101 - likewise
        mine.routes.trees = trees


def _census(process: Process) -> Census:
    node = process.node
    assert isinstance(node, MembershipNode)  # noqa: S101 - tables are shared between real cores
    return node._census
