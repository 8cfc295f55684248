"""Nobody is suspected or given up without a reason that is somebody's fault.

Reasons, each until the world has come right: the suspect is dead, or gone; it was frozen, or whoever suspects it was; the network
between any two was cut; a fault took the graph of the survivors apart. Being down needs a reason that lasted longer than a freeze
is forgiven for. And whatever the reasons, nobody is who is a neighbour.
"""

from __future__ import annotations

from pyminuteman.membership.effects import MemberDown, MemberSuspect, Notification
from pyminuteman.testing.checkers.checker import Checker
from pyminuteman.testing.simulation.process import Process

__all__ = ["NoFalseAlarms"]


class NoFalseAlarms(Checker):
    """Judges each suspicion when it is told."""

    def notified(self, time: float, process: Process, notification: Notification) -> None:
        """Ask for the reason."""
        if not isinstance(notification, MemberSuspect | MemberDown):
            return
        record = notification.record
        accused = self.world.truth.life_of(record.id, record.epoch)
        if accused is None:
            self.found(time, process, f"holds somebody for dead who never lived: {record.id.short}")
            return
        self.judged += 1
        down = isinstance(notification, MemberDown)
        said = f"{'gave up' if down else 'suspected'} {accused.name}"
        if any(peer.id == record.id and peer.epoch == record.epoch for peer in process.node.active_view):
            self.found(time, process, f"{said}, which it has a link to")
        elif not self._has_reason(time, process, accused, down=down):
            self.found(time, process, f"{said}, which lives")

    def _has_reason(self, time: float, process: Process, accused: Process, *, down: bool) -> bool:
        truth, bounds = self.world.truth, self.bounds
        if accused.ended_at is not None or accused.left_at is not None:
            return True
        since = truth.wrong_since(time)
        if truth.any_cut(since, time) or truth.torn(since, time):
            return True
        if down:
            pauses = [pause for one in (process, accused) for pause in one.pauses if pause[1] >= since]
            return any(ended - began >= bounds.forgiven_pause for began, ended in pauses)
        recently = time - bounds.recovery
        return any(truth.frozen(one, recently, time) for one in (process, accused))
