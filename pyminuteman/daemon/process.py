"""What this process takes of its host, under the names that every exporter has for it (proc(5))."""

from __future__ import annotations

import os
import resource
import time
from functools import lru_cache
from pathlib import Path
from typing import Final

__all__ = ["process_numbers"]

_PROC: Final = Path("/proc/self")
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
# Of the fields after the command's name in /proc/self/stat; see proc(5), which counts from 1 and has two before.
_UTIME, _STIME, _THREADS, _STARTTIME, _VSIZE, _RSS = 11, 12, 17, 19, 20, 21


def process_numbers() -> dict[str, float]:
    """By their names; without those that this kernel does not tell."""
    fields = (_PROC / "stat").read_text().rpartition(")")[2].split()
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    found: dict[str, float] = {
        "process_resident_memory_bytes": int(fields[_RSS]) * _PAGE,
        "process_virtual_memory_bytes": int(fields[_VSIZE]),
        "process_cpu_seconds_total": (int(fields[_UTIME]) + int(fields[_STIME])) / _TICKS,
        "process_open_fds": sum(1 for _ in (_PROC / "fd").iterdir()) - 1,  # the directory itself
        "process_threads": int(fields[_THREADS]),
        "process_start_time_seconds": _booted_at() + int(fields[_STARTTIME]) / _TICKS,
    }
    if soft != resource.RLIM_INFINITY:
        found["process_max_fds"] = soft
    return found


@lru_cache(maxsize=1)
def _booted_at() -> float:
    """Once: taken anew each time it would waver, and the process would seem to start again and again."""
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)  # noqa: TID251 - of the host, not of any protocol
