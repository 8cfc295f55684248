"""Views are bounded always, without the node itself and without anybody twice; active and passive never overlap."""

from __future__ import annotations

from collections.abc import Iterator

from pyminuteman.membership.effects import Notification, ViewChanged
from pyminuteman.testing.checkers.checker import Checker
from pyminuteman.testing.simulation.process import Process

__all__ = ["ViewsBounded"]


class ViewsBounded(Checker):
    """Looks at each change of an active view, and at both views whenever things are quiet."""

    def notified(self, time: float, process: Process, notification: Notification) -> None:
        """Look at a view that changed."""
        if isinstance(notification, ViewChanged):
            self._look(time, process)

    def concluded(self) -> Iterator[str]:
        """Look at everybody's, a last time."""
        for process in self.world.processes:
            self._look(self.world.now, process)
        yield from self.findings

    def _look(self, time: float, process: Process) -> None:
        self.judged += 1
        config = self.world.config
        active = [peer.id for peer in process.node.active_view]
        passive = [peer.id for peer in process.node.passive_view]
        for name, view, most in (
            ("active", active, config.active_view_size),
            ("passive", passive, config.passive_view_size),
        ):
            if len(view) > most:
                self.found(time, process, f"has {len(view)} in its {name} view, of {most}")
            if len(set(view)) != len(view):
                self.found(time, process, f"has a node twice in its {name} view")
            if process.id in view:
                self.found(time, process, f"has itself in its {name} view")
        if set(active) & set(passive):
            self.found(time, process, f"has {self.names(set(active) & set(passive))} in both views")
