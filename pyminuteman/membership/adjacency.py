"""The table of records: who is there, which life of it, and who its neighbours are.

Pure. Invariants:

1. Of each node the newest (epoch, version) wins, whoever brought it and in whatever order.
2. Nobody but its owner raises a version. A node that sees a record of itself newer than its own goes above it (:meth:`outdone`).
3. Epochs are wall seconds, so one far ahead of our clock is a mistake or a lie, and is refused: it would lock its owner out.
4. The table is bounded; what is beyond is dropped and counted.
5. The claims of a node that was cut off as failed are void until it speaks again (:meth:`void`). Nodes that died together claim
   each other for ever; were one of them to come back, its old claims would bring the others back with it. Whoever lives has a
   newer version by then, for it has lost a link too, or has refuted; or it missed all that, frozen, and is shown that it does not
   count (:meth:`digest_around`).

Tables are compared by hashes. The hash of a table is the sum of the hashes of the records *in reach* (:meth:`include`): sums can
be kept up to date one record at a time, and dead records, which nodes forget at different times, do not make tables differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from pyminuteman.addresses import NodeId
from pyminuteman.membership.config import MembershipConfig
from pyminuteman.membership.errors import RemoteProtocolError
from pyminuteman.membership.messages import TableDigest, TableSummary
from pyminuteman.membership.records import EncodedRecord, Record, Version

__all__ = ["AdjacencyTable", "Change", "Entry", "bucket_count_for"]

_HASH_MASK: Final = 0xFFFF_FFFF
_BUCKETS_LEAST: Final = 16
_BUCKETS_MOST: Final = 256
_BUCKET_AIM: Final = 8
_VERSION_STEP_MAX: Final = 1 << 20
"""Furthest a version may jump within an epoch: a node that changes a thousand times a second takes 17 minutes for it."""
_VERSION_MAX: Final = 1 << 40


class Entry(NamedTuple):
    """A record as the table has it: opened, and as it travels."""

    record: Record
    encoded: EncodedRecord
    neighbours: frozenset[NodeId]
    hash: int


class Change(NamedTuple):
    """What a record changed: its former form, None for a newcomer, and whether that was void."""

    previous: Record | None
    record: Record
    was_void: bool


def bucket_count_for(size: int) -> int:
    """Buckets for a table of that many records: a power of two from 16 to 256, for some eight records each."""
    count = _BUCKETS_LEAST
    while count < _BUCKETS_MOST and count * _BUCKET_AIM < size:
        count *= 2
    return count


class AdjacencyTable:
    """The newest record of every known member."""

    def __init__(self, me: Record, config: MembershipConfig) -> None:
        self._config = config
        self._entries: dict[NodeId, Entry] = {}
        self._accusers: dict[NodeId, dict[NodeId, tuple[int, int]]] = {}
        self._included: dict[NodeId, int] = {}
        self._void: dict[NodeId, None] = {}
        self._sum = 0
        self.me = me.id
        self.dropped = 0
        self.put(me)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, node: NodeId) -> bool:
        return node in self._entries

    def __iter__(self) -> Iterator[NodeId]:
        return iter(self._entries)

    def get(self, node: NodeId) -> Entry | None:
        """What is known of that node, or None."""
        return self._entries.get(node)

    @property
    def own(self) -> Entry:
        """What this node says of itself."""
        return self._entries[self.me]

    def record(self, node: NodeId) -> Record | None:
        """Its record, or None."""
        entry = self._entries.get(node)
        return None if entry is None else entry.record

    def known(self, node: NodeId) -> Record:
        """The record of a node that is surely in the table: one in reach is."""
        return self._entries[node].record

    # -- news ----------------------------------------------------------------------------------------------------------

    def is_newer(self, encoded: EncodedRecord) -> bool:
        """Whether this is news. Cheap: most gossip is not."""
        entry = self._entries.get(encoded.id)
        return entry is None or (encoded.epoch, encoded.version) > (entry.encoded.epoch, entry.encoded.version)

    def outdone(self, encoded: EncodedRecord) -> bool:
        """Whether this is about ourselves, and not older than what we say."""
        mine = self._entries[self.me].encoded
        return encoded.id == self.me and encoded != mine and (encoded.epoch, encoded.version) >= (mine.epoch, mine.version)

    def offer(self, encoded: EncodedRecord, wall: float) -> Change:
        """Take a newer record.

        Args:
            encoded: One for which :meth:`is_newer` holds.
            wall: Seconds of wall time now.

        Raises:
            RemoteProtocolError: It is malformed, from the far future, or jumps: nothing was changed.
        """
        entry = self._entries.get(encoded.id)
        self.check(encoded, wall)
        if entry is None and len(self._entries) >= self._config.members_max:
            self.dropped += 1
            raise RemoteProtocolError(f"the table is full ({self._config.members_max} members)")
        record = Record.decode(encoded)
        was_void = encoded.id in self._void
        self._put(record, encoded)
        return Change(None if entry is None else entry.record, record, was_void)

    def check(self, encoded: EncodedRecord, wall: float) -> None:
        """See whether epoch and version are within reason.

        Raises:
            RemoteProtocolError: They are not.
        """
        if encoded.epoch > wall + self._config.clock_skew_max_seconds:
            raise RemoteProtocolError(f"epoch {encoded.epoch} of {encoded.id.short} is far ahead of our clock")
        entry = self._entries.get(encoded.id)
        known = entry.encoded.version if entry is not None and entry.encoded.epoch == encoded.epoch else 0
        most = _VERSION_MAX if entry is None else known + _VERSION_STEP_MAX
        if encoded.version > most:
            raise RemoteProtocolError(f"version {encoded.version} of {encoded.id.short} jumps")

    def put(self, record: Record) -> EncodedRecord:
        """Take a record of our own making, and return it as it travels."""
        encoded = record.encode()
        self._put(record, encoded)
        return encoded

    def remove(self, node: NodeId) -> None:
        """Forget a member."""
        entry = self._entries.pop(node, None)
        if entry is None:
            return
        self.exclude(node)
        self._void.pop(node, None)
        self._pardon(entry.record)

    def _put(self, record: Record, encoded: EncodedRecord) -> None:
        previous = self._entries.get(record.id)
        entry = Entry(record, encoded, frozenset(record.neighbours), encoded.hash)
        self._entries[record.id] = entry
        self._void.pop(record.id, None)
        if record.id in self._included:
            self._sum += entry.hash - self._included[record.id]
            self._included[record.id] = entry.hash
        if previous is not None:
            self._pardon(previous.record)
        for accused, epoch, version in record.accused:
            self._accusers.setdefault(accused, {})[record.id] = epoch, version

    def _pardon(self, former: Record) -> None:
        for accused, _, _ in former.accused:
            accusers = self._accusers[accused]
            del accusers[former.id]
            if not accusers:
                del self._accusers[accused]

    # -- the graph -----------------------------------------------------------------------------------------------------

    def void(self, node: NodeId) -> None:
        """The node was cut off as failed, and is out of reach: nothing it has said so far counts."""
        if node in self._entries:
            self._void[node] = None

    def is_void(self, node: NodeId) -> bool:
        """Whether what the node has said so far does not count."""
        return node in self._void

    def are_linked(self, first: NodeId, second: NodeId) -> bool:
        """Whether both say so: a link that one end only claims carries nothing."""
        if first in self._void or second in self._void:
            return False
        one, other = self._entries.get(first), self._entries.get(second)
        return one is not None and other is not None and second in one.neighbours and first in other.neighbours

    def linked_neighbours(self, node: NodeId) -> list[NodeId]:
        """Its neighbours that confirm it, in order of id."""
        entry = self._entries.get(node)
        if entry is None or node in self._void:
            return []
        entries, void = self._entries, self._void
        return [
            other
            for other in entry.record.neighbours
            if other in entries and node in entries[other].neighbours and other not in void
        ]

    def stands(self, accusation: Version) -> bool:
        """Whether the accused has said nothing since; whoever speaks, lives."""
        entry = self._entries.get(accusation.id)
        return entry is None or accusation[1:] >= (entry.record.epoch, entry.record.version)

    def accusers(self, node: NodeId) -> list[NodeId]:
        """Who has cut that node off as failed, and nothing was heard of it since."""
        accusations = self._accusers.get(node, {}).items()
        return [accuser for accuser, known in accusations if self.stands(Version(node, *known))]

    # -- comparing tables ----------------------------------------------------------------------------------------------

    def include(self, node: NodeId) -> None:
        """The node is in reach: its record counts."""
        if node not in self._included:
            entry = self._entries[node]
            self._included[node] = entry.hash
            self._sum += entry.hash

    def exclude(self, node: NodeId) -> None:
        """The node is out of reach: its record counts no longer."""
        self._sum -= self._included.pop(node, 0)

    @property
    def hash(self) -> int:
        """32 bits over all records in reach."""
        return self._sum & _HASH_MASK

    def summary(self) -> TableSummary:
        """Hashes of the table by bucket."""
        count = bucket_count_for(len(self._included))
        sums = self._bucket_sums(count)
        return TableSummary(b"".join((value & _HASH_MASK).to_bytes(4, "big") for value in sums))

    def digest_of_difference(self, summary: TableSummary) -> TableDigest:
        """The versions we hold in the buckets that differ from theirs."""
        count = len(summary.hashes) // 4
        theirs = [int.from_bytes(summary.hashes[at : at + 4], "big") for at in range(0, len(summary.hashes), 4)]
        differing = [index for index, mine in enumerate(self._bucket_sums(count)) if mine & _HASH_MASK != theirs[index]]
        return TableDigest(count, tuple(differing), tuple(self._versions(count, differing)))

    def digest_around(self, node: NodeId) -> TableDigest:
        """The versions we hold in the bucket of that node."""
        count = bucket_count_for(len(self._included))
        bucket = _bucket(node, count)
        return TableDigest(count, (bucket,), tuple(self._versions(count, [bucket])))

    def compare(self, digest: TableDigest) -> tuple[list[NodeId], list[EncodedRecord]]:
        """What they have newer (ids to ask for), and what we have newer (records to send)."""
        wanted: list[NodeId] = []
        theirs: dict[NodeId, tuple[int, int]] = {}
        for node, epoch, version in digest.versions:
            theirs[node] = (epoch, version)
            entry = self._entries.get(node)
            if entry is None or (epoch, version) > (entry.encoded.epoch, entry.encoded.version):
                wanted.append(node)
        newer = [
            self._entries[mine.id].encoded
            for mine in self._versions(digest.bucket_count, digest.buckets)
            if theirs.get(mine.id, (-1, -1)) < (mine.epoch, mine.version)
        ]
        return wanted, newer

    def included_records(self) -> list[EncodedRecord]:
        """All records in reach, as they travel."""
        return [self._entries[node].encoded for node in self._included]

    def _bucket_sums(self, count: int) -> list[int]:
        sums = [0] * count
        for node, value in self._included.items():
            sums[_bucket(node, count)] += value
        return sums

    def _versions(self, count: int, buckets: Iterable[int]) -> Iterator[Version]:
        wanted = frozenset(buckets)
        for node in self._included:
            if _bucket(node, count) in wanted:
                encoded = self._entries[node].encoded
                yield Version(node, encoded.epoch, encoded.version)


def _bucket(node: NodeId, count: int) -> int:
    return (node[0] << 8 | node[1]) * count >> 16
