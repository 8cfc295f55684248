"""What tests of the guests' harness share."""

from __future__ import annotations

import contextlib
import pathlib
import time
from collections.abc import Callable

PACKAGE_ROOT = pathlib.Path(__file__).parents[2]


def processes_of(base: pathlib.Path) -> list[int]:
    """The live processes of guests whose run directories are in `base`."""
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"_dir={base}/".encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found


def wait_for(condition: Callable[[], object], seconds: float = 10.0) -> None:
    deadline = time.perf_counter() + seconds
    while not condition():
        assert time.perf_counter() < deadline, f"still not so after {seconds} s"
        time.sleep(0.01)
