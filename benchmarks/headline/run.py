"""The predecessor's headline experiment on this project: an eighth of the nodes panic while clients ask a VIP, and what comes of it.

All daemons and all IPVS are real, each node in a network namespace of its own: on this host's kernel if it has IPVS and we are root, else in
a user-mode-linux guest. README.md has the method and the figures of the last run. Some 40 minutes; ``--quick`` a minute and a half.
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

from benchmarks.headline import report  # noqa: E402
from benchmarks.headline.experiment import Experiment  # noqa: E402
from benchmarks.headline.figures import of_requests, shown  # noqa: E402
from benchmarks.machine import machine  # noqa: E402
from benchmarks.membership.progress import Progress  # noqa: E402
from benchmarks.stopping import stop_cleanly  # noqa: E402
from pyminuteman.testing.kernel_guest import Guest, GuestUnavailableError, forwarded_environment  # noqa: E402
from pyminuteman.testing.network_namespace import why_no_host_ipvs  # noqa: E402

RESULTS = HERE / "results"
SIZES = (10, 20, 40)
RUNS = 5
SCHEDULER = "wlc"
GUEST_MEMORY = "3G"
GUEST_SECONDS = 1200.0
LINES = {"daemons": 6, "static": 4}
"""Of progress, from a run."""
QUICK = {"tasks": 150, "rest_seconds": 3.0, "changes": 1, "panic_seconds": 3.0, "seconds": 10.0, "patience_seconds": 3.0}
QUICK_NODES = 6


def planned(sizes: list[int], runs: int, seed: int, *, quick: bool, scheduler: str = SCHEDULER) -> list[Experiment]:
    """The largest as often as asked, the others three runs for its five; once more without repair. In turns, for machines drift."""
    if quick:
        forms: list[Any] = ["daemons", "static"]
        return [Experiment(nodes=QUICK_NODES, form=form, seed=seed, scheduler=scheduler, **QUICK) for form in forms]  # type: ignore[arg-type]
    few = max(1, round(runs * 0.6))
    found = []
    for block in range(runs):
        due = [nodes for nodes in sizes if block < (runs if nodes == max(sizes) else few)]
        found += [Experiment(nodes=nodes, seed=seed + 10 * block, scheduler=scheduler) for nodes in due]
        if block == 0:
            found.append(Experiment(nodes=max(sizes), form="static", seed=seed, scheduler=scheduler))
    return found


def measure(experiment: Experiment, progress: Progress, *, in_guest: bool) -> dict[str, Any]:
    """One run; what broke it off is a result, too.

    Raises:
        GuestUnavailableError: There is neither IPVS here nor a guest.
    """
    command = [sys.executable, "-m", "benchmarks.headline.inside", json.dumps(experiment.as_data())]
    talk = _Talk(progress)
    if in_guest:
        out = bytearray()
        guest = Guest(command, mem=GUEST_MEMORY, rw=[], cwd=str(ROOT), timeout=GUEST_SECONDS)
        code = guest.run(out.extend, talk.feed)
        output = bytes(out)
    else:
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, env=forwarded_environment()
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            for line in process.stderr:
                talk.feed(line)
            output = process.stdout.read()
        code = process.returncode
    found: dict[str, Any] = {"experiment": experiment.as_data()}
    if code:
        progress.say(f"broke off, status {code}")
        return found | {"error": talk.last or f"status {code}"}
    found |= json.loads(output)
    return found | {"answers": of_requests(found)}


class _Talk:
    """Passes on what a run says, line by line."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._rest = b""
        self.last = ""

    def feed(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self.last = line.decode(errors="replace")
            self._progress.done(self.last)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", default=",".join(map(str, SIZES)), help="comma-separated; default %(default)s")
    parser.add_argument(
        "--runs", type=int, default=RUNS, help="of the largest cluster (default %(default)s); others three for five"
    )
    parser.add_argument(
        "--quick", action="store_true", help=f"a check: one run of {QUICK_NODES} nodes, with daemons and without repair"
    )
    parser.add_argument("--seed", type=int, default=time.time_ns() % 100_000, help="who dies, and when clients begin")
    parser.add_argument("--scheduler", choices=("wlc", "rr"), default=SCHEDULER, help="of the VIP (default %(default)s)")
    parser.add_argument("--guest", action="store_true", help="use a guest even if this kernel has IPVS")
    parser.add_argument(
        "-o", "--output", choices=("table", "json"), default="table", help="what to print (default %(default)s)"
    )
    parser.add_argument(
        "--save",
        action=argparse.BooleanOptionalAction,
        help="write results/ and the figures in README.md and the project's README; default: when everything was measured",
    )
    options = parser.parse_args()
    try:
        options.nodes = sorted({int(word) for word in options.nodes.split(",")})
        options.planned = planned(options.nodes, options.runs, options.seed, quick=options.quick, scheduler=options.scheduler)
    except ValueError as error:
        parser.error(f"--nodes: {error}")
    if options.runs < 1:
        parser.error("--runs: at least 1")
    asked = (tuple(options.nodes), options.scheduler)
    everything = not options.quick and asked == (SIZES, SCHEDULER) and options.runs >= RUNS
    options.save = everything if options.save is None else options.save
    return options


def without_most_requests(data: dict[str, Any]) -> dict[str, Any]:
    """As it is kept: each request of the two runs in the picture, and of the others only what came of them."""
    kept = [id(shown(data, form)) for form in LINES]
    runs = [run if id(run) in kept else {key: value for key, value in run.items() if key != "requests"} for run in data["runs"]]
    return data | {"runs": runs}


def main() -> int:
    options = arguments()
    reason = why_no_host_ipvs()
    in_guest = options.guest or reason is not None
    where = f"in a guest: {reason or 'as asked'}" if in_guest else "on this host"
    print(f"{len(options.planned)} runs, {where}", file=sys.stderr)
    data: dict[str, Any] = {"machine": machine(), "load_before": round(os.getloadavg()[0], 2), "guest": in_guest}
    data |= {"seed": options.seed, "quick": options.quick, "runs": []}
    progress = Progress(sum(LINES[experiment.form] for experiment in options.planned))
    began = time.perf_counter()
    stop_cleanly()
    RESULTS.mkdir(exist_ok=True)
    for count, experiment in enumerate(options.planned, 1):
        progress.enter(f"{count}/{len(options.planned)} {experiment.nodes} nodes, {experiment.form}")
        try:
            data["runs"].append(measure(experiment, progress, in_guest=in_guest))
        except GuestUnavailableError as error:
            sys.exit(str(error))
        data["seconds_in_all"] = round(time.perf_counter() - began, 1)
        data["load_after"] = round(os.getloadavg()[0], 2)
        write(RESULTS / "partial.json", data)
    if options.save:
        write(RESULTS / "headline.json", data)
        report.save(data)
    print(json.dumps(data) if options.output == "json" else report.markdown(data))
    return 1 if report.errors(data) else 0


def write(path: Path, data: dict[str, Any]) -> None:
    """As it is kept."""
    path.write_text(json.dumps(without_most_requests(data), separators=(",", ":")) + "\n")


if __name__ == "__main__":
    sys.exit(main())
