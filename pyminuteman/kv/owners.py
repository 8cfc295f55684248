"""The own entries of all nodes: the logs of their owners, one index by key, and the hashes that others compare.

Pure. Of each owner one log is shown, and at most one is coming: that of a later life, or of one that lapsed, until it is complete.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from struct import Struct
from typing import Final, NamedTuple

from pyminuteman.addresses import NodeId
from pyminuteman.kv.entries import Log
from pyminuteman.kv.hashes import BucketHashes, bucket_of, hash_of
from pyminuteman.kv.messages import LogPart, LogWant, Row
from pyminuteman.kv.store import Entry

__all__ = ["OwnerTable", "Refusal", "StoredLog"]

_MANY_KEYS: Final = 256
_ROW: Final = Struct(">16sQQ")


class StoredLog(NamedTuple):
    """What the disk is to be told of one owner.

    Attributes:
        owner: Who.
        epoch: Of the log; 0 when there is none any more.
        base: The log's.
        version: The log's.
        whole: Whether what is stored of this owner goes first.
        puts: Keys, versions and values.
        deletes: Keys.
    """

    owner: NodeId
    epoch: int
    base: int
    version: int
    whole: bool
    puts: tuple[tuple[str, int, bytes], ...]
    deletes: tuple[str, ...]


class Refusal(Exception):
    """A part of a log was not taken: too many keys, or gaps. It will come again."""


@dataclass(slots=True)
class _Owner:
    shown: Log | None = None
    coming: Log | None = None
    floor: tuple[int, int] = (0, 0)
    """Epoch and version of what lapsed: nothing older is shown again."""
    row: bytes = b""

    @property
    def newest(self) -> Log | None:
        return self.coming or self.shown


class OwnerTable:
    """Everybody's own entries.

    Args:
        keys_max: Most keys of one owner.
        entries_max: Most keys of all of them.
    """

    def __init__(self, *, keys_max: int, entries_max: int) -> None:
        self._keys_max = keys_max
        self._entries_max = entries_max
        self._owners: dict[NodeId, _Owner] = {}
        self._by_key: dict[str, dict[NodeId, bytes]] = {}
        self._sorted: list[str] = []
        self._is_sorted = True
        self.count = 0
        """Entries that are shown."""
        self.hashes = BucketHashes()
        self.changed: set[str] = set()
        """Keys that changed; the reader empties it."""
        self.unstored: dict[NodeId, set[str] | None] = {}
        """Owners whose logs changed, with the keys, or None for all of them; the writer empties it."""

    # -- reading -------------------------------------------------------------------------------------------------------

    def log(self, owner: NodeId) -> Log | None:
        """The log that is shown."""
        held = self._owners.get(owner)
        return None if held is None else held.shown

    def get(self, owner: NodeId, key: str) -> bytes | None:
        """One value."""
        return self._by_key.get(key, {}).get(owner)

    def get_all(self, key: str) -> dict[NodeId, bytes]:
        """The values of one key, by owner, in order."""
        return dict(sorted(self._by_key.get(key, {}).items()))

    def entries(self, prefix: str) -> list[Entry]:
        """All whose keys begin so, in order."""
        found = []
        if not self._is_sorted:
            self._sorted, self._is_sorted = sorted(self._by_key), True
        keys = self._sorted
        for at in range(bisect_left(keys, prefix), len(keys)):
            key = keys[at]
            if not key.startswith(prefix):
                break
            values = self._by_key[key]
            found += [Entry(key, owner, values[owner]) for owner in (sorted(values) if len(values) > 1 else values)]
        return found

    def shown(self) -> Iterator[tuple[NodeId, int]]:
        """Owners and the epochs of their logs."""
        for owner, held in self._owners.items():
            if held.shown is not None:
                yield owner, held.shown.epoch

    @property
    def tombstones(self) -> int:
        """Deletions remembered."""
        return sum(held.shown.tombstones for held in self._owners.values() if held.shown is not None)

    # -- comparing -----------------------------------------------------------------------------------------------------

    def rows(self, buckets: Iterable[int]) -> tuple[Row, ...]:
        """How far each log in these buckets is here."""
        wanted = frozenset(buckets)
        found = (self.row(owner) for owner in sorted(self._owners) if bucket_of(owner) in wanted)
        return tuple(row for row in found if row is not None)

    def row(self, owner: NodeId) -> Row | None:
        """How far an owner's log is here; None when nothing of it is."""
        held = self._owners.get(owner)
        log = None if held is None else held.newest
        return None if log is None or log.version == 0 else Row(owner, log.epoch, log.version)

    def wanted(self, theirs: Row) -> LogWant | None:
        """What to ask somebody for who has that much; None when it is all here."""
        mine = self.row(theirs.owner)
        if mine is None or mine.epoch < theirs.epoch:
            return LogWant(theirs.owner, theirs.epoch, 0)
        if mine.epoch == theirs.epoch and mine.version < theirs.version:
            return LogWant(theirs.owner, mine.epoch, mine.version)
        return None

    def missing(self, want: LogWant, *, part_bytes: int) -> Iterator[LogPart]:
        """What somebody lacks who asks for that."""
        held = self._owners.get(want.owner)
        log = None if held is None else held.newest
        if log is not None and log.epoch >= want.epoch:
            yield from log.since(want.since if log.epoch == want.epoch else 0, part_bytes=part_bytes)

    # -- changing ------------------------------------------------------------------------------------------------------

    def begin(self, owner: NodeId, epoch: int, entries: Iterable[tuple[str, bytes]]) -> Log:
        """Begin a life of our own. The log before it goes."""
        log = Log(owner, epoch, base=1)
        log.begin(entries)
        held = self._owners.setdefault(owner, _Owner())
        held.coming = None
        self._show(owner, held, log)
        self._rehash(owner, held)
        return log

    def write(self, log: Log, changes: Iterable[tuple[str, bytes | None]]) -> LogPart | None:
        """Write to our own log, which :meth:`begin` gave."""
        part = log.write(changes)
        if part is not None:
            self._index(log.owner, log, {change.key for change in part.changes})
            self._rehash(log.owner, self._owners[log.owner])
        return part

    def receive(self, part: LogPart) -> bool:
        """Take a part of another's log. False when it leaves a gap, so that more must be asked for.

        Raises:
            Refusal: It was not taken.
        """
        held = self._owners.setdefault(part.owner, _Owner())
        log = held.newest
        if part.epoch < (held.floor[0] if log is None else log.epoch):
            return True
        if log is None or part.epoch > log.epoch:
            floor = held.floor[1] if held.floor[0] == part.epoch else 0
            log = Log(part.owner, part.epoch, base=part.base, floor=floor)
        more = log.growth(part)
        hidden = 0 if log is held.shown else len(log.entries)
        if len(log.entries) + more > self._keys_max or self.count + hidden + more > self._entries_max:
            raise Refusal("too many keys")
        keys = log.receive(part)
        if keys is None:
            raise Refusal("too many gaps")
        if log is held.shown:
            self._index(part.owner, log, keys)
        elif log.complete:
            held.coming = None
            self._show(part.owner, held, log)
        else:
            held.coming = log
        self._rehash(part.owner, held)
        return log.version >= part.high

    def take_unstored(self) -> list[StoredLog]:
        """What is to be written to disk since the last time, but for logs that are being repaired."""
        taken: list[StoredLog] = []
        later: dict[NodeId, set[str] | None] = {}
        for owner, keys in self.unstored.items():
            log = self.log(owner)
            if log is not None and not log.consistent:
                later[owner] = keys  # what is stored was true at one moment
                continue
            if log is None:
                taken.append(StoredLog(owner, 0, 0, 0, True, (), ()))
                continue
            named = log.entries if keys is None else [key for key in keys if key in log.entries]
            gone = () if keys is None else tuple(key for key in keys if key not in log.entries)
            puts = tuple((key, *log.entries[key]) for key in named)
            taken.append(StoredLog(owner, log.epoch, log.base, log.version, keys is None, puts, gone))
        self.unstored = later
        return taken

    def restore(self, log: Log) -> None:
        """Take a log from disk, where none is."""
        held = self._owners.setdefault(log.owner, _Owner())
        self._is_sorted = False
        self._show(log.owner, held, log)
        self._rehash(log.owner, held)
        self.unstored.pop(log.owner, None)

    def lapse(self, owner: NodeId) -> None:
        """An owner is gone: so are its entries. That they were here stays remembered."""
        held = self._owners[owner]
        for log in (held.shown, held.coming):
            if log is not None:
                held.floor = max(held.floor, (log.epoch, log.version))
        held.coming = None
        self._show(owner, held, None)
        self._rehash(owner, held)

    def forget(self, keep: Container[NodeId]) -> None:
        """Of whoever is in neither these nor shown, nothing needs to be remembered."""
        for owner in [owner for owner, held in self._owners.items() if held.shown is None and owner not in keep]:
            held = self._owners.pop(owner)
            held.coming = None
            self._rehash(owner, held)

    # -- inside --------------------------------------------------------------------------------------------------------

    def _show(self, owner: NodeId, held: _Owner, log: Log | None) -> None:
        before = held.shown.entries if held.shown is not None else {}
        held.shown = log
        after = log.entries if log is not None else {}
        changed = {key for key, (_, value) in after.items() if before.get(key, (0, None))[1] != value}
        changed.update(key for key in before if key not in after)
        self._index(owner, log, changed)
        self.unstored[owner] = None

    def _index(self, owner: NodeId, log: Log | None, keys: Iterable[str]) -> None:
        """Bring the index up to date for these keys."""
        entries = log.entries if log is not None else {}
        keys = set(keys)
        stored = self.unstored.setdefault(owner, set())
        if stored is not None:
            stored |= keys
        self.changed |= keys
        if len(keys) > _MANY_KEYS:
            self._is_sorted = False  # to sort once, when somebody reads, is cheaper than to move the tail so often
        for key in keys:
            entry = entries.get(key)
            values = self._by_key.get(key)
            if entry is not None:
                if values is None:
                    values = self._by_key[key] = {}
                    if self._is_sorted:
                        insort(self._sorted, key)
                self.count += owner not in values
                values[owner] = entry[1]
            else:
                values = self._by_key[key]
                del values[owner]
                self.count -= 1
                if not values:
                    del self._by_key[key]
                    if self._is_sorted:
                        del self._sorted[bisect_left(self._sorted, key)]

    def _rehash(self, owner: NodeId, held: _Owner) -> None:
        log = held.newest
        row = b"" if log is None or log.version == 0 else hash_of(_ROW.pack(owner, log.epoch, log.version))
        if row != held.row:
            for each in (held.row, row):
                if each:
                    self.hashes.toggle(bucket_of(owner), each)
            held.row = row
