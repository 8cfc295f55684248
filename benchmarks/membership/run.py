"""How soon does a cluster know who has died, whom does it wrongly hold for dead, and what does it cost?

Forty nodes, one process and one network namespace each, on one bridge; this library and Debian's serf in turns. README.md has the
method and the figures of the last run. Needs root. Some 25 minutes; ``--quick`` under four.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))  # an uninstalled tree will do

import report  # noqa: E402
from cluster import Cluster, NodeEndedError  # noqa: E402
from peers import PEERS, Peer, PeerMissingError  # noqa: E402
from progress import Progress  # noqa: E402
from schedule import PARTS, Effort, expected_lines, measure_block  # noqa: E402

from benchmarks.machine import machine  # noqa: E402
from benchmarks.stopping import stop_cleanly  # noqa: E402
from pyminuteman.testing.cluster_namespaces import ClusterNamespaces, ClusterUnavailableError  # noqa: E402

RESULTS = HERE / "results"


def measure(options: argparse.Namespace, effort: Effort, peers: dict[str, Peer], results: dict[str, Any]) -> None:
    """Fill `results`, block by block; what is there when this breaks off is whole."""
    chance = random.Random(options.seed)
    progress = Progress(sum(expected_lines(effort, peer.has_neighbours) for peer in peers.values()))
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="minuteman-bench-")))
        namespaces = stack.enter_context(ClusterNamespaces(options.nodes))
        log = stack.enter_context(options.log.open("w")) if options.log else None
        for name, peer in list(peers.items()):
            (directory / name).mkdir()
            peer.prepare(directory / name)
        for block in range(effort.blocks):
            # Who goes first changes, so that a drift of the machine is not always the same one's.
            order = list(peers) if block % 2 == 0 else list(reversed(peers))
            for name in order:
                progress.enter(f"{name}, block {block + 1} of {effort.blocks}")
                found = results["peers"][name]
                make = partial(Cluster, peers[name], namespaces, directory / name / str(block), chance, log)
                try:
                    with closing(measure_block(make, effort, block, progress)) as measuring:
                        for scenario, records in measuring:
                            found.setdefault(scenario, []).extend(record | {"block": block} for record in records)
                except NodeEndedError as error:  # a result, too; the next block has a new cluster
                    found["errors"].append(f"block {block + 1}: {error}")
                    progress.say(str(error))


def available(names: list[str]) -> dict[str, Peer]:
    found: dict[str, Peer] = {}
    for name in names:
        peer = PEERS[name]()
        with tempfile.TemporaryDirectory() as directory:
            try:
                peer.prepare(Path(directory))
            except PeerMissingError as error:
                print(f"{name} is left out: {error}", file=sys.stderr)
                continue
        found[name] = peer
    return found


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default=",".join(PEERS), help="comma-separated; default all: %(default)s")
    parser.add_argument("--only", default=",".join(PARTS), help="comma-separated; default all: %(default)s")
    parser.add_argument("--nodes", type=int, default=40, help="default %(default)s")
    parser.add_argument("--repetitions", type=int, help="of detection and of the shortest freeze (default 20; 2 with --quick)")
    parser.add_argument("--quick", action="store_true", help="a check of some minutes: everything, but little of it")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 100_000, help="who dies, and how long the pauses are")
    parser.add_argument("--log", type=Path, help="write every line of every node here")
    parser.add_argument(
        "--save",
        action=argparse.BooleanOptionalAction,
        help="write results/ and the figures in README.md and docs/membership.md; default: when everything was measured",
    )
    options = parser.parse_args()
    for what, known in (("peers", tuple(PEERS)), ("only", PARTS)):
        chosen = getattr(options, what).split(",")
        if unknown := [name for name in chosen if name not in known]:
            parser.error(f"--{what}: no {', '.join(unknown)}; there are {', '.join(known)}")
        setattr(options, what, [name for name in known if name in chosen])
    options.repetitions = options.repetitions or (2 if options.quick else 20)
    if options.repetitions < 1 or options.nodes < 10:
        parser.error("at least 1 repetition and 10 nodes")
    return options


def main() -> int:
    options = arguments()
    peers = available(options.peers)
    if not peers:
        return 1
    effort = (Effort.quick if options.quick else Effort.full)(options.repetitions, options.nodes, options.only)
    results: dict[str, Any] = {
        "machine": {**machine(), "load_before": round(os.getloadavg()[0], 2)},
        "nodes": options.nodes,
        "victims": effort.victims,
        "repetitions": effort.repetitions,
        "seed": options.seed,
        "peers": {name: {"title": peer.title, "errors": []} for name, peer in peers.items()},
    }
    began = time.perf_counter()
    stop_cleanly()
    try:
        measure(options, effort, peers, results)
    except ClusterUnavailableError as error:
        sys.exit(f"no cluster here: {error}")
    results["seconds_in_all"] = round(time.perf_counter() - began, 1)
    everything = not options.quick and list(peers) == list(PEERS) and options.only == list(PARTS) and options.repetitions >= 20
    save = everything if options.save is None else options.save
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / ("membership.json" if save else "partial.json")).write_text(json.dumps(results, separators=(",", ":")) + "\n")
    print(report.markdown(results))
    if save:
        report.save(results, RESULTS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
