"""In which line of a TOML or JSON text a key stands. Pure.

The parsers of the standard library tell the lines of syntax errors only. What is wrong with the meaning is found later, by its
place in the data; then, and only then, the text is gone through once more. The text is known to be valid, which is what
makes these scanners short. A place that has no line of its own (inside a table written on one line) gets that of what holds it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Final

from pyminuteman.plain.fields import Place

__all__ = ["Lines", "closest_line", "json_lines", "toml_lines"]

Lines = Mapping[Place, int]
"""Places in the data to lines, counted from 1."""

_KEY: Final = re.compile(r"""\s*(?:([A-Za-z0-9_-]+)|"((?:[^"\\]|\\.)*)"|'([^']*)')\s*(\.)?""")
_TOML_TOKEN: Final = re.compile(
    r"""
    \"{3} (?:[^"\\] | \\. | "(?!""))* "{3,5}   # strings of several lines
    | '{3} (?:[^'] | '(?!''))* '{3,5}
    | " (?:[^"\\\n] | \\.)* "
    | ' [^'\n]* '
    | \# [^\n]*
    | [\[\]{}\n]
    """,
    re.DOTALL | re.VERBOSE,
)
_JSON_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[^\s\[\]{}:,"]+|[\[\]{}:,\n]')


def closest_line(lines: Lines, place: Place) -> int | None:
    """The line of a place, or of the closest thing around it; None for the top."""
    return next((lines[place[:end]] for end in range(len(place), 0, -1) if place[:end] in lines), None)


def toml_lines(text: str) -> Lines:
    """The lines of the tables and keys of a valid TOML text."""
    lines: dict[Place, int] = {}
    counts: dict[Place, int] = {}
    table: Place = ()
    for number, statement in _statements(text):
        opening = "[[" if statement.startswith("[[") else "[" if statement.startswith("[") else ""
        keys = _keys(statement[len(opening) :])
        base = () if opening else table
        for key in keys[:-1]:
            base = (*base, key)
            lines.setdefault(base, number)
            base = (*base, counts[base] - 1) if base in counts else base
        base = (*base, *keys[-1:])
        lines.setdefault(base, number)
        if opening == "[[":
            counts[base] = counts.get(base, 0) + 1
            base = (*base, counts[base] - 1)
        lines[base] = number
        if opening:
            table = base
    return lines


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Headers and pairs, each with the line on which it begins; values that span lines are kept together."""
    start = begun_at = line = depth = 0
    position = 0
    while found := _TOML_TOKEN.search(text, position):
        sign, position = found[0], found.end()
        if sign in "[{":
            depth += 1
        elif sign in "]}":
            depth -= 1
        elif sign == "\n" and depth == 0:
            if statement := _code(text[start : found.start()]):
                yield begun_at + 1, statement
            line += 1
            start, begun_at = position, line
            continue
        line += sign.count("\n")
    if statement := _code(text[start:]):
        yield begun_at + 1, statement


def _code(statement: str) -> str:
    stripped = statement.strip()
    return "" if stripped.startswith("#") else stripped


def _keys(text: str) -> list[str]:
    keys: list[str] = []
    found = _KEY.match(text)
    while found:
        keys.append(found[1] or found[2] or found[3] or "")
        found = _KEY.match(text, found.end()) if found[4] else None
    return keys


def json_lines(text: str) -> Lines:
    """The lines of the values of a valid JSON text: of a key, where it stands; of an element, where it begins."""
    lines: dict[Place, int] = {}
    stack: list[str | int] = []  # the key or index that each open object or array has come to
    line = 1
    key = ""
    for found in _JSON_TOKEN.finditer(text):
        sign = found[0]
        if sign == "\n":
            line += 1
            continue
        if sign not in "]}:,":
            key = sign
            if stack and isinstance(stack[-1], int):
                lines.setdefault(tuple(stack), line)
        if sign in "{[":
            stack.append("" if sign == "{" else 0)
        elif sign in "}]":
            stack.pop()
        elif sign == ":":
            stack[-1] = json.loads(key) if "\\" in key else key[1:-1]
            lines[tuple(stack)] = line
        elif sign == "," and isinstance(at := stack[-1], int):
            stack[-1] = at + 1
    return lines
