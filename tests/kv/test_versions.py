"""Sets of dots and ranges of versions: the laws of joining, and the one form that stands for each set."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pyminuteman.addresses import NodeId
from pyminuteman.kv.versions import EMPTY, Actor, Context, Dot, Ranges, Seen

ACTORS = [Actor(NodeId(bytes(15) + bytes([number])), 1) for number in range(3)]
dots = st.builds(Dot, st.sampled_from(ACTORS), st.integers(1, 8))
sets = st.frozensets(dots, max_size=12)


@given(sets, sets)
def test_joining_contexts_is_the_union_of_their_dots(one: frozenset[Dot], other: frozenset[Dot]) -> None:
    joined = Context.of(one).join(Context.of(other))
    assert joined == Context.of(one | other)
    assert {dot for actor in ACTORS for number in range(1, 10) if joined.has(dot := Dot(actor, number))} == one | other


@given(sets)
def test_a_set_of_dots_has_one_context_whatever_the_order(some: frozenset[Dot]) -> None:
    assert Context.of(sorted(some)) == Context.of(sorted(some, reverse=True))
    assert hash(Context.of(sorted(some))) == hash(Context.of(sorted(some, reverse=True)))
    assert Context.of(some).join(EMPTY) == EMPTY.join(Context.of(some)) == Context.of(some)
    assert len(Context.of(some)) == len({dot.actor for dot in some})


def test_numbers_without_a_gap_are_one_number() -> None:
    assert Seen.of(2, [4, 3, 7, 1]) == Seen(4, frozenset({7}))
    assert Seen(2).join(Seen(5)) == Seen(5).join(Seen(2)) == Seen(5)
    assert Seen(1, frozenset({3})).join(Seen(2)) == Seen(3)
    assert 3 in Seen(3)
    assert 0 not in Seen(3)
    assert "3" not in Seen(3)
    assert repr(Context.of([Dot(ACTORS[0], 1)])).startswith("Context(")


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 6)), max_size=15))
def test_ranges_hold_what_came_and_stop_at_the_first_gap(added: list[tuple[int, int]]) -> None:
    ranges, came = Ranges(), set()
    for low, size in added:
        ranges.add(low, low + size)
        came |= set(range(low + 1, low + size + 1))
        upto = next(number for number in range(1, 40) if number not in came) - 1
        assert ranges.upto == upto
        beyond = sorted(number for number in came if number > upto)
        assert len(ranges) == sum(1 for number in beyond if number - 1 not in came)
