"""After a freeze that ended, wrong suspicions are gone within the time that the bounds give: 0.3 s on a local network.

Judged where nothing else was done since the world was last as it should be, and the survivors' graph stayed whole. However long the
freeze was: a node that was given up while it was frozen is no worse than one that was only suspected.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from math import inf

from pyminuteman.membership.effects import MemberDown, MemberSuspect, MemberUp, Notification
from pyminuteman.testing.checkers.checker import Checker
from pyminuteman.testing.simulation.bounds import Bounds
from pyminuteman.testing.simulation.process import Process
from pyminuteman.testing.simulation.world import Simulation

__all__ = ["RecoveryInTime"]


class RecoveryInTime(Checker):
    """Follows what every node holds of every other, and looks at it when a recovery must be over."""

    def __init__(self, world: Simulation, bounds: Bounds) -> None:
        super().__init__(world, bounds)
        self._wrong: list[tuple[float, float, Process, bytes]] = []
        self._open: dict[tuple[Process, bytes], float] = {}

    def notified(self, time: float, process: Process, notification: Notification) -> None:
        """Note when a suspicion began and when it ended."""
        if isinstance(notification, MemberSuspect | MemberDown):
            self._open.setdefault((process, notification.record.id), time)
        elif isinstance(notification, MemberUp):
            began = self._open.pop((process, notification.record.id), None)
            if began is not None:
                self._wrong.append((began, time, process, notification.record.id))

    def concluded(self) -> Iterator[str]:
        """Look at each thaw."""
        thaws = [done for done in self.world.truth.disturbances if done.what == "thaw"]
        for thaw, group in groupby(thaws, key=lambda done: done.time):
            lives = [life for done in group for host in done.hosts for life in host.lives]
            yield from self._look(thaw, [life for life in lives if self.world.truth.frozen(life, thaw, thaw)])

    def _look(self, thaw: float, thawed: list[Process]) -> Iterator[str]:
        truth = self.world.truth
        froze = min(began for life in thawed for began, ended in life.pauses if ended == thaw)
        since, until = truth.wrong_since(froze), thaw + self.bounds.recovery
        hosts = [life.host for life in thawed]
        others = [done for done in truth.disturbances if since < done.time <= until]
        if any(done.what not in ("pause", "thaw") or any(host not in hosts for host in done.hosts) for done in others):
            return
        if truth.torn(since, until) or truth.any_cut(since, until):
            return
        self.judged += 1
        still = [*self._wrong, *((began, inf, process, node) for (process, node), began in self._open.items())]
        for began, ended, process, node in still:
            accused = next((host.process for host in self.world.hosts if host.process and host.process.id == node), None)
            if accused is None or not all(truth.ran(one, until, until) for one in (process, accused)):
                continue
            if froze <= began <= until < ended:
                lasted = "still" if ended == inf else f"until {ended:.4f}"
                yield (
                    f"{began:.4f} {process.name} suspected {accused.name} {lasted}; "
                    f"the thaw was at {thaw:.4f}, the bound is {self.bounds.recovery:.3f} s"
                )
