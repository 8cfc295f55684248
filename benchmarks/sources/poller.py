"""Says when the kernel's table has changed: ``python -m benchmarks.sources.poller ADDRESS PORT BACKEND``.

On each line of standard input it reads one service, again and again over netlink, until that backend has another weight than at the last
line, and answers with the time (``time.perf_counter``, the same clock in all processes). The first line: until it is there.

It runs as SCHED_IDLE: there is one processor in a guest, and whoever watches must not be in the way of who is watched. So it may see a
change late, when others have work to do after it: what it says is an upper bound.
"""

from __future__ import annotations

import os
import sys
import time

from pyminuteman.ipvs import NetlinkBackend, NoSuchService, ServiceKey


def main(address: str, port: int, backend: str) -> None:
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    key, last = ServiceKey.tcp(address, port), None
    with NetlinkBackend() as kernel:

        def weight() -> int | None:
            try:
                rows = kernel.statistics(key)[key].destinations
            except NoSuchService:
                return None
            return next((row.weight for row in rows if row.address == backend), None)

        for _ in sys.stdin:
            while (found := weight()) == last:
                pass
            print(time.perf_counter(), flush=True)
            last = found


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
