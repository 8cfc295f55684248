"""Desired tables as TOML text. Pure.

Only what differs from the defaults is written, so that people can read it; the JSON form has every key.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["format_toml"]


def format_toml(services: Iterable[Mapping[str, Any]]) -> str:
    """Write what :func:`pyminuteman.cli.desired.to_plain` gives."""
    lines: list[str] = []
    for service in services:
        lines += ["[[service]]", *_pairs(service, ""), ""]
        for destination in service["destination"]:
            lines += ["  [[service.destination]]", *_pairs(destination, "  "), ""]
    return "\n".join(lines)


def _pairs(table: Mapping[str, Any], indent: str) -> list[str]:
    thresholds = {"upper_threshold", "lower_threshold"}
    return [
        f"{indent}{name} = {_value(value)}"
        for name, value in table.items()
        if name not in {"destination", "statistics"}
        and value is not None
        and value != []
        and not (name in thresholds and not value)
    ]


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        pairs = [f"{name} = {_value(inner)}" for name, inner in value.items() if inner is not None]
        return f"{{ {', '.join(pairs)} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    # A JSON string of ASCII is a TOML basic string, but for DEL.
    return json.dumps(value).replace("\x7f", "\\u007f")
