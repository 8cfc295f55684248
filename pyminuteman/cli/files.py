"""Reading a desired table from a file, whatever its format; every error names the file and the line."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, NoReturn

from pyminuteman.cli.desired import DesiredTable, from_plain
from pyminuteman.cli.rules_lines import rules_lines
from pyminuteman.cli.scopes import parse_scope
from pyminuteman.errors import ConfigurationError
from pyminuteman.ipvs import Destination, OutsideScope, Scope, Service, ServiceKey, parse_table
from pyminuteman.plain.fields import Invalid, Place
from pyminuteman.plain.positions import closest_line
from pyminuteman.plain.text import decode, key_with_line, lines_of, parse

__all__ = ["FORMATS", "Source", "read_source"]

FORMATS: Final = ("toml", "json", "ipvsadm")
_EXTENSIONS: Final = {".toml": "toml", ".json": "json", ".rules": "ipvsadm", ".ipvsadm": "ipvsadm", ".txt": "ipvsadm"}
_STDIN: Final = "standard input"


@dataclass(frozen=True)
class Source:
    """A file that has been read and understood."""

    path: str
    """For errors: ``standard input`` when it was that."""
    format: str
    text: str
    table: DesiredTable

    def line(self, service: ServiceKey, destination: Destination | None = None) -> int | None:
        """Where a service or a destination is described, if it is. The first call goes through the text once more."""
        found = self._lines.get((service.packed, destination.key if destination else b""))
        return found or (self.line(service) if destination else None)

    @cached_property
    def _lines(self) -> Mapping[tuple[bytes, bytes], int | None]:
        if self.format == "ipvsadm":
            return rules_lines(self.text)
        places = lines_of(self.format, self.text)
        lines: dict[tuple[bytes, bytes], int | None] = {}
        for index, (service, rows) in enumerate(self.table.services.items()):
            lines[service.key.packed, b""] = closest_line(places, ("service", index))
            for at, row in enumerate(rows):
                lines[service.key.packed, row.key] = closest_line(places, ("service", index, "destination", at))
        return lines

    def scope(self, words: tuple[str, ...]) -> tuple[Scope, str]:
        """The scope to work in, and why: that of ``--scope``, else the file's, else just the services that it names.

        Raises:
            ConfigurationError: The file's scope says nothing, or a service is outside the scope.
        """
        if words:
            scope, why = parse_scope(words), " ".join(words)
        elif self.table.scope:
            scope, why = self._own_scope(), " ".join(self.table.scope) + f" (from {self.path})"
        else:
            keys = [service.key for service in self.table.services]
            named = f"the {len(keys)} services" if len(keys) > 1 else "the service"
            return Scope.services(keys), f"just {named} in {self.path}: no other can be removed"
        for service in self.table.services:
            if service.key not in scope:
                line = self.line(service.key)
                reason = f"{service.key} is outside the scope ({why}): it would be added, and never looked after again"
                raise ConfigurationError(self.path, f"line {line}" if line else str(service.key), reason) from OutsideScope(
                    reason
                )
        return scope, why

    def _own_scope(self) -> Scope:
        try:
            return parse_scope(self.table.scope)
        except ValueError as error:
            _fail(self.path, self.format, self.text, ("scope",), str(error))


def read_source(path: str, kind: str | None = None) -> Source:
    """Read and understand a file.

    Args:
        path: Its path; ``-`` for standard input.
        kind: One of :data:`FORMATS`; None to go by the extension, else by the looks of the text.

    Raises:
        ConfigurationError: It cannot be read, or does not say what it must.
    """
    shown = _STDIN if path == "-" else path
    text = _read(path, shown)
    kind = kind or _EXTENSIONS.get(Path(path).suffix.lower()) or _sniff(text)
    if kind == "ipvsadm":
        parsed = parse_table(text, path=shown)
        services: dict[Service, tuple[Destination, ...]] = {service: tuple(rows) for service, rows in parsed.items()}
        return Source(shown, kind, text, DesiredTable(services))
    data = parse(kind, text, shown)
    try:
        return Source(shown, kind, text, from_plain(data))
    except Invalid as error:
        _fail(shown, kind, text, error.place, error.reason)


def _read(path: str, shown: str) -> str:
    try:
        raw = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigurationError(shown, "", f"cannot be read: {reason}") from error
    return decode(raw, shown)


def _sniff(text: str) -> str:
    """Rules begin with an option (or a comment and then an option), JSON with a brace; all else is taken for TOML."""
    for line in text.splitlines():
        word = line.strip()
        if word and not word.startswith("#"):
            if word.startswith(("-", "ipvsadm ")):
                return "ipvsadm"
            return "json" if word.startswith("{") else "toml"
    return "toml"


def _fail(shown: str, kind: str, text: str, place: Place, reason: str) -> NoReturn:
    raise ConfigurationError(shown, key_with_line(lines_of(kind, text), place), reason) from None
