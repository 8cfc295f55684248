"""Operators' marks: drains and weights, in the store, so that every node obeys them.

A mark is a register; the later writer wins. Its name says what it is about (``drain/node/ID``, ``drain/backend/ADDRESS/PORT/VIP``,
``weight/...``); of a VIP whose text is too long for a key there is a hash, and the value has the text. The value also says who laid it
down, when, and why.

Who undoes a mark writes in its place that it is undone, with the same three, so that every node can tell; :func:`forget` removes that later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final, NamedTuple

import msgpack

from pyminuteman.addresses import NodeId
from pyminuteman.daemon.entries import FAULTS_KEPT, parse_key, plain_key
from pyminuteman.daemon.observed import Mark, MarkTarget
from pyminuteman.kv.operations import KEY_MAX_BYTES, Assign, Kind, Remove, SharedKey, SharedValue
from pyminuteman.kv.store import Store
from pyminuteman.membership.records import MSGPACK_CAPS
from pyminuteman.packing import packb
from pyminuteman.vips.model import WEIGHT_MAX, Backend
from pyminuteman.vips.resolution import Adjustments, Target

__all__ = ["DRAIN", "WEIGHT", "Marks", "clear_weight", "drain", "forget", "read_marks", "set_weight", "undrain"]

DRAIN: Final = "drain/"
WEIGHT: Final = "weight/"
_NODE: Final = f"{DRAIN}node/"
_BACKEND: Final = f"{DRAIN}backend/"
_TEXT_MAX: Final = 500
_FIELDS_MAX: Final = 7
_VALUE_MAX_BYTES: Final = 8192  # more than _packed makes: two texts of 500 characters, and the name of a VIP
_FORGOTTEN_AT_ONCE: Final = 100
_AT_END: Final = 253_402_300_800.0  # the year 10000, which no RFC 3339 time has


@dataclass(frozen=True, slots=True)
class Marks:
    """All marks, as they are now.

    Attributes:
        node_drains: Nodes that are drained.
        backend_drains: Backends that are drained by themselves.
        weights: Weights that operators have set.
        undone: By the name of its key, what was undone not long ago: of what, and by whom. It does not count.
        malformed: Marks that could not be read, and do not count.
        faults: Name and reason of some of these, :data:`FAULTS_KEPT` at most.
    """

    node_drains: Mapping[NodeId, Mark] = field(default_factory=dict)
    backend_drains: Mapping[Target, Mark] = field(default_factory=dict)
    weights: Mapping[Target, tuple[int, Mark]] = field(default_factory=dict)
    undone: Mapping[str, tuple[MarkTarget, Mark]] = field(default_factory=dict)
    malformed: int = 0
    faults: tuple[tuple[str, str], ...] = ()

    def adjustments(self, agents_of: Callable[[NodeId], Iterable[str]], unhealthy: frozenset[Target]) -> Adjustments:
        """What bears on weights.

        Args:
            agents_of: The addresses of a node's host.
            unhealthy: Backends that fail their health checks.
        """
        agents = frozenset(address for node in self.node_drains for address in agents_of(node))
        weights = {target: weight for target, (weight, _) in self.weights.items()}
        return Adjustments(unhealthy, frozenset(self.backend_drains), agents, weights)


def read_marks(shared: Mapping[SharedKey, SharedValue]) -> Marks:
    """The marks among shared values; never raises, whatever others wrote."""
    node_drains: dict[NodeId, Mark] = {}
    backend_drains: dict[Target, Mark] = {}
    weights: dict[Target, tuple[int, Mark]] = {}
    undone: dict[str, tuple[MarkTarget, Mark]] = {}
    malformed = 0
    faults: list[tuple[str, str]] = []
    for key, value in shared.items():
        if key.kind is not Kind.REGISTER or not key.name.startswith((DRAIN, WEIGHT)):
            continue
        try:
            found = _read(value)
            target = _target_of(key.name, found)
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            malformed += 1
            if malformed <= FAULTS_KEPT:
                faults.append((key.name, str(error)[:200]))
            continue
        if found.undone:
            undone[key.name] = target, found.mark
        elif isinstance(target, NodeId):
            node_drains[target] = found.mark
        elif found.weight is None or key.name.startswith(DRAIN):
            backend_drains[target] = found.mark
        else:
            weights[target] = found.weight, found.mark
    return Marks(node_drains, backend_drains, weights, undone, malformed, tuple(faults))


async def drain(store: Store, target: MarkTarget, *, by: str, reason: str, at: float) -> None:
    """Take a node, or a backend behind one VIP or (None) all, out of service.

    Raises:
        StoreError: The store could not be written to. Nothing was changed.
    """
    await store.update(_drain_key(target), Assign(_packed(target, Mark(by, at, reason), None)))


async def undrain(store: Store, target: MarkTarget, *, by: str, reason: str, at: float) -> None:
    """Undo that; one that is not drained stays so.

    Raises:
        StoreError: The store could not be written to. Nothing was changed.
    """
    await _undo(store, _drain_key(target), target, Mark(by, at, reason))


async def set_weight(store: Store, target: Target, weight: int, *, by: str, reason: str, at: float) -> None:
    """Give a backend this weight (0 to 65535) in place of its source's.

    Raises:
        InvalidVIPError: The weight is out of its range. Nothing was changed.
        StoreError: The store could not be written to. Nothing was changed.
    """
    Adjustments(weights={target: weight})  # which checks it: nobody would read a mark with any other
    await store.update(_weight_key(target), Assign(_packed(target, Mark(by, at, reason), weight)))


async def clear_weight(store: Store, target: Target, *, by: str, reason: str, at: float) -> None:
    """Leave its weight to its source again; one that has no other stays so.

    Raises:
        StoreError: The store could not be written to. Nothing was changed.
    """
    await _undo(store, _weight_key(target), target, Mark(by, at, reason))


async def forget(store: Store, *, before: float) -> None:
    """Remove what is left of marks that were undone before that time, in seconds of the epoch; of some, when there are many.

    Raises:
        StoreError: The store could not be written to. Some of it may be removed.
    """
    found = read_marks({**store.shared(DRAIN), **store.shared(WEIGHT)})
    names = [name for name, (_, mark) in found.undone.items() if mark.at < before]
    for name in names[:_FORGOTTEN_AT_ONCE]:
        await store.update(SharedKey.register(name), Remove())


async def _undo(store: Store, key: SharedKey, target: MarkTarget, mark: Mark) -> None:
    there = store.shared(key.name).get(key)
    if there is not None and not _is_undone(there):
        await store.update(key, Assign(_packed(target, mark, None, undone=True)))


def _packed(target: MarkTarget, mark: Mark, weight: int | None, *, undone: bool = False) -> bytes:
    place: list[Any] | None = None
    if not isinstance(target, NodeId):
        vip, backend = target
        place = [None if vip is None else plain_key(vip), backend.address, backend.port]
    fields = [mark.by[:_TEXT_MAX], mark.at, mark.reason[:_TEXT_MAX], weight, place, 1]
    return packb([*fields, True] if undone else fields)


def _drain_key(target: MarkTarget) -> SharedKey:
    return SharedKey.register(f"{_NODE}{target}" if isinstance(target, NodeId) else _name(_BACKEND, target))


def _weight_key(target: Target) -> SharedKey:
    return SharedKey.register(_name(WEIGHT, target))


def _name(prefix: str, target: Target) -> str:
    vip, backend = target
    head = f"{prefix}{backend.address}/{backend.port}/"
    text = "*" if vip is None else str(vip)
    if len((head + text).encode()) > KEY_MAX_BYTES:
        text = "#" + blake2b(text.encode(), digest_size=16).hexdigest()
    return head + text


def _is_undone(value: SharedValue) -> bool:
    try:
        return _read(value).undone
    except (ValueError, TypeError, msgpack.UnpackException):
        return False


class _Read(NamedTuple):
    mark: Mark
    weight: int | None
    target: Target | None
    undone: bool


def _target_of(name: str, found: _Read) -> MarkTarget:
    """What a mark of this name is about.

    Raises:
        ValueError: The value does not go with it.
    """
    if name.startswith(_NODE):
        node = NodeId.parse(name.removeprefix(_NODE))
        if name != f"{_NODE}{node}":
            raise ValueError("an id that is written otherwise")  # or undrain would not find the mark
        return node
    if found.target is None or name != _name(_BACKEND if name.startswith(DRAIN) else WEIGHT, found.target):
        raise ValueError("the value is of another backend")
    if name.startswith(WEIGHT) and found.weight is None and not found.undone:
        raise ValueError("no weight")
    return found.target


def _read(value: SharedValue) -> _Read:
    if not isinstance(value, bytes):
        raise TypeError("no register")
    if len(value) > _VALUE_MAX_BYTES:
        raise ValueError("too long")
    plain = msgpack.unpackb(value, max_array_len=_FIELDS_MAX, **MSGPACK_CAPS)
    by, at, reason, weight, place, _version, *rest = plain
    if not isinstance(by, str) or not isinstance(reason, str) or isinstance(at, bool) or not isinstance(at, int | float):
        raise TypeError("a text or a time is none")
    if not 0 <= at < _AT_END:  # nor is a time that is no number
        raise ValueError("a time that no clock shows")
    if weight is not None and (isinstance(weight, bool) or not isinstance(weight, int) or not 0 <= weight <= WEIGHT_MAX):
        raise ValueError("a weight is none")
    if rest and rest[0] is not True:
        raise ValueError("neither laid down nor undone")
    target = None
    if place is not None:
        vip, address, port = place
        # A backend checks its address and port, which a key alone does not.
        target = (None if vip is None else parse_key(*vip), Backend(address, port).key)
    return _Read(Mark(by, float(at), reason), weight, target, bool(rest))
