"""What stores say to each other.

Pure. A :class:`LogPart` and a :class:`States` travel to all by multicast when something changes, and to one as the answer to a
comparison; the others go to one neighbour.

===========  ==================================================================================================
 message      says
===========  ==================================================================================================
 Summary      these are the hashes of all that I have
 Same         so are mine
 Buckets      mine differ; here they are in buckets
 Rows         this is what I have in the buckets that differ
 Want         send me this
 LogPart      what an owner says, between two of its versions
 States       shared values, whole or as deltas
===========  ==================================================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from pyminuteman.addresses import NodeId
from pyminuteman.kv.crdt import State
from pyminuteman.kv.operations import SharedKey

__all__ = [
    "BUCKETS",
    "HASH_BYTES",
    "Buckets",
    "Change",
    "LogPart",
    "LogWant",
    "Message",
    "Row",
    "Rows",
    "Same",
    "SharedRow",
    "SharedState",
    "States",
    "Summary",
    "Want",
]

BUCKETS: Final = 64
"""Buckets that owners, and shared keys, are cut in: 4 bytes each in a message."""
HASH_BYTES: Final = 8
"""Of the hashes of keys, states and whole tables. They find differences between members that trust each other; a collision among
10,000 states has a chance of one in 10^11, and lasts until the next change."""


class Change(NamedTuple):
    """One version of an owner: a value put under a key, or (None) a key deleted."""

    version: int
    key: str
    value: bytes | None


@dataclass(frozen=True, slots=True)
class LogPart:
    """What an owner says that dates from versions above ``low``, up to ``high``.

    That is: all that was put then and still stands, and what was deleted then as far as it is remembered.

    Attributes:
        owner: Whose.
        epoch: Of which life.
        base: The version at which this life had said all it began with: before that, the life before it counts.
        low: See above.
        high: See above.
        final: How far the transfer goes that this is a part of: entries that it has not named by then are gone. ``high`` or more.
        changes: In the order of their versions.
        forgotten: Deletions up to this version may be missing; 0 when none is.
    """

    owner: NodeId
    epoch: int
    base: int
    low: int
    high: int
    final: int
    changes: tuple[Change, ...]
    forgotten: int = 0


class SharedState(NamedTuple):
    """A shared value, or what has changed of it."""

    key: SharedKey
    state: State


@dataclass(frozen=True, slots=True)
class States:
    """Shared values, whole or as deltas: the receiver joins them to its own."""

    states: tuple[SharedState, ...]


@dataclass(frozen=True, slots=True)
class Summary:
    """Hashes over everything: own entries, shared values. ``HASH_BYTES`` each."""

    own: bytes
    shared: bytes


@dataclass(frozen=True, slots=True)
class Same:
    """The answer to a Summary that is mine too."""


@dataclass(frozen=True, slots=True)
class Buckets:
    """The answer to one that is not: ``BUCKETS`` hashes of four bytes each of own entries and of shared values."""

    own: bytes
    shared: bytes


class Row(NamedTuple):
    """How far somebody has an owner's log."""

    owner: NodeId
    epoch: int
    version: int


class SharedRow(NamedTuple):
    """Hashes of a shared key and its state, ``HASH_BYTES`` each."""

    key: bytes
    state: bytes


@dataclass(frozen=True, slots=True)
class Rows:
    """All that I have in these buckets (0 to 63, none twice)."""

    own_buckets: tuple[int, ...]
    own: tuple[Row, ...]
    shared_buckets: tuple[int, ...]
    shared: tuple[SharedRow, ...]


class LogWant(NamedTuple):
    """An owner's log from a version on, of that life or a later one."""

    owner: NodeId
    epoch: int
    since: int


@dataclass(frozen=True, slots=True)
class Want:
    """Send me these."""

    own: tuple[LogWant, ...] = ()
    shared: tuple[bytes, ...] = ()
    """Hashes of shared keys."""


Message: TypeAlias = LogPart | States | Summary | Same | Buckets | Rows | Want
