"""What set-up is made of: steps that look, do and take back; and a run of them that leaves nothing half done.

1. A step that finds the host as it wants it does nothing: a second run writes nothing.
2. What a step changes it remembers first (:mod:`pyminuteman.host.journal`), and takes back only that.
3. When a step fails, those that this run has carried out are taken back, the last one first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from pyminuteman.errors import MinutemanError
from pyminuteman.host.errors import HostSetupError
from pyminuteman.host.findings import Finding

__all__ = ["HostStep", "run_steps", "undo_steps"]


class HostStep(Protocol):
    """One thing about a host that VIPs need. All may block, and raise HostSetupError."""

    @property
    def name(self) -> str:
        """What it is called in errors, status and journal."""
        ...

    def check(self) -> Finding:
        """How it is; changes nothing."""
        ...

    def apply(self) -> None:
        """Make it so; only called when :meth:`check` found something to fix."""
        ...

    def undo(self) -> bool:
        """Make it as it was before us; whether there was anything to do."""
        ...


def run_steps(steps: Iterable[HostStep]) -> list[Finding]:
    """Carry out what is needed, in order.

    Returns:
        A finding a step, as things are now. What no step can put right is among them, and stops nothing.

    Raises:
        HostSetupError: A step failed; what this run had done is taken back. Its text tells what could not be.
    """
    findings: list[Finding] = []
    done: list[HostStep] = []
    for step in steps:
        try:
            found = step.check()
            if not found.ok and found.fixable:
                done.append(step)
                step.apply()
                found = step.check()
                if not found.ok:
                    raise HostSetupError(step.name, f"it was put right, and still: {found.what}", found.fix)
        except HostSetupError as error:
            left = undo_steps(done)[1]
            if left:
                reason = f"{error.reason}; taking back what was done failed, too: {'; '.join(left)}"
                raise HostSetupError(error.step, reason, error.hint) from error
            raise
        findings.append(found)
    return findings


def undo_steps(steps: Sequence[HostStep]) -> tuple[list[str], list[str]]:
    """Take steps back, the last one first; one that fails stops no other.

    Returns:
        The names of those that had something to take back, and what failed.
    """
    undone: list[str] = []
    failed: list[str] = []
    for step in reversed(steps):
        try:
            if step.undo():
                undone.append(step.name)
        except MinutemanError as error:
            failed.append(str(error))
    return undone, failed
