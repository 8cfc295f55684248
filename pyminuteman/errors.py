"""The root of every error this package raises on purpose, and the branches that belong to no one layer."""

from __future__ import annotations

from pathlib import Path

__all__ = ["ConfigurationError", "MinutemanError"]


class MinutemanError(Exception):
    """Anything this package raises on purpose. Catch it to catch them all."""


class ConfigurationError(MinutemanError, ValueError):
    """A file or option given by the user does not say what it must; nothing was changed.

    Attributes:
        path: The file at fault, or None when the input had no file (standard input, an option).
        key: The line (``"line 3"``) or the key (``"service[2].weight"``) within it.
        reason: What is wrong with it, and what is accepted.
    """

    def __init__(self, path: Path | str | None, key: str, reason: str) -> None:
        """Say where (``path``, ``key``) and what (``reason``)."""
        super().__init__(path, key, reason)
        self.path = path
        self.key = key
        self.reason = reason

    def __str__(self) -> str:
        """``FILE: KEY: REASON``, without the parts that are not known."""
        return ": ".join(str(part) for part in (self.path, self.key, self.reason) if part)
