"""Everybody's entries in one table: what is shown of each owner, the index by key, the hashes, and what the disk is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyminuteman.addresses import NodeId
from pyminuteman.kv.entries import GAPS_MAX, Log
from pyminuteman.kv.hashes import bucket_of
from pyminuteman.kv.messages import BUCKETS, LogPart, LogWant, Row
from pyminuteman.kv.owners import OwnerTable, Refusal
from pyminuteman.kv.store import Entry
from tests.kv.support import EPOCH, node

ONE, OTHER = node(1), node(2)


def table(**settings: int) -> OwnerTable:
    return OwnerTable(**{"keys_max": 100, "entries_max": 200, **settings})


def log(owner: NodeId = ONE, epoch: int = EPOCH, **entries: bytes) -> Log:
    made = Log(owner, epoch, base=1)
    made.begin(sorted(entries.items()))
    return made


def feed(into: OwnerTable, source: Log, since: int = 0, part_bytes: int = 10**6) -> None:
    for part in source.since(since, part_bytes=part_bytes):
        into.receive(part)


def writes(source: Log, **changes: bytes | None) -> LogPart:
    part = source.write(changes.items())
    assert part is not None
    return part


def test_entries_are_found_by_owner_by_key_and_by_prefix() -> None:
    held = table()
    feed(held, log(OTHER, x=b"2", y=b"2"))
    feed(held, log(ONE, x=b"1", xy=b"1"))
    assert held.get(ONE, "x") == b"1"
    assert held.get(ONE, "y") is None
    assert list(held.get_all("x").items()) == [(ONE, b"1"), (OTHER, b"2")]
    assert held.entries("x") == [Entry("x", ONE, b"1"), Entry("x", OTHER, b"2"), Entry("xy", ONE, b"1")]
    assert held.entries("") == [*held.entries("x"), Entry("y", OTHER, b"2")]
    assert held.entries("z") == []
    assert held.count == 4
    assert held.log(node(9)) is None


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.none() | st.sampled_from([b"1", b"2"]), st.booleans()), max_size=20))
def test_the_index_says_what_the_logs_say(changes: list[tuple[str, bytes | None, bool]]) -> None:
    held = table()
    sources = [log(ONE), log(OTHER)]
    for source in sources:
        feed(held, source)
    for key, value, which in changes:
        part = sources[which].write([(key, value)])
        if part is not None:
            held.receive(part)
        if which:
            held.entries("")  # sorts, now and then
    expected = sorted(Entry(key, one.owner, value) for one in sources for key, (_, value) in one.entries.items())
    assert held.entries("") == expected
    assert held.count == len(expected)


def test_many_keys_at_once_are_in_order_all_the_same() -> None:
    held = table(keys_max=1000, entries_max=1000)
    assert held.entries("") == []
    source = log()
    feed(held, source)
    for names in (range(300), range(300, 310)):
        held.receive(writes(source, **{f"k{number:03}": b"" for number in names}))
    held.receive(writes(source, **{f"k{number:03}": None for number in range(0, 310, 2)}))
    assert [entry.key for entry in held.entries("k")] == [f"k{number:03}" for number in range(1, 310, 2)]


def test_a_later_life_takes_over_when_all_that_it_began_with_is_here() -> None:
    held = table()
    feed(held, log(a=b"1", b=b"1", c=b"1"))
    held.changed.clear()
    again = log(epoch=EPOCH + 1, a=b"1", b=b"2")
    parts = list(again.since(0, part_bytes=1))
    assert len(parts) == 2
    held.receive(parts[0])
    assert held.get(ONE, "c") == b"1"
    assert held.changed == set()
    held.receive(parts[1])
    assert (held.get_all("a"), held.get(ONE, "b"), held.get(ONE, "c")) == ({ONE: b"1"}, b"2", None)
    assert held.changed == {"b", "c"}, "a is as it was"
    feed(held, log(c=b"old"))
    assert held.get(ONE, "c") is None


def test_what_lapsed_comes_back_only_as_new_as_it_was() -> None:
    held = table()
    source = log(a=b"1")
    stale = list(source.since(0, part_bytes=10**6))
    feed(held, source)
    held.receive(writes(source, a=None, b=b"1"))
    held.lapse(ONE)
    assert held.entries("") == []
    assert held.row(ONE) is None
    assert list(held.shown()) == []
    for part in stale:
        held.receive(part)
    assert held.entries("") == []
    feed(held, source, since=held.wanted(Row(ONE, EPOCH, source.version)).since)  # type: ignore[union-attr]
    assert held.entries("") == [Entry("b", ONE, b"1")]
    held.lapse(ONE)
    feed(held, log(epoch=EPOCH - 1, z=b""))
    assert held.entries("") == []
    held.forget({ONE})
    feed(held, log(epoch=EPOCH - 1, z=b""))
    assert held.entries("") == []
    held.forget(set())
    feed(held, log(epoch=EPOCH - 1, z=b""))
    assert held.get(ONE, "z") == b"", "whom the membership has forgotten is somebody new"


def test_a_log_that_is_coming_when_its_owner_goes_is_remembered_too() -> None:
    held = table()
    source = log(a=b"1", b=b"1")
    held.receive(next(source.since(0, part_bytes=1)))
    assert held.entries("") == []
    assert held.row(ONE) == Row(ONE, EPOCH, 2)
    held.lapse(ONE)
    feed(held, log(epoch=EPOCH - 1, z=b""))
    assert held.entries("") == []


def test_too_many_keys_are_refused_and_the_version_stays_so_that_they_come_again() -> None:
    for settings in ({"keys_max": 2}, {"entries_max": 2}):
        held = table(**settings)
        source = log(a=b"1", b=b"1")
        feed(held, source)
        version = source.version
        with pytest.raises(Refusal, match="too many keys"):
            held.receive(writes(source, c=b"1"))
        assert held.row(ONE) == Row(ONE, EPOCH, version)
        source.write([("a", None)])
        feed(held, source, since=version)
        assert [entry.key for entry in held.entries("")] == ["b", "c"]


def test_parts_of_a_log_that_is_not_shown_yet_count_too() -> None:
    held = table(entries_max=3)
    source = log(a=b"", b=b"", c=b"", d=b"")
    parts = list(source.since(0, part_bytes=1))
    for part in parts[:3]:
        held.receive(part)
    with pytest.raises(Refusal):
        held.receive(parts[3])


def test_too_many_gaps_are_refused() -> None:
    held = table(keys_max=1000, entries_max=1000)
    source = log()
    parts = [writes(source, **{f"k{number}": b""}) for number in range(2 * GAPS_MAX + 2)]
    for part in parts[: 2 * GAPS_MAX : 2]:
        assert not held.receive(part)
    with pytest.raises(Refusal, match="too many gaps"):
        held.receive(parts[-2])


def test_two_tables_with_the_same_logs_have_the_same_hashes_however_they_came_by_them() -> None:
    one, other = table(), table()
    sources = [log(node(number), a=b"%d" % number) for number in range(20)]
    for source in sources:
        feed(one, source)
        feed(one, source)
    for source in reversed(sources):
        feed(other, log(source.owner, EPOCH - 1, z=b""))
        feed(other, source, part_bytes=1)
    assert one.hashes.root == other.hashes.root
    assert one.hashes.differing(other.hashes.summary) == ()
    one.receive(writes(sources[7], b=b""))
    assert one.hashes.root != other.hashes.root
    assert one.hashes.differing(other.hashes.summary) == (bucket_of(sources[7].owner),)
    assert Row(sources[7].owner, EPOCH, sources[7].version) in one.rows([bucket_of(sources[7].owner)])
    assert len(one.rows(range(BUCKETS))) == 20
    one.lapse(sources[7].owner)
    one.forget(set())
    assert len(one.rows(range(BUCKETS))) == 19


def test_what_is_asked_for_is_what_is_missing() -> None:
    held = table()
    source = log(a=b"1")
    assert held.wanted(Row(ONE, EPOCH, 2)) == LogWant(ONE, EPOCH, 0)
    feed(held, source)
    assert held.wanted(Row(ONE, EPOCH, 2)) is None
    assert held.wanted(Row(ONE, EPOCH - 1, 99)) is None
    assert held.wanted(Row(ONE, EPOCH, 5)) == LogWant(ONE, EPOCH, 2)
    assert held.wanted(Row(ONE, EPOCH + 1, 1)) == LogWant(ONE, EPOCH + 1, 0)

    def answer(want: LogWant) -> list[LogPart]:
        return list(held.missing(want, part_bytes=10**6))

    assert answer(LogWant(OTHER, EPOCH, 0)) == []
    assert answer(LogWant(ONE, EPOCH + 1, 0)) == []
    assert answer(LogWant(ONE, EPOCH, 2)) == []
    assert [part.low for part in answer(LogWant(ONE, EPOCH, 1))] == [1]
    assert [part.low for part in answer(LogWant(ONE, EPOCH - 1, 7))] == [0], "of a later life all"


def test_our_own_log_begins_and_is_written() -> None:
    held = table()
    mine = held.begin(ONE, EPOCH, [("a", b"1")])
    assert held.write(mine, [("a", b"1")]) is None
    part = held.write(mine, [("a", None), ("b", b"2")])
    assert part is not None
    assert (part.low, part.high) == (2, 4)
    assert held.changed == {"a", "b"}
    assert held.tombstones == 1
    held.begin(ONE, EPOCH + 1, [("b", b"2")])
    assert held.entries("") == [Entry("b", ONE, b"2")]


def test_the_disk_is_told_what_changed_and_of_a_log_under_repair_later() -> None:
    held = table()
    source = log(a=b"1", b=b"1")
    feed(held, source)
    (stored,) = held.take_unstored()
    assert (stored.owner, stored.epoch, stored.version, stored.whole) == (ONE, EPOCH, 3, True)
    assert sorted(stored.puts) == [("a", 2, b"1"), ("b", 3, b"1")]
    assert held.take_unstored() == []
    lost = writes(source, a=None)
    held.receive(writes(source, b=b"2"))
    assert held.take_unstored() == [], "it has a gap"
    held.receive(lost)
    (stored,) = held.take_unstored()
    assert (stored.whole, stored.puts, stored.deletes) == (False, (("b", 5, b"2"),), ("a",))
    held.lapse(ONE)
    (stored,) = held.take_unstored()
    assert (stored.epoch, stored.whole, stored.puts) == (0, True, ())


def test_a_log_from_disk_is_shown_and_not_stored_again() -> None:
    held = table()
    held.restore(Log.restored(ONE, EPOCH, 1, 7, {"a": (3, b"1")}))
    assert held.entries("") == [Entry("a", ONE, b"1")]
    assert held.row(ONE) == Row(ONE, EPOCH, 7)
    assert held.take_unstored() == []
