"""What a look at the host found: the words of ``minuteman doctor`` and of the steps. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Finding", "Severity"]


class Severity(StrEnum):
    """How bad it is."""

    OK = "ok"
    INFO = "info"
    """Worth knowing, or could not be looked at: nothing to do."""
    WARNING = "warning"
    """Works now, but not under load, or not after somebody else's next move."""
    ERROR = "error"
    """VIPs do not work, or not safely, until this is put right."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        id: What was looked at, for programs and for ``docs/doctor.md``: lower case, dots between parts.
        severity: How bad it is.
        what: What was seen, in one sentence.
        why: Why it matters.
        fix: What to do, as a command where there is one; empty when nothing is to be done.
        fixable: Whether ``--fix`` does it.
    """

    id: str
    severity: Severity
    what: str
    why: str
    fix: str = ""
    fixable: bool = False

    @property
    def ok(self) -> bool:
        """Whether nothing needs to be done."""
        return self.severity in {Severity.OK, Severity.INFO}

    def plain(self) -> dict[str, str | bool]:
        """For JSON."""
        return {
            "id": self.id,
            "severity": self.severity.value,
            "what": self.what,
            "why": self.why,
            "fix": self.fix,
            "fixable": self.fixable,
        }
