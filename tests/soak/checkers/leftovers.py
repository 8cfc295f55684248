"""In the end there is nothing that was not there in the beginning."""

from __future__ import annotations

from collections.abc import Mapping, Set

from tests.soak.checkers import Finding


def nothing_left(before: Mapping[str, Set[str]], after: Mapping[str, Set[str]]) -> list[Finding]:
    """What is left, by sort (processes, namespaces, mounts)."""
    return [
        Finding("leftovers", None, f"{sort}: {', '.join(sorted(more))}")
        for sort, there in after.items()
        if (more := there - before.get(sort, frozenset()))
    ]
