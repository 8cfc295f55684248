"""Timers: what is due comes out in order, each timer once, at the last time that it was set to."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from hypothesis import given
from hypothesis import strategies as st

from pyminuteman.membership.steps import FlushDue, RequestDue, SearchDue, Timer
from pyminuteman.membership.timers import TimerHeap


def as_set(_timer: Timer, due: float) -> float:
    return due


def numbers(heap: TimerHeap, upto: float) -> list[int]:
    """The numbers of the requests that are due."""
    return [timer.number for timer, _ in heap.pop(lambda _: upto) if isinstance(timer, RequestDue)]


def filled(*dues: float) -> TimerHeap:
    heap = TimerHeap()
    for number, due in enumerate(dues):
        heap.set(RequestDue(number), due)
    return heap


def test_nothing_is_due_where_nothing_is_set() -> None:
    assert TimerHeap().first(as_set) == inf
    assert list(TimerHeap().pop(lambda _: inf)) == []
    assert len(TimerHeap()) == 0


def test_what_is_due_at_the_same_time_comes_in_the_order_of_setting() -> None:
    assert numbers(filled(5.0, 5.0, 3.0, 5.0), 5.0) == [2, 0, 1, 3]


def test_a_timer_is_due_up_to_its_time_and_not_before() -> None:
    heap = filled(2.0)
    assert numbers(heap, 1.999) == []
    assert heap.first(as_set) == 2.0
    assert numbers(heap, 2.0) == [0]
    assert len(heap) == 0


def test_setting_a_timer_again_moves_it_both_ways() -> None:
    heap = filled(5.0, 6.0)
    heap.set(RequestDue(0), 7.0)
    heap.set(RequestDue(1), 2.0)
    assert len(heap) == 2
    assert heap.first(as_set) == 2.0
    assert numbers(heap, 6.5) == [1]
    assert heap.first(as_set) == 7.0
    assert numbers(heap, 7.0) == [0]


def test_a_timer_moved_away_and_back_fires_once() -> None:
    heap = filled(5.0)
    heap.set(RequestDue(0), 7.0)
    heap.set(RequestDue(0), 5.0)
    assert numbers(heap, inf) == [0]


def test_a_timer_that_is_set_by_another_is_seen_at_once_if_it_is_due() -> None:
    heap, fired = filled(1.0), []
    for timer, due in heap.pop(lambda _: 3.0):
        fired.append((timer, due))
        if due < 5.0:
            heap.set(FlushDue(), due + 1)
    assert fired == [(RequestDue(0), 1.0), (FlushDue(), 2.0), (FlushDue(), 3.0)]
    assert heap.first(as_set) == 4.0


def test_some_timers_may_fire_earlier_than_others() -> None:
    heap = filled(1.0, 1.5)
    heap.set(SearchDue(), 2.0)
    assert numbers(heap, 1.2) == [0]
    fired = [timer for timer, _ in heap.pop(lambda timer: 1.6 if isinstance(timer, RequestDue) else 1.2)]
    assert fired == [RequestDue(1)]


def test_a_timer_that_would_find_nothing_to_do_is_moved_to_when_it_will() -> None:
    heap = filled(1.0, 2.0)
    later = {RequestDue(0): 5.0}
    assert heap.first(lambda timer, due: max(due, later.get(timer, due))) == 2.0
    assert list(heap.pop(lambda _: inf)) == [(RequestDue(1), 2.0), (RequestDue(0), 5.0)]


def test_a_timer_that_will_never_have_anything_to_do_is_dropped() -> None:
    heap = filled(1.0, 2.0)
    assert heap.first(lambda timer, due: None if timer == RequestDue(0) else due) == 2.0
    assert len(heap) == 1
    assert numbers(heap, inf) == [1]


def test_postponed_timers_move_by_that_much_and_the_others_stay() -> None:
    heap = filled(1.0, 2.0)
    heap.set(SearchDue(), 1.5)
    heap.postpone(lambda timer: isinstance(timer, RequestDue), 1.0)
    assert list(heap.pop(lambda _: inf)) == [(SearchDue(), 1.5), (RequestDue(0), 2.0), (RequestDue(1), 3.0)]


_times = st.integers(0, 12).map(lambda step: step / 2)
_edits = st.one_of(
    st.tuples(st.just("set"), st.integers(0, 5), _times),
    st.tuples(st.just("pop"), st.just(0), _times),
    st.tuples(st.just("postpone"), st.integers(0, 5), _times),
)


@given(st.lists(_edits, max_size=30))
def test_it_behaves_as_a_sorted_list_of_what_is_set(edits: Sequence[tuple[str, int, float]]) -> None:
    heap = TimerHeap()
    model: dict[Timer, float] = {}
    for edit, number, time in edits:
        timer = RequestDue(number)
        if edit == "set":
            heap.set(timer, time)
            model[timer] = time
        elif edit == "pop":
            due = sorted(when for when in model.values() if when <= time)
            fired = list(heap.pop(lambda _, time=time: time))
            assert [when for _, when in fired] == due
            assert all(model.pop(one) == when for one, when in fired)
        else:
            chosen = [RequestDue(one) for one in range(number + 1)]
            heap.postpone(chosen.__contains__, time)
            model = {one: when + time if one in chosen else when for one, when in model.items()}
        assert heap.first(as_set) == min(model.values(), default=inf)
        assert len(heap) == len(model)
    assert dict(heap.pop(lambda _: inf)) == model


@given(st.lists(st.tuples(_times, st.none() | _times), max_size=8))
def test_the_first_is_the_earliest_that_has_something_to_do(dues: Sequence[tuple[float, float | None]]) -> None:
    heap = filled(*(due for due, _ in dues))
    really = {RequestDue(number): None if late is None else due + late for number, (due, late) in enumerate(dues)}
    assert heap.first(lambda timer, _: really[timer]) == min((at for at in really.values() if at is not None), default=inf)
