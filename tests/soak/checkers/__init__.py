"""One property each; none of them can be silent about what it is for, as tests/soak/test_checkers.py shows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that must not be.

    Attributes:
        checker: Whose finding it is.
        node: Of which node; None: of none in particular.
        text: What was seen, and what should have been.
    """

    checker: str
    node: int | None
    text: str

    def __str__(self) -> str:
        return f"{self.checker}: " + ("" if self.node is None else f"n{self.node}: ") + self.text
