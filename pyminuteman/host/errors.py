"""What can go wrong with host set-up. Pure."""

from __future__ import annotations

from pyminuteman.errors import MinutemanError

__all__ = ["HostSetupError"]


class HostSetupError(MinutemanError):
    """The host could not be set up, or taken back. What the run had done before this step is undone, unless the text says otherwise.

    Attributes:
        step: Which step: ``device``, ``addresses``, ``firewall``, ``sysctls``, ...
        reason: What failed.
        hint: What to do about it; empty when we do not know.
    """

    def __init__(self, step: str, reason: str, hint: str = "") -> None:
        """Keep the three."""
        super().__init__(step, reason, hint)
        self.step = step
        self.reason = reason
        self.hint = hint

    def __str__(self) -> str:
        """``STEP: REASON; HINT``."""
        return f"{self.step}: {self.reason}" + (f"; {self.hint}" if self.hint else "")
