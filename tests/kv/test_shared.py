"""The table of shared values: joins, removal and its end, limits at the writer and at the reader, hashes, and encoding."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyminuteman.kv.crdt import Item, State
from pyminuteman.kv.errors import TooManyKeys, ValueTooLarge
from pyminuteman.kv.messages import BUCKETS, SharedState
from pyminuteman.kv.operations import Add, AddElement, Assign, Disable, Enable, Kind, Remove, RemoveElement, SharedKey
from pyminuteman.kv.shared import CLOCK_SKEW_MAX_SECONDS, SharedTable, hash_of_key
from pyminuteman.kv.state_codec import decode_state, encode_state
from pyminuteman.kv.versions import Context, Dot
from tests.kv.support import EPOCH, actor, histories, node

NOW = 1_700_000_000.0
FLAG = SharedKey.flag("drain")
SET = SharedKey.set("hosts")


def table(number: int = 1, **settings: Any) -> SharedTable:
    limits = {"keys_max": 100, "value_max_bytes": 4096, "tombstone_seconds": 100.0, **settings}
    return SharedTable(actor(number), **limits)


def tell(to: SharedTable, *news: SharedState | None, now: float = NOW) -> None:
    for one in news:
        if one is not None:
            assert to.receive(one.key, one.state, now)


def everything(source: SharedTable) -> list[SharedState]:
    return source.named(row.key for row in source.rows(range(BUCKETS)))


def test_what_one_writes_another_reads() -> None:
    one, other = table(1), table(2)
    tell(other, one.update(SET, [AddElement(b"a")], NOW), one.update(FLAG, [Enable()], NOW))
    assert other.values("") == {FLAG: True, SET: frozenset({b"a"})}
    assert other.values("d") == {FLAG: True}
    assert other.values("h") == {SET: frozenset({b"a"})}
    assert other.read(SharedKey.set("drain")) is None, "of another kind, it is another value"
    assert other.changed == {FLAG, SET}
    assert one.hashes.root == other.hashes.root


def test_a_delta_that_says_nothing_new_changes_nothing() -> None:
    one, other = table(1), table(2)
    news = one.update(FLAG, [Enable()], NOW)
    tell(other, news)
    other.changed.clear()
    tell(other, news)
    assert other.changed == set()
    assert one.update(SharedKey.flag("other"), [Disable()], NOW) is None


@given(st.lists(st.tuples(st.integers(0, 2), st.booleans(), st.sampled_from([b"a", b"b"]), st.booleans()), max_size=15))
def test_tables_agree_once_they_have_told_each_other(steps: list[tuple[int, bool, bytes, bool]]) -> None:
    tables = [table(number) for number in range(3)]
    for which, adds, element, heard in steps:
        news = tables[which].update(SET, [AddElement(element) if adds else RemoveElement(element)], NOW)
        if heard:
            tell(tables[(which + 1) % 3], news)
    for _ in range(2):
        for one in tables:
            for other in tables:
                tell(other, *everything(one))
    assert len({one.hashes.root for one in tables}) == 1
    assert len({one.read(SET) for one in tables}) == 1


def test_removals_are_remembered_for_their_time_and_taken_from_nobody_after_it() -> None:
    one, other = table(1), table(2)
    tell(other, one.update(SET, [AddElement(b"a")], NOW))
    old = everything(other)
    tell(other, one.update(SET, [Remove()], NOW))
    assert (one.tombstones, len(one), one.values("")) == (1, 1, {})
    tell(one, *old)
    assert one.read(SET) is None, "an old state brings nothing back"
    tombstone = everything(one)
    one.collect(NOW + 99)
    assert len(one) == 1
    one.unstored.clear()
    one.collect(NOW + 100)
    assert (len(one), one.tombstones, one.unstored) == (0, 0, {SET})
    tell(one, *tombstone, now=NOW + 100)
    assert len(one) == 0
    other.collect(NOW + 101)
    assert one.hashes.root == other.hashes.root == table().hashes.root
    tell(one, *tombstone, now=NOW + 50)
    assert len(one) == 1, "somebody whose clock is behind has not forgotten it yet"


def test_a_value_that_comes_after_one_of_its_name_was_forgotten_is_a_new_one() -> None:
    one, other = table(1), table(2)
    stale = table(3)
    for element in (b"a", b"b"):
        news = one.update(SET, [AddElement(element)], NOW)
        tell(other, news)
        tell(stale, news)
    tell(other, one.update(SET, [Remove()], NOW))
    for each in (one, other):
        each.collect(NOW + 200)
    tell(other, one.update(SET, [AddElement(b"new")], NOW + 200))
    tell(other, *everything(stale), now=NOW + 200)
    assert other.read(SET) == {b"new"}, "what was said before is over, even to who has forgotten it"
    assert one.update(FLAG, [Enable()], NOW + 200) is not None


def test_a_tombstone_of_others_only_is_forgotten_too() -> None:
    one, other = table(1), table(2)
    tell(other, one.update(FLAG, [Enable()], NOW), one.update(FLAG, [Remove()], NOW))
    other.collect(NOW + 100)
    assert len(other) == 0


def test_the_writer_is_told_of_limits_and_nothing_changes() -> None:
    one = table(keys_max=1, value_max_bytes=200)
    one.update(SET, [AddElement(b"a")], NOW)
    root = one.hashes.root
    with pytest.raises(TooManyKeys, match="flag:drain would be one more than 1 shared values"):
        one.update(FLAG, [Enable()], NOW)
    with pytest.raises(ValueTooLarge, match=r"set:hosts would take .* bytes .* the limit is 200"):
        one.update(SET, [AddElement(bytes(200))], NOW)
    assert one.hashes.root == root
    assert one.update(SET, [Remove()], NOW) is not None
    assert one.size(SET) < 100


def test_what_others_say_beyond_the_limits_is_refused_and_counted() -> None:
    one = table(keys_max=1, value_max_bytes=100)
    big = table(2, value_max_bytes=10_000)
    late = State({}, Context(), int(NOW + CLOCK_SKEW_MAX_SECONDS + 1))
    assert not one.receive(FLAG, late, NOW)
    news = big.update(SET, [AddElement(bytes(1000))], NOW)
    assert news is not None
    assert not one.receive(SET, news.state, NOW)
    tell(one, big.update(FLAG, [Enable()], NOW))
    assert not one.receive(SharedKey.flag("more"), big.state(FLAG) or State(), NOW)
    assert one.refused == 3
    assert one.state(SET) is None


def test_rows_say_what_differs() -> None:
    one, other = table(1), table(2)
    tell(other, one.update(FLAG, [Enable()], NOW), one.update(SET, [AddElement(b"a")], NOW))
    one.update(SET, [AddElement(b"b")], NOW)
    rows = {row.key: row for row in one.rows(range(BUCKETS))}
    assert not other.differs(rows[hash_of_key(FLAG)])
    assert other.differs(rows[hash_of_key(SET)])
    assert table().differs(rows[hash_of_key(FLAG)])
    assert table().named([hash_of_key(FLAG)]) == []


def test_the_disk_is_told_what_changed_and_what_is_gone() -> None:
    one = table()
    one.update(FLAG, [Enable()], NOW)
    ((key, packed),) = one.take_unstored()
    assert key == FLAG
    assert packed is not None
    assert one.take_unstored() == []
    again = table(2)
    again.restore(FLAG, one.state(FLAG) or State())
    assert again.read(FLAG) is True
    assert again.take_unstored() == []
    one.update(FLAG, [Remove()], NOW)
    one.collect(NOW + 100)
    assert one.take_unstored() == [(FLAG, None)]


# -- encoding ----------------------------------------------------------------------------------------------------------


@given(histories())
def test_a_state_is_what_it_was_after_encoding(history: tuple[Kind, list[State], list[State]]) -> None:
    kind, states, deltas = history
    for state in states + deltas:
        assert decode_state(kind, encode_state(state)) == state


NODE = bytes(node(1))
ACTOR = [NODE, EPOCH, 2]
BROKEN = {
    "no list": None,
    "too short": [1, []],
    "an actor that is none": [1, [[b"short", EPOCH, 1]], []],
    "an actor of text": [1, [["x" * 16, EPOCH, 1]], []],
    "an actor twice": [1, [ACTOR, ACTOR], []],
    "an empty actor": [1, [[NODE, EPOCH, 0]], []],
    "numbers that are not in their one form": [1, [[NODE, EPOCH, 1, 2]], []],
    "a number too large": [1, [[NODE, EPOCH, 1 << 63]], []],
    "a number that is a boolean": [True, [], []],
    "an actor's place beyond": [1, [ACTOR], [[1, 1, b"x"]]],
    "no actors": [1, [], [[0, 1, b"x"]]],
    "a dot twice": [1, [ACTOR], [[0, 1, b"x"], [0, 1, b"x"]]],
    "a dot outside its context": [1, [ACTOR], [[0, 3, b"x"]]],
    "a dot that is too long": [1, [ACTOR], [[0, 1, b"x", 0, 1, "name", 3]]],
    "a set of texts": [1, [ACTOR], [[0, 1, "x"]]],
    "a set with times": [1, [ACTOR], [[0, 1, b"x", 5]]],
    "a field in a set": [1, [ACTOR], [[0, 1, b"x", 0, 1, "name"]]],
    "a name in a set": [1, [ACTOR], [[0, 1, b"x", 0, None, "name"]]],
}


@pytest.mark.parametrize("fields", BROKEN.values(), ids=BROKEN)
def test_a_broken_state_is_refused(fields: object) -> None:
    assert decode_state(Kind.SET, [1, [ACTOR], [[0, 1, b"x"]]])
    with pytest.raises((ValueError, TypeError)):
        decode_state(Kind.SET, fields)


@pytest.mark.parametrize(
    ("kind", "dot"),
    [
        (Kind.COUNTER, [0, 1, b"x"]),
        (Kind.COUNTER, [0, 1, 1 << 63]),
        (Kind.FLAG, [0, 1, b"x"]),
        (Kind.REGISTER, [0, 1, 5]),
        (Kind.MAP, [0, 1, b"x"]),
        (Kind.MAP, [0, 1, b"x", 0, 5, "name"]),
        (Kind.MAP, [0, 1, b"x", 0, 1, ""]),
        (Kind.MAP, [0, 1, b"x", 0, 1, None]),
    ],
)
def test_an_item_that_its_kind_cannot_have_is_refused(kind: Kind, dot: list[Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_state(kind, [1, [ACTOR], [dot]])


def test_items_are_kept_as_short_as_they_can_be() -> None:
    dots = [Dot(actor(1), number) for number in (1, 2, 3)]
    state = State(
        {dots[0]: Item(None, None), dots[1]: Item(None, b"v", 5), dots[2]: Item(SharedKey.counter("n"), 4)}, Context.of(dots), 9
    )
    assert encode_state(state) == [
        9,
        [[NODE, EPOCH, 3]],
        [[0, 1], [0, 2, b"v", 5], [0, 3, 4, 0, 2, "n"]],
    ]


def test_a_register_and_a_counter_read_what_they_hold() -> None:
    one = table()
    one.update(SharedKey.register("r"), [Assign(b"x")], NOW)
    one.update(SharedKey.counter("c"), [Add(3)], NOW)
    assert list(one.values("").items()) == [(SharedKey.register("r"), b"x"), (SharedKey.counter("c"), 3)]
