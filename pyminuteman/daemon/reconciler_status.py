"""How a reconciler stands, and what is told of it. Pure.

What holds for a while (a failure, services of somebody else, what is held back) is told when it begins or changes, and not at every look.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pyminuteman.daemon.histogram import Histogram
from pyminuteman.daemon.ledger import LedgerError
from pyminuteman.daemon.metrics import SYNC_BOUNDS
from pyminuteman.daemon.programmer import Done
from pyminuteman.ipvs import ApplyError, IPVSError, NotConverged, ServiceKey
from pyminuteman.ipvs.shrinkage import Shrinkage

__all__ = ["ReconcilerStatus", "Teller"]


@dataclass(kw_only=True)
class ReconcilerStatus:
    """What has been done, for who shows it. Times are seconds of the epoch."""

    services: int = 0
    destinations: int = 0
    last_sync_at: float | None = None
    last_sync_seconds: float | None = None
    last_queued_at: float | None = None
    syncs_total: int = 0
    errors: Counter[tuple[str, int]] = field(default_factory=Counter)
    draining: int = 0
    held: Shrinkage | None = None
    foreign: tuple[ServiceKey, ...] = ()
    error: str = ""
    sync: Histogram = field(default_factory=lambda: Histogram(SYNC_BOUNDS))
    programming: Histogram = field(default_factory=lambda: Histogram(SYNC_BOUNDS))


class Teller:
    """Keeps the status of one reconciler, and tells what happens to it.

    Args:
        name: Of the namespace; empty for the host's own.
        tell: Where events are told: kind, text, data.
    """

    def __init__(self, name: str, tell: Callable[[str, str, Mapping[str, Any]], object]) -> None:
        self.status = ReconcilerStatus()
        self._name = name
        self._tell = tell
        self._told: dict[str, str] = {}

    def problem_of_ledger(self, problem: str) -> None:
        """What the ledger says does not count; an empty text tells nothing."""
        if problem:
            self._say("ledger", "sync_failed", problem)

    def done(self, done: Done, *, at: float, took: float, programmed: float | None) -> bool:
        """A look came to this.

        Args:
            done: What.
            at: When it ended, in seconds of the epoch.
            took: How long the look took, in seconds.
            programmed: How long ago what led to it happened, in seconds; None when that is not known, or was counted.

        Returns:
            Whether anything was changed.
        """
        status = self.status
        status.services, status.destinations = done.services, done.destinations
        status.draining, status.held, status.foreign = len(done.report.draining), None, done.foreign
        self._told.pop("held", None)
        if done.failure is None:
            status.error = ""
            status.last_sync_at, status.last_sync_seconds = at, took
            status.syncs_total += 1
            status.sync.add(took)
            if programmed is not None:
                status.programming.add(programmed)
            self._told.pop("failed", None)
            self._told.pop("ledger", None)
        self._say("foreign", "foreign", *_of_foreign(done.foreign))
        self._say("host", "host", "; ".join(dict.fromkeys(done.host_errors)))
        reports = [report for report in (done.made, done.report) if len(report.plan) > len(report.errors)]
        if reports:
            seconds = sum(report.elapsed_seconds for report in reports)
            text = f"{'; '.join(report.plan.summary() for report in reports)}, in {seconds * 1000:.1f} ms"
            operations = sum(len(report.plan) for report in reports)
            self._tell("sync", self._named(text), {"namespace": self._name, "operations": operations})
        return bool(reports)

    def fought(self, audit_seconds: float) -> None:
        """Somebody else changes what is ours again and again: the table is read that seldom from now on."""
        text = f"somebody else keeps changing our services; it is looked at every {audit_seconds:.0f} s now"
        self._tell("foreign", self._named(text), {"namespace": self._name})

    def held(self, loss: Shrinkage, max_loss_percent: float) -> None:
        """This would be lost, and nothing was done."""
        self.status.held = loss
        text = f"held back: {loss} would be lost, more than {max_loss_percent:g} %; nothing was changed"
        self._say("held", "held_back", text, {"id": loss.identity, "services": [str(key) for key, _ in loss.losses[:100]]})

    def failed(self, error: IPVSError | LedgerError) -> None:
        """A look failed, or a part of what it was to do."""
        match error:
            case ApplyError() | NotConverged():
                for failure in () if error.report is None else error.report.failed:
                    self.status.errors[failure.operation.split(" ", 1)[0], failure.errno or 0] += 1
            case IPVSError():
                self.status.errors["read", getattr(error, "errno", 0) or 0] += 1
        self.status.error = str(error)
        self._say("failed", "sync_failed", self.status.error)

    def _say(self, about: str, kind: str, text: str, data: Mapping[str, Any] | None = None) -> None:
        """Tell it unless it was told last; nothing to tell is forgotten."""
        if self._told.get(about, "") != text and text:
            self._tell(kind, self._named(text), {"namespace": self._name, **(data or {})})
        self._told[about] = text

    def _named(self, text: str) -> str:
        return f"{self._name}: {text}" if self._name else text


def _of_foreign(foreign: tuple[ServiceKey, ...]) -> tuple[str, dict[str, Any]]:
    if not foreign:
        return "", {}
    shown = ", ".join(map(str, foreign[:5])) + (f" and {len(foreign) - 5} more" if len(foreign) > 5 else "")  # noqa: PLR2004
    return f"somebody else's, and left alone: {shown} (ipvs.adopt takes them over)", {
        "services": [str(key) for key in foreign[:100]]
    }
