"""Readers of single settings: from what TOML holds, and from the text of an environment variable or an option. Pure.

A reader raises :class:`~pyminuteman.plain.fields.Invalid`, which names the place, what is there and what is accepted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from pyminuteman.addresses import Endpoint, format_address, parse_address, parse_network
from pyminuteman.errors import ConfigurationError
from pyminuteman.health.backends import parse_check
from pyminuteman.health.hysteresis import InvalidCheckError
from pyminuteman.membership.own_record import checked_tags
from pyminuteman.plain.fields import Invalid, Place, closest, short
from pyminuteman.vips.allocation import AddressRange
from pyminuteman.vips.model import InvalidVIPError

__all__ = [
    "Reader",
    "address",
    "address_range",
    "check_text",
    "decimal",
    "endpoint",
    "host_name",
    "many",
    "network",
    "path",
    "port_range",
    "switch",
    "tags",
    "text",
    "url",
    "whole",
    "word",
]

_LIST_MAX: Final = 10_000
_PATH_MAX: Final = 4096
_TAGS_MAX_BYTES: Final = 4096  # of any configuration of membership; that of this node is looked at later
_PORT_MAX: Final = 65535
_SWITCHES: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_TYPES: Final[dict[type, str]] = {str: "a string", list: "a list", dict: "a table"}


@dataclass(frozen=True, slots=True)
class Reader:
    """How a setting is read.

    Attributes:
        read: From a value of TOML, and its place, to what the configuration holds.
        plain: From the text of an environment variable to a value as TOML has it; what it is not goes on as it is, to be refused.
        schema: What it takes, as far as JSON Schema can say it.
    """

    read: Callable[[Any, Place], Any]
    plain: Callable[[str], object] = str
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "string"})


def _titled(title: str, kind: str = "string") -> dict[str, Any]:
    return {"type": kind, "title": title}


def _name(place: Place) -> str:
    """The key, or that of the list."""
    return next((part for part in reversed(place) if isinstance(part, str)), "it")


def _invalid(place: Place, value: object, accepted: str) -> Invalid:
    return Invalid(place, f"{_name(place)} {short(value)} is not {accepted}")


def _typed(value: Any, place: Place, kind: type) -> Any:
    if not isinstance(value, kind):
        raise _invalid(place, value, _TYPES[kind])
    return value


def text(pattern: str, accepted: str, most_bytes: int | None = None) -> Reader:
    """Printable text of that pattern; in UTF-8 no longer than that."""
    compiled = re.compile(pattern)

    def read(value: Any, place: Place) -> str:
        found: str = _typed(value, place, str)
        long = most_bytes is not None and len(found.encode(errors="replace")) > most_bytes
        if long or not found.isprintable() or compiled.fullmatch(found) is None:
            raise _invalid(place, found, accepted)
        return found

    return Reader(read, schema={"type": "string", "title": accepted, "pattern": f"^(?:{pattern})$"})


def word(*words: str) -> Reader:
    """One of these."""

    def read(value: Any, place: Place) -> str:
        found: str = _typed(value, place, str)
        if found not in words:
            close = closest(found, words)
            hint = f"; did you mean {close!r}?" if close else ""
            raise Invalid(place, f"{_name(place)} {short(found)} is none of {', '.join(words)}{hint}")
        return found

    return Reader(read, schema={"type": "string", "enum": list(words)})


def _read_switch(value: Any, place: Place) -> bool:
    if not isinstance(value, bool):
        raise _invalid(place, value, "true or false")
    return value


switch: Final = Reader(_read_switch, lambda said: _SWITCHES.get(said.strip().lower(), said), {"type": "boolean"})
"""True or false."""


def _number(said: str) -> object:
    for kind in (int, float):
        try:
            return kind(said)
        except ValueError:
            continue
    return said


def whole(low: int, high: int) -> Reader:
    """A whole number."""

    def read(value: Any, place: Place) -> int:
        if type(value) is not int or not low <= value <= high:
            raise _invalid(place, value, f"a whole number from {low} to {high}")
        return value

    return Reader(read, _number, {"type": "integer", "minimum": low, "maximum": high})


def decimal(low: float, high: float) -> Reader:
    """A number, whole or not."""

    def read(value: Any, place: Place) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise _invalid(place, value, f"a number from {low:g} to {high:.15g}")
        return float(value)

    return Reader(read, _number, {"type": "number", "minimum": low, "maximum": high})


def path(*, optional: bool = False) -> Reader:
    """An absolute path; where it is optional, empty is None."""

    def read(value: Any, place: Place) -> Path | None:
        found: str = _typed(value, place, str)
        if optional and not found:
            return None
        if not found.startswith("/") or not found.isprintable() or len(found) > _PATH_MAX:
            raise _invalid(place, found, "an absolute path" + (", or empty" if optional else ""))
        return Path(found)

    title = "an absolute path" + (", or empty" if optional else "")
    return Reader(read, schema={"type": "string", "title": title, "pattern": "^(?:/.*)?$" if optional else "^/"})


def endpoint(port: int, *, optional: bool = False) -> Reader:
    """``ADDRESS:PORT``, with a port for those who say none; where it is optional, empty is None."""

    def read(value: Any, place: Place) -> Endpoint | None:
        found: str = _typed(value, place, str)
        if optional and not found:
            return None
        try:
            return Endpoint.parse(found, default_port=port)
        except ValueError:
            raise _invalid(place, found, f"ADDRESS:PORT, such as 10.0.0.1:{port} or [fd00::1]:{port}") from None

    return Reader(read, schema=_titled("ADDRESS:PORT" + (", or empty" if optional else "")))


def _read_address(value: Any, place: Place) -> str:
    found = _typed(value, place, str)
    try:
        return format_address(parse_address(found)[1])
    except ValueError:
        raise _invalid(place, found, "an IP address") from None


address: Final = Reader(_read_address, schema=_titled("an IP address"))
"""An IP address; comes out canonical."""


def _read_network(value: Any, place: Place) -> str:
    found: str = _typed(value, place, str)
    try:
        parse_network(found)
    except ValueError as error:
        raise Invalid(place, f"{_name(place)}: {_cut(str(error))}; networks are written as 11.0.0.0/8") from None
    return found


network: Final = Reader(_read_network, schema=_titled("a network"))
"""A network, or one address."""


def _cut(reason: str) -> str:
    return reason if len(reason) <= 200 else f"{reason[:197]}..."  # noqa: PLR2004 - what fits two lines


def address_range(family: int) -> Reader:
    """``LOW-HIGH`` of that family; empty is None."""

    def read(value: Any, place: Place) -> AddressRange | None:
        found: str = _typed(value, place, str)
        if not found:
            return None
        low, _, high = found.partition("-")
        try:
            made = AddressRange.parse(low.strip(), high.strip())
        except InvalidVIPError:
            made = None
        if made is None or made.family != family:
            raise _invalid(place, found, "LOW-HIGH, two addresses of its family, the lower one first, or empty")
        return made

    return Reader(read, schema=_titled("LOW-HIGH, or empty"))


def _read_url(value: Any, place: Place) -> str:
    found: str = _typed(value, place, str)
    try:
        parts = urlsplit(found)
        right = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets or a port that are none
        right = False
    if not right or re.fullmatch(r"[!-~]{1,2048}", found) is None:
        raise _invalid(place, found, "a URL, such as http://10.0.0.1:2379")
    return found


url: Final = Reader(_read_url, schema=_titled("a URL"))
"""Of http or https."""


def _read_host_name(value: Any, place: Place) -> str:
    found: str = _typed(value, place, str)
    lower = found.lower()
    if len(found) > 253 or re.fullmatch(r"(?!-)[a-z0-9_-]{1,63}(\.(?!-)[a-z0-9_-]{1,63})*", lower) is None:  # noqa: PLR2004 - RFC 1035
        raise _invalid(place, found, "a DNS name, such as l4lb.minuteman")
    return lower


host_name: Final = Reader(_read_host_name, schema=_titled("a DNS name"))
"""A DNS name without a dot at its end; comes out in lower case."""


def _read_port_range(value: Any, place: Place) -> tuple[int, int]:
    said = str(value) if type(value) is int and 0 < value <= _PORT_MAX else value
    found: str = _typed(said, place, str)
    if match := re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", found, re.ASCII):
        low, high = int(match[1]), int(match[2] or match[1])
        if 0 < low <= high <= _PORT_MAX:
            return low, high
    raise _invalid(place, found, f'a port or a range of them (1 to {_PORT_MAX}), such as "80" or "8000-8999"')


port_range: Final = Reader(
    _read_port_range,
    schema={
        "title": "a port, or FROM-TO",
        "anyOf": [
            {"type": "integer", "minimum": 1, "maximum": _PORT_MAX},
            {"type": "string", "pattern": "^[0-9]{1,5}(?:-[0-9]{1,5})?$"},
        ],
    },
)
"""``80`` or ``8000-8999``."""


def _read_tags(value: Any, place: Place) -> tuple[tuple[str, str], ...]:
    table: dict[str, Any] = _typed(value, place, dict)
    for name, tag in table.items():
        _typed(tag, (*place, name), str)
    try:
        return checked_tags(table, _TAGS_MAX_BYTES)
    except ConfigurationError as error:
        raise Invalid(place, f"{error.key}: {error.reason}") from None


def _plain_tags(said: str) -> object:
    pairs = [part.strip().partition("=") for part in said.split(",") if part.strip()]
    return {name: tag for name, _, tag in pairs} if all(equals for _, equals, _ in pairs) else said


tags: Final = Reader(
    _read_tags, _plain_tags, _titled("a table of strings", "object") | {"additionalProperties": {"type": "string"}}
)
"""A table of strings; outside of files ``NAME=VALUE,NAME=VALUE``."""


def _read_check(value: Any, place: Place) -> str:
    found: str = _typed(value, place, str)
    try:
        if found:
            parse_check(found)
    except InvalidCheckError as error:
        raise Invalid(place, f"{_name(place)}: {_cut(str(error))}") from None
    return found


check_text: Final = Reader(_read_check, schema=_titled("tcp, http:/PATH, exec:/PROGRAM, or empty"))
"""How backends are checked."""


def many(reader: Reader) -> Reader:
    """A list; outside of files, its elements are separated by commas."""

    def read(value: Any, place: Place) -> tuple[Any, ...]:
        rows: list[Any] = _typed(value, place, list)
        if len(rows) > _LIST_MAX:
            raise Invalid(place, f"{_name(place)} has {len(rows)} elements; it has at most {_LIST_MAX}")
        return tuple(reader.read(row, (*place, index)) for index, row in enumerate(rows))

    def plain(said: str) -> object:
        return [reader.plain(part.strip()) for part in said.split(",") if part.strip()]

    return Reader(read, plain, {"type": "array", "items": reader.schema, "maxItems": _LIST_MAX})
