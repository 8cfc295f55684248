"""How a benchmark is stopped."""

from __future__ import annotations

import signal
import sys
from types import FrameType


def stop_cleanly() -> None:
    """The first Ctrl-C, or SIGTERM, is an exception that takes guests, clusters and processes down; the next ones must not disturb that."""

    def stop(number: int, _frame: FrameType | None) -> None:
        for again in (signal.SIGINT, signal.SIGTERM):
            signal.signal(again, signal.SIG_IGN)
        print("stopping ...", file=sys.stderr)
        sys.exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
