"""In the end there is nothing that was not there in the beginning."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from tests.soak.checkers import Finding


def nothing_left(before: Mapping[str, Collection[str]], after: Mapping[str, Collection[str]]) -> list[Finding]:
    """What is left, by sort (processes, namespaces, mounts)."""
    return [
        Finding("leftovers", None, f"{sort}: {', '.join(sorted(more))}")
        for sort, there in after.items()
        if (more := set(there) - set(before.get(sort, ())))
    ]
