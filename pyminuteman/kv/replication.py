"""How two replicas find what differs, and send each other no more than that.

Pure. One asks, the other answers; hashes first, then versions, then what is missing. Nothing of it is waited for: what is lost is
found by the next comparison.

1. **Summary** with the hashes over everything, some 20 bytes. Equal: **Same**, and that is all.
2. **Buckets**: 64 hashes of own entries and 64 of shared values, from who was asked.
3. **Rows**: versions and hashes in the buckets that differ, from who asked.
4. From who was asked: **LogPart** and **States** that the other lacks, and a **Want** for what it has itself not.
5. From who asked: what is wanted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, assert_never

from pyminuteman.addresses import NodeId
from pyminuteman.kv.lives import Lives
from pyminuteman.kv.messages import (
    Buckets,
    LogPart,
    LogWant,
    Message,
    Rows,
    Same,
    SharedState,
    States,
    Summary,
    Want,
)
from pyminuteman.kv.owners import OwnerTable, Refusal
from pyminuteman.kv.shared import SharedTable

__all__ = ["PART_BYTES", "READY", "Cast", "Output", "Replication", "Tell"]

PART_BYTES: Final = 48 * 1024
"""Bytes of keys and values in one message, about: it is taken in one go, and heartbeats wait for that."""
READY: Final = 2
_ANSWER_BYTES: Final = 16 * 1024 * 1024
"""Sent in answers from one refill to the next; what goes beyond is left to the next comparison."""
_ASKED_SECONDS: Final = 2.0
"""How long somebody may take to send a log before another is asked for it."""


@dataclass(frozen=True, slots=True)
class Cast:
    """Tell everybody."""

    message: LogPart | States


@dataclass(frozen=True, slots=True)
class Tell:
    """Tell one."""

    to: NodeId
    message: Message


Output = Cast | Tell


class Replication:
    """Answers what other replicas say.

    Args:
        me: This node: of its own log it is told nothing.
        owners: The own entries.
        shared: The shared values.
        lives: Whose word counts.
        counters: Where what happens is counted.
    """

    def __init__(self, me: NodeId, owners: OwnerTable, shared: SharedTable, lives: Lives, counters: Counter[str]) -> None:
        self._me = me
        self._owners = owners
        self._shared = shared
        self._lives = lives
        self._counters = counters
        self._asked: dict[NodeId, float] = {}
        self._budget = _ANSWER_BYTES
        self.sureness = 0
        """From :data:`READY` on, what others had said is here: a comparison showed no difference, or two have been gone through, the
        second of them while what the first had found was on its way."""
        self.suspicious = False
        """Whether something is known to be missing; the reader takes it back."""

    def refill(self, now: float) -> None:
        """Another second has passed."""
        self._budget = _ANSWER_BYTES
        self._asked = {owner: until for owner, until in self._asked.items() if until > now}

    def summary(self) -> Summary:
        """What begins a comparison."""
        return Summary(self._owners.hashes.root, self._shared.hashes.root)

    def handle(self, message: Message, sender: NodeId, now: float, wall: float) -> list[Output]:  # noqa: PLR0911 - a table
        """Take what another replica says."""
        match message:
            case LogPart():
                self._take(message, now)
                return []
            case States():
                for key, state in message.states:
                    self._shared.receive(key, state, wall)
                return []
            case Summary():
                return [Tell(sender, self._compare(message))]
            case Same():
                self.sureness = READY
                return []
            case Buckets():
                return self._on_buckets(message, sender)
            case Rows():
                return self._on_rows(message, sender, now)
            case Want():
                return self._answer(message.own, message.shared, sender)
            case _:
                assert_never(message)

    def _take(self, part: LogPart, now: float) -> None:
        if part.owner == self._me:
            return
        if not self._lives.counts(part.owner, part.epoch, now):
            self._counters["parts_of_unknown_lives"] += 1
            self.suspicious = True
            return
        try:
            self.suspicious |= not self._owners.receive(part)
        except Refusal:
            self._counters["parts_refused"] += 1
            return
        if part.high == part.final:
            self._asked.pop(part.owner, None)

    def _compare(self, theirs: Summary) -> Message:
        mine = self.summary()
        if mine == theirs:
            self.sureness = READY
            return Same()
        self._counters["comparisons_differing"] += 1
        return Buckets(self._owners.hashes.summary, self._shared.hashes.summary)

    def _on_buckets(self, theirs: Buckets, sender: NodeId) -> list[Output]:
        own = self._owners.hashes.differing(theirs.own)
        shared = self._shared.hashes.differing(theirs.shared)
        self.sureness += 1
        if not own and not shared:
            return []
        self.suspicious = True
        return [Tell(sender, Rows(own, self._owners.rows(own), shared, self._shared.rows(shared)))]

    def _on_rows(self, theirs: Rows, sender: NodeId, now: float) -> list[Output]:
        mine = {row.owner: row for row in self._owners.rows(theirs.own_buckets)}
        give, want = [], []
        for row in theirs.own:
            ours = mine.pop(row.owner, None)
            if ours is not None and (ours.epoch, ours.version) > (row.epoch, row.version):
                give.append(LogWant(row.owner, row.epoch, row.version))
                continue
            wanted = self._owners.wanted(row)
            if wanted is not None and self._may_ask(wanted, now):
                want.append(wanted)
        give += [LogWant(owner, 0, 0) for owner in mine]
        differing = {row.key for row in theirs.shared if self._shared.differs(row)}
        named = {row.key for row in theirs.shared}
        only_here = [row.key for row in self._shared.rows(theirs.shared_buckets) if row.key not in named]
        outputs = self._answer(give, [*sorted(differing), *only_here], sender)
        if want or differing:
            outputs.append(Tell(sender, Want(tuple(want), tuple(sorted(differing)))))
        return outputs

    def _may_ask(self, want: LogWant, now: float) -> bool:
        """Whether to ask for it: it counts, and nobody else has been asked just now."""
        if want.owner == self._me or not self._lives.counts(want.owner, want.epoch, now) or want.owner in self._asked:
            return False
        self._asked[want.owner] = now + _ASKED_SECONDS
        return True

    def _answer(self, own: Iterable[LogWant], shared: Iterable[bytes], sender: NodeId) -> list[Output]:
        outputs: list[Output] = []
        for want in own:
            if want.owner == sender:
                continue
            parts = self._owners.missing(want, part_bytes=PART_BYTES)
            outputs.extend(Tell(sender, part) for part in parts if self._spend(_size(part)))
        some: list[SharedState] = []
        size = 0
        for state in self._shared.named(shared):
            some.append(state)
            size += self._shared.size(state.key)
            if size >= PART_BYTES:
                outputs += self._states(some, size, sender)
                some, size = [], 0
        return outputs + (self._states(some, size, sender) if some else [])

    def _states(self, some: list[SharedState], size: int, sender: NodeId) -> list[Output]:
        return [Tell(sender, States(tuple(some)))] if self._spend(size) else []

    def _spend(self, size: int) -> bool:
        if self._budget <= 0:
            self._counters["answers_cut"] += 1
            return False
        self._budget -= size + 64
        return True


def _size(part: LogPart) -> int:
    return sum(len(change.key) + len(change.value or b"") + 8 for change in part.changes)
