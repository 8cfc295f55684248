"""Values that others may send in place of right ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

__all__ = ["ODD", "nearly"]

ODD: Final[tuple[object, ...]] = (
    *(None, True, -1, 0, 5, (1 << 64) - 1, 1.5, float("nan"), float("inf"), b"", b"11.0.0.1", "", "x\x1b[2J", "x" * 3000),
    *([], [1], [None, None], ["a", "b"], ["/a", 5], [b"a", "b"], ["a", "b", "c"], [[[]]]),
)
"""Something of each type that MessagePack has, and what is the likeliest to pass for right."""


def nearly(right: list[object]) -> Iterator[list[object]]:
    """All that is right but for one field, however deep that is: what bytes at random hardly ever come to."""
    for at, inner in enumerate(right):
        for wrong in (*ODD, *(nearly(inner) if isinstance(inner, list) else ())):
            yield [*right[:at], wrong, *right[at + 1 :]]
