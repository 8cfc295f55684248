"""In which line of an ipvsadm rules file each service and destination is described. Pure.

For messages after the fact; :func:`pyminuteman.ipvs.parse_table` has already accepted the text.
"""

from __future__ import annotations

from collections.abc import Mapping

from pyminuteman.errors import ConfigurationError
from pyminuteman.ipvs import Destination, ServiceKey, parse_table

__all__ = ["rules_lines"]


def rules_lines(text: str) -> Mapping[tuple[bytes, bytes], int]:
    """Packed keys of a service and a destination (empty: the service itself) to the line that adds it."""
    lines: dict[tuple[bytes, bytes], int] = {}
    headers: list[str] = []
    last = ""
    for number, line in enumerate(text.splitlines(), 1):
        try:
            found = parse_table(line)
        except ConfigurationError:
            # A destination, which cannot be read without the line of its service: the last one's, nearly always.
            for header in [last, *reversed(headers)]:
                if row := _destination(f"{header}\n{line}"):
                    lines[row[0].packed, row[1].key] = number
                    last = header
                    break
            continue
        for service in found:
            lines[service.key.packed, b""] = number
            last = line
            headers.append(line)
    return lines


def _destination(lines: str) -> tuple[ServiceKey, Destination] | None:
    try:
        found = parse_table(lines)
    except ConfigurationError:
        return None  # it is behind another service
    return next(((service.key, rows[0]) for service, rows in found.items() if rows), None)
