"""What this node hears of claims: entries of the store, taken in as they change, and what counts on this node alone.

What is said here alone stands in place of what the store has of it from this node, or has no more. Of the rest a table has at all times
what the store had when it was last heard.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from pyminuteman.addresses import NodeId
from pyminuteman.daemon.entries import PREFIX, ClaimTable, changes
from pyminuteman.kv.store import Changes, Store

__all__ = ["Hearing"]


class Hearing:
    """Keeps a table of claims as the store has it.

    Args:
        store: Where others are heard.
        claims: The table.
    """

    def __init__(self, store: Store, claims: ClaimTable) -> None:
        self._store, self._claims = store, claims
        self._owners: dict[str, set[NodeId]] = {}
        self._local: dict[str, bytes] = {}

    def say_here(self, entries: Mapping[str, bytes], told: Collection[str]) -> bool:
        """Take in what counts on this node alone, as if it were heard; what all are told from now on stands until that is heard.

        Args:
            entries: All that counts here alone.
            told: Keys of what all are told.

        Returns:
            Whether anything has changed.
        """
        changed = False
        for key, value in changes(self._local, entries).items():
            if value is not None or key not in told:
                self._claims.update(self._store.me, key, value)
                changed = True
        self._local = dict(entries)
        return changed

    def hear(self, found: Changes) -> None:
        """Take in what has changed in the store."""
        if found.everything:
            entries: dict[str, set[NodeId]] = {}
            for entry in self._store.entries(PREFIX):
                entries.setdefault(entry.key, set()).add(entry.owner)
                self._take_in(entry.owner, entry.key, entry.value)
            for key, owners in self._owners.items():
                for owner in owners - entries.get(key, set()):
                    self._take_in(owner, key, None)
            self._owners = entries
        for key in found.own:
            if key.startswith(PREFIX):
                self._hear_key(key)

    def _hear_key(self, key: str) -> None:
        values = self._store.get_all(key)
        for owner in self._owners.get(key, set()) - values.keys():
            self._take_in(owner, key, None)
        for owner, value in values.items():
            self._take_in(owner, key, value)
        if values:
            self._owners[key] = set(values)
        else:
            self._owners.pop(key, None)

    def _take_in(self, owner: NodeId, key: str, value: bytes | None) -> None:
        # What counts here alone is not what the store has of it, or has no more.
        if key not in self._local or owner != self._store.me:
            self._claims.update(owner, key, value)
