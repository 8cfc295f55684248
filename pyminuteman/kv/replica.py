"""One replica of the store, without the world: what its users, the membership and other replicas tell it, and what it answers.

Pure, and deterministic. The driver calls it with what happens and when, sends what each call returns, calls :meth:`Replica.wake` at
:attr:`Replica.next_wake`, and then takes what has changed for those who watch and for the disk.

1. A write is told to all at once (:class:`~pyminuteman.kv.replication.Cast`); who misses it finds out by comparing.
2. Every few seconds, and soon when something is known to be missing, the replica compares itself with one neighbour.
3. Entries of owners that are gone go with their leases (:mod:`pyminuteman.kv.lives`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from math import inf
from random import Random
from typing import Final

from pyminuteman.addresses import NodeId
from pyminuteman.kv.crdt import State
from pyminuteman.kv.entries import Log, cut
from pyminuteman.kv.errors import TooManyKeys, ValueTooLarge
from pyminuteman.kv.lives import Lives, Presence
from pyminuteman.kv.messages import LogPart, Message, States
from pyminuteman.kv.operations import Operation, SharedKey, SharedValue, check_bytes, check_key, check_operation
from pyminuteman.kv.owners import OwnerTable
from pyminuteman.kv.replication import PART_BYTES, READY, Cast, Output, Replication, Tell
from pyminuteman.kv.shared import SharedTable
from pyminuteman.kv.store import StoreLimits
from pyminuteman.kv.versions import Actor

__all__ = ["ALONE_SECONDS", "Replica"]

_COMPARE_SECONDS: Final = 5.0
"""Mean time between comparisons that nothing calls for: some 100 bytes each."""
_COMPARE_SOON_SECONDS: Final = 0.4
"""And where something is missing: longer than the multicast takes to repair itself."""
_TICK_SECONDS: Final = 1.0
"""How exactly leases are kept."""
ALONE_SECONDS: Final = 2.0
"""A node without neighbours for so long after its start is held to be the first."""


class Replica:
    """The store of one node, sans I/O. Times are seconds of one clock that does not jump.

    Args:
        me: Who we are.
        limits: What it holds at most.
        random: Where every choice comes from.
        wall_offset: Wall time minus the clock's time, in seconds.
        alone_seconds: Without neighbours for so long after its start, it is held to be the first.
    """

    def __init__(
        self,
        me: Actor,
        *,
        limits: StoreLimits,
        random: Random,
        wall_offset: float,
        alone_seconds: float = ALONE_SECONDS,
    ) -> None:
        self.me = me
        self.limits = limits
        self._random = random
        self._wall_offset = wall_offset
        self._alone_seconds = alone_seconds
        self.counters: Counter[str] = Counter()
        self.owners = OwnerTable(keys_max=limits.own_keys_max, entries_max=limits.entries_max)
        self.shared = SharedTable(
            me,
            keys_max=limits.shared_keys_max,
            value_max_bytes=limits.shared_value_max_bytes,
            tombstone_seconds=limits.tombstone_seconds,
        )
        self._log = Log(me.node, me.epoch, base=1)
        self._lives = Lives(limits.lease_seconds)
        self._replication = Replication(me.node, self.owners, self.shared, self._lives, self.counters)
        self._neighbours: tuple[NodeId, ...] = ()
        self._compare_at = inf
        self._tick_at = inf
        self._alone_at = inf
        self._is_ready = False

    # -- the driver's --------------------------------------------------------------------------------------------------

    @property
    def next_wake(self) -> float:
        """When :meth:`wake` wants to be called."""
        return min(self._compare_at, self._tick_at)

    @property
    def is_ready(self) -> bool:
        """Whether what others had said before is here, as far as a comparison shows, or there are no others."""
        return self._is_ready

    def restore(self, logs: Iterable[Log], states: Iterable[tuple[SharedKey, State]], now: float) -> dict[str, bytes]:
        """Take what was on the disk, before the start. Others' entries are held for a lease, unless their owners turn up.

        Returns:
            What this node said in its last life, for :meth:`start`.
        """
        mine: dict[str, bytes] = {}
        for log in logs:
            if log.owner == self.me.node:
                mine = {key: value for key, (_, value) in log.entries.items()}
            else:
                self._lives.presume(log.owner, now)
                self.owners.restore(log)
        for key, state in states:
            self.shared.restore(key, state)
        return mine

    def start(self, now: float, entries: Mapping[str, bytes] | None = None) -> list[Output]:
        """Begin, with these own entries. That is told to all, so that an earlier life of ours ends."""
        self._tick_at = now + min(_TICK_SECONDS, self._alone_seconds)
        self._compare_at = now + self._random.uniform(0.5, 1.5) * _COMPARE_SOON_SECONDS
        self._alone_at = now + self._alone_seconds
        return self._begin(entries or {})

    def reborn(self, epoch: int) -> list[Output]:
        """We go under a later epoch from now on, with what we said before."""
        entries = self.own()
        self.me = self.shared.actor = Actor(self.me.node, epoch)
        return self._begin(entries)

    def neighbours(self, nodes: Iterable[NodeId], now: float) -> None:
        """These are the neighbours now."""
        before = self._neighbours
        self._neighbours = tuple(sorted(nodes))
        if set(self._neighbours) - set(before):
            self._hurry(now)

    def notice(self, node: NodeId, epoch: int, presence: Presence | None, now: float) -> None:
        """The membership has told of another member; None when its presence is as it was."""
        if node != self.me.node:
            self._lives.notice(node, epoch, presence, now)
            if presence is Presence.LEFT:
                self._lapse(now)
            elif presence is Presence.ALIVE and self.owners.log(node) is None:
                self._hurry(now)  # a neighbour may have what it says already

    def forget(self, keep: Container[NodeId]) -> None:
        """Forget whom the membership has forgotten: all but these."""
        self._lives.forget(keep)
        self.owners.forget(keep)

    def handle(self, message: Message, sender: NodeId, now: float) -> list[Output]:
        """Another replica has said something."""
        outputs = self._replication.handle(message, sender, now, now + self._wall_offset)
        if self._replication.suspicious:
            self._replication.suspicious = False
            self._hurry(now)
        self._is_ready = self._is_ready or self._replication.sureness >= READY
        return outputs

    def wake(self, now: float) -> list[Output]:
        """Do what is due."""
        if now >= self._tick_at:
            self._tick_at = now + _TICK_SECONDS
            self._replication.refill(now)
            self._lapse(now)
            self.shared.collect(now + self._wall_offset)
            if now >= self._alone_at and not self._neighbours:
                self._is_ready = True
        if now < self._compare_at:
            return []
        self._compare_at = now + self._random.uniform(0.5, 1.5) * _COMPARE_SECONDS
        if not self._neighbours:
            return []
        self.counters["comparisons"] += 1
        return [Tell(self._random.choice(self._neighbours), self._replication.summary())]

    # -- the user's ----------------------------------------------------------------------------------------------------

    def own(self) -> dict[str, bytes]:
        """What this node says."""
        entries = self._log.entries
        return {key: entries[key][1] for key in sorted(entries)}

    def change_own(self, changes: Mapping[str, bytes | None]) -> list[Output]:
        """Say, or no longer say, all of these: all or nothing.

        Raises:
            InvalidKeyError: A key is none.
            ValueTooLarge: A value is.
            TooManyKeys: They would be.
        """
        limits = self.limits
        held = self._log.entries
        more = 0
        for key, value in changes.items():
            check_key(key)
            if value is not None:
                check_bytes(f"the value of {key}", value)
                if len(value) > limits.value_max_bytes:
                    raise ValueTooLarge(f"{key}: {len(value)} bytes; the limit is {limits.value_max_bytes}")
            more += (value is not None and key not in held) - (value is None and key in held)
        if more > 0 and len(held) + more > limits.own_keys_max:
            raise TooManyKeys(f"this node would say {len(held) + more} keys; the limit is {limits.own_keys_max}")
        if more > 0 and self.owners.count + more > limits.entries_max:
            raise TooManyKeys(f"there would be {self.owners.count + more} entries in all; the limit is {limits.entries_max}")
        part = self.owners.write(self._log, changes.items())
        return [] if part is None else self._cast(part)

    def update(self, key: SharedKey, operations: Sequence[Operation], now: float) -> list[Output]:
        """Change a shared value.

        Raises:
            InvalidKeyError: The name is none.
            InvalidOperationError: The kind does not know an operation, or a counter would leave its range.
            TooManyKeys: One more than may be.
            ValueTooLarge: It would be.
        """
        check_key(key.name)
        for operation in operations:
            check_operation(key.kind, operation)
        delta = self.shared.update(key, operations, now + self._wall_offset)
        return [] if delta is None else [Cast(States((delta,)))]

    def read(self, key: SharedKey) -> SharedValue | None:
        """A shared value."""
        return self.shared.read(key)

    def metrics(self) -> dict[str, int | float]:
        """Plain numbers by name."""
        return {
            "store_entries": self.owners.count,
            "store_tombstones": self.owners.tombstones,
            "store_shared_values": len(self.shared) - self.shared.tombstones,
            "store_shared_tombstones": self.shared.tombstones,
            "store_shared_refused_total": self.shared.refused,
            **{
                f"store_{name}_total": self.counters[name]
                for name in ("comparisons", "comparisons_differing", "parts_of_unknown_lives", "parts_refused", "answers_cut")
            },
        }

    # -- inside --------------------------------------------------------------------------------------------------------

    def _begin(self, entries: Mapping[str, bytes]) -> list[Output]:
        self._log = self.owners.begin(self.me.node, self.me.epoch, sorted(entries.items()))
        return [Cast(part) for part in self._log.since(0, part_bytes=PART_BYTES)]

    @staticmethod
    def _cast(part: LogPart) -> list[Output]:
        return [Cast(one) for one in cut(part, PART_BYTES)]

    def _lapse(self, now: float) -> None:
        others = ((owner, epoch) for owner, epoch in self.owners.shown() if owner != self.me.node)
        for owner in self._lives.lapsed(others, now):
            self.counters["owners_lapsed"] += 1
            self.owners.lapse(owner)

    def _hurry(self, now: float) -> None:
        self._compare_at = min(self._compare_at, now + self._random.uniform(0.5, 1.5) * _COMPARE_SOON_SECONDS)
