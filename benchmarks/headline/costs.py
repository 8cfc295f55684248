"""What processes cost, and how busy a kernel is: read from `/proc`, before and after."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Self

_TICKS = os.sysconf("SC_CLK_TCK")
_IDLE = (3, 4)  # columns of /proc/stat: idle, and waiting for a disk
_MEMORY = {"rss_mb": "Rss", "pss_mb": "Pss", "private_mb": "Private_Dirty", "private_clean_mb": "Private_Clean"}


@dataclass(frozen=True, slots=True)
class Processor:
    """The ticks of all processors of this kernel so far."""

    busy: int
    idle: int

    @classmethod
    def now(cls) -> Self:
        with Path("/proc/stat").open(encoding="ascii") as file:
            return cls.of(file.readline())

    @classmethod
    def of(cls, line: str) -> Self:
        """The first line of `/proc/stat`."""
        ticks = [int(word) for word in line.split()[1:9]]  # what guests took is in user already
        idle = sum(ticks[column] for column in _IDLE)
        return cls(sum(ticks) - idle, idle)

    def percent_until(self, later: Processor) -> float:
        """How busy it was between."""
        busy, idle = later.busy - self.busy, later.idle - self.idle
        return 100 * busy / max(1, busy + idle)


def processor_seconds(pid: int) -> float:
    """What a process and its threads have used, in user mode and in the kernel."""
    columns = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(columns[11]) + int(columns[12])) / _TICKS


def memory(pid: int) -> dict[str, float]:
    """Megabytes: resident; resident with shared pages divided among those who share them; and what is its own alone."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    sizes = {name: int(size) * 1024 / 1e6 for name, size in re.findall(r"^(\w+): +(\d+) kB$", text, re.MULTILINE)}
    found = {name: sizes[field] for name, field in _MEMORY.items()}
    found["private_mb"] += found.pop("private_clean_mb")
    return {name: round(value, 2) for name, value in found.items()}


def mean_and_most(values: Iterable[float]) -> dict[str, float]:
    """Of at least one."""
    values = list(values)
    return {"mean": round(fmean(values), 3), "most": round(max(values), 3)}


def summary(used: dict[int, float], seconds: float, sizes: dict[int, dict[str, float]]) -> dict[str, Any]:
    """Of processes, by process id: processor seconds used in that time, and their memory."""
    found: dict[str, Any] = {"cpu_percent": mean_and_most(100 * value / seconds for value in used.values())}
    for name in ("rss_mb", "pss_mb", "private_mb"):
        found[name] = mean_and_most(size[name] for size in sizes.values())
    return found
