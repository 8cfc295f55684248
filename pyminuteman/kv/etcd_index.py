"""Where the store's entries and values lie in an etcd, and what is there, by key. Pure.

======================================  ===========================================================================================
 key, after the store's prefix           value
======================================  ===========================================================================================
 ``own/OWNER/KEY``                       what that node says; under its lease
 ``lives/OWNER``                         ``LIFE:NUMBER``: the life of that node that writes, and the number of its last write; under
                                         its lease
 ``shared/KIND/NAME``                    a shared value, as :mod:`pyminuteman.kv.etcd_values` writes it
======================================  ===========================================================================================

OWNER is a node's id in 32 hexadecimal digits. What else lies there, or cannot be read, is left alone, and counted.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from pyminuteman.addresses import NodeId
from pyminuteman.etcd.messages import KeyValue
from pyminuteman.kv.errors import InvalidKeyError, RemoteStoreError
from pyminuteman.kv.etcd_values import KINDS, decode_value
from pyminuteman.kv.operations import SharedKey, SharedValue, check_key
from pyminuteman.kv.store import Entry

__all__ = ["StoreIndex", "StoreKeys"]


class StoreKeys:
    """The keys of one store."""

    def __init__(self, prefix: str) -> None:
        """Below a prefix that ends with ``/``."""
        self.prefix: Final = prefix.encode()
        self._own: Final = self.prefix + b"own/"
        self._shared: Final = self.prefix + b"shared/"

    def of_owner(self, owner: NodeId) -> bytes:
        """What all keys of its own entries begin with."""
        return b"%s%s/" % (self._own, str(owner).encode())

    def own(self, owner: NodeId, key: str) -> bytes:
        """Of an own entry."""
        return self.of_owner(owner) + key.encode()

    def life(self, owner: NodeId) -> bytes:
        """Of the life of a node."""
        return b"%slives/%s" % (self.prefix, str(owner).encode())

    def shared(self, key: SharedKey) -> bytes:
        """Of a shared value."""
        return b"%s%s/%s" % (self._shared, key.kind.name.lower().encode(), key.name.encode())

    def read(self, key: bytes) -> tuple[NodeId, str] | SharedKey | None:
        """What a key under the prefix stands for; None for lives.

        Raises:
            RemoteStoreError: For nothing.
        """
        try:
            place, _, rest = key.removeprefix(self.prefix).decode().partition("/")
            first, _, name = rest.partition("/")
            if place == "own":
                check_key(name)
                return NodeId.parse(first), name
            if place == "shared" and first in KINDS:
                check_key(name)
                return SharedKey(KINDS[first], name)
            if place == "lives":
                NodeId.parse(rest)
                return None
        except (ValueError, InvalidKeyError):
            pass
        raise RemoteStoreError(f"what is this: {key!r:.80}")


class StoreIndex:
    """All entries and values that are known."""

    def __init__(self, keys: StoreKeys) -> None:
        """Begin with none."""
        self._keys = keys
        self._own: dict[str, dict[NodeId, bytes]] = {}
        self._own_order: list[str] = []
        self._is_sorted = True
        self._shared: dict[SharedKey, SharedValue] = {}
        self.entries_count = 0
        self.invalid = 0
        """How many keys or values could not be read."""

    @property
    def shared_count(self) -> int:
        """How many shared values there are."""
        return len(self._shared)

    def change(self, changes: Iterable[bytes], found: Mapping[bytes, KeyValue]) -> tuple[set[str], set[SharedKey]]:
        """These keys have changed, to what is found now. Returns the keys of own entries, and the shared values, that this concerns."""
        own: set[str] = set()
        shared: set[SharedKey] = set()
        for raw in changes:
            item = found.get(raw)
            try:
                place = self._keys.read(raw)
                if isinstance(place, SharedKey):
                    shared.add(place)
                    self._shared.pop(place, None)
                    if item is not None:
                        self._shared[place] = decode_value(place.kind, item.value)
                elif place is not None:
                    own.add(place[1])
                    self._put(*place, None if item is None else item.value)
            except RemoteStoreError:
                self.invalid += 1
        return own, shared

    def _put(self, owner: NodeId, key: str, value: bytes | None) -> None:
        owners = self._own.get(key)
        if value is None:
            if owners is not None and owners.pop(owner, None) is not None:
                self.entries_count -= 1
                if not owners:
                    del self._own[key]
                    self._is_sorted = False
            return
        if owners is None:
            owners = self._own[key] = {}
            self._is_sorted = False
        self.entries_count += owner not in owners
        owners[owner] = value

    def get(self, owner: NodeId, key: str) -> bytes | None:
        """What a node says under a key."""
        return self._own.get(key, {}).get(owner)

    def get_all(self, key: str) -> dict[NodeId, bytes]:
        """What all nodes say under a key, in the order of their ids."""
        return dict(sorted(self._own.get(key, {}).items()))

    def entries(self, prefix: str) -> list[Entry]:
        """All own entries whose keys begin so, in order."""
        return [Entry(key, owner, value) for key in self._from(prefix) for owner, value in sorted(self._own[key].items())]

    def _from(self, prefix: str) -> Iterator[str]:
        if not self._is_sorted:
            self._own_order, self._is_sorted = sorted(self._own), True
        for at in range(bisect_left(self._own_order, prefix), len(self._own_order)):
            if not self._own_order[at].startswith(prefix):
                return
            yield self._own_order[at]

    def read(self, key: SharedKey) -> SharedValue | None:
        """A shared value."""
        return self._shared.get(key)

    def shared(self, prefix: str) -> dict[SharedKey, SharedValue]:
        """All shared values whose names begin so, in order."""
        return {key: self._shared[key] for key in sorted(self._shared) if key.name.startswith(prefix)}
