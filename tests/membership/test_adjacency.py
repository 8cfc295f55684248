"""The table of records: the newest word of each owner, whoever brought it, and hashes that tell whether two tables agree."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyminuteman.membership.adjacency import AdjacencyTable, Change, bucket_count_for
from pyminuteman.membership.config import MembershipConfig
from pyminuteman.membership.errors import RemoteProtocolError
from pyminuteman.membership.messages import TableDigest
from pyminuteman.membership.records import EncodedRecord, Record, Version
from tests.membership.support import CONFIG, EPOCH, ids, make_record, newer, versions
from tests.support.messages import node_id

WALL = EPOCH + 60.0
JUMP = 1 << 20
"""Furthest a version may go in one step."""


def make_table(*records: Record, config: MembershipConfig = CONFIG) -> AdjacencyTable:
    """The table of node 0, all of whose members are in reach."""
    table = AdjacencyTable(make_record(0), config)
    table.include(node_id(0))
    for record in records:
        table.offer(record.encode(), WALL)
        table.include(record.id)
    return table


def recomputed(table: AdjacencyTable) -> int:
    return sum(encoded.hash for encoded in table.included_records()) & 0xFFFF_FFFF


# -- 1: the newest wins ------------------------------------------------------------------------------------------------


def test_whatever_the_order_the_newest_word_of_each_life_wins() -> None:
    words = [
        make_record(1, epoch=EPOCH, version=9, name="old life"),
        make_record(1, epoch=EPOCH + 1, version=1, name="new life"),
        make_record(1, epoch=EPOCH + 1, version=2, name="last word"),
    ]
    for order in permutations(words):
        table = make_table()
        for word in order:
            if table.is_newer(word.encode()):
                table.offer(word.encode(), WALL)
        assert table.record(node_id(1)) == words[-1]


def test_the_same_word_again_is_no_news() -> None:
    table = make_table(make_record(1))
    assert not table.is_newer(make_record(1, name="a different body").encode())
    assert table.is_newer(make_record(1, version=2).encode())
    assert table.is_newer(make_record(2).encode())


def test_what_a_record_changed_is_told() -> None:
    table = make_table()
    first, second = make_record(1), make_record(1, version=2)
    assert table.offer(first.encode(), WALL) == Change(None, first, was_void=False)
    assert table.offer(second.encode(), WALL) == Change(first, second, was_void=False)
    table.void(node_id(1))
    third = make_record(1, version=3)
    assert table.offer(third.encode(), WALL) == Change(second, third, was_void=True)


def test_a_table_knows_its_members() -> None:
    table = make_table(make_record(1))
    assert len(table) == 2
    assert set(table) == {node_id(0), node_id(1)}
    assert node_id(1) in table
    assert node_id(2) not in table
    entry = table.get(node_id(1))
    assert entry is not None
    assert entry.encoded == make_record(1).encode()
    assert table.get(node_id(2)) is table.record(node_id(2)) is None
    assert table.own.record == make_record(0)


def test_one_that_is_forgotten_may_come_again_as_a_newcomer() -> None:
    table = make_table(make_record(1, accused=versions(2), version=7))
    table.void(node_id(1))
    table.remove(node_id(1))
    table.remove(node_id(1))
    assert node_id(1) not in table
    assert table.hash == recomputed(table)
    assert table.accusers(node_id(2)) == []
    assert table.offer(make_record(1).encode(), WALL) == Change(None, make_record(1), was_void=False)


# -- 2: nobody but the owner raises a version --------------------------------------------------------------------------


def test_a_word_about_us_that_we_have_not_said_is_noticed() -> None:
    table = make_table()
    assert table.outdone(make_record(0, version=2).encode())
    assert table.outdone(make_record(0, epoch=EPOCH + 5).encode())
    assert table.outdone(make_record(0, name="the same version, another body").encode())


def test_our_own_words_and_those_about_others_are_not_held_for_it() -> None:
    table = make_table()
    table.put(make_record(0, version=3))
    assert not table.outdone(make_record(0, version=3).encode())
    assert not table.outdone(make_record(0, version=2).encode())
    assert not table.outdone(make_record(0, epoch=EPOCH - 1, version=9).encode())
    assert not table.outdone(make_record(1, version=9).encode())


# -- 3: epochs and versions within reason (threat 6) -------------------------------------------------------------------


def test_threat_6_an_epoch_far_ahead_of_our_clock_is_refused_and_changes_nothing() -> None:
    table = make_table(make_record(1))
    before = table.hash
    for epoch in (int(WALL + CONFIG.clock_skew_max_seconds) + 1, 2**63, 2**64 - 1):
        with pytest.raises(RemoteProtocolError, match="far ahead of our clock"):
            table.offer(make_record(1, epoch=epoch).encode(), WALL)
    assert table.record(node_id(1)) == make_record(1)
    assert table.hash == before
    table.offer(make_record(1, epoch=int(WALL + CONFIG.clock_skew_max_seconds)).encode(), WALL)


@pytest.mark.parametrize("version", [2 + JUMP, 2**40, 2**64 - 1])
def test_threat_6_a_version_that_jumps_is_refused_and_changes_nothing(version: int) -> None:
    table = make_table(make_record(1))
    with pytest.raises(RemoteProtocolError, match="jumps"):
        table.offer(make_record(1, version=version).encode(), WALL)
    assert table.record(node_id(1)) == make_record(1)


def test_threat_6_a_version_may_go_some_way_at_once_for_news_is_lost() -> None:
    table = make_table(make_record(1))
    table.offer(make_record(1, version=1 + JUMP).encode(), WALL)
    table.offer(make_record(1, epoch=EPOCH + 1, version=JUMP).encode(), WALL)
    with pytest.raises(RemoteProtocolError, match="jumps"):
        table.offer(make_record(1, epoch=EPOCH + 2, version=JUMP + 1).encode(), WALL)


def test_threat_6_a_newcomer_may_have_lived_long_but_not_for_ever() -> None:
    table = make_table()
    table.offer(make_record(1, version=2**40).encode(), WALL)
    with pytest.raises(RemoteProtocolError, match="jumps"):
        table.offer(make_record(2, version=2**40 + 1).encode(), WALL)
    assert node_id(2) not in table


# -- 4: the table is bounded (threat 7) --------------------------------------------------------------------------------


def test_threat_7_members_beyond_the_bound_are_dropped_and_counted() -> None:
    table = make_table(make_record(1), config=MembershipConfig(members_max=2))
    for number in (2, 3):
        with pytest.raises(RemoteProtocolError, match="the table is full"):
            table.offer(make_record(number).encode(), WALL)
    assert table.dropped == 2
    assert len(table) == 2


def test_threat_7_a_full_table_still_takes_news_of_its_members() -> None:
    table = make_table(make_record(1), config=MembershipConfig(members_max=2))
    table.offer(make_record(1, version=2).encode(), WALL)
    assert table.record(node_id(1)) == make_record(1, version=2)


def test_a_malformed_record_changes_nothing() -> None:
    table = make_table(make_record(1))
    with pytest.raises(RemoteProtocolError):
        table.offer(EncodedRecord(node_id(1), EPOCH, 2, b"no record"), WALL)
    assert table.record(node_id(1)) == make_record(1)


# -- 5: claims of the dead are void ------------------------------------------------------------------------------------


def test_a_link_needs_both_ends_to_say_so() -> None:
    table = make_table(make_record(1, neighbours=[2, 3]), make_record(2, neighbours=[1]), make_record(3))
    assert table.are_linked(node_id(1), node_id(2))
    assert table.are_linked(node_id(2), node_id(1))
    assert not table.are_linked(node_id(1), node_id(3))
    assert not table.are_linked(node_id(3), node_id(1))
    assert not table.are_linked(node_id(1), node_id(9))
    assert not table.are_linked(node_id(9), node_id(1))
    assert table.linked_neighbours(node_id(1)) == [node_id(2)]
    assert table.linked_neighbours(node_id(9)) == []


def test_linked_neighbours_come_in_order_of_id() -> None:
    table = make_table(make_record(1, neighbours=range(2, 9)), *(make_record(n, neighbours=[1]) for n in range(2, 9)))
    assert table.linked_neighbours(node_id(1)) == list(ids(*range(2, 9)))


def test_claims_of_one_cut_off_as_failed_are_void_until_it_speaks_again() -> None:
    table = make_table(make_record(1, neighbours=[2]), make_record(2, neighbours=[1]))
    table.void(node_id(1))
    assert not table.are_linked(node_id(1), node_id(2))
    assert not table.are_linked(node_id(2), node_id(1))
    assert table.linked_neighbours(node_id(1)) == table.linked_neighbours(node_id(2)) == []
    table.offer(make_record(1, version=2, neighbours=[2]).encode(), WALL)
    assert table.are_linked(node_id(1), node_id(2))
    assert table.linked_neighbours(node_id(2)) == [node_id(1)]


def test_claims_of_a_stranger_cannot_be_void() -> None:
    table = make_table()
    table.void(node_id(1))
    assert table.offer(make_record(1).encode(), WALL).was_void is False


def test_an_accusation_stands_until_the_accuser_drops_it() -> None:
    table = make_table(make_record(1, accused=versions(3)), make_record(2, accused=versions(3, 4)))
    assert set(table.accusers(node_id(3))) == {node_id(1), node_id(2)}
    table.offer(make_record(1, version=2).encode(), WALL)
    assert table.accusers(node_id(3)) == [node_id(2)]
    table.offer(make_record(2, version=2, accused=versions(4)).encode(), WALL)
    assert table.accusers(node_id(3)) == []
    assert table.accusers(node_id(4)) == [node_id(2)]
    assert table.accusers(node_id(9)) == []


def test_an_accusation_stands_until_the_accused_says_something_newer_whatever_came_first() -> None:
    accuser, accused = make_record(1, accused=versions(3, version=5)), node_id(3)
    for version, epoch, accusers in ((4, EPOCH, [node_id(1)]), (5, EPOCH, [node_id(1)]), (6, EPOCH, []), (1, EPOCH + 1, [])):
        spoken = make_record(3, version=version, epoch=epoch)
        for records in ((accuser, spoken), (spoken, accuser)):
            assert make_table(*records).accusers(accused) == accusers


def test_an_accuser_may_accuse_again() -> None:
    table = make_table(make_record(1, accused=versions(3)), make_record(3, version=2))
    assert table.accusers(node_id(3)) == []
    table.offer(make_record(1, version=2, accused=versions(3, version=2)).encode(), WALL)
    assert table.accusers(node_id(3)) == [node_id(1)]


# -- hashes and comparing ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "count"), [(0, 16), (128, 16), (129, 32), (256, 32), (257, 64), (1025, 256), (10_000, 256), (10**6, 256)]
)
def test_buckets_hold_some_eight_records_each(size: int, count: int) -> None:
    assert bucket_count_for(size) == count


_edits = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 6), st.integers(0, 2)),
        st.tuples(st.sampled_from(["include", "exclude", "void"]), st.integers(0, 6), st.just(0)),
        st.tuples(st.just("remove"), st.integers(1, 6), st.just(0)),
    ),
    max_size=16,
)


@given(_edits)
def test_the_hash_is_the_sum_over_the_records_in_reach_whatever_happened(edits: Sequence[tuple[str, int, int]]) -> None:
    table, included = make_table(), {0}
    for edit, number, epoch in edits:
        node = node_id(number)
        if edit == "put":
            known = table.record(node) or make_record(number)
            table.put(newer(known, epoch=known.epoch + epoch))
        elif edit == "include" and node in table:
            table.include(node)
            table.include(node)
            included.add(number)
        elif edit == "exclude":
            table.exclude(node)
            included.discard(number)
        elif edit == "remove":
            table.remove(node)
            included.discard(number)
        else:
            table.void(node)
        assert {encoded.id for encoded in table.included_records()} == {node_id(one) for one in included}
        assert table.hash == recomputed(table)


def test_records_out_of_reach_do_not_make_tables_differ() -> None:
    one, other = make_table(make_record(1)), make_table(make_record(1), make_record(2))
    assert one.hash != other.hash
    other.exclude(node_id(2))
    assert one.hash == other.hash
    assert other.digest_of_difference(one.summary()) == TableDigest(16, (), ())


def test_a_summary_has_the_hash_of_every_bucket() -> None:
    table = make_table(*map(make_record, range(1, 40)))
    hashes = table.summary().hashes
    assert len(hashes) == 4 * 16
    total = sum(int.from_bytes(hashes[at : at + 4], "big") for at in range(0, 64, 4))
    assert total & 0xFFFF_FFFF == table.hash


def test_a_digest_tells_the_versions_in_the_buckets_that_differ_and_no_others() -> None:
    one, other = make_table(*map(make_record, range(1, 40))), make_table(*map(make_record, range(1, 40)))
    other.put(make_record(7, version=2))
    digest = one.digest_of_difference(other.summary())
    assert len(digest.buckets) == 1
    assert Version(node_id(7), EPOCH, 1) in digest.versions
    assert len(digest.versions) < 8


def test_tables_of_different_sizes_are_compared_in_the_buckets_of_the_asker() -> None:
    large, small = make_table(*map(make_record, range(1, 200))), make_table(make_record(1))
    digest = small.digest_of_difference(large.summary())
    assert digest.bucket_count == len(large.summary().hashes) // 4 == 32
    wanted, newer_here = large.compare(digest)
    assert wanted == []
    assert {record.id for record in newer_here} >= {node_id(n) for n in range(2, 200)}


def test_of_two_words_each_side_is_given_the_newer() -> None:
    ours = make_table(make_record(1, version=5), make_record(2), make_record(3))
    theirs = make_table(make_record(1), make_record(2, epoch=EPOCH + 1), make_record(4))
    digest = theirs.digest_of_difference(ours.summary())
    wanted, newer_here = ours.compare(digest)
    assert set(wanted) == {node_id(2), node_id(4)}
    assert {record.id for record in newer_here} == {node_id(1), node_id(3)}


def exchange(one: AdjacencyTable, other: AdjacencyTable) -> None:
    """One repair, as two neighbours do it: summary, digest, records both ways."""
    digest = other.digest_of_difference(one.summary())
    wanted, newer_here = one.compare(digest)
    take(one, (other.get(node) for node in wanted))
    for encoded in newer_here:
        take(other, [one.get(encoded.id)])


def take(table: AdjacencyTable, entries: Iterable[object]) -> None:
    for entry in entries:
        table.offer(entry.encoded, WALL)  # type: ignore[attr-defined]
        table.include(entry.encoded.id)  # type: ignore[attr-defined]


_tables = st.dictionaries(st.integers(1, 30), st.tuples(st.integers(0, 2), st.integers(1, 3)), max_size=8)


@given(_tables, _tables)
def test_after_one_exchange_two_tables_are_the_newer_of_both(
    ours: dict[int, tuple[int, int]], theirs: dict[int, tuple[int, int]]
) -> None:
    one, other = (
        make_table(*(make_record(n, epoch=EPOCH + epoch, version=version) for n, (epoch, version) in words.items()))
        for words in (ours, theirs)
    )
    exchange(one, other)
    newest = {node_id(n): max(ours.get(n, (-1, 0)), theirs.get(n, (-1, 0))) for n in {*ours, *theirs}}
    for table in (one, other):
        held = {record.id: (record.epoch - EPOCH, record.version) for record in table.included_records()}
        assert held == newest | {node_id(0): (0, 1)}
    assert one.hash == other.hash


def test_the_body_of_a_record_does_not_matter_to_the_hash() -> None:
    assert make_table(make_record(1)).hash == make_table(replace(make_record(1), tags=(("a", "b"),))).hash
