"""No line of any log tells of a fault, and what is told of things that fail has its cause in what was done to the node."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tests.soak.checkers import Finding

_LINE: Final = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ([A-Z]+) ((\w+): )?(.*)")


@dataclass(frozen=True, slots=True)
class _Allowed:
    event: str
    text: re.Pattern[str]
    reason: str
    when: Callable[[frozenset[str]], bool] = lambda _: True


_FULL: Final = "full disk"
_ALLOWED: Final = (
    _Allowed("sync_failed", re.compile("cannot be written: No space left"), "no service is added that cannot be written down", lambda done: _FULL in done),
    _Allowed("refused", re.compile("what this node says is not told"), "the store cannot be written to", lambda done: _FULL in done),
)  # fmt: skip
_JUDGED_EVENTS: Final = frozenset({"sync_failed", "refused", "held_back", "host"})


class Logs:
    """Reads each node's log on."""

    def __init__(self) -> None:
        self.events: Counter[str] = Counter()
        self.warnings: Counter[str] = Counter()
        self.allowed: Counter[str] = Counter()
        self.writes: Counter[int] = Counter()
        """How often each node's daemon said that it has changed the kernel."""
        self._partial: dict[int, str] = {}

    def read(self, node: int, text: str, done: frozenset[str] = frozenset()) -> list[Finding]:
        """What is wrong with what came.

        Args:
            node: Whose.
            text: What its log has got since.
            done: What was done to the node that explains failures.
        """
        *lines, self._partial[node] = (self._partial.get(node, "") + text).split("\n")
        return [finding for line in lines for finding in self._judge(node, line, done)]

    def _judge(self, node: int, line: str, done: frozenset[str]) -> list[Finding]:
        found = _LINE.fullmatch(line)
        if found is None:  # a traceback, or a word of Python's own
            return [Finding("logs", node, f"not a line of the log: {line[:300]}")]
        level, event, said = found[1], found[3] or "", found[4]
        if level in {"ERROR", "CRITICAL"}:
            return [Finding("logs", node, f"{level}: {line[:2000]}")]
        if level == "WARNING":
            self.warnings[said[:80]] += 1
        elif event:
            self.events[event] += 1
            self.writes[node] += event == "sync"
        if event not in _JUDGED_EVENTS:
            return []
        for one in _ALLOWED:
            if one.event == event and one.text.search(said) and one.when(done):
                self.allowed[f"{event}: {one.reason}"] += 1
                return []
        return [Finding("logs", node, f"{event} without a cause: {said[:500]}")]
