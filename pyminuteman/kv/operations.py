"""Shared values: what kinds there are, how they are named, and what can be done to them.

Pure. A shared value is known by its kind *and* its name: two nodes that make ``weights`` of different kinds at one time have made two
values, so any two states can be merged. The kinds are those of lashup_kv (Riak's), under the field's names:

==========  =====================  ==============================================================  ==========================
 kind        read as                operations                                                      written at one time
==========  =====================  ==============================================================  ==========================
 REGISTER    ``bytes``              :class:`Assign`                                                 the later clock wins
 COUNTER     ``int``                :class:`Add`                                                    both count
 FLAG        ``bool``               :class:`Enable`, :class:`Disable`                               enabling wins
 SET         ``frozenset[bytes]``   :class:`AddElement`, :class:`RemoveElement`                     adding wins
 MAP         a dict by SharedKey    :class:`InMap` with any operation but a map's                   as the field's kind has it
==========  =====================  ==============================================================  ==========================

:class:`Remove` takes away a whole value, or a field of a map: all that the writer has seen of it. What somebody else does to it at the
same time stays. Nothing is left of a removed value, and it does not come back. A flag that is off, a set without elements and a map
without fields are the same as none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple, Self, TypeAlias

from pyminuteman.kv.errors import InvalidKeyError, InvalidOperationError

__all__ = [
    "AMOUNT_MAX",
    "KEY_MAX_BYTES",
    "Add",
    "AddElement",
    "Assign",
    "Disable",
    "Enable",
    "InMap",
    "Kind",
    "Operation",
    "Remove",
    "RemoveElement",
    "SharedKey",
    "SharedValue",
    "check_bytes",
    "check_key",
    "check_operation",
]

KEY_MAX_BYTES: Final = 255
"""Longest key or name, in UTF-8."""
AMOUNT_MAX: Final = 1 << 53
"""Most that is added to a counter at one time: JSON readers count exactly up to here."""


def check_key(key: str) -> None:
    """Let a key pass.

    Raises:
        InvalidKeyError: Not 1 to :data:`KEY_MAX_BYTES` bytes of printable text.
    """
    if not isinstance(key, str) or not key or not key.isprintable() or len(key.encode()) > KEY_MAX_BYTES:
        raise InvalidKeyError(f"{key!r:.80} is not a key (1 to {KEY_MAX_BYTES} bytes of printable text)")


def check_bytes(what: str, value: object) -> None:
    """Let a value pass.

    Raises:
        InvalidOperationError: It is not ``bytes``.
    """
    if not isinstance(value, bytes):
        raise InvalidOperationError(f"{what} is bytes, not {type(value).__name__}")


class Kind(IntEnum):
    """What a shared value is. The numbers go over the wire, and to disk."""

    REGISTER = 1
    COUNTER = 2
    FLAG = 3
    SET = 4
    MAP = 5


class SharedKey(NamedTuple):
    """A shared value, or a field of a map: its kind and its name."""

    kind: Kind
    name: str

    @classmethod
    def register(cls, name: str) -> Self:
        """A last-writer-wins register: ``bytes``."""
        return cls(Kind.REGISTER, name)

    @classmethod
    def counter(cls, name: str) -> Self:
        """A counter that goes up and down."""
        return cls(Kind.COUNTER, name)

    @classmethod
    def flag(cls, name: str) -> Self:
        """A flag; who enables it wins over who disables it at the same time."""
        return cls(Kind.FLAG, name)

    @classmethod
    def set(cls, name: str) -> Self:
        """A set of ``bytes``; who adds an element wins over who removes it at the same time."""
        return cls(Kind.SET, name)

    @classmethod
    def map(cls, name: str) -> Self:
        """A map from fields (:class:`SharedKey` of the four other kinds) to values."""
        return cls(Kind.MAP, name)

    def __str__(self) -> str:
        """``counter:connections``."""
        return f"{self.kind.name.lower()}:{self.name}"


SharedValue: TypeAlias = "bytes | int | bool | frozenset[bytes] | Mapping[SharedKey, SharedValue]"
"""A shared value as it is read."""


@dataclass(frozen=True, slots=True)
class Assign:
    """Set a register."""

    value: bytes

    def __post_init__(self) -> None:
        """Validate."""
        check_bytes("a register", self.value)


@dataclass(frozen=True, slots=True)
class Add:
    """Add to a counter; below zero to subtract."""

    amount: int

    def __post_init__(self) -> None:
        """Validate."""
        if type(self.amount) is not int or abs(self.amount) > AMOUNT_MAX:
            raise InvalidOperationError(f"{self.amount!r:.40} is not a whole number from -{AMOUNT_MAX} to {AMOUNT_MAX}")


@dataclass(frozen=True, slots=True)
class Enable:
    """Set a flag."""


@dataclass(frozen=True, slots=True)
class Disable:
    """Clear a flag, as far as it was seen."""


@dataclass(frozen=True, slots=True)
class AddElement:
    """Add an element to a set."""

    element: bytes

    def __post_init__(self) -> None:
        """Validate."""
        check_bytes("an element", self.element)


@dataclass(frozen=True, slots=True)
class RemoveElement:
    """Remove an element from a set, as far as it was seen."""

    element: bytes

    def __post_init__(self) -> None:
        """Validate."""
        check_bytes("an element", self.element)


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove a whole value (of any kind), as far as it was seen."""


@dataclass(frozen=True, slots=True)
class InMap:
    """Do something to a field of a map.

    Raises:
        InvalidOperationError: The field is a map itself: maps do not nest.
    """

    field: SharedKey
    operation: Assign | Add | Enable | Disable | AddElement | RemoveElement | Remove

    def __post_init__(self) -> None:
        """Validate."""
        if self.field.kind is Kind.MAP or isinstance(self.operation, InMap):
            raise InvalidOperationError(f"field {self.field}: a map holds registers, counters, flags and sets, and no maps")
        check_key(self.field.name)
        check_operation(self.field.kind, self.operation)


Operation: TypeAlias = Assign | Add | Enable | Disable | AddElement | RemoveElement | Remove | InMap
"""A change of a shared value."""

_KNOWN: Final[dict[Kind, tuple[type, ...]]] = {
    Kind.REGISTER: (Assign, Remove),
    Kind.COUNTER: (Add, Remove),
    Kind.FLAG: (Enable, Disable, Remove),
    Kind.SET: (AddElement, RemoveElement, Remove),
    Kind.MAP: (InMap, Remove),
}


def check_operation(kind: Kind, operation: Operation) -> None:
    """Let an operation on a value of this kind pass.

    Raises:
        InvalidOperationError: This kind does not know it.
    """
    if not isinstance(operation, _KNOWN[kind]):
        known = ", ".join(one.__name__ for one in _KNOWN[kind])
        raise InvalidOperationError(f"{type(operation).__name__} cannot be done to a {kind.name.lower()}, only {known}")
