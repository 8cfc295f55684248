"""When nothing changes, nothing is written: not to the kernel, nor to the ledger."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tests.soak.checkers import Finding
from tests.soak.world import Held


@dataclass(frozen=True, slots=True)
class AtRest:
    """What a node had at a moment.

    Attributes:
        table: Its kernel's.
        writes: How often its daemon has changed the kernel in this life.
        ledger_at: When its ledger was last written, in nanoseconds; 0 when there is none.
    """

    table: Mapping[str, Held]
    writes: int
    ledger_at: int


def nothing_written(node: int, before: AtRest, after: AtRest) -> list[Finding]:
    """What was written between two moments at which nothing was to be done."""
    found = []
    if before.table != after.table:
        found.append(f"the table was {dict(before.table)}, and is {dict(after.table)}")
    if before.writes != after.writes:
        found.append(f"{after.writes - before.writes} changes of the kernel were made")
    if before.ledger_at != after.ledger_at:
        found.append("the ledger was written")
    return [Finding("rest", node, text) for text in found]
