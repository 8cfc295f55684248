"""What does the store cost: a change in a cluster of 1,000 nodes, a restart with 100,000 entries, and beside it the etcd engine.

README.md has the method and the figures of the last run. Some four minutes; ``--quick`` under one. Needs no root.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))  # an uninstalled tree will do

from benchmarks.machine import machine  # noqa: E402
from benchmarks.membership.progress import Progress  # noqa: E402
from benchmarks.store import engines, report, restart  # noqa: E402

RESULTS = HERE / "results"
CLUSTERS: tuple[dict[str, Any], ...] = (
    {"nodes": 40},
    {"nodes": 100},
    {"nodes": 1000},
    {"nodes": 100, "backends": 1},
    {"nodes": 100, "keys": 10},
    {"nodes": 100, "keys": 100},
    {"nodes": 100, "loss": 0.01},
)
"""Small and large clusters; the same change among fewer entries; larger changes; a network that loses."""
QUICK = ({"nodes": 40}, {"nodes": 100}, {"nodes": 40, "keys": 10})


def spread(cluster: dict[str, Any], changes: int) -> dict[str, Any]:
    """In a process of its own, whose memory it is."""
    words = [word for name, value in cluster.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, str(HERE / "spread.py"), "--changes", str(changes), *words]
    found: dict[str, Any] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    return found


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a check of less than a minute: everything but the large cluster")
    parser.add_argument(
        "--save",
        action=argparse.BooleanOptionalAction,
        help="write results/ and the figures in README.md and docs/protocols/store.md; default: when everything was measured",
    )
    return parser.parse_args()


def main() -> int:
    options = arguments()
    clusters = QUICK if options.quick else CLUSTERS
    changes, restarts, puts, starts = (3, 2, 20, 1) if options.quick else (20, 9, 200, 3)
    loaded = 10_000 if options.quick else restart.ENTRIES
    progress = Progress(len(clusters) + restarts + 4)
    began, loads = time.perf_counter(), [os.getloadavg()[0]]

    # What takes wall time goes first: the simulations would leave their load behind.
    progress.enter(f"restart with {loaded:,} entries")
    found: dict[str, Any] = {"restart": restart.measure(restarts, loaded, progress.done)}
    progress.enter("engines")
    found["engines"] = engines.measure(puts, loaded, starts, progress.done)
    found["spread"] = []
    for cluster in clusters:
        progress.enter(f"{changes} changes, " + ", ".join(f"{name} {value}" for name, value in cluster.items()))
        progress.say("simulating")
        found["spread"].append(spread(cluster, changes))
        progress.done(f"{found['spread'][-1]['cpu_seconds']:.0f} s of processor time")

    loads.append(os.getloadavg()[0])
    seconds = round(time.perf_counter() - began, 1)
    results = {"machine": machine(), "loads": loads, "loaded": loaded, "seconds_in_all": seconds, **found}
    save = not options.quick if options.save is None else options.save
    print(report.markdown(results))
    if save:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "store.json").write_text(json.dumps(results, separators=(",", ":")) + "\n")
        report.save(results, RESULTS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
