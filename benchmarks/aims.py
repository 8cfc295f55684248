"""An aim of a benchmark, beside what was measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Aim:
    """`got` is None when it was not measured, infinite when it never came."""

    text: str
    most: float
    got: float | None
    unit: str = ""

    @property
    def met(self) -> bool | None:
        """None when it was not measured."""
        return None if self.got is None else self.got <= self.most
