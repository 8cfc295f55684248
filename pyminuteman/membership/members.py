"""Alive, suspect, down, left: what a member is held to be, by the graph and the clock.

Pure. The rules, in order:

1. A member in reach is **alive**. Whoever comes into reach is so at once; that is the whole of a refutation.
2. A member out of reach that somebody accuses is **suspect** at once; one that nobody accuses only after a grace, for links move.
3. A suspect that stays out of reach for ``down_after_seconds`` more is **down**.
4. A node without neighbours judges nobody, nor for a grace after it has found some: "I hear nobody" is never "everybody is dead".
5. Nor does it judge a neighbour: the link itself is watched, and the records that say so may be on their way.
6. A member whose record says **left** has left, in reach or not; only a later epoch of it comes back.
7. A member that was down and comes back into reach with not a word newer than it had then is up only after a while: by then the
   tables have been compared, and it may be the old claim of one that died on the other side of a partition.
8. A member out of reach is forgotten after ``forget_after_seconds``; one that never was in reach was never announced.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, assert_never

from pyminuteman.addresses import NodeId
from pyminuteman.membership.config import MembershipConfig
from pyminuteman.membership.effects import (
    MemberDown,
    MemberLeft,
    MemberStatus,
    MemberSuspect,
    MemberUp,
    Notify,
    PartitionSuspected,
)
from pyminuteman.membership.records import Record
from pyminuteman.membership.steps import DownDue, OrphanDue, ReturnDue, SetTimer, Step
from pyminuteman.membership.views import ActiveView

__all__ = ["Member", "Members"]

_PARTITION_LEAST: Final = 3
"""Fewer members than this out of reach are deaths, not a partition."""


@dataclass(frozen=True, slots=True)
class Member:
    """A member as this node sees it.

    Attributes:
        record: The newest it said of itself.
        status: What it is held to be.
        since: Since when, in seconds of the node's clock.
    """

    record: Record
    status: MemberStatus
    since: float


class _State:
    __slots__ = ("announced", "last_word", "reachable", "returning_since", "since", "status", "unreachable_since")

    def __init__(self, now: float) -> None:
        self.status = MemberStatus.DOWN
        self.since = now
        self.announced = False
        self.reachable = False
        self.unreachable_since = now
        self.last_word: tuple[int, int] | None = None
        """Epoch and version with which it went down."""
        self.returning_since = now


class Members:
    """The status of every known member but this node itself; ``active`` is its active view."""

    def __init__(self, config: MembershipConfig, active: ActiveView) -> None:
        self._config = config
        self._active = active
        self._states: dict[NodeId, _State] = {}
        self._unreachable: dict[NodeId, None] = {}
        self._reachable = 0
        self._judging_from = 0.0
        self._isolated = True
        self._partition_told = 0
        self.suspicions = 0
        self.refuted = 0
        self.downs = 0

    def status(self, node: NodeId) -> tuple[MemberStatus, float] | None:
        """Status and since when; None for one that was never announced."""
        state = self._states.get(node)
        return None if state is None or not state.announced else (state.status, state.since)

    @property
    def unreachable(self) -> list[NodeId]:
        """Members out of reach that have not left: those to try again."""
        return list(self._unreachable)

    @property
    def reachable_count(self) -> int:
        """Members in reach, without this node."""
        return self._reachable

    def neighbours_changed(self, now: float) -> None:
        """Whether there are any decides whether we may judge."""
        if not len(self._active):
            self._isolated = True
        elif self._isolated:
            self._isolated = False
            self._judging_from = now + self._config.orphan_grace_seconds

    def came(self, record: Record, now: float) -> list[Step]:
        """The member is in reach."""
        state = self._states.get(record.id)
        if state is None:
            state = self._states[record.id] = _State(now)
        self._unreachable.pop(record.id, None)
        self._mark(state, reachable=True)
        if state.status is MemberStatus.LEFT or (state.announced and state.status is MemberStatus.ALIVE):
            return []
        if state.last_word == (record.epoch, record.version):
            state.returning_since = now
            return [SetTimer(ReturnDue(record.id, now), now + self._config.repair_after_seconds)]
        return self._up(record, state, now)

    def _up(self, record: Record, state: _State, now: float) -> list[Step]:
        state.last_word = None
        if state.status is MemberStatus.SUSPECT:
            self.refuted += 1
        if not self._unreachable:
            self._partition_told = 0
        state.status, state.since, state.announced = MemberStatus.ALIVE, now, True
        return [Notify(MemberUp(record))]

    def went(self, record: Record, now: float, *, accused: bool) -> list[Step]:
        """The member is out of reach."""
        state = self._states.get(record.id)
        if state is None or not state.reachable:
            return []
        self._mark(state, reachable=False)
        state.unreachable_since = now
        if state.status is MemberStatus.LEFT:
            return []
        self._unreachable[record.id] = None
        if accused:
            return self._suspect(record, state, now)
        return [SetTimer(OrphanDue(record.id, now), now + self._config.orphan_grace_seconds)]

    def accused(self, record: Record, now: float) -> list[Step]:
        """Somebody in reach has cut the member off as failed."""
        state = self._states.get(record.id)
        if state is None or state.reachable:
            return []
        return self._suspect(record, state, now)

    def judge(self, timer: OrphanDue | DownDue | ReturnDue, record: Record, now: float) -> list[Step]:
        """The time given to a member is over, unless something has happened meanwhile."""
        state = self._states.get(timer.node)
        if state is None:
            return []
        match timer:
            case OrphanDue():
                stale = state.reachable or state.unreachable_since != timer.since
                return [] if stale else self._suspect(record, state, now)
            case DownDue():
                stale = state.status is not MemberStatus.SUSPECT or state.since != timer.since
                return [] if stale else self._down(timer, record, state, now)
            case ReturnDue():
                stale = not state.reachable or state.last_word is None or state.returning_since != timer.since
                return [] if stale else self._up(record, state, now)
            case _:
                assert_never(timer)

    def _down(self, timer: DownDue, record: Record, state: _State, now: float) -> list[Step]:
        if not self._may_judge(record, now):
            return [SetTimer(timer, now + self._config.down_after_seconds)]
        state.status, state.since = MemberStatus.DOWN, now
        state.last_word = record.epoch, record.version
        self.downs += 1
        return [Notify(MemberDown(record))]

    def left(self, record: Record, now: float) -> list[Step]:
        """The member says that it has left."""
        state = self._states.get(record.id)
        if state is None:
            state = self._states[record.id] = _State(now)
        self._unreachable.pop(record.id, None)
        if state.status is MemberStatus.LEFT:
            return []
        told = state.announced
        state.status, state.since = MemberStatus.LEFT, now
        return [Notify(MemberLeft(record))] if told else []

    def returned(self, node: NodeId) -> None:
        """A later epoch of one that had left: it is a newcomer again."""
        state = self._states.get(node)
        if state is not None and state.status is MemberStatus.LEFT:
            state.status = MemberStatus.DOWN
            self._mark(state, reachable=False)

    def learned(self, node: NodeId, now: float) -> None:
        """A record of one that is not in reach: worth a try."""
        if node not in self._states:
            self._states[node] = _State(now)
            self._unreachable[node] = None

    def to_forget(self, now: float) -> list[NodeId]:
        """Who has been out of reach for longer than is remembered."""
        before = now - self._config.forget_after_seconds
        return [node for node, state in self._states.items() if not state.reachable and state.unreachable_since < before]

    def forget(self, node: NodeId) -> None:
        """No trace is left."""
        self._states.pop(node, None)
        self._unreachable.pop(node, None)

    def count(self) -> dict[str, int]:
        """Members by status."""
        counts = {status.value: 0 for status in MemberStatus}
        for state in self._states.values():
            if state.announced:
                counts[state.status.value] += 1
        return counts

    def _may_judge(self, record: Record, now: float) -> bool:
        return not self._isolated and now >= self._judging_from and record.id not in self._active

    def _mark(self, state: _State, *, reachable: bool) -> None:
        self._reachable += reachable - state.reachable
        state.reachable = reachable

    def _suspect(self, record: Record, state: _State, now: float) -> list[Step]:
        if not state.announced or state.status is not MemberStatus.ALIVE:
            return []
        if not self._may_judge(record, now):
            again = max(self._judging_from, now + self._config.orphan_grace_seconds / 4)
            return [SetTimer(OrphanDue(record.id, state.unreachable_since), again)]
        state.status, state.since = MemberStatus.SUSPECT, now
        self.suspicions += 1
        steps: list[Step] = [
            Notify(MemberSuspect(record)),
            SetTimer(DownDue(record.id, now), now + self._config.down_after_seconds),
        ]
        unreachable, reachable = len(self._unreachable), self.reachable_count
        if unreachable >= max(_PARTITION_LEAST, (unreachable + reachable + 1) // 3) and unreachable > 2 * self._partition_told:
            self._partition_told = unreachable
            steps.append(Notify(PartitionSuspected(unreachable, reachable + 1)))
        return steps
