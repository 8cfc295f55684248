"""What daemons log, as far as it tells when something happened. Pure."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

_LINE = re.compile(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),(\d{3}) \w+ (\w+): (.*)$", re.MULTILINE)
_CHANGE = re.compile(r"\b(add|edit|remove) (\d+) destinations?\b")
_RESOLUTION_SECONDS = 0.001
"""Times are cut off behind it, so so much is added: none is too early."""


@dataclass(frozen=True, slots=True)
class Line:
    """One event; `at` is in seconds of the epoch."""

    at: float
    kind: str
    text: str


def lines_of(text: str) -> list[Line]:
    """The events in it; other lines are passed over."""
    return [
        Line(time.mktime(time.strptime(when, "%Y-%m-%d %H:%M:%S")) + int(milliseconds) / 1000 + _RESOLUTION_SECONDS, kind, said)
        for when, milliseconds, kind, said in _LINE.findall(text)
    ]


def carried_out(lines: Iterable[Line], what: str, count: int) -> float | None:
    """When the kernel had acknowledged so many destinations added, edited or removed, all together; None: not yet."""
    done = 0
    for line in lines:
        if line.kind == "sync":
            done += sum(int(number) for word, number in _CHANGE.findall(line.text) if word == what)
            if done >= count:
                return line.at
    return None


def told_of(lines: Iterable[Line], kind: str) -> dict[str, float]:
    """When it was first told of each node, by name: ``member_suspect``, ``member_down``."""
    found: dict[str, float] = {}
    for line in lines:
        if line.kind == kind:
            found.setdefault(line.text.partition(" ")[0], line.at)
    return found


def what_was_told(logs: Mapping[int, list[Line]], dead: AbstractSet[str], panic: float) -> dict[str, Any]:
    """When each survivor's daemon held the last of the dead for suspect, and for down; and how often any held a live node for that.

    In seconds after the panic, by the daemons' own logs: so much of the time until a kernel is repaired is detection.
    """
    found: dict[str, Any] = {}
    for kind, what in (("member_suspect", "suspected"), ("member_down", "down")):
        told = {node: told_of(lines, kind) for node, lines in logs.items()}
        found[f"{what}_seconds"] = {
            str(node): round(max(times[name] for name in dead) - panic, 4)
            for node, times in told.items()
            if dead <= times.keys()
        }
        found[f"wrongly_{what}"] = sum(len(times.keys() - dead) for times in told.values())
    return found
