"""What is under a prefix, as far as we have been told. Pure.

1. :attr:`PrefixContents.revision` is the point in the etcd's history up to which everything is known; 0 while nothing is.
2. Of a key, nothing older ever replaces what is newer: what we have written ourselves is put in *ahead* of the history, and what comes
   of it later, and came before it, does not undo it.
3. A whole reading replaces everything; what differs from before is told key by key, as if it had been watched.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from pyminuteman.etcd.messages import Event, KeyValue

__all__ = ["PrefixContents"]


class PrefixContents(Mapping[bytes, KeyValue]):
    """Keys under a prefix with their values. Orders as a dict does.

    Attributes:
        revision: Up to here the history is known.
        cluster_id: Whose history it is; 0 while nothing is known.
    """

    def __init__(self) -> None:
        """Begin with nothing."""
        self._items: dict[bytes, KeyValue] = {}
        self._ahead: dict[bytes, int] = {}
        """Keys we know something of from beyond :attr:`revision`, and from where."""
        self.revision = 0
        self.cluster_id = 0

    def __getitem__(self, key: bytes) -> KeyValue:
        return self._items[key]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def replace(self, items: Iterable[KeyValue], revision: int, cluster_id: int) -> set[bytes]:
        """Everything was read at a revision. Returns the keys that are not as they were."""
        found = {item.key: item for item in items}
        if cluster_id != self.cluster_id:  # another history: its revisions say nothing about ours
            self._ahead.clear()
        for key, known_at in self._ahead.items():
            if known_at > revision:
                found.pop(key, None)
                if key in self._items:
                    found[key] = self._items[key]
        changed = {key for key in self._items.keys() | found.keys() if self._items.get(key) != found.get(key)}
        self._items, self.revision, self.cluster_id = found, revision, cluster_id
        self._settle()
        return changed

    def follow(self, events: Iterable[Event], revision: int) -> set[bytes]:
        """The history went on to a revision with these changes, in order. Returns the keys that are not as they were."""
        changed = set()
        for event in events:
            if event.revision > self.revision and event.revision > self._ahead.get(event.key, 0):
                self._put(event)
                changed.add(event.key)
        self.revision = max(self.revision, revision)
        self._settle()
        return changed

    def ahead(self, events: Iterable[Event]) -> set[bytes]:
        """We know of these changes before the history tells of them, because they are ours. Returns the keys that are not as they were."""
        changed = set()
        for event in events:
            if event.revision > max(self.revision, self._ahead.get(event.key, 0)):
                self._put(event)
                self._ahead[event.key] = event.revision
                changed.add(event.key)
        return changed

    def _put(self, event: Event) -> None:
        if event.item is None:
            self._items.pop(event.key, None)
        else:
            self._items[event.key] = event.item

    def _settle(self) -> None:
        if self._ahead:
            self._ahead = {key: known_at for key, known_at in self._ahead.items() if known_at > self.revision}
