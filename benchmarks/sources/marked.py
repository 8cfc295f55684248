"""``minuteman``, with a clock read where a change passes by: ``python -m benchmarks.sources.marked FILE WORD...``.

The command and its words are the real ones; a few of its functions note the time (``time.perf_counter``) when they are entered or left.
At the end FILE holds the notes, ``[[name, seconds], ...]``. With ``MARKED_DOUBLE`` in the environment the kernel is a double, which takes
no time: for machines whose kernel has no IPVS.
"""

from __future__ import annotations

import inspect
import json
import os
import sys
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from pyminuteman.cli.root import root
from pyminuteman.cli.vips_keeper import Keeper
from pyminuteman.etcd.contents import PrefixContents
from pyminuteman.ipvs import IPVSTable
from pyminuteman.sources.base import LatestState
from pyminuteman.sources.inotify import Inotify

POINTS = ("event", "state", "woken", "read", "decided", "applied")
"""The change has arrived here; a state has it; who keeps the table hears of it; the table was read; what to do is to be worked out, and
done; it is done."""

notes: list[tuple[str, float]] = []


def noting(function: Callable[..., Any], *, before: str = "", after: str = "") -> Callable[..., Any]:
    def note(name: str) -> None:
        if name:
            notes.append((name, time.perf_counter()))

    @wraps(function)
    def here(*args: Any, **named: Any) -> Any:
        note(before)
        found = function(*args, **named)
        note(after)
        return found

    @wraps(function)
    async def later(*args: Any, **named: Any) -> Any:
        note(before)
        found = await function(*args, **named)
        note(after)
        return found

    return later if inspect.iscoroutinefunction(function) else here


def mark() -> None:
    for owner, name, where in (
        (PrefixContents, "follow", {"before": "event"}),
        (Inotify, "read", {"after": "event"}),
        (LatestState, "put", {"before": "state"}),
        (Keeper, "_converge", {"before": "woken"}),
        (IPVSTable, "snapshot", {"after": "read"}),
        (IPVSTable, "converge", {"before": "decided", "after": "applied"}),
    ):
        setattr(owner, name, noting(getattr(owner, name), **where))


def main(path: Path, words: list[str]) -> int:
    mark()
    application = None
    if "MARKED_DOUBLE" in os.environ:
        from pyminuteman.cli.application import Application  # noqa: PLC0415 - only there
        from pyminuteman.testing.fake_kernel import FakeKernel  # noqa: PLC0415

        application = Application(open_backend=lambda _netns: FakeKernel())
    try:
        code = root.main(words, prog_name="minuteman", standalone_mode=False, obj=application)
        return code if isinstance(code, int) else 0
    finally:
        path.write_text(json.dumps(notes))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
