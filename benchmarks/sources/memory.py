"""What a piece of work takes of memory, as the kernel sees it."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def memory_peak_mib(work: Callable[[], T]) -> tuple[float, T]:
    """How much more memory this process had at the work's peak than before it, in MiB; and what the work returned.

    Memory that was freed before and is used again does not show: call it first.
    """
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # proc(5): the peak is now what there is
    before = _resident("VmRSS")
    found = work()
    return (_resident("VmHWM") - before) / 1024, found


def _resident(name: str) -> int:
    found = re.search(rf"^{name}:\s*(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])
