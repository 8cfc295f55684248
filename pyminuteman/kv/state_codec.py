"""Shared values as bytes: on the wire, on disk, and for their hashes.

Pure. One state has one encoding, so equal states have equal hashes::

    state  = [changed_at, [actor...], [dot...]]
    actor  = [node (16 bytes), epoch, upto, number beyond...]       in order; the numbers in order
    dot    = [actor's place, number, value, time, kind, field]      in order; without what is 0 or None at its end

What comes from the network or from disk is held to the caps below, and to the kind of the value.
"""

from __future__ import annotations

from typing import Any, Final

from pyminuteman.addresses import NodeId
from pyminuteman.kv.crdt import SUM_MAX, Item, State
from pyminuteman.kv.operations import Kind, SharedKey, check_key
from pyminuteman.kv.versions import Actor, Context, Dot, Seen
from pyminuteman.packing import packb

__all__ = ["decode_state", "encode_state", "pack_state"]

_NUMBER_MAX: Final = 1 << 62
"""Numbers of dots: out of reach for whoever counts, and one more still fits."""
_LIST_MAX: Final = 65_536
_KINDS: Final = {int(kind): kind for kind in Kind}


def encode_state(state: State) -> list[Any]:
    """As lists of numbers and bytes."""
    actors = sorted(state.context)
    places = {actor: place for place, actor in enumerate(actors)}
    return [
        state.changed_at,
        [[bytes(actor.node), actor.epoch, *_seen(state.context[actor])] for actor in actors],
        [_dot(places[dot.actor], dot.number, state.dots[dot]) for dot in sorted(state.dots)],
    ]


def pack_state(state: State) -> bytes:
    """As bytes."""
    return packb(encode_state(state))


def _seen(seen: Seen) -> list[int]:
    return [seen.upto, *sorted(seen.above)]


def _dot(place: int, number: int, item: Item) -> list[Any]:
    if item.field is not None:
        return [place, number, item.value, item.time, int(item.field.kind), item.field.name]
    if item.time:
        return [place, number, item.value, item.time]
    return [place, number, item.value] if item.value is not None else [place, number]


def decode_state(kind: Kind, fields: object) -> State:
    """The state of a value of that kind.

    Raises:
        ValueError: It is none. The text says why, for the log.
    """
    changed_at, actors, dots = _list(fields, 3, 3)
    context: dict[Actor, Seen] = {}
    order: list[Actor] = []
    for one in _list(actors, 0, _LIST_MAX):
        node, epoch, *numbers = _list(one, 3, _LIST_MAX)
        if type(node) is not bytes:
            raise ValueError("an actor is a node id")
        actor = Actor(NodeId(node), _integer(epoch, 0, _NUMBER_MAX))
        counted = [_integer(number, 0, _NUMBER_MAX) for number in numbers]
        upto, above = counted[0], counted[1:]
        seen = Seen(upto, frozenset(above))
        if actor in context or seen != Seen.of(upto, above) or not (upto or above):
            raise ValueError("a context is not in its one form")
        context[actor] = seen
        order.append(actor)
    items: dict[Dot, Item] = {}
    for one in _list(dots, 0, _LIST_MAX):
        place, number, *rest = _list(one, 2, 6)
        actor = order[_integer(place, 0, len(order) - 1)]
        dot = Dot(actor, _integer(number, 1, _NUMBER_MAX))
        if dot in items or dot.number not in context[actor]:
            raise ValueError("a dot twice, or outside its context")
        items[dot] = _item(kind, rest)
    return State(items, Context(context), _integer(changed_at, 0, _NUMBER_MAX))


def _item(kind: Kind, rest: list[Any]) -> Item:
    defaults: list[Any] = [None, 0, None, None]
    value, time, in_kind, name = rest + defaults[len(rest) :]
    field = None
    if kind is Kind.MAP:
        kind = _KINDS[_integer(in_kind, Kind.REGISTER, Kind.SET)]
        check_key(name)
        field = SharedKey(kind, name)
    elif in_kind is not None or name is not None:
        raise ValueError("a field outside of a map")
    _integer(time, 0, _NUMBER_MAX)
    if kind is Kind.COUNTER:
        _integer(value, -SUM_MAX, SUM_MAX)
    elif kind is Kind.FLAG:
        if value is not None:
            raise ValueError("a flag has no value")
    elif type(value) is not bytes:
        raise ValueError("a register or set holds bytes")
    if time and kind is not Kind.REGISTER:
        raise ValueError("only registers have a time")
    return Item(field, value, time)


def _list(value: object, least: int, most: int) -> list[Any]:
    if type(value) is not list or not least <= len(value) <= most:
        raise ValueError(f"not a list of {least} to {most}")
    return value


def _integer(value: object, least: int, most: int) -> int:
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{value!r:.40} is not a number from {least} to {most}")
    return value
