"""Checks that services and destinations share. Pure."""

from __future__ import annotations

from typing import Final

__all__ = ["PORT_MAX", "U32_MAX", "check_number"]

PORT_MAX: Final = 65535
U32_MAX: Final = 2**32 - 1


def check_number(what: str, value: int, low: int, high: int) -> None:
    """Refuse what is not a whole number from ``low`` to ``high``.

    Raises:
        ValueError: It is not; the text names ``what``.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        msg = f"{what} {value!r} is not a whole number from {low} to {high}"
        raise ValueError(msg)
