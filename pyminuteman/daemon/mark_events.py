"""What is to be told of operators' marks: the events between those that were known and those that are known now.

Pure. Every node tells of a mark when it learns of it, with who laid it down or undid it, and why. What was done before this process
began is old, and is not told; when that was is by the clock of the node that was asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from pyminuteman.addresses import NodeId
from pyminuteman.daemon.differences import Telling
from pyminuteman.daemon.marks import WEIGHT, Marks
from pyminuteman.daemon.observed import Mark, MarkTarget

__all__ = ["mark_events"]


class _Said(NamedTuple):
    """A mark, or that it was undone; ``weight`` is None for drains, and for what was undone."""

    mark: Mark
    weight: int | None = None
    undone: bool = False


def mark_events(before: Marks, after: Marks, *, since: float) -> Iterator[Telling]:
    """What happened in between.

    Args:
        before: The marks that were known.
        after: The marks now.
        since: What is older is not told; seconds of the epoch.
    """
    was, now = dict(_said(before)), dict(_said(after))
    for place, said in now.items():
        if said.mark.at >= since and was.get(place) != said:
            yield _telling(place, said)
    for place, said in was.items():
        if place not in now and not said.undone:  # who undid it was forgotten before it was heard here
            yield _telling(place, _Said(Mark("", 0.0), undone=True))


_Place = tuple[MarkTarget, bool]
"""What a mark is about, and whether it is a weight's."""


def _said(marks: Marks) -> Iterator[tuple[_Place, _Said]]:
    for node, mark in marks.node_drains.items():
        yield (node, False), _Said(mark)
    for target, mark in marks.backend_drains.items():
        yield (target, False), _Said(mark)
    for target, (weight, mark) in marks.weights.items():
        yield (target, True), _Said(mark, weight)
    for name, (undone, mark) in marks.undone.items():
        yield (undone, name.startswith(WEIGHT)), _Said(mark, undone=True)


def _telling(place: _Place, said: _Said) -> Telling:
    target, is_weight = place
    name = _named(target)
    data: dict[str, Any] = {"target": name, "by": said.mark.by, "reason": said.mark.reason}
    by = f" by {said.mark.by}" if said.mark.by else ""
    because = f": {said.mark.reason}" if said.mark.reason else ""
    if not is_weight:
        kind, what = ("undrained", "is put back") if said.undone else ("drained", "is drained")
        return kind, f"{name} {what}{by}{because}", data
    what = "has its source's weight again" if said.undone else f"is given weight {said.weight}"
    return "weight", f"{name} {what}{by}{because}", {**data, "weight": said.weight}


def _named(target: MarkTarget) -> str:
    if isinstance(target, NodeId):
        return f"node {target.short}"
    vip, backend = target
    return str(backend) if vip is None else f"{backend} of {vip}"
