"""The story of a run: a line an event, with when, who and what, for a person to read.

A line is ``seconds  who  what``, such as ``12.345 n07  suspects n03``. Who is a host's name; a dash stands for the world, which
does what the scenario says. A host that came back without its disk is somebody else to the others, and has a prime: ``n07'``.
"""

from __future__ import annotations

from collections import deque
from hashlib import blake2b
from typing import TextIO

__all__ = ["LINES_KEPT", "WORLD", "Story"]

LINES_KEPT = 200
"""How many of the last lines are printed when a run fails; all of them go to a file when one is asked for."""
WORLD = "-"


class Story:
    """Keeps the last lines, and hashes all of them.

    Args:
        file: Where every line goes besides, as it is told.
        lines: How many are kept.
    """

    def __init__(self, file: TextIO | None = None, lines: int = LINES_KEPT) -> None:
        self._file = file
        self._lines: deque[str] = deque(maxlen=lines)
        self._hash = blake2b(digest_size=8)
        self.count = 0

    def tell(self, time: float, who: str, what: str) -> None:
        """Add a line; ``time`` is the world's, in seconds."""
        line = f"{time:10.4f}  {who:<5} {what}"
        self.count += 1
        self._lines.append(line)
        self._hash.update(line.encode() + b"\n")
        if self._file is not None:
            self._file.write(line + "\n")

    @property
    def digest(self) -> str:
        """A hash over all lines told so far: equal stories have equal ones."""
        return self._hash.hexdigest()

    def last(self) -> list[str]:
        """The last lines, after one that says how many came before."""
        left_out = self.count - len(self._lines)
        return ([f"... {left_out} earlier lines"] if left_out else []) + list(self._lines)
