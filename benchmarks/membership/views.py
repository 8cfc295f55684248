"""Who believes what of whom, from the events that the nodes print. Pure: no clock, no process.

Nodes are numbers here. The truth, against which an alarm is wrong, is the harness's own: it knows whom it killed, and when.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum

Pair = tuple[int, int]  # observer, subject


class Belief(StrEnum):
    """What a node says of another."""

    UP = "up"
    SUSPECT = "suspect"
    DOWN = "down"
    LEFT = "left"


@dataclass(frozen=True, slots=True)
class Change:
    """A node changes its mind; `before` is None when it had not heard of the other."""

    time_ns: int
    observer: int
    subject: int
    belief: Belief
    before: Belief | None


@dataclass(frozen=True, slots=True)
class Alarm:
    """A running node held by another for suspect or down. It may not have ended yet."""

    kind: Belief
    observer: int
    subject: int
    began_ns: int
    ended_ns: int | None

    @property
    def lasted_seconds(self) -> float | None:
        return None if self.ended_ns is None else (self.ended_ns - self.began_ns) / 1e9


class Views:
    """All beliefs of all nodes, and their history.

    One thread records; others may read meanwhile: each step is atomic under the interpreter's lock, and history only grows.

    Args:
        size: how many nodes.
        suspicion_ends: whether the peer says when a suspicion is over. If not, a suspicion is an event, and no belief.
    """

    def __init__(self, size: int, *, suspicion_ends: bool) -> None:
        self._size = size
        self._suspicion_ends = suspicion_ends
        self._beliefs: list[dict[int, Belief]] = [{} for _ in range(size)]
        self._history: list[Change] = []

    def record(self, time_ns: int, observer: int, subject: int, belief: Belief) -> None:
        beliefs = self._beliefs[observer]
        before = beliefs.get(subject)
        if belief is not Belief.SUSPECT or self._suspicion_ends:
            beliefs[subject] = belief
        self._history.append(Change(time_ns, observer, subject, belief, before))

    def forget(self, observer: int) -> None:
        """The node has been started again: it knows nobody."""
        self._beliefs[observer] = {}

    def mark(self) -> int:
        """Now, for :meth:`since`."""
        return len(self._history)

    def since(self, mark: int) -> list[Change]:
        return self._history[mark:]

    def wrong(self, running: Collection[int]) -> list[Pair]:
        """The pairs of a running node and another that it holds for what it is not."""
        pairs = []
        for observer in running:
            beliefs = self._beliefs[observer]
            for subject in range(self._size):
                held_up = beliefs.get(subject) is Belief.UP
                suspected = beliefs.get(subject) is Belief.SUSPECT
                if subject != observer and (suspected or held_up != (subject in running)):
                    pairs.append((observer, subject))
        return pairs


def first_told(
    changes: Iterable[Change], observers: Collection[int], subjects: Collection[int], since_ns: int, beliefs: Collection[Belief]
) -> dict[int, list[float]]:
    """By subject: after how many seconds each observer first held one of these beliefs. Ascending; who never did is left out."""
    found: dict[Pair, float] = {}
    for change in changes:
        pair = (change.observer, change.subject)
        if change.belief in beliefs and change.time_ns >= since_ns and change.observer in observers:
            found[pair] = min(found.get(pair, float("inf")), (change.time_ns - since_ns) / 1e9)
    return {subject: sorted(seconds for pair, seconds in found.items() if pair[1] == subject) for subject in subjects}


def alarms(changes: Iterable[Change], runs: Callable[[int, int], bool]) -> list[Alarm]:
    """What running nodes wrongly said of running nodes; `runs(node, time_ns)` is the truth.

    Going down counts only for one who had it up: that a node who has just joined is told of the dead is no declaration of its own.
    """
    found: list[Alarm] = []
    open_: dict[Pair, list[int]] = {}  # where in `found`
    for change in sorted(changes, key=lambda change: change.time_ns):
        pair = (change.observer, change.subject)
        if change.belief in {Belief.UP, Belief.LEFT}:
            for at in open_.pop(pair, ()):
                alarm = found[at]
                found[at] = Alarm(alarm.kind, *pair, alarm.began_ns, change.time_ns)
        elif (
            change.observer != change.subject
            and change.before in {Belief.UP, Belief.SUSPECT}
            and change.before is not change.belief
            and runs(change.subject, change.time_ns)
            and runs(change.observer, change.time_ns)
        ):
            open_.setdefault(pair, []).append(len(found))
            found.append(Alarm(change.belief, *pair, change.time_ns, None))
    return found
