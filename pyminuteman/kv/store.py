"""The store as its users see it, whichever engine is behind: gossip (:mod:`pyminuteman.kv.trio_driver`) or etcd.

Invariants, of every engine:

1. An **own entry** (owner, key) -> value is written by its owner alone, and seen by all. It goes when its owner deletes it, when the
   owner leaves, and when the owner was out of reach for :attr:`StoreLimits.lease_seconds`. A deleted entry never comes back, unless
   its owner puts it again.
2. A **shared value** may be changed by all at once; the changes are merged as its kind has it (:mod:`pyminuteman.kv.operations`).
3. Reading never waits and never fails: it is a copy here, as new as the network allows.
4. A write that breaks a limit raises a :class:`~pyminuteman.kv.errors.StoreLimitError` where it was called, and changes nothing.
5. Nothing that a slow reader leaves unread grows without bound: what changed is told as a set of keys, then as "anything".

Keys are 1 to 255 bytes of printable text, as in ``vips/tcp:11.0.0.1:80``; prefixes are plain beginnings of keys.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, fields
from typing import Final, NamedTuple, Protocol

from pyminuteman.addresses import NodeId
from pyminuteman.errors import ConfigurationError
from pyminuteman.kv.operations import Operation, SharedKey, SharedValue

__all__ = ["RANGES", "Changes", "Entry", "Store", "StoreLimits"]


class Entry(NamedTuple):
    """What one node says under one key. Ordered by key, then owner."""

    key: str
    owner: NodeId
    value: bytes


@dataclass(frozen=True, slots=True)
class Changes:
    """What may have changed since the last time; read it again. A key may be named although its value is the same once more.

    Attributes:
        own: Keys of own entries, whosesoever.
        shared: Shared values.
        everything: Too much has changed to be listed, or this is the first: all that matches may differ. The sets are empty then.
    """

    own: frozenset[str] = frozenset()
    shared: frozenset[SharedKey] = frozenset()
    everything: bool = False


@dataclass(frozen=True, slots=True)
class StoreLimits:
    """What a store holds at most, and for how long. Every node of a cluster should have the same.

    Raises:
        ConfigurationError: A number out of its range.
    """

    value_max_bytes: int = 4096
    """Largest value of an own entry (1 to 65,536)."""
    own_keys_max: int = 20_000
    """Most keys of one owner (1 to 1,000,000)."""
    entries_max: int = 500_000
    """Most own entries of all nodes together (1 to 10,000,000). What others write beyond it is dropped here, and counted."""
    shared_keys_max: int = 10_000
    """Most shared values (1 to 1,000,000), those lately removed among them."""
    shared_value_max_bytes: int = 65_536
    """Largest shared value (256 to 262,144): what it takes on the wire, with what is remembered of its writers."""
    lease_seconds: float = 60.0
    """How long entries outlive an owner that is down (0 to 86,400). One that leaves takes them with it at once."""
    tombstone_seconds: float = 86_400.0
    """How long removals of shared values are remembered (60 to 31,536,000): a node that was cut off for longer than that may bring
    them back. Removals of own entries need no such limit."""
    watch_keys_max: int = 10_000
    """Changed keys that wait for one reader before they become "everything" (1 to 1,000,000)."""

    def __post_init__(self) -> None:
        """Validate."""
        for field in fields(self):
            value, (low, high) = getattr(self, field.name), RANGES[field.name]
            if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
                raise ConfigurationError(None, field.name, f"{value!r} is not from {low:,} to {high:,}")


RANGES: Final[dict[str, tuple[int, int]]] = {
    "value_max_bytes": (1, 65_536),
    "own_keys_max": (1, 1_000_000),
    "entries_max": (1, 10_000_000),
    "shared_keys_max": (1, 1_000_000),
    "shared_value_max_bytes": (256, 262_144),
    "lease_seconds": (0, 86_400),
    "tombstone_seconds": (60, 31_536_000),
    "watch_keys_max": (1, 1_000_000),
}
"""What each limit may be, from and to."""


class Store(Protocol):
    """A replicated store, open. For the tasks of one trio loop."""

    @property
    def me(self) -> NodeId:
        """The owner of the own entries that are put here."""

    @property
    def limits(self) -> StoreLimits:
        """What it holds at most."""

    @property
    def problem(self) -> str:
        """Why what is read here may be old, or what is written may not arrive; empty when all is well."""

    async def wait_ready(self) -> None:
        """Return when what others have said before is here.

        That is: compared with a node that has it, or read from the server; soon, in a cluster of one. Put a deadline around it.

        Raises:
            StoreClosed: It has ended.
        """

    # Own entries

    async def put_own(self, key: str, value: bytes) -> None:
        """:meth:`change_own` of one key."""

    async def delete_own(self, key: str) -> bool:
        """:meth:`change_own` of one key; False when it was not there."""

    async def change_own(self, changes: Mapping[str, bytes | None]) -> None:
        """Say, or no longer say (None), all of these. One call for many is cheaper than many calls. What is as it was costs nothing.

        The gossip engine has it here and on its way when this returns; etcd has it committed.

        Raises:
            InvalidKeyError: A key is none. Nothing was changed, here and below.
            ValueTooLarge: A value is above ``value_max_bytes``.
            TooManyKeys: They would be more than ``own_keys_max``, or than ``entries_max`` in all.
            StoreClosed: The store has ended.
            StoreUnavailable: The server is out of reach (etcd).
        """

    def own(self) -> dict[str, bytes]:
        """What this node says, by key."""

    def get(self, owner: NodeId, key: str) -> bytes | None:
        """What a node says under a key; None when it does not."""

    def get_all(self, key: str) -> dict[NodeId, bytes]:
        """What all nodes say under a key, in the order of their ids."""

    def entries(self, prefix: str = "") -> Sequence[Entry]:
        """All own entries of all nodes whose keys begin so, in order, as they are now: a copy."""

    # Shared values

    async def update(self, key: SharedKey, *operations: Operation) -> SharedValue | None:
        """Change a shared value, all operations at once and in order; it need not exist.

        Returns:
            How it reads here now, as :meth:`read` has it.

        Raises:
            InvalidKeyError: The name is none. Nothing was changed, here and below.
            InvalidOperationError: The kind does not know an operation.
            ValueTooLarge: The value would be above ``shared_value_max_bytes``.
            TooManyKeys: It would be one more than ``shared_keys_max``.
            StoreClosed: The store has ended.
            StoreUnavailable: The server is out of reach, or others changed it all the time (etcd).
        """

    def read(self, key: SharedKey) -> SharedValue | None:
        """A shared value; None when there is none. A flag that is off, an empty set and an empty map are none."""

    def shared(self, prefix: str = "") -> dict[SharedKey, SharedValue]:
        """All shared values whose names begin so, in order, as they are now: a copy."""

    # Changes

    def watch(self, prefix: str = "") -> AbstractAsyncContextManager[AsyncIterator[Changes]]:
        """What changes under a prefix, from now on.

        The first is always "everything", at once::

            async with store.watch("vips/") as watch:
                async for changes in watch:
                    ...

        What changes while nobody reads is gathered into the next one. It ends when the store does.
        """

    def metrics(self) -> dict[str, int | float]:
        """Plain numbers by name; counters end in ``_total`` and begin at zero with the block. All begin with ``store_``."""
