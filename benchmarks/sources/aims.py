"""What this library wants to reach, and whether it did."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.aims import Aim
from benchmarks.sources.spread import spread

FILE_WAIT_MS = 100.0
"""How long nothing more must happen in a directory before it is looked at: docs/sources/file.md. That is meant, and no delay of ours."""
MOST_MS = 20.0


def find(latency: dict[str, Any], source: str, backends: int, *, marked: bool = False) -> dict[str, Any] | None:
    """That run, if it was made."""
    wanted = (source, backends, marked)
    for one in latency.get("runs", []):
        if (one["run"]["source"], one["run"]["backends"], one["run"]["marked"]) == wanted:
            return dict(one)
    return None


def aims(data: dict[str, Any]) -> Iterator[Aim]:
    for source, backends, said, wait in (
        ("etcd", 1, "etcd: from before the put until the kernel has it, 1 backend", 0.0),
        ("etcd", 1000, "etcd: likewise, 1,000 backends", 0.0),
        ("file", 1, "file: from its renaming until the kernel has it, beyond the wait of 0.1 s, 1 backend", FILE_WAIT_MS),
        ("file", 1000, "file: likewise, 1,000 backends", FILE_WAIT_MS),
    ):
        run = find(data["kernel"], source, backends)
        yield Aim(f"{said}; median", MOST_MS, spread(run["seen_ms"])["median"] - wait if run else None)
