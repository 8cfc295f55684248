"""No daemon's memory grows for ever, and no daemon collects file descriptors.

At first it does grow, by four or five MiB, while the ring of the newest 2,000 events fills, and then no more. With some 60 events a minute
and a node, as they come here, that takes half an hour. So a young daemon is held to what it may come to, and an old one to not growing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import fmean
from typing import Final

from tests.soak.checkers import Finding

WARM_UP_SECONDS: Final = 2100.0
LEAST_SECONDS: Final = 900.0
"""So long a daemon has to have been observed after it was warm, or a line through its memory says nothing."""
MOST_KIB_PER_MINUTE: Final = 40.0
BEGUN_SECONDS: Final = 60.0
MOST_MORE_KIB: Final = 8 * 1024
"""Beyond what it had a minute after its start."""
MOST_KIB: Final = 120 * 1024
MOST_MORE_DESCRIPTORS: Final = 12
"""Beyond the most of its life's first half: of clients, of bulk transfers, of files that are being written."""
UNSEEN_SECONDS: Final = 120.0
"""Who was not seen for so long has ended, and whoever has its number now is somebody else."""
DESCRIPTORS_SECONDS: Final = 120.0
"""A shorter life says nothing of descriptors: in its first half it was not all there yet."""


@dataclass(slots=True)
class Life:
    """Of one process."""

    node: int
    seconds: list[float] = field(default_factory=list)
    anonymous_kib: list[int] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)

    @property
    def lasted_seconds(self) -> float:
        """From the first look to the last."""
        return self.seconds[-1] - self.seconds[0]

    @property
    def grown_kib(self) -> int:
        """Since its first minute was over; 0 when it is not."""
        begun = [kib for at, kib in zip(self.seconds, self.anonymous_kib, strict=True) if at - self.seconds[0] >= BEGUN_SECONDS]
        return begun[-1] - begun[0] if begun else 0

    @property
    def slope_kib_per_minute(self) -> float | None:
        """Of a line through what was seen once it was warm; None when that is too little."""
        warm = [index for index, at in enumerate(self.seconds) if at - self.seconds[0] >= WARM_UP_SECONDS]
        if not warm or self.seconds[warm[-1]] - self.seconds[warm[0]] < LEAST_SECONDS:
            return None
        return 60.0 * _slope([self.seconds[index] for index in warm], [self.anonymous_kib[index] for index in warm])


class Memory:
    """Of all daemons, life by life."""

    def __init__(self) -> None:
        self.lives: list[Life] = []
        self._by_pid: dict[int, Life] = {}

    def add(self, node: int, pid: int, now: float, anonymous_kib: int, descriptors: int) -> None:
        """What a daemon has now, of memory that is of no file."""
        life = self._by_pid.get(pid)
        if life is None or life.node != node or now - life.seconds[-1] > UNSEEN_SECONDS:
            life = self._by_pid[pid] = Life(node)
            self.lives.append(life)
        life.seconds.append(now)
        life.anonymous_kib.append(anonymous_kib)
        life.descriptors.append(descriptors)

    @property
    def longest(self) -> list[Life]:
        """The longest life of each node."""
        best: dict[int, Life] = {}
        for life in self.lives:
            if life.node not in best or life.lasted_seconds > best[life.node].lasted_seconds:
                best[life.node] = life
        return [best[node] for node in sorted(best)]

    def findings(self) -> list[Finding]:
        """What grew too much."""
        found = []
        for life in self.lives:
            slope = life.slope_kib_per_minute
            if slope is not None and slope > MOST_KIB_PER_MINUTE:
                text = (
                    f"{slope:.1f} KiB a minute over {life.lasted_seconds / 60:.0f} minutes; {MOST_KIB_PER_MINUTE:g} are allowed"
                )
                found.append(Finding("memory", life.node, text))
            if life.grown_kib > MOST_MORE_KIB:
                text = f"{life.grown_kib} KiB more after {life.lasted_seconds / 60:.0f} minutes; {MOST_MORE_KIB} are allowed"
                found.append(Finding("memory", life.node, text))
            if max(life.anonymous_kib) > MOST_KIB:
                text = f"{max(life.anonymous_kib)} KiB; {MOST_KIB} are allowed"
                found.append(Finding("memory", life.node, text))
            half = life.descriptors[: len(life.descriptors) // 2]
            if life.lasted_seconds >= DESCRIPTORS_SECONDS and life.descriptors[-1] > max(half) + MOST_MORE_DESCRIPTORS:
                text = f"{life.descriptors[-1]} descriptors in the end, and at most {max(half)} in the first half of its life"
                found.append(Finding("memory", life.node, text))
        return found


def _slope(xs: Iterable[float], ys: Iterable[float]) -> float:
    xs, ys = list(xs), list(ys)
    x_mean, y_mean = fmean(xs), fmean(ys)
    return sum((x - x_mean) * (y - y_mean) for x, y in zip(xs, ys, strict=True)) / sum((x - x_mean) ** 2 for x in xs)
