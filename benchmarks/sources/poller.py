"""Says when the kernel's table has changed: ``python -m benchmarks.sources.poller ADDRESS PORT BACKEND``.

On each line of standard input it reads one service over netlink, every millisecond, until that backend has another weight than at the last
line, and answers with the time (``time.perf_counter``, the same clock in all processes). The first line: until it is there.

There is one processor in a guest, and whoever watches is in the way of who is watched. Without any pause a change comes half as late again,
also when the watcher is SCHED_IDLE: what it has begun holds up others until the next tick. So it sleeps between two looks.
"""

from __future__ import annotations

import sys
import time

from pyminuteman.ipvs import NetlinkBackend, NoSuchService, ServiceKey

PAUSE_SECONDS = 0.001


def main(address: str, port: int, backend: str) -> None:
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
                time.sleep(PAUSE_SECONDS)
            print(time.perf_counter(), flush=True)
            last = found


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
