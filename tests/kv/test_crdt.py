"""Shared values: the laws that make replicas agree, and what each kind promises when two write at one time."""

from __future__ import annotations

from functools import reduce
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyminuteman.kv.crdt import SUM_MAX, Item, State, change, read
from pyminuteman.kv.errors import InvalidKeyError, InvalidOperationError
from pyminuteman.kv.operations import (
    AMOUNT_MAX,
    Add,
    AddElement,
    Assign,
    Disable,
    Enable,
    InMap,
    Kind,
    Operation,
    Remove,
    RemoveElement,
    SharedKey,
    SharedValue,
    check_key,
    check_operation,
)
from pyminuteman.kv.versions import Context, Dot
from tests.kv.support import actor, histories


class Writer:
    """A replica of one value."""

    def __init__(self, number: int, kind: Kind) -> None:
        self.number, self.kind, self.state = number, kind, State()

    def does(self, *operations: Operation, now: float = 1000.0) -> State:
        delta = change(self.state, operations, actor=actor(self.number), floor=0, now=now)
        self.state = self.state.join(delta)
        return delta

    def hears(self, *others: Writer) -> None:
        for other in others:
            self.state = self.state.join(other.state)

    @property
    def value(self) -> SharedValue | None:
        return read(self.kind, self.state)


def pair(kind: Kind) -> tuple[Writer, Writer]:
    return Writer(1, kind), Writer(2, kind)


def agreed(one: Writer, other: Writer) -> SharedValue | None:
    before = one.state
    one.hears(other)
    other.state = other.state.join(before)
    assert one.state == other.state
    return one.value


# -- laws --------------------------------------------------------------------------------------------------------------


@given(histories())
def test_joining_is_commutative_associative_and_idempotent(history: tuple[Kind, list[State], list[State]]) -> None:
    _, (a, b, c), _ = history
    assert a.join(b) == b.join(a)
    assert a.join(b).join(c) == a.join(b.join(c))
    assert a.join(a) == a
    assert a.join(State()) == State().join(a) == a


@given(histories(), st.randoms(use_true_random=False))
def test_deltas_in_any_order_and_any_number_say_what_the_states_say(
    history: tuple[Kind, list[State], list[State]], rng: object
) -> None:
    kind, states, deltas = history
    whole = reduce(State.join, states)
    order = deltas + deltas[::2]
    rng.shuffle(order)  # type: ignore[attr-defined]
    together = reduce(State.join, order, State())
    assert together == whole
    assert read(kind, together) == read(kind, whole)


@settings(max_examples=50)
@given(histories())
def test_every_living_dot_is_in_its_context(history: tuple[Kind, list[State], list[State]]) -> None:
    _, states, deltas = history
    for state in states + deltas:
        assert all(state.context.has(dot) for dot in state.dots)


def test_two_items_under_one_dot_come_to_the_same_everywhere() -> None:
    dot = Dot(actor(1), 1)
    states = [State({dot: Item(None, value)}, Context.of([dot])) for value in (b"x", b"y", None, 3)]
    assert len({str(reduce(State.join, order)) for order in permutations(states)}) == 1


# -- registers ---------------------------------------------------------------------------------------------------------


def test_of_two_registers_written_at_one_time_the_later_clock_wins() -> None:
    one, other = pair(Kind.REGISTER)
    one.does(Assign(b"late"), now=2000.0)
    other.does(Assign(b"early"), now=1000.0)
    assert agreed(one, other) == b"late"


def test_a_clock_that_is_ahead_does_not_win_for_good() -> None:
    one, other = pair(Kind.REGISTER)
    one.does(Assign(b"from the future"), now=9e9)
    other.hears(one)
    other.does(Assign(b"now"), now=1000.0)
    assert agreed(one, other) == b"now"


# -- counters ----------------------------------------------------------------------------------------------------------


def test_both_of_two_additions_at_one_time_count() -> None:
    one, other = pair(Kind.COUNTER)
    one.does(Add(5), Add(-2))
    other.does(Add(10))
    assert agreed(one, other) == 13
    one.does(Add(-13))
    assert agreed(one, other) == 0


