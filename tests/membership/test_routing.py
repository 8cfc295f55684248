"""Reach and routes: what is kept up to date edge by edge is what a search from scratch finds."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyminuteman.addresses import NodeId
from pyminuteman.membership.adjacency import AdjacencyTable
from pyminuteman.membership.routing import Reachability, Routes, breadth_first
from tests.membership.support import CONFIG, EPOCH, ids, make_record, newer
from tests.support.messages import node_id

WALL = float(EPOCH)


class Graph:
    """Nodes 0 to 9, of which 0 is this one; its table, and who is in reach."""

    def __init__(self, *edges: tuple[int, int]) -> None:
        self.table = AdjacencyTable(make_record(0), CONFIG)
        self.reach = Reachability(self.table)
        self.known: set[NodeId] = {node_id(0)}
        """In reach, as one would know who only heard what came and what went."""
        neighbours: dict[int, set[int]] = {}
        for one, other in edges:
            neighbours.setdefault(one, set()).add(other)
            neighbours.setdefault(other, set()).add(one)
        for number in sorted(neighbours):
            self.claim(number, neighbours[number])

    def claim(self, number: int, neighbours: set[int] | frozenset[int], **changes: Any) -> list[NodeId]:
        """The node says that these are its neighbours."""
        known = self.table.record(node_id(number)) or make_record(number)
        record = newer(known, **({"neighbours": ids(*neighbours)} | changes))
        if number == 0:
            before, void = known.neighbours, False
            self.table.put(record)
        else:
            change = self.table.offer(record.encode(), WALL)
            before, void = change.previous.neighbours if change.previous else (), change.was_void
        gained = self.reach.changed(record.id, () if void else before, record.neighbours)
        self.known.update(gained)
        return gained

    def refresh(self) -> tuple[list[NodeId], list[NodeId]]:
        gained, lost = self.reach.refresh()
        self.known |= set(gained)
        self.known -= set(lost)
        return gained, lost

    def searched(self) -> set[NodeId]:
        """Who is in reach, found without any of the machinery."""
        records = {node: self.table.record(node) for node in self.table if node not in self.table._void}
        found, edge = {node_id(0)}, [node_id(0)]
        while edge:
            here = edge.pop()
            for other, record in records.items():
                if other not in found and here in record.neighbours and other in records[here].neighbours:
                    found.add(other)
                    edge.append(other)
        return found

    def nodes(self) -> set[NodeId]:
        assert all(node in self.reach for node in self.reach.nodes())
        assert len(self.reach) == len(set(self.reach.nodes()))
        return set(self.reach.nodes())


# -- reach -------------------------------------------------------------------------------------------------------------


def test_alone_only_we_are_in_reach() -> None:
    graph = Graph()
    assert graph.nodes() == {node_id(0)}
    assert graph.refresh() == ([], [])
    assert graph.reach.rebuilds == 0


def test_a_link_that_one_end_only_claims_carries_nothing() -> None:
    graph = Graph()
    assert graph.claim(0, {1}) == []
    assert graph.claim(1, set()) == []
    assert node_id(1) not in graph.reach
    assert graph.claim(1, {0}) == [node_id(1)]


def test_a_new_edge_brings_in_everything_behind_it() -> None:
    graph = Graph((1, 2), (2, 3), (3, 1), (3, 4))
    assert graph.nodes() == {node_id(0)}
    graph.claim(0, {2})
    assert set(graph.claim(2, {0, 1, 3})) == {node_id(n) for n in (1, 2, 3, 4)}


def test_an_edge_between_two_out_of_reach_or_two_in_reach_brings_nobody() -> None:
    graph = Graph((0, 1), (0, 2), (5, 6))
    assert graph.claim(1, {0, 2}) == graph.claim(2, {0, 1}) == []
    assert graph.claim(6, {5, 7}) == graph.claim(7, {6}) == []


def test_an_edge_that_the_tree_does_not_use_may_go_without_a_word() -> None:
    graph = Graph((0, 1), (0, 2), (1, 2))
    graph.claim(1, {0})
    assert not graph.reach.is_stale
    assert graph.nodes() == graph.searched()


def test_one_that_loses_its_parent_hangs_on_another_as_near_to_us() -> None:
    graph = Graph((0, 1), (0, 2), (1, 3), (2, 3), (3, 4))
    for parent in (1, 2):
        graph.claim(parent, {0})
        if parent == 1:
            assert not graph.reach.is_stale, "3 has another"
    assert graph.reach.is_stale
    assert graph.refresh() == ([], [node_id(3), node_id(4)])


def test_a_lost_child_is_seen_from_either_end() -> None:
    for number, left in ((1, set()), (0, set())):
        graph = Graph((0, 1))
        graph.claim(number, left)
        assert graph.reach.is_stale
        assert graph.refresh() == ([], [node_id(1)])


def test_a_way_round_is_found_by_growing_the_tree_anew() -> None:
    graph = Graph((0, 1), (1, 2), (2, 3), (3, 4), (4, 0))
    graph.claim(1, {2})
    assert graph.reach.is_stale
    assert graph.refresh() == ([], [])
    assert graph.reach.rebuilds == 1
    assert not graph.reach.is_stale
    assert graph.nodes() == {node_id(n) for n in range(5)}


def test_what_comes_in_while_the_tree_is_stale_is_told_by_the_next_refresh() -> None:
    graph = Graph((0, 1), (1, 2))
    graph.claim(0, {3})
    assert graph.reach.is_stale
    assert graph.claim(3, {0}) == graph.claim(2, {1, 4}) == graph.claim(4, {2}) == []
    gained, lost = graph.refresh()
    assert gained == [node_id(3)], "4 is behind a branch that is cut off"
    assert set(lost) == {node_id(1), node_id(2)}
    assert graph.known == graph.nodes() == graph.searched()


def test_one_that_is_forgotten_leaves_the_tree() -> None:
    graph = Graph((0, 1), (1, 2))
    graph.claim(1, {2})
    graph.refresh()
    graph.reach.forget(node_id(2), ids(1))
    graph.table.remove(node_id(2))
    assert graph.refresh() == ([], [])
    assert graph.nodes() == {node_id(0)}


_some = st.frozensets(st.integers(0, 6), max_size=3)
_edits = st.lists(
    st.one_of(
        st.tuples(st.just("claim"), st.integers(0, 6), _some),
        st.tuples(st.just("mutual"), st.integers(0, 6), _some),
        st.tuples(st.just("newer life"), st.integers(1, 6), _some),
        st.tuples(st.sampled_from(["void", "forget"]), st.integers(1, 6), st.just(frozenset())),
        st.tuples(st.just("refresh"), st.just(0), st.just(frozenset())),
    ),
    max_size=16,
)


@given(_edits)
def test_edge_by_edge_reach_is_what_a_search_from_scratch_finds(edits: Sequence[tuple[str, int, frozenset[int]]]) -> None:
    graph = Graph()
    for edit, number, neighbours in edits:
        node = node_id(number)
        if edit == "claim":
            graph.claim(number, neighbours - {number})
        elif edit == "mutual":
            graph.claim(number, neighbours - {number})
            for other in sorted(neighbours - {number}):
                known = graph.table.record(node_id(other)) or make_record(other)
                graph.claim(other, {one for one in range(7) if node_id(one) in known.neighbours} | {number})
        elif edit == "newer life":
            graph.claim(number, neighbours - {number}, epoch=(graph.table.record(node) or make_record(number)).epoch + 1)
        elif edit == "refresh":
            graph.refresh()
        elif node in graph.table and node not in graph.reach:
            if edit == "void":  # as is done with one out of reach, and no other
                graph.table.void(node)
            else:
                graph.reach.forget(node, graph.table.record(node).neighbours)
                graph.table.remove(node)
        if not graph.reach.is_stale:
            assert graph.nodes() == graph.searched()
            assert graph.known == graph.nodes()
    graph.refresh()
    assert graph.known == graph.nodes() == graph.searched()


# -- routes ------------------------------------------------------------------------------------------------------------

DIAMOND = ((0, 1), (0, 2), (1, 3), (2, 3), (3, 4), (4, 5))


def test_a_tree_is_of_shortest_paths_and_by_order_of_id_where_there_are_several() -> None:
    tree = breadth_first(Graph(*DIAMOND).table, node_id(0))
    assert tree[node_id(0)] == node_id(0)
    assert tree[node_id(3)] == min(node_id(1), node_id(2))
    assert tree[node_id(5)] == node_id(4)


def test_every_node_grows_the_same_tree_from_the_same_table() -> None:
    forwards, backwards = Graph(*DIAMOND), Graph(*reversed(DIAMOND))
    for root in range(6):
        assert breadth_first(forwards.table, node_id(root)) == breadth_first(backwards.table, node_id(root))


def test_a_path_leads_from_us_to_there_over_links() -> None:
    graph = Graph(*DIAMOND)
    path = Routes(graph.table).path(node_id(5))
    assert path is not None
    assert (path[0], path[-1], len(path)) == (node_id(0), node_id(5), 5)
    assert all(graph.table.are_linked(one, other) for one, other in pairwise(path))


def test_the_path_to_ourselves_is_ourselves_and_to_one_out_of_reach_there_is_none() -> None:
    routes = Routes(Graph((0, 1), (5, 6)).table)
    assert routes.path(node_id(0)) == (node_id(0),)
    assert routes.path(node_id(5)) is None


def test_along_the_trees_of_all_nodes_each_gets_everything_from_one_other() -> None:
    graph = Graph(*DIAMOND)
    for root in range(6):
        given = [child for number in range(6) for child in Routes(graph.table).children(node_id(root), node_id(number))]
        assert sorted(given) == sorted(node_id(number) for number in range(6) if number != root)


def test_trees_are_kept_until_the_graph_changes() -> None:
    graph = Graph((0, 1), (1, 2))
    routes = Routes(graph.table)
    assert routes.children(node_id(0), node_id(0)) == [node_id(1)]
    assert routes.tree(node_id(0)) is routes.tree(node_id(0))
    graph.claim(0, {1, 2})
    graph.claim(2, {0, 1})
    assert routes.children(node_id(0), node_id(0)) == [node_id(1)]
    assert routes.path(node_id(2)) == (node_id(0), node_id(1), node_id(2))
    routes.invalidate()
    assert set(routes.children(node_id(0), node_id(0))) == {node_id(1), node_id(2)}
    assert routes.path(node_id(2)) == (node_id(0), node_id(2))


def test_no_more_than_64_trees_are_kept() -> None:
    graph = Graph((0, 1))
    routes = Routes(graph.table)
    first = routes.tree(node_id(0))
    assert routes.children(node_id(0), node_id(0)) == [node_id(1)]
    for root in range(100, 164):
        routes.tree(node_id(root))
    assert routes.tree(node_id(0)) is not first
    assert routes.children(node_id(0), node_id(0)) == [node_id(1)]
    assert routes.tree(node_id(0)) == first


@pytest.mark.parametrize("root", [100, 5])
def test_a_root_without_links_is_a_tree_of_its_own(root: int) -> None:
    assert breadth_first(Graph((0, 1)).table, node_id(root)) == {node_id(root): node_id(root)}
