"""After a freeze that ended, wrong suspicions are gone within the time that the bounds give: 0.3 s on a local network.

Judged where the freeze was short enough to be forgiven, nothing else was done meanwhile, and the survivors' graph stayed whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

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
        truth, bounds = self.world.truth, self.bounds
        thaws = [done for done in truth.disturbances if done.what == "thaw"]
        for thaw, group in groupby(thaws, key=lambda done: done.time):
            thawed = [life for done in group for host in done.hosts for life in host.lives if truth.frozen(life, thaw, thaw)]
            froze = min(began for life in thawed for began, ended in life.pauses if ended == thaw)
            until = thaw + bounds.recovery
            others = [done for done in truth.disturbances if froze - bounds.settled < done.time <= until]
            hosts = {id(life.host) for life in thawed}
            if any(done.what not in ("pause", "thaw") or any(id(host) not in hosts for host in done.hosts) for done in others):
                continue
            if thaw - froze >= bounds.forgiven_pause or truth.torn(froze - bounds.settled, until):
                continue
            still = [*self._wrong, *((began, float("inf"), process, node) for (process, node), began in self._open.items())]
            for began, ended, process, node in still:
                accused = [host.process for host in self.world.hosts if host.process is not None and host.process.id == node]
                if (
                    froze <= began <= until < ended
                    and accused
                    and truth.ran(process, until, until)
                    and truth.ran(accused[0], until, until)
                ):
                    when = f"until {ended:.4f}" if ended < float("inf") else "still"
                    yield f"{began:.4f} {process.name} suspected {accused[0].name} {when}; the thaw was at {thaw:.4f}, the bound is {bounds.recovery:.3f} s"