def test_a_counter_keeps_within_its_range() -> None:
    one = Writer(1, Kind.COUNTER)
    for _ in range(SUM_MAX // AMOUNT_MAX):
        one.does(Add(AMOUNT_MAX))
    with pytest.raises(InvalidOperationError, match="a counter holds from"):
        one.does(Add(1))
    assert one.value == SUM_MAX
    for amount in (AMOUNT_MAX + 1, 1.5, True):
        with pytest.raises(InvalidOperationError, match="is not a whole number"):
            Add(amount)  # type: ignore[arg-type]


# -- flags and sets ----------------------------------------------------------------------------------------------------


def test_enabling_wins_over_disabling_at_one_time() -> None:
    one, other = pair(Kind.FLAG)
    one.does(Enable())
    other.hears(one)
    one.does(Disable())
    assert one.value is None
    other.does(Enable())
    assert agreed(one, other) is True
    one.does(Disable())
    assert agreed(one, other) is None


def test_adding_wins_over_removing_at_one_time_and_a_removed_element_stays_away() -> None:
    one, other = pair(Kind.SET)
    one.does(AddElement(b"a"), AddElement(b"b"))
    other.hears(one)
    stale = Writer(3, Kind.SET)
    stale.hears(one)
    one.does(RemoveElement(b"a"), RemoveElement(b"b"))
    other.does(AddElement(b"a"))
    assert agreed(one, other) == {b"a"}
    assert agreed(one, stale) == {b"a"}, "an old state brings nothing back"


# -- maps and removal --------------------------------------------------------------------------------------------------


def test_a_map_holds_values_of_every_kind_by_kind_and_name() -> None:
    one, other = pair(Kind.MAP)
    one.does(
        InMap(SharedKey.register("weight"), Assign(b"3")),
        InMap(SharedKey.set("hosts"), AddElement(b"h1")),
        InMap(SharedKey.counter("weight"), Add(2)),
        InMap(SharedKey.flag("drain"), Enable()),
    )
    other.does(InMap(SharedKey.set("hosts"), AddElement(b"h2")))
    assert agreed(one, other) == {
        SharedKey.register("weight"): b"3",
        SharedKey.counter("weight"): 2,
        SharedKey.flag("drain"): True,
        SharedKey.set("hosts"): {b"h1", b"h2"},
    }
    other.does(InMap(SharedKey.set("hosts"), Remove()), InMap(SharedKey.flag("drain"), Disable()))
    other.does(InMap(SharedKey.register("weight"), Remove()))
    assert agreed(one, other) == {SharedKey.counter("weight"): 2}


def test_what_is_in_no_field_of_a_map_is_not_read() -> None:
    dot = Dot(actor(1), 1)
    assert read(Kind.MAP, State({dot: Item(None, b"x")}, Context.of([dot]))) == {}


@pytest.mark.parametrize("kind", Kind)
def test_a_removed_value_is_gone_and_what_is_done_meanwhile_stays(kind: Kind) -> None:
    write = {
        Kind.REGISTER: Assign(b"x"),
        Kind.COUNTER: Add(1),
        Kind.FLAG: Enable(),
        Kind.SET: AddElement(b"x"),
        Kind.MAP: InMap(SharedKey.flag("f"), Enable()),
    }[kind]
    one, other = pair(kind)
    one.does(write)
    other.hears(one)
    one.does(Remove())
    assert one.value is None
    assert agreed(one, other) is None
    other.does(write)
    one.does(Remove())
    assert agreed(one, other) is not None


def test_numbers_up_to_the_floor_are_not_given_again() -> None:
    delta = change(State(), [Enable()], actor=actor(1), floor=7, now=1000.0)
    assert list(delta.dots) == [Dot(actor(1), 8)]
    old = State({Dot(actor(1), 3): Item(None, None)}, Context.of([Dot(actor(1), 3)]))
    assert read(Kind.FLAG, old.join(change(State(), [Remove()], actor=actor(1), floor=7, now=1000.0))) is True
    assert list(old.join(delta).dots) == [Dot(actor(1), 8)], "what this life said before the floor is over"


# -- what may be asked -------------------------------------------------------------------------------------------------


def test_an_operation_that_the_kind_does_not_know_is_refused() -> None:
    with pytest.raises(InvalidOperationError, match="Add cannot be done to a set, only AddElement, RemoveElement, Remove"):
        check_operation(Kind.SET, Add(1))
    with pytest.raises(InvalidOperationError, match="Enable cannot be done to a register"):
        InMap(SharedKey.register("r"), Enable())
    with pytest.raises(InvalidOperationError, match="no maps"):
        InMap(SharedKey.map("m"), Remove())
    with pytest.raises(InvalidOperationError, match="a register is bytes, not str"):
        Assign("text")  # type: ignore[arg-type]
    for kind in (AddElement, RemoveElement):
        with pytest.raises(InvalidOperationError, match="an element is bytes, not int"):
            kind(3)  # type: ignore[arg-type]


@pytest.mark.parametrize("key", ["", "a\n", "x" * 256, "ü" * 128, None, b"bytes"])
def test_what_is_no_key(key: str) -> None:
    with pytest.raises(InvalidKeyError, match="is not a key"):
        check_key(key)
    with pytest.raises(InvalidKeyError, match="is not a key"):
        InMap(SharedKey.flag(key), Enable())


def test_a_shared_key_is_printed_with_its_kind() -> None:
    assert str(SharedKey.counter("connections")) == "counter:connections"
