"""What somebody else has made in a kernel stands as it was made, at every moment."""

from __future__ import annotations

from collections.abc import Mapping

from tests.soak.checkers import Finding
from tests.soak.world import Held


def foreign_untouched(node: int, foreign: Mapping[str, Held], seen: Mapping[str, Held]) -> list[Finding]:
    """What is wrong with it.

    Args:
        node: Whose kernel.
        foreign: What was made there, by service.
        seen: The whole table.
    """
    return [
        Finding("foreign", node, f"{vip} was made as {held}, and is {seen.get(vip, 'gone')}")
        for vip, held in foreign.items()
        if seen.get(vip) != held
    ]
