"""TOML and JSON texts to plain data; every error names the file and the line. Pure.

What the parsers of the standard library let pass, and people do not mean, is refused: a JSON object with one key twice.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final

from pyminuteman.errors import ConfigurationError
from pyminuteman.plain.fields import Place, place_text
from pyminuteman.plain.positions import Lines, closest_line, json_lines, toml_lines

__all__ = ["decode", "key_with_line", "lines_of", "parse"]

_TOML_WHERE: Final = re.compile(r"(.*) \(at line (\d+), column (\d+)\)", re.DOTALL)


def decode(raw: bytes, shown: str) -> str:
    """The text of a file, UTF-8 with or without a byte order mark.

    Raises:
        ConfigurationError: It is not text; the line is named.
    """
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(shown, f"line {line}", "this is not UTF-8 text (nor ASCII)") from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise ConfigurationError(shown, f"line {line}", "this is not text: it has a zero byte")
    return text


def parse(kind: str, text: str, shown: str) -> Any:
    """What a text of that kind (``toml`` or ``json``) holds. ``shown`` names the file in errors.

    Raises:
        ConfigurationError: It is no such text; line and column are named where they are known.
    """
    try:
        return _PARSERS[kind](text, shown)
    except RecursionError as error:
        raise ConfigurationError(shown, "", "it is nested too deeply") from error
    except ConfigurationError:
        raise
    except ValueError as error:  # a number of thousands of digits
        raise ConfigurationError(shown, "", str(error)) from error


def lines_of(kind: str, text: str) -> Lines:
    """In which lines of the valid text its places are."""
    return json_lines(text) if kind == "json" else toml_lines(text)


def key_with_line(lines: Lines, place: Place) -> str:
    """``line 3 (service[0].port)``; without the line when it is not known. For the ``key`` of errors."""
    line, where = closest_line(lines, place), place_text(place)
    return f"line {line} ({where})" if line else where


def _parse_toml(text: str, shown: str) -> Any:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = _TOML_WHERE.fullmatch(str(error))
        line = int(found[2]) if found else text.count("\n") + 1  # else it says "at end of document"
        column = f", column {found[3]}" if found else ""
        raise ConfigurationError(
            shown, f"line {line}{column}", found[1] if found else str(error).removesuffix(" (at end of document)")
        ) from error


def _parse_json(text: str, shown: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        raise ConfigurationError(shown, f"line {error.lineno}, column {error.colno}", error.msg) from error
    except _DuplicateKeyError as error:
        raise ConfigurationError(shown, "", f"the key {error.args[0]!r} is there twice in one object") from None


_PARSERS: Final[Mapping[str, Callable[[str, str], Any]]] = {"toml": _parse_toml, "json": _parse_json}


class _DuplicateKeyError(Exception):
    pass


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of two equal keys the json module would silently keep the last."""
    made = dict(pairs)
    if len(made) != len(pairs):
        raise _DuplicateKeyError(Counter(key for key, _ in pairs).most_common(1)[0][0])
    return made
