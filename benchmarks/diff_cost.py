"""What does the difference of two tables of 100,000 destinations cost: time, memory, instructions?

Both tables have 1,000 services of 100, packed, in memory. Cases: they are equal; one destination differs; every service has one
that differs (so that nothing can be passed over). The engine is ``differing``, ``Snapshot.restricted`` and the merge in C; beside
it ``diff`` of plan.py, the same in pure Python, which tests hold to the same plans.

Time: median of repetitions in one process. Memory: how far the peak of resident memory (VmHWM) rises above what the process held
before the first diff. Instructions: callgrind over the whole process, with one diff and with three; half of the difference.
Runs natively; no IPVS is touched.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from native import EVERYTHING, NoopBackend  # noqa: E402
from workloads import DESTINATION_ADDRESS, DESTINATION_PORT, SERVICE_PORT, WORKLOADS, service_address  # noqa: E402

from pyminuteman.ipvs import Plan, Service, Snapshot, diff  # noqa: E402
from pyminuteman.ipvs.plan import differing  # noqa: E402
from pyminuteman.ipvs.records import DESTINATION  # noqa: E402

WORKLOAD = WORKLOADS["W6"]
CASES = {"equal": 0, "one differs": 1, "one of each service differs": WORKLOAD.services}
ENGINES = ("engine", "python")


def table(heavier: int) -> Snapshot:
    """1,000 services of 100, packed, all with the same destinations; the first of so many services has another weight."""
    port = DESTINATION_PORT.to_bytes(2, "big")
    rows = bytearray().join(
        DESTINATION.pack(2, (DESTINATION_ADDRESS + n).to_bytes(4, "big"), port, WORKLOAD.weight(n), 0, 0, 0, 0, 0, 0)
        for n in WORKLOAD.behind(0)
    )
    changed = rows.copy()
    changed[20] += 10  # where the weight is
    entries = {}
    for number in range(WORKLOAD.services):
        service = Service.tcp(service_address(number), SERVICE_PORT)
        entries[service.key.packed] = (service.packed, bytes(changed if number < heavier else rows))  # each in bytes of its own
    return Snapshot(entries)


def in_c(backend: NoopBackend, current: Snapshot, wanted: Snapshot) -> Plan:
    """As ``IPVSTable`` does it."""
    changed = differing(current, wanted, EVERYTHING)
    return backend.diff(current.restricted(changed), wanted.restricted(changed)) if changed else Plan()


def status(name: str) -> int:
    """A line of /proc/self/status, in KiB."""
    found = re.search(rf"{name}:\s*(\d+)", Path("/proc/self/status").read_text())
    return int(found[1]) if found else 0


def child(engine: str, case: str, times: int) -> None:
    """Do it so many times, and say what it took."""
    current, wanted = table(0), table(CASES[case])
    backend = NoopBackend()
    seconds = []
    before = status("VmRSS")
    for _ in range(times):
        began = time.perf_counter()
        plan = in_c(backend, current, wanted) if engine == "engine" else diff(current, wanted, scope=EVERYTHING)
        seconds.append(time.perf_counter() - began)
        assert len(plan) == CASES[case]
    print(json.dumps({"ms": median(seconds) * 1e3, "memory_kib": max(0, status("VmHWM") - before), "rss_kib": before}))


def run(engine: str, case: str, times: int, *before: str) -> dict[str, Any]:
    command = [*before, sys.executable, __file__, "--child", engine, case, str(times)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=HERE)
    return json.loads(done.stdout)


def total_instructions(case: str, times: int) -> int:
    with tempfile.TemporaryDirectory() as directory:
        output = Path(directory) / "callgrind"
        run("engine", case, times, "valgrind", "-q", "--tool=callgrind", f"--callgrind-out-file={output}")
        found = re.search(r"^(?:summary|totals): (\d+)", output.read_text(), re.MULTILINE)
        return int(found[1]) if found else 0


def instructions() -> dict[str, float]:
    """Of one diff of each case by the engine. Instructions do not mind being counted side by side."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        once, thrice = (list(pool.map(total_instructions, CASES, [times] * len(CASES))) for times in (1, 3))
    return {case: (more - less) / 2 for case, less, more in zip(CASES, once, thrice, strict=True)}


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Time, memory and instructions of the diff of two tables of 100,000 destinations."
    )
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    parser.add_argument("--child", nargs=3, metavar=("ENGINE", "CASE", "TIMES"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        engine, case, times = options.child
        child(engine, case, int(times))
        return 0
    os.environ["PYTHONHASHSEED"] = "0"  # instructions are to be the same each time
    found: dict[str, dict[str, Any]] = {}
    for engine in ENGINES:
        for case in CASES:
            row = run(engine, case, 15 if engine == "engine" else 3)
            row |= {"memory_kib": run(engine, case, 1)["memory_kib"]}
            found.setdefault(case, {})[engine] = row
    if shutil.which("valgrind"):
        for case, count in instructions().items():
            found[case]["engine"]["instructions"] = count
    if options.output == "json":
        print(json.dumps(found))
        return 0
    for case, engines in found.items():
        for engine, row in engines.items():
            count = f", {row['instructions']:,.0f} instructions" if "instructions" in row else ""
            print(f"{case}, {engine}: {row['ms']:.3f} ms, {row['memory_kib']} KiB over {row['rss_kib']}{count}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
