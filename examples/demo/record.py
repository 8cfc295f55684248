"""What became of the requests. Pure: numbers in, numbers out."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

LATE_SECONDS: Final = 0.9
"""An answer that took longer was had by another attempt of TCP, of which the first comes after a second."""
BLOCKS: Final = "▁▂▃▄▅▆▇█"


class Request(NamedTuple):
    """One request, as the client saw it."""

    started: float
    seconds: float
    backend: str
    """Who answered; empty if nobody did."""
    error: str
    """What went wrong; empty if nothing did."""

    @property
    def late(self) -> bool:
        """Whether it was answered, and TCP had to try more than once."""
        return not self.error and self.seconds > LATE_SECONDS


@dataclass
class Record:
    """All requests that ended, in the order in which they did."""

    requests: list[Request] = field(default_factory=list)
    failures: list[Request] = field(default_factory=list)
    late: int = 0
    answered: Counter[str] = field(default_factory=Counter)
    """By backend."""
    recent: deque[Request] = field(default_factory=lambda: deque(maxlen=400))

    def add(self, rows: Iterable[Sequence[float | str]]) -> None:
        """Take rows as the client sends them."""
        for row in rows:
            request = Request(*row)  # type: ignore[arg-type]
            self.requests.append(request)
            self.recent.append(request)
            if request.error:
                self.failures.append(request)
            else:
                self.answered[request.backend] += 1
                self.late += request.late

    def since(self, start: float, end: float = math.inf) -> list[Request]:
        """The requests that started in a span of time."""
        return [request for request in self.requests if start <= request.started < end]


def shares(requests: Iterable[Request]) -> dict[str, float]:
    """The part of the answers that each backend gave, by name. Empty if there was none."""
    counts = Counter(request.backend for request in requests if not request.error)
    return {name: counts[name] / counts.total() for name in sorted(counts)}


def worst_deviation(seen: Mapping[str, float], expected: Mapping[str, float]) -> float:
    """The largest difference between two sets of shares."""
    return max((abs(seen.get(name, 0.0) - expected.get(name, 0.0)) for name in seen.keys() | expected.keys()), default=0.0)


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile; 0 of nothing."""
    if not values:
        return 0.0
    return sorted(values)[max(math.ceil(len(values) * percent / 100), 1) - 1]


def sparkline(values: Iterable[float], top: float) -> str:
    """One block a value, the highest standing for ``top`` and more."""
    last = len(BLOCKS) - 1
    return "".join(BLOCKS[min(round(value / top * last), last) if top > 0 else 0] for value in values)


def percentages(parts: Mapping[str, float]) -> str:
    """``n1 50 %, n2 50 %``."""
    return ", ".join(f"{name} {part:.0%}".replace("%", " %") for name, part in parts.items())
