"""What a node keeps on disk stays small, however long it runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tests.soak.checkers import Finding

MOST_BYTES: Final = {".json": 64 << 10, "store.db": 1 << 20, "store.db-wal": 5 << 20, "store.db-shm": 128 << 10}
"""By how a name ends; SQLite's write-ahead log is taken in when it has 1,000 pages of 4 KiB."""
MOST_BYTES_OF_OTHERS: Final = 64 << 10
MOST_FILES: Final = 16


class StateFiles:
    """Remembers the largest of each name."""

    def __init__(self) -> None:
        self.largest: dict[str, int] = {}

    def look(self, node: int, sizes: Mapping[str, int]) -> list[Finding]:
        """What is wrong with a node's files, by name and size in bytes."""
        found = []
        for name, size in sizes.items():
            self.largest[name] = max(size, self.largest.get(name, 0))
            most = next((most for end, most in MOST_BYTES.items() if name.endswith(end)), MOST_BYTES_OF_OTHERS)
            if size > most:
                found.append(Finding("state files", node, f"{name} has {size} bytes; {most} are allowed"))
        if len(sizes) > MOST_FILES:
            found.append(Finding("state files", node, f"there are {len(sizes)} files: {', '.join(sorted(sizes))}"))
        return found
