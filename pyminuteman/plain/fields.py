"""Taking values out of plain data, with errors that name the place and what is accepted there. Pure.

``null`` is as good as leaving a key out; a key that nobody knows is an error; true and false are no numbers.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

__all__ = ["Invalid", "Place", "as_table", "choice", "closest", "get", "number", "place_text", "short"]

Place = tuple[str | int, ...]
"""Where in the data: keys and indices, from the top."""

_WORD: Final = re.compile(r"[\w-]{1,60}", re.ASCII)
_MISSING: Final = object()
_TYPES: Final = {
    str: "a string",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "a table",
}


class Invalid(ValueError):
    """The data does not say what it must, at ``place``."""

    def __init__(self, place: Place, reason: str) -> None:
        """Keep both."""
        super().__init__(place, reason)
        self.place = place
        self.reason = reason


def place_text(place: Place) -> str:
    """``service[1].destination[0].weight``; a key that is no plain word is quoted, for it may hold anything."""
    return "".join(map(_part_text, place)).removeprefix(".")


def _part_text(part: str | int) -> str:
    if isinstance(part, int):
        return f"[{part}]"
    return f".{part}" if _WORD.fullmatch(part) else f".{short(part)}"


def as_table(value: object, place: Place, keys: Collection[str]) -> Mapping[str, Any]:
    """The value, which must be a table with no other keys than these.

    Raises:
        Invalid: It is none, or has; the nearest known key is named.
    """
    if not isinstance(value, dict):
        raise Invalid(place, f"{place_text(place) or 'it'} is {_kind(value)}; expected a table")
    for key in value:
        if key not in keys:
            close = closest(str(key), keys)
            hint = f"did you mean {close!r}?" if close else f"there are {', '.join(sorted(keys))}"
            raise Invalid((*place, key), f"unknown key {short(key)}; {hint}")
    return value


def get(row: Mapping[str, Any], name: str, place: Place, kind: type, default: Any = _MISSING) -> Any:
    """The value of that type, or the default.

    Raises:
        Invalid: It is of another type, or missing without a default.
    """
    value = row.get(name)
    if value is None:
        if default is _MISSING:
            raise Invalid(place, f"{name} is missing")
        return default
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise Invalid((*place, name), f"{name} {short(value)} is not {_TYPES[kind]}")
    return value


def number(row: Mapping[str, Any], name: str, place: Place, allowed: tuple[int, int], default: Any = _MISSING) -> int:
    """The whole number in that range, or the default.

    Raises:
        Invalid: It is none, or missing without a default.
    """
    value = row.get(name)
    low, high = allowed
    if type(value) is int and low <= value <= high:
        return value
    if value is None and default is not _MISSING:
        return int(default)
    if value is None:
        raise Invalid(place, f"{name} is missing")
    raise Invalid((*place, name), f"{name} {short(value)} is not a whole number from {low} to {high}")


def choice(row: Mapping[str, Any], name: str, place: Place, choices: Mapping[str, Any], default: Any = _MISSING) -> Any:
    """What the word stands for among the choices; the default is a word too.

    Raises:
        Invalid: It is none of them, or missing without a default.
    """
    value = get(row, name, place, str, default)
    if value not in choices:
        close = closest(value, choices)
        hint = f"; did you mean {close!r}?" if close else ""
        raise Invalid((*place, name), f"{name} {short(value)} is none of {', '.join(choices)}{hint}")
    return choices[value]


def closest(word: str, choices: Iterable[str]) -> str | None:
    """What was probably meant: what begins so (``masq``), or looks much like it."""
    begin = [choice for choice in sorted(choices) if word and choice.startswith(word)]
    return next(iter(begin or difflib.get_close_matches(word[:_SHOWN], sorted(choices), 1)), None)


_SHOWN: Final = 60  # what fits a line of an error


def short(value: object) -> str:
    """As Python writes it, cut off where it is long."""
    try:
        text = repr(value[:_SHOWN]) if isinstance(value, str) else repr(value)
    except ValueError:  # a number of thousands of digits: TOML has them in hexadecimal, and Python does not print them
        return "(too long to show)"
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def _kind(value: object) -> str:
    return next((text for kind, text in _TYPES.items() if type(value) is kind), "something else")
