"""The shared values: their states, what removed ones leave behind, and the hashes that others compare.

Pure. Wall times are seconds since 1970.

1. A state changes by joins alone, so the order in which deltas come, and how often, makes no difference.
2. A value without living dots is a tombstone. It goes when ``tombstone_seconds`` have passed since it was last changed, by the clock
   of who changed it: for all nodes at about the same time, and from then on nobody takes it from anybody.
3. A life never gives a number twice: numbers that it gave to values which are gone stay below its floor.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Final, NamedTuple

from pyminuteman.kv.crdt import State, change, read
from pyminuteman.kv.errors import TooManyKeys, ValueTooLarge
from pyminuteman.kv.hashes import BucketHashes, bucket_of, hash_of
from pyminuteman.kv.messages import SharedRow, SharedState
from pyminuteman.kv.operations import Operation, SharedKey, SharedValue
from pyminuteman.kv.state_codec import pack_state
from pyminuteman.kv.versions import Actor

__all__ = ["CLOCK_SKEW_MAX_SECONDS", "SharedTable", "hash_of_key"]

CLOCK_SKEW_MAX_SECONDS: Final = 86_400
"""How far ahead of our wall clock another's may be: what is changed later than that is not taken. As the membership has it."""


def hash_of_key(key: SharedKey) -> bytes:
    """What stands for a key in comparisons."""
    return hash_of(bytes([key.kind]) + key.name.encode())


class _Held(NamedTuple):
    state: State
    hash: bytes
    size: int


