"""Shared values as delta-state CRDTs: one state for all kinds, one join, and what each kind makes of it.

Pure, and immutable. A state is a set of living **dots**, each with one item, and the **context** of all dots it has seen. Every change
adds one dot at most, and buries dots that its writer has seen. The whole theory is in :meth:`State.join`:

1. A dot lives in the join if both have it, or if one has it and the other has never seen it. What either has seen and no longer has
   was removed, and stays so.
2. So join is commutative, associative and idempotent, and a delta (the new dot, with the dots that it buries in its context) joined to
   the old state is the new state: a few dozen bytes say what has changed.
3. A removed value leaves an empty set of dots and its context, until the tombstone time is over.

==========  ==========================  ==============================================================================================
 kind        items                       reads as
==========  ==========================  ==============================================================================================
 REGISTER    a value and its time (ms)   the value with the latest time; writing buries all values that were seen, so a clock that is
                                         ahead wins over writes at the same time only, and never for good
 COUNTER     a sum for each life         their sum; a life's next sum buries its last one
 FLAG        nothing                     whether any dot lives; disabling buries those seen
 SET         an element                  the elements of the living dots; removing buries those seen (add wins)
 MAP         any of these, in a field    by field
==========  ==========================  ==============================================================================================

(Optimised OR-sets: Bieniusa and others, arXiv 1210.3368; delta states and the causal counter: Almeida, Shoker, Baquero, arXiv
1603.01529.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple, assert_never

from pyminuteman.kv.errors import InvalidOperationError
from pyminuteman.kv.operations import (
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
)
from pyminuteman.kv.versions import EMPTY, Actor, Context, Dot, Seen

__all__ = ["SUM_MAX", "Item", "State", "change", "read"]

SUM_MAX: Final = 1 << 62
"""Most that one life adds to one counter in all, and least: it must fit in 64 bits."""


class Item(NamedTuple):
    """What a dot stands for.

    Attributes:
        field: The field of a map that it is in; None elsewhere.
        value: A register's bytes, a set's element, a counter's sum, and None for a flag.
        time: When a register was written (milliseconds since 1970); 0 elsewhere.
    """

    field: SharedKey | None
    value: bytes | int | None
    time: int = 0


@dataclass(frozen=True, slots=True)
class State:
    """A shared value, or a delta of one.

    Attributes:
        dots: The living ones. All of them are in the context.
        context: All that were seen.
        changed_at: When it was last changed (seconds since 1970), by the clock of who did: when a tombstone ends.
    """

    dots: Mapping[Dot, Item] = field(default_factory=dict)
    context: Context = EMPTY
    changed_at: int = 0

    def join(self, other: State) -> State:
        """What both together say."""
        mine, theirs = self.dots, other.dots
        dots = {dot: item for dot, item in mine.items() if dot in theirs or not other.context.has(dot)}
        for dot, item in theirs.items():
            present = dots.get(dot)
            if present is None:
                if not self.context.has(dot):
                    dots[dot] = item
            elif present != item:  # a dot that was given twice: somebody is at fault, but all must come to the same
                dots[dot] = max(present, item, key=repr)
        return State(dots, self.context.join(other.context), max(self.changed_at, other.changed_at))


def read(kind: Kind, state: State) -> SharedValue | None:
    """The value; None when there is none."""
    if not state.dots:
        return None
    if kind is not Kind.MAP:
        return _read(kind, state.dots.items())
    fields: dict[SharedKey, list[tuple[Dot, Item]]] = {}
    for dot, item in state.dots.items():
        if item.field is not None:  # the codec lets no other pass
            fields.setdefault(item.field, []).append((dot, item))
    return {field: _read(field.kind, fields[field]) for field in sorted(fields)}


def _read(kind: Kind, dots: Iterable[tuple[Dot, Item]]) -> SharedValue:
    match kind:
        case Kind.REGISTER:
            newest = max(dots, key=lambda one: (one[1].time, one[0]))[1].value
            return newest if isinstance(newest, bytes) else b""
        case Kind.COUNTER:
            return sum(item.value for _, item in dots if isinstance(item.value, int))
        case Kind.FLAG:
            return True
        case _:
            return frozenset(item.value for _, item in dots if isinstance(item.value, bytes))


@dataclass(slots=True)
class _Writer:
    """One life, changing one value."""

    state: State
    actor: Actor
    floor: int
    now: float

    def write(self, item: Item, buries: Callable[[Dot, Item], bool]) -> State:
        """A delta: one new dot, which buries those."""
        seen = self.state.context.get(self.actor)
        buried = self.bury(buries).context
        if seen is None:
            # The first of this life here. Numbers up to the floor were given to values that are gone, so nothing is lost by calling
            # them seen, and all see these dots without a gap.
            number = self.floor + 1
            context = buried.join(Context({self.actor: Seen(number)}))
        else:
            number = seen.upto + 1
            context = buried.join(Context.of([Dot(self.actor, number)]))
        return State({Dot(self.actor, number): item}, context, int(self.now))

    def bury(self, buries: Callable[[Dot, Item], bool]) -> State:
        """A delta that removes those."""
        dots = (dot for dot, item in self.state.dots.items() if buries(dot, item))
        return State({}, Context.of(dots), int(self.now))

    def apply(self, operation: Operation, where: SharedKey | None = None) -> State:  # noqa: PLR0911 - a table
        """The delta of one operation, on the value or on a field of it."""
        match operation:
            case InMap():
                return self.apply(operation.operation, operation.field)
            case Assign():
                times = (item.time for item in self.state.dots.values() if item.field == where)
                time = max(int(self.now * 1000), 1 + max(times, default=0))
                return self.write(Item(where, operation.value, time), lambda _, item: item.field == where)
            case Add():
                mine = [
                    item.value
                    for dot, item in self.state.dots.items()
                    if dot.actor == self.actor and item.field == where and isinstance(item.value, int)
                ]
                total = sum(mine) + operation.amount
                if abs(total) > SUM_MAX:
                    raise InvalidOperationError(f"a counter holds from -{SUM_MAX} to {SUM_MAX} of each node, not {total}")
                return self.write(Item(where, total), lambda dot, item: dot.actor == self.actor and item.field == where)
            case Enable():
                return self.write(Item(where, None), lambda _, item: item.field == where)
            case AddElement():
                new = Item(where, operation.element)
                return self.write(new, lambda _, item: item == new)
            case RemoveElement():
                old = Item(where, operation.element)
                return self.bury(lambda _, item: item == old)
            case Disable():
                return self.bury(lambda _, item: item.field == where)
            case Remove():
                return self.bury(lambda _, item: where is None or item.field == where)
            case _:
                assert_never(operation)


def change(state: State, operations: Iterable[Operation], *, actor: Actor, floor: int, now: float) -> State:
    """What operations change, in order, as one delta: ``state.join(delta)`` is the new state.

    Args:
        state: The value as it is here.
        operations: Such as its kind knows (:func:`~pyminuteman.kv.operations.check_operation`).
        actor: The life that does it.
        floor: The highest number that this life gave to a value that is here no longer.
        now: Wall time in seconds.

    Raises:
        InvalidOperationError: A counter would leave its range.
    """
    delta = State()
    for operation in operations:
        step = _Writer(state, actor, floor, now).apply(operation)
        state, delta = state.join(step), delta.join(step)
    return delta
