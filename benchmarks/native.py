"""What would it cost without the guest? An estimate from two measured parts.

A guest multiplies the cost of system calls, and with it the distance between a program that makes two and one that makes
thousands. So here, on the host's own kernel and with nothing of IPVS in it, everybody sends the same messages as type NLMSG_NOOP:
the kernel acknowledges them and does nothing. That is building, system calls and netlink at their true cost. What IPVS itself
does for the changes is kernel code, which a guest runs at full speed; it is taken from the guest's measurement of the limit
(see ``estimate`` in report.py). The sum is an estimate, not a measurement on one machine. Both are the least of the repetitions: what
disturbs a measurement only adds to it.

ipvsadm cannot be made to send something else. For each change it opens a socket and looks the family up: ``limit.c`` does just
that, which is less than ipvsadm does.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from peers.ours import EVERYTHING, build, targets  # noqa: E402
from workloads import WORKLOADS, Workload  # noqa: E402

from pyminuteman.ipvs import IPVSTable, NetlinkBackend, Snapshot  # noqa: E402

NLMSG_NOOP = 1
CHANGING = [workload for workload in WORKLOADS.values() if workload.kind != "read"]
CHANGES = {"gnlpy": 2000, "pyroute2": 500}


class NoopBackend(NetlinkBackend):
    """The engine, talking to a kernel that acknowledges everything and has an empty table."""

    def __init__(self) -> None:
        def attach(_ffi: Any, lib: Any, out: Any) -> int:
            with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 16) as any_socket:
                any_socket.bind((0, 0))
                return lib.pmm_attach(out, os.dup(any_socket.fileno()), NLMSG_NOOP, 5000)

        super().__init__(opener=attach)

    def read(self, _previous: Snapshot | None = None, *, kernel_order: bool = False) -> Snapshot:
        del kernel_order
        return Snapshot()


def milliseconds(run: Callable[[], object], repeat: int) -> float:
    """The least of so many runs."""
    times = []
    for _ in range(repeat):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return min(times) * 1e3


def ours(workload: Workload, repeat: int) -> dict[str, float]:
    """`apply`; and the whole of `converge`, by memory where a table is there."""
    desired = build(workload)
    steps = targets(workload, desired)
    with NoopBackend() as backend:
        if workload.kind == "load":  # each time a table that has nothing in memory
            plans = [IPVSTable(scope=EVERYTHING, backend=backend).plan(desired)]
            whole = milliseconds(lambda: IPVSTable(scope=EVERYTHING, backend=backend).converge(desired), repeat)
        else:
            table = IPVSTable(scope=EVERYTHING, backend=backend)
            table.converge(desired)
            cycle = [*steps, *([desired] if steps[-1] is not desired else [])]  # there and back are the same work
            plans = [table.converge(step, audit=False).plan for step in cycle][: len(steps)]
            whole = (
                milliseconds(lambda: [table.converge(step, audit=False) for step in cycle], repeat) * len(steps) / len(cycle)
            )
        assert sum(map(len, plans)) == workload.requests
        table = IPVSTable(scope=EVERYTHING, backend=backend)
        applying = milliseconds(lambda: [table.apply(plan) for plan in plans], repeat)
    return {"apply": applying, "converge" if workload.kind == "load" else "memory": whole}


def limit(program: str, repeat: int) -> tuple[dict[str, float], dict[str, float], float]:
    """A workload's milliseconds, a change's microseconds one by one and by ipvsadm's way, and a system call's."""
    process = subprocess.Popen([program, "--noop"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
    assert process.stdin is not None
    assert process.stdout is not None

    def ask(line: str) -> float:
        process.stdin.write(line + "\n")
        return json.loads(process.stdout.readline())["seconds"]

    def least(line: str) -> float:
        return min(ask(line) for _ in range(repeat))

    found = {workload.name: least(workload.limit_command()) * 1e3 for workload in CHANGING}
    single = {"single": least("single 1000 10") / 11_000 * 1e6, "lookup": least("lookup 2000") / 2000 * 1e6}
    tax = least("syscall 10000") / 10_000 * 1e6
    process.communicate()
    return found, single, tax


def peer(name: str, repeat: int) -> float:
    """Microseconds a change."""
    count = CHANGES[name]
    environment = os.environ | {"PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parent}"}
    runs = [
        subprocess.run(
            [sys.executable, "-m", f"peers.{name}", "--noop", str(count)],
            cwd=HERE, env=environment, capture_output=True, text=True, check=True,
        )
        for _ in range(repeat)
    ]  # fmt: skip
    return min(float(run.stdout) for run in runs) / count * 1e6


def measure(program: str, repeat: int) -> dict[str, Any]:
    of_limit, per_change, tax = limit(program, repeat)
    table: dict[str, dict[str, float]] = {}
    for workload in CHANGING:
        table[workload.name] = {"limit": of_limit[workload.name], **ours(workload, repeat)}
    for name in CHANGES:
        per_change[name] = peer(name, 5)
    return {"milliseconds": table, "change_us": per_change, "system_call_us": tax}


def main() -> int:
    parser = argparse.ArgumentParser(
        description="The cost of changes on this kernel, without IPVS: messages of type NLMSG_NOOP."
    )
    parser.add_argument("--limit", help="the compiled limit.c (default: compile it)")
    parser.add_argument("--repeat", type=int, default=15, help="repetitions (default %(default)s)")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    options = parser.parse_args()
    if options.limit:
        data = measure(options.limit, options.repeat)
    else:
        from reconcile import compile_limit  # noqa: PLC0415 - it imports all the rest

        with tempfile.TemporaryDirectory() as directory:
            data = measure(compile_limit(directory), options.repeat)
    if options.output == "json":
        print(json.dumps(data))
        return 0
    for name, row in data["milliseconds"].items():
        print(f"{name:4} ms: " + ", ".join(f"{peer} {value:.3f}" for peer, value in row.items()))
    print("us a change: " + ", ".join(f"{peer} {value:.2f}" for peer, value in data["change_us"].items()))
    print(f"us a system call: {data['system_call_us']:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
