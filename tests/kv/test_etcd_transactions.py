"""The parts of a node's writes: none too large, none lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pyminuteman.etcd.messages import Delete, Event, KeyValue, Put
from pyminuteman.kv.etcd_transactions import BYTES_MAX, OPERATIONS_MAX, Life, as_event, cut, size_of


@given(st.lists(st.sampled_from([1, 1000, BYTES_MAX // 3, BYTES_MAX // 2, BYTES_MAX, BYTES_MAX + 1]), max_size=20))
def test_parts_are_as_large_as_they_may_be_and_no_larger(sizes: list[int]) -> None:
    parts = list(cut(sizes, lambda size: size))
    assert [size for part in parts for size in part] == sizes
    for at, part in enumerate(parts):
        assert sum(part) <= BYTES_MAX or len(part) == 1
        assert at == 0 or sum(parts[at - 1]) + part[0] > BYTES_MAX


def test_parts_have_so_many_operations() -> None:
    assert [len(part) for part in cut(range(300), lambda _: 1)] == [OPERATIONS_MAX, OPERATIONS_MAX, 300 - 2 * OPERATIONS_MAX]
    assert list(cut([], len)) == []


def test_no_two_writes_of_a_life_are_taken_for_one_another() -> None:
    life, other = Life("aa"), Life("a")
    values = [life.next() for _ in range(20)]
    assert len(set(values)) == 20
    assert all(life.is_in(value) and not other.is_in(value) for value in values)
    assert not life.is_in(b"garbage")


def test_a_change_is_told_as_the_watch_will_tell_it() -> None:
    assert as_event(Put(b"k", b"v", 3), 7) == Event(b"k", 7, KeyValue(b"k", b"v", 7, 3))
    assert as_event(Delete(b"k"), 7) == Event(b"k", 7, None)
    assert (size_of(Put(b"k", b"vv")), size_of(Delete(b"kkk"))) == (3, 3)