class SharedTable:
    """The shared values of one node.

    Args:
        actor: The life that writes here.
        keys_max: Most values, tombstones among them.
        value_max_bytes: Largest state, as it is encoded.
        tombstone_seconds: How long removals are remembered.
    """

    def __init__(self, actor: Actor, *, keys_max: int, value_max_bytes: int, tombstone_seconds: float) -> None:
        self.actor = actor
        self._keys_max = keys_max
        self._value_max = value_max_bytes
        self._tombstone_seconds = tombstone_seconds
        self._held: dict[SharedKey, _Held] = {}
        self._names: list[tuple[str, SharedKey]] = []
        self._by_hash: dict[bytes, SharedKey] = {}
        self._tombstones: dict[SharedKey, int] = {}
        self._floor = 0
        self.hashes = BucketHashes()
        self.refused = 0
        """Values of others that were not taken: too many, too large, or from too far ahead in time."""
        self.changed: set[SharedKey] = set()
        """Values that changed; the reader empties it."""
        self.unstored: set[SharedKey] = set()
        """Values whose states changed; the writer empties it."""

    def __len__(self) -> int:
        return len(self._held)

    @property
    def tombstones(self) -> int:
        """Removed values that are remembered."""
        return len(self._tombstones)

    # -- reading -------------------------------------------------------------------------------------------------------

    def read(self, key: SharedKey) -> SharedValue | None:
        """A value."""
        held = self._held.get(key)
        return None if held is None else read(key.kind, held.state)

    def state(self, key: SharedKey) -> State | None:
        """A state."""
        held = self._held.get(key)
        return None if held is None else held.state

    def size(self, key: SharedKey) -> int:
        """Bytes of a state that is here, as it is encoded."""
        return self._held[key].size

    def values(self, prefix: str) -> dict[SharedKey, SharedValue]:
        """All whose names begin so, in order of their kinds, then names."""
        found = []
        for at in range(bisect_left(self._names, prefix, key=itemgetter(0)), len(self._names)):
            name, key = self._names[at]
            if not name.startswith(prefix):
                break
            found.append(key)
        return {key: value for key in sorted(found) if (value := self.read(key)) is not None}

    # -- comparing -----------------------------------------------------------------------------------------------------

    def rows(self, buckets: Iterable[int]) -> tuple[SharedRow, ...]:
        """The hashes of all keys and states in these buckets."""
        wanted = frozenset(buckets)
        return tuple(
            SharedRow(hashed, self._held[key].hash)
            for hashed, key in sorted(self._by_hash.items())
            if bucket_of(hashed) in wanted
        )

    def differs(self, row: SharedRow) -> bool:
        """Whether somebody has another state of this."""
        key = self._by_hash.get(row.key)
        return key is None or self._held[key].hash != row.state

    def named(self, hashes: Iterable[bytes]) -> list[SharedState]:
        """The states of keys by their hashes, as far as they are here."""
        keys = (self._by_hash.get(hashed) for hashed in hashes)
        return [SharedState(key, self._held[key].state) for key in keys if key is not None]

    # -- changing ------------------------------------------------------------------------------------------------------

    def update(self, key: SharedKey, operations: Sequence[Operation], now: float) -> SharedState | None:
        """Change a value.

        Returns:
            What others must be told; None when nothing has changed.

        Raises:
            TooManyKeys: One more than may be.
            ValueTooLarge: It would be.
            InvalidOperationError: A counter would leave its range.
        """
        held = self._held.get(key)
        before = State() if held is None else held.state
        delta = change(before, operations, actor=self.actor, floor=self._floor, now=now)
        if not delta.context:
            return None
        if held is None and len(self._held) >= self._keys_max:
            raise TooManyKeys(
                f"{key} would be one more than {self._keys_max} shared values ({self.tombstones} of them removed ones, which are"
                f" remembered for {self._tombstone_seconds:g} s)"
            )
        after = before.join(delta)
        packed = pack_state(after)
        if len(packed) > self._value_max and after.dots:  # removing always goes
            raise ValueTooLarge(
                f"{key} would take {len(packed)} bytes with what is remembered of its writers; the limit is {self._value_max}"
            )
        self._put(key, after, packed)
        return SharedState(key, delta)

    def receive(self, key: SharedKey, theirs: State, now: float) -> bool:
        """Join what another has, whole or a delta. False when it was refused."""
        held = self._held.get(key)
        if theirs.changed_at > now + CLOCK_SKEW_MAX_SECONDS:
            self.refused += 1
            return False
        if held is None:
            if not theirs.dots and self._ended(theirs, now):
                return True
            if len(self._held) >= self._keys_max:
                self.refused += 1
                return False
            after = theirs
        else:
            after = held.state.join(theirs)
            if after == held.state:
                return True
        packed = pack_state(after)
        if len(packed) > 2 * self._value_max:  # two writers at their limits at one time still agree
            self.refused += 1
            return False
        self._put(key, after, packed)
        return True

    def restore(self, key: SharedKey, state: State) -> None:
        """Take a value from disk."""
        self._put(key, state, pack_state(state))
        self.unstored.discard(key)

    def take_unstored(self) -> list[tuple[SharedKey, bytes | None]]:
        """What is to be written to disk since the last time: encoded states, or None for what is gone."""
        taken = []
        for key in self.unstored:
            state = self.state(key)
            taken.append((key, None if state is None else pack_state(state)))
        self.unstored = set()
        return taken

    def collect(self, now: float) -> None:
        """Forget removals whose time is over."""
        for key, changed_at in list(self._tombstones.items()):
            if now >= changed_at + self._tombstone_seconds:
                held = self._held.pop(key)
                mine = held.state.context.get(self.actor)
                if mine is not None:
                    self._floor = max(self._floor, mine.upto)
                hashed = hash_of_key(key)
                self.hashes.toggle(bucket_of(hashed), held.hash)
                del self._by_hash[hashed], self._tombstones[key]
                del self._names[bisect_left(self._names, (key.name, key))]
                self.unstored.add(key)

    # -- inside --------------------------------------------------------------------------------------------------------

    def _ended(self, state: State, now: float) -> bool:
        return now >= state.changed_at + self._tombstone_seconds

    def _put(self, key: SharedKey, state: State, packed: bytes) -> None:
        hashed = hash_of_key(key)
        bucket = bucket_of(hashed)
        held = self._held.get(key)
        if held is None:
            self._by_hash[hashed] = key
            insort(self._names, (key.name, key))
        else:
            self.hashes.toggle(bucket, held.hash)
        # The key is part of it: two values that say the same in one bucket must not cancel each other out.
        self._held[key] = _Held(state, hash_of(hashed + packed), len(packed))
        self.hashes.toggle(bucket, self._held[key].hash)
        if state.dots:
            self._tombstones.pop(key, None)
        else:
            self._tombstones[key] = state.changed_at
        self.changed.add(key)
        self.unstored.add(key)
