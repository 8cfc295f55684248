"""How does a cluster behave as it grows? By simulation: the same core and the same codec, on a virtual clock.

    python benchmarks/scaling.py                       # 40, 100 and 1,000 nodes: some minutes
    python benchmarks/scaling.py --nodes 10000         # by hand: --help says what it takes
    python benchmarks/scaling.py --nodes 40 100 --cold # from a cold start

Prints a Markdown table, and keeps the figures of each size in ``benchmarks/membership/results/scaling.json`` (those of other sizes
stay), from where the report of ``make bench-membership`` has them. Each size runs in a process of its own, since memory is that
process's. Method: docs/simulation.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from benchmarks.machine import machine  # noqa: E402
from benchmarks.tables import table  # noqa: E402
from pyminuteman.testing.simulation.large import measure_large  # noqa: E402

RESULTS = HERE / "membership" / "results" / "scaling.json"
SIZES = (40, 100, 1000)
OBJECTS_FROM = 5000
"""From so many nodes on, messages are handed over as they are: bytes would take half of the time. Sizes are then computed."""
ROWS = (
    ("datagrams a node a second", lambda f: f"{f['datagrams_a_second']:.1f}"),
    ("bytes a node a second, Ethernet's headers included", lambda f: f"{f['bytes_a_second']:,.0f}"),
    ("deaths at once", lambda f: str(f["deaths"])),
    ("suspected by: first / median / last survivor, s", lambda f: spread(f["suspected"], 3)),
    ("down for: first / median / last survivor, s", lambda f: spread(f["down"], 3)),
    ("a newcomer known: first / median / last, ms", lambda f: spread(f["joined"], 0, 1000)),
    ("a multicast delivered: first / median / last, ms", lambda f: spread(f["multicast"], 1, 1000)),
    ("cold start until all know all, s", lambda f: "-" if f["cold_seconds"] is None else f"{f['cold_seconds']:.1f}"),
    ("sent meanwhile, kB a node", lambda f: "-" if f["cold_bytes"] is None else f"{f['cold_bytes'] / 1000:,.0f}"),
    ("memory of the simulation, kB a node", lambda f: f"{f['memory_bytes'] / 1000:,.0f}"),
    ("through the codec, with a table a node", lambda f: "yes" if f["through_codec"] else "no"),
    ("processor time, s", lambda f: f"{f['cpu_seconds']:.0f}"),
    ("what checkers found", lambda f: str(len(f["findings"]))),
    ("measured", lambda f: f["machine"]["date"]),
    ("seed", lambda f: str(f["seed"])),
)


def spread(figures: dict[str, float], digits: int, scale: float = 1.0) -> str:
    return " / ".join(f"{figures[name] * scale:.{digits}f}" for name in ("first", "median", "last"))


def measured(nodes: int, options: argparse.Namespace) -> dict[str, Any]:
    """In this process."""
    through_codec = nodes < OBJECTS_FROM  # and each node has a table of its own
    figures = measure_large(
        nodes, seed=options.seed, deaths=options.deaths, cold=options.cold, through_codec=through_codec,
        shared_tables=not through_codec,
    )  # fmt: skip
    deaths = min(5, nodes // 8) if options.deaths is None else options.deaths
    return {**asdict(figures), "deaths": deaths, "seed": options.seed, "through_codec": through_codec, "machine": machine()}


def in_a_process_of_its_own(nodes: int, options: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, "--one", str(nodes), "--seed", str(options.seed)]
    command += ["--cold"] * options.cold + ([] if options.deaths is None else ["--deaths", str(options.deaths)])
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def kept() -> dict[str, dict[str, Any]]:
    """The figures of all sizes that were ever measured, each of its last time."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def markdown(figures: dict[str, dict[str, Any]]) -> str:
    ordered = [figures[key] for key in sorted(figures, key=lambda key: (int(key.split()[0]), key))]
    head = ["nodes", *(f"{one['nodes']:,}{'' if one['cold_seconds'] is None else ', cold'}" for one in ordered)]
    made = sorted({f"Linux {one['machine']['release']}, Python {one['machine']['python']}" for one in ordered})
    about = (
        "Simulated by `benchmarks/scaling.py` on a virtual clock: the network takes 0.2 to 10 ms (mean 0.7), timers are up to 2 ms "
        "late, no processor is ever busy. All but the cold ones begin as clusters that have run for long (docs/simulation.md). "
        f"Memory and processor time on {'; '.join(made)}."
    )
    return f"{table(head, ([name, *(cell(one) for one in ordered)] for name, cell in ROWS))}\n\n{about}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--nodes", type=int, nargs="+", default=SIZES, metavar="N", help="sizes; time and memory grow with the square"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--deaths", type=int, help="how many die together (default 5, but at most an eighth)")
    parser.add_argument(
        "--cold", action="store_true", help="nodes start knowing three contacts; 1,000 of them take over half an hour"
    )
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        json.dump(measured(options.one, options), sys.stdout)
        return 0
    figures = kept()
    for nodes in options.nodes:
        print(f"{nodes} nodes ...", file=sys.stderr, flush=True)
        found = in_a_process_of_its_own(nodes, options)
        figures[f"{nodes}{' cold' if options.cold else ''}"] = found
        for finding in found["findings"][:10]:
            print(f"  {finding}", file=sys.stderr)
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(json.dumps(figures, indent=1) + "\n")
    print(markdown(figures))
    return any(figures[f"{nodes}{' cold' if options.cold else ''}"]["findings"] for nodes in options.nodes)


if __name__ == "__main__":
    sys.exit(main())
