"""The dead stay dead: who has given a dead life up, or must have by now, never holds it for alive again. Nor one that said goodbye."""

from __future__ import annotations

from pyminuteman.membership.effects import MemberDown, MemberLeft, MemberUp, Notification
from pyminuteman.testing.checkers.checker import Checker
from pyminuteman.testing.simulation.bounds import Bounds
from pyminuteman.testing.simulation.process import Process
from pyminuteman.testing.simulation.world import Simulation

__all__ = ["NoResurrection"]


class NoResurrection(Checker):
    """Judges each return of a member by the life that it is of."""

    def __init__(self, world: Simulation, bounds: Bounds) -> None:
        super().__init__(world, bounds)
        self._gone: dict[tuple[Process, bytes, int], float] = {}

    def notified(self, time: float, process: Process, notification: Notification) -> None:
        """Was it dead for long, or known to be?"""
        if isinstance(notification, MemberDown | MemberLeft):
            self._gone[process, notification.record.id, notification.record.epoch] = time
        if not isinstance(notification, MemberUp):
            return
        life = self.world.truth.life_of(notification.record.id, notification.record.epoch)
        if life is None:
            self.found(time, process, f"holds somebody for alive who never lived: {notification.record.id.short}")
            return
        self.judged += 1
        known = self._gone.get((process, life.id, notification.record.epoch))
        ends = [end for end in (life.ended_at, life.left_at) if end is not None]
        if not ends:
            return
        if known is not None and known >= min(ends):
            self.found(
                time, process, f"holds {life.name} for alive, which ended at {min(ends):.4f} and was known to at {known:.4f}"
            )
        elif time > min(ends) + self.bounds.down(dead=self.world.config.active_view_size, fresh=True):
            self.found(time, process, f"holds {life.name} for alive, which ended at {min(ends):.4f}")
