"""How fast are sources read, and how soon has the kernel what they say? README.md has the method and the figures of the last run.

Under five minutes; ``--quick`` under one. Prints tables; a run of everything also writes results/ and the figures in the pages.
"""

from __future__ import annotations

import argparse
import json
import os
import re
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
from benchmarks.sources import deciding, parsing, report, watching  # noqa: E402
from benchmarks.stopping import stop_cleanly  # noqa: E402
from pyminuteman.testing.etcd_server import why_no_etcd  # noqa: E402
from pyminuteman.testing.kernel_guest import GuestUnavailableError  # noqa: E402

RESULTS = HERE / "results"
QUICK_INPUTS = ("mesos-agent", "marathon", "json", "toml", "rules")
QUICK_SHAPES = ("1000x10",)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    quick, repetitions, changes = options.quick, options.repetitions, options.changes
    inputs = QUICK_INPUTS if quick else tuple(parsing.INPUTS)
    shapes = QUICK_SHAPES if quick else tuple(deciding.SHAPES)
    on_kernel, here = watching.runs(changes, quick=quick), watching.runs_here(changes, quick=quick)
    progress = Progress(len(inputs) + len(shapes) + len(on_kernel) + len(here))
    data: dict[str, Any] = {"machine": machine(), "etcd": etcd_version(), "load_before": round(os.getloadavg()[0], 2)}
    progress.enter("from a change to the kernel")
    data["kernel"] = watching.on_the_kernel(on_kernel, progress.done)
    progress.enter("likewise, on this host with a double")
    data["here"] = watching.here(here, progress.done)
    progress.enter("reading")
    data["parsing"] = {}
    for name in inputs:
        data["parsing"][name] = found = parsing.measure(name, repetitions)
        progress.done(f"{name}, {found['whole_ms']['median']:.0f} ms")
    progress.enter("deciding")
    data["deciding"] = {}
    for shape in shapes:
        data["deciding"][shape] = deciding.measure(shape, repetitions)
        progress.done(shape)
    data["load_after"] = round(os.getloadavg()[0], 2)
    return data


def etcd_version() -> str:
    said = subprocess.run(["etcd", "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"etcd Version: (\S+)", said)
    return found[1] if found else "?"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a check of less than a minute: a part of everything")
    parser.add_argument("--repetitions", type=int, help="of reading and deciding (default 7; 2 with --quick)")
    parser.add_argument("--changes", type=int, help="of each watch (default 30; 5 with --quick)")
    parser.add_argument(
        "-o", "--output", choices=("table", "json"), default="table", help="what to print (default %(default)s)"
    )
    parser.add_argument(
        "--save",
        action=argparse.BooleanOptionalAction,
        help="write results/ and the figures in README.md and docs/sources/README.md; default: when everything was measured",
    )
    options = parser.parse_args()
    full = (options.repetitions or 7) >= 7 and (options.changes or 30) >= 30 and not options.quick
    options.repetitions = options.repetitions or (2 if options.quick else 7)
    options.changes = options.changes or (5 if options.quick else 30)
    options.save = full if options.save is None else options.save
    if options.repetitions < 1 or options.changes < 1:
        parser.error("at least 1 repetition and 1 change")
    return options


def main() -> int:
    options = arguments()
    if reason := why_no_etcd():
        sys.exit(reason)
    began = time.perf_counter()
    stop_cleanly()
    try:
        data = measure(options)
    except GuestUnavailableError as error:
        sys.exit(str(error))
    data["seconds_in_all"] = round(time.perf_counter() - began, 1)
    print(json.dumps(data, indent=1) if options.output == "json" else report.markdown(data))
    if options.save:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "sources.json").write_text(json.dumps(data, separators=(",", ":")) + "\n")
        report.save(data)
    return 0


if __name__ == "__main__":
    sys.exit(main())
