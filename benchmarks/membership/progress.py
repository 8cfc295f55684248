"""What is going on, on stderr: a line for each thing that is done, and how much of everything that was."""

from __future__ import annotations

import sys
import time


class Progress:
    """Counts what is done against what there is to do."""

    def __init__(self, expected: int) -> None:
        self._expected = expected
        self._done = 0
        self._began = time.perf_counter()
        self._where = ""

    def enter(self, where: str) -> None:
        """From here on, lines begin with this."""
        self._where = where

    def done(self, text: str) -> None:
        self._done += 1
        self.say(text)

    def say(self, text: str) -> None:
        seconds = time.perf_counter() - self._began
        share = min(100, round(100 * self._done / max(1, self._expected)))
        print(f"[{int(seconds // 60):2}:{seconds % 60:04.1f} {share:3}%] {self._where}: {text}", file=sys.stderr, flush=True)
