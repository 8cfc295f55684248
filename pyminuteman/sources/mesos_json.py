"""Reading JSON of which nothing can be taken for granted: what has another shape than expected reads as if it were not there.

Pure. No function here raises: one odd field of one task must not cost the state of a cluster. Where something *must* be there, the
caller says so (:class:`pyminuteman.sources.base.SourceError`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from pyminuteman.addresses import format_address, parse_address, parse_endpoint

__all__ = ["address", "agent_address", "identity", "labels", "number", "port", "rows", "table", "text"]

_NOTHING: Final[Mapping[str, Any]] = {}
_PORT_MAX: Final = 65535


def table(value: object) -> Mapping[str, Any]:
    """An object; anything else is an empty one."""
    return value if isinstance(value, dict) else _NOTHING


def rows(value: object) -> list[Mapping[str, Any]]:
    """The objects of an array."""
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def text(value: object) -> str:
    """A string; anything else is an empty one."""
    return value if isinstance(value, str) else ""


def number(value: object) -> float | None:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if -1e18 < value < 1e18 and math.isfinite(value) else None  # noqa: PLR2004 - an int may be any size


def port(value: object) -> int | None:
    """A port from 1 to 65535; 0 stands for none, as Marathon has it."""
    found = number(value)
    return int(found) if found is not None and found.is_integer() and 0 < found <= _PORT_MAX else None


def identity(value: object) -> str:
    """An id: ``"x"``, or ``{"value": "x"}`` as the operator API writes it."""
    return text(value) or text(table(value).get("value"))


def labels(value: object) -> tuple[tuple[str, str], ...]:
    """Keys and values of labels: ``[{"key": ..., "value": ...}]``, the same within ``{"labels": ...}``, or ``{"KEY": "value"}``."""
    if isinstance(value, dict) and not isinstance(value.get("labels"), list):
        return tuple((key, entry) for key, entry in value.items() if isinstance(entry, str))
    found = rows(table(value).get("labels") if isinstance(value, dict) else value)
    return tuple((text(row.get("key")), text(row.get("value"))) for row in found)


def address(value: object) -> str | None:
    """An IP address, in its canonical text."""
    try:
        return format_address(parse_address(text(value))[1])
    except ValueError:
        return None


def agent_address(hostname: object, pid: object) -> str | None:
    """Where an agent is: its hostname if that is an address, else what libprocess listens on (``slave(1)@10.0.0.1:5051``).

    None when neither is an address: then the hostname has to be looked up.
    """
    found = address(hostname)
    if found is not None:
        return found
    try:
        return parse_endpoint(text(pid).rpartition("@")[2])[0]
    except ValueError:
        return None
