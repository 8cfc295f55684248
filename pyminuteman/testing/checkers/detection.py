"""Every dead node is suspected by all, and then down for all, within the bounds; and not down before it was suspected long enough.

A death is judged only where nothing else happened: no other fault from two seconds before it until the bound has passed (deaths at
the same moment count as one). Where a victim had new links, the bounds are those of new links. What happens in thicker weather is
judged by how it ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from pyminuteman.membership.effects import MemberDown, MemberSuspect, Notification, ViewChanged
from pyminuteman.testing.checkers.checker import Checker
from pyminuteman.testing.simulation.bounds import Bounds
from pyminuteman.testing.simulation.process import Process
from pyminuteman.testing.simulation.truth import Disturbance
from pyminuteman.testing.simulation.world import Simulation

__all__ = ["DetectionInTime"]

_CALM_SECONDS = 2.0
"""Without a fault for so long before a death: links have measured round trips, and nobody is on its guard."""


class DetectionInTime(Checker):
    """Notes when each node first suspected, and first gave up, each life of another."""

    def __init__(self, world: Simulation, bounds: Bounds) -> None:
        super().__init__(world, bounds)
        self._view_changed: dict[Process, float] = {}
        self._last_suspected: dict[tuple[Process, bytes], float] = {}
        self._suspected: dict[tuple[Process, bytes, int], float] = {}
        self._down: dict[tuple[Process, bytes, int], float] = {}
        self.measured: list[tuple[float, float]] = []
        """Of each death and each survivor, how long suspicion and giving up took, in seconds; for benchmarks."""

    def notified(self, time: float, process: Process, notification: Notification) -> None:
        """Note when."""
        if isinstance(notification, ViewChanged):
            self._view_changed[process] = time
        elif isinstance(notification, MemberSuspect):
            key = (process, notification.record.id, notification.record.epoch)
            self._last_suspected[process, notification.record.id] = time
            if self._is_dead(notification):
                self._suspected.setdefault(key, time)
        elif isinstance(notification, MemberDown):
            key = (process, notification.record.id, notification.record.epoch)
            if self._is_dead(notification):
                self._down.setdefault(key, time)
            waited = time - self._last_suspected.get(key[:2], time)
            if waited < self.world.config.down_after_seconds * (1 - self.world.faults.clock_drift) - 1e-6:
                self.found(time, process, f"gave {self.world.name_of(key[1])} up {waited:.3f} s after it suspected it")

    def _is_dead(self, notification: MemberSuspect | MemberDown) -> bool:
        life = self.world.truth.life_of(notification.record.id, notification.record.epoch)
        return life is not None and life.ended_at is not None

    def concluded(self) -> Iterator[str]:
        """Look at each death that happened in calm."""
        killed = [done for done in self.world.truth.disturbances if done.what == "kill"]
        for time, group in groupby(killed, key=lambda done: done.time):
            yield from self._look(time, list(group))
        yield from self.findings

    def _look(self, time: float, killed: list[Disturbance]) -> Iterator[str]:
        truth, bounds = self.world.truth, self.bounds
        victims = [life for done in killed for host in done.hosts for life in host.lives if life.ended_at == time]
        victims = [victim for victim in victims if victim.left_at is None and not truth.frozen(victim, time, time)]
        hosts = tuple(host for done in killed for host in done.hosts)
        fresh = any(self._view_changed.get(victim, 0.0) > time - bounds.fresh_seconds for victim in victims)
        suspected = bounds.suspected(dead=len(victims), fresh=fresh)
        down = bounds.down(dead=len(victims), fresh=fresh)
        until = time + down
        calm = time - max(_CALM_SECONDS, bounds.fresh_seconds)
        others = [done for done in truth.disturbances if calm <= done.time <= until and done not in killed]
        if others or truth.any_cut(calm, until) or truth.torn(calm, until):
            return
        if until > self.world.now or len(hosts) != len(killed):
            return
        for process in self.world.processes:
            if not truth.ran(process, calm, until):
                continue
            for victim in victims:
                self.judged += 1
                yield from self._judge(process, victim, time, suspected, down)

    def _judge(self, process: Process, victim: Process, died: float, suspected: float, down: float) -> Iterator[str]:
        key = (process, victim.id, victim.node.me.epoch)
        took = [table[key] - died if key in table else None for table in (self._suspected, self._down)]
        if took[0] is not None and took[1] is not None:
            self.measured.append((took[0], took[1]))
        for what, seconds, most in zip(("suspected", "gave up"), took, (suspected, down), strict=True):
            if seconds is None or seconds > most:
                when = "never" if seconds is None else f"only after {seconds:.3f} s"
                yield f"{process.name} {what} {victim.name}, dead at {died:.4f}, {when}; the bound is {most:.3f} s"
