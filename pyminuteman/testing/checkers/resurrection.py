"""The dead stay dead: who has given a dead life up, or must have by now, never holds it for alive again. Nor one that said goodbye.

Who gives a member up because a partition came between them does not know whether it lives; when the partition heals, those who were
with it may still hold it for alive, for as long as a death may go unnoticed. So what counts is that the suspicion came after the end.
"""

from __future__ import annotations

from math import inf

from pyminuteman.membership.effects import MemberDown, MemberLeft, MemberSuspect, MemberUp, Notification
from pyminuteman.testing.checkers.checker import Checker
from pyminuteman.testing.simulation.bounds import Bounds
from pyminuteman.testing.simulation.process import Process
from pyminuteman.testing.simulation.world import Simulation

__all__ = ["NoResurrection"]


class NoResurrection(Checker):
    """Judges each return of a member by the life that it is of."""

    def __init__(self, world: Simulation, bounds: Bounds) -> None:
        super().__init__(world, bounds)
        self._suspected: dict[tuple[Process, bytes, int], float] = {}
        self._gone: dict[tuple[Process, bytes, int], tuple[float, float]] = {}

    def notified(self, time: float, process: Process, notification: Notification) -> None:
        """Was it dead for long, or known to be?"""
        if isinstance(notification, MemberSuspect):
            self._suspected[process, notification.record.id, notification.record.epoch] = time
        elif isinstance(notification, MemberDown | MemberLeft):
            key = process, notification.record.id, notification.record.epoch
            since = self._suspected.get(key, time) if isinstance(notification, MemberDown) else time
            self._gone[key] = since, time
        if not isinstance(notification, MemberUp):
            return
        life = self.world.truth.life_of(notification.record.id, notification.record.epoch)
        if life is None:
            self.found(time, process, f"holds somebody for alive who never lived: {notification.record.id.short}")
            return
        self.judged += 1
        suspected, known = self._gone.get((process, life.id, notification.record.epoch), (-inf, -inf))
        ends = [end for end in (life.ended_at, life.left_at) if end is not None]
        if not ends:
            return
        if suspected >= min(ends):
            self.found(
                time, process, f"holds {life.name} for alive, which ended at {min(ends):.4f} and was known to at {known:.4f}"
            )
        elif time > min(ends) + self.bounds.down(dead=self.world.config.active_view_size, fresh=True):
            self.found(time, process, f"holds {life.name} for alive, which ended at {min(ends):.4f}")
