"""How fast is an IPVS table brought about, and how near is that to the limit?

Loads, changes and reads tables of up to 100,000 destinations with this library, its peers, and ``limit.c``: the least that any
program must do. Everybody takes turns on one kernel: this host's if it has IPVS (and we are root), else a guest's (user-mode-linux).

- Each peer is one process for the whole run, so that its memory is as warm as the others'. The limit goes first in no round:
  the order turns with every repetition.
- Each repetition has a network namespace of its own, with lo up: the kernel searches destinations that were removed in the last
  minutes at every addition, so a table that was used before is another table.
- What is there before the change (W3 to W8) was loaded by a second ``limit``; then we wait until the kernel is idle, since it is
  the kernel that takes the last namespace apart.
- After each repetition the kernel's table is read back from ``/proc/PID/net/ip_vs``, and each row compared.
- Medians; a peer gets at most --budget seconds for one workload, and so fewer repetitions when it is slow: see the column n.

Results: a table on stdout, or JSON by ``-o json``; both and a picture in ``results/`` after a run of everything. See README.md for
what to believe. About ten minutes; ``--quick`` one.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from functools import cache
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))  # an uninstalled tree will do, once the C module is built in place

import report  # noqa: E402
from machine import machine  # noqa: E402
from workloads import TRACED, WORKLOADS, Table, Workload, read_back  # noqa: E402

from pyminuteman.testing.kernel_guest import Guest, GuestUnavailableError, forwarded_environment  # noqa: E402
from pyminuteman.testing.network_namespace import why_no_host_ipvs  # noqa: E402

PEERS = {
    "limit": [],  # its path comes first
    "apply": [sys.executable, "-m", "peers.ours", "apply"],
    "converge": [sys.executable, "-m", "peers.ours", "converge"],
    "memory": [sys.executable, "-m", "peers.ours", "memory"],
    "gnlpy": [sys.executable, "-m", "peers.gnlpy"],
    "ipvsadm": [sys.executable, "-m", "peers.ipvsadm"],
    "pyroute2": [sys.executable, "-m", "peers.pyroute2"],
}
FAST = ("limit", "apply", "converge", "memory")
LEFT_OUT = {
    **{("apply", kind): "nothing to apply" for kind in ("W3", "W3n", "W7")},
    **{("memory", name): "nothing in memory yet" for name in ("W1", "W2", "W6")},
    **{("memory", name): "reads nothing" for name in ("W3", "W3n", "W7")},
    ("pyroute2", "W6"): "takes minutes",
    ("pyroute2", "W7"): "takes minutes",
    # One change is one request to whoever knows which: finding that out is what W7 costs them.
    **{(peer, "W8"): "keeps no table" for peer in ("gnlpy", "ipvsadm", "pyroute2")},
}
QUICK = {"workloads": "W1,W2,W3,W4,W5", "repeat": 3, "budget": 4.0}
GUEST_MEMORY = "2G"
# The first touch of a page costs 50 us in the guest, 25 times the host's: glibc is told to keep what it got, for everybody.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(1 << 30), "MALLOC_TOP_PAD_": str(1 << 24)}
PACKAGES = ("pyminuteman", "pyroute2", "gnlpy", "cffi")


def say(text: str, *, end: str = "\n") -> None:
    print(text, end=end, file=sys.stderr, flush=True)


class Peer:
    """A peer's process."""

    def __init__(self, name: str, command: list[str]) -> None:
        self.name = name
        path = f"{HERE}{os.pathsep}{ROOT}"
        environment = os.environ | MALLOC | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, cwd=HERE, env=environment
        )

    def ask(self, line: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(line + "\n")
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self.name} ended at {line!r}, with status {self.process.wait()}")
        return json.loads(answer)

    def end(self) -> None:
        self.process.communicate()


def wait_until_idle(timeout: float = 20.0) -> None:
    """Wait until this kernel has had 60 ms with almost nothing to do."""

    def idle() -> int:
        words = Path("/proc/stat").read_text().split(None, 6)
        return int(words[4]) + int(words[5])  # ticks, of all processors together

    ticks = os.sysconf("SC_CLK_TCK") * 0.06
    end = time.perf_counter() + timeout
    while time.perf_counter() < end:
        before = idle()
        time.sleep(0.06)
        if idle() - before >= ticks - 2:
            return


@cache
def expected(workload: Workload) -> Table:
    return workload.expected()


class Bench:
    """All the peers, taking turns on this kernel."""

    def __init__(self, names: list[str], limit: str, budget: float) -> None:
        commands = PEERS | {"limit": [limit]}
        self.budget = budget
        self.loader = Peer("loader", [limit])
        self.peers = {name: Peer(name, commands[name]) for name in names}
        self.runs: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for peer in self.peers.values():
            peer.ask("fresh")

    def load(self, peer: Peer, workload: Workload) -> None:
        """Put the workload's table into the peer's namespace."""
        self.loader.ask(f"join {peer.process.pid}")
        loaded = self.loader.ask(f"load {workload.services} {workload.per_service}")
        self.loader.ask("home")
        if loaded["errors"]:
            raise AssertionError(loaded)

    def once(self, name: str, workload: Workload) -> dict[str, Any]:
        """One repetition."""
        peer = self.peers[name]
        peer.ask("fresh")
        if workload.starts_loaded:
            self.load(peer, workload)
        wait_until_idle()
        passes = workload.passes if name in FAST else 1
        if name == "limit":
            if workload.starts_loaded:
                peer.ask("dump")  # as the others, it has seen this table before
            found = [peer.ask(workload.limit_command(number)) for number in range(passes)]
            for one in found:
                if one["errors"] or (workload.kind == "read" and one["destinations"] != workload.destinations):
                    raise AssertionError(one)
        else:
            found = peer.ask(f"run {workload.name} {passes}")["passes"]
        if read_back(Path(f"/proc/{peer.process.pid}/net/ip_vs").read_text()) != expected(workload):
            raise AssertionError(f"{name} {workload.name}: the kernel's table is not what it should be")
        peer.ask("fresh")
        middle = {key: median(one[key] for one in found) for key, value in found[0].items() if isinstance(value, float | int)}
        if "applying_seconds" in found[0]:
            middle["own_seconds"] = median(one["seconds"] - one["applying_seconds"] for one in found)
        return middle | {"first_seconds": found[0]["seconds"]}

    def wanted(self, name: str, workload: Workload, repeat: int) -> int:
        """How many repetitions the budget allows."""
        runs = self.runs.get((name, workload.name), [])
        if not runs or name in FAST:
            return repeat
        return max(1, min(repeat, int(self.budget / max(run["seconds"] for run in runs))))

    def all(self, workloads: list[Workload], repeat: int) -> None:
        for name in FAST:  # first touch of every page: not measured
            for workload in workloads:
                if name in self.peers and (name, workload.name) not in LEFT_OUT and workload.kind != "one":
                    self.once(name, workload)
        for repetition in range(repeat):
            order = list(self.peers)
            order = order[repetition % len(order) :] + order[: repetition % len(order)]
            for workload in workloads:
                parts = []
                for name in order:
                    runs = self.runs.setdefault((name, workload.name), [])
                    if (name, workload.name) in LEFT_OUT or len(runs) >= self.wanted(name, workload, repeat):
                        continue
                    runs.append(self.once(name, workload))
                    parts.append(f"{name} {runs[-1]['seconds'] * 1e3:.4g}")
                say(f"{repetition + 1}/{repeat} {workload.name:4} ms: {', '.join(parts)}")

    def count_system_calls(self, name: str) -> dict[str, float]:
        """System calls a request (loading) and a service (reading), by strace. Not those that ask the time: elsewhere no calls."""
        counts = {}
        peer = self.peers[name]
        for workload in TRACED.values():
            if name in {"apply", "memory"} and workload.kind == "read":
                continue
            for traced in (False, True):  # imports and first allocations come once
                peer.ask("fresh")
                if workload.starts_loaded:
                    self.load(peer, workload)
                command = workload.limit_command() if name == "limit" else f"run {workload.name} 1"
                if not traced:
                    peer.ask(command)
            with tempfile.TemporaryDirectory() as directory:
                output = Path(directory) / "strace"
                trace = ["strace", "-f", "-c", "-U", "calls,name", "-o", str(output), "-p", str(peer.process.pid)]
                strace = subprocess.Popen(trace, stderr=subprocess.PIPE)
                assert strace.stderr is not None
                strace.stderr.readline()  # it says that it is attached
                peer.ask(command)
                strace.send_signal(signal.SIGINT)
                strace.wait()
                rows = re.findall(r"^ *(\d+) (\w+)$", output.read_text(), re.MULTILINE)
            calls = sum(int(number) for number, call in rows if call not in {"total", "clock_gettime", "gettimeofday", "time"})
            counts[workload.kind] = calls / (workload.requests if workload.kind == "load" else workload.services)
        peer.ask("fresh")
        return counts

    def system_call_seconds(self) -> float:
        """What getppid costs here: the guest's tax."""
        if "limit" not in self.peers:
            return 0.0
        return min(self.peers["limit"].ask("syscall 2000")["seconds"] / 2000 for _ in range(5))

    def end(self) -> None:
        for peer in (self.loader, *self.peers.values()):
            peer.end()


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Median and spread."""
    seconds = sorted(run["seconds"] for run in runs)
    found: dict[str, Any] = {
        "n": len(seconds),
        "median_ms": median(seconds) * 1e3,
        "min_ms": seconds[0] * 1e3,
        "max_ms": seconds[-1] * 1e3,
        "all_ms": [run["seconds"] * 1e3 for run in runs],
    }
    for key in ("own", "first", "cold"):
        if f"{key}_seconds" in runs[0]:
            found[f"{key}_ms"] = median(run[f"{key}_seconds"] for run in runs) * 1e3
    if "system_calls" in runs[0]:
        found["system_calls"] = median(run["system_calls"] for run in runs)
    return found


def inside(options: argparse.Namespace) -> int:
    """On the kernel that is measured: run, and print JSON."""
    names = options.peers.split(",")
    workloads = [WORKLOADS[name] for name in options.workloads.split(",")]
    bench = Bench(names, options.limit, options.budget)
    try:
        bench.all(workloads, options.repeat)
        calls: dict[str, dict[str, float]] = {}
        if shutil.which("strace") and not options.quick:
            say("system calls:", end="")
            for name in names:
                say(f" {name}", end="")
                calls[name] = bench.count_system_calls(name)
            say("")
        tax = bench.system_call_seconds()
    finally:
        bench.end()
    results: dict[str, dict[str, Any]] = {}
    for (name, workload), runs in bench.runs.items():
        if runs:
            results.setdefault(workload, {})[name] = summary(runs)
    ipvsadm = shutil.which("ipvsadm", path="/usr/sbin:/sbin:/usr/local/sbin") or "true"
    said = subprocess.run([ipvsadm, "--version"], capture_output=True, text=True, check=False).stdout
    version = re.search(r"ipvsadm v([\d.]+)", said)
    json.dump(
        {
            "ipvsadm": version[1] if version else "?",
            "release": platform.release(),
            "system_call_us": tax * 1e6,
            "calls": calls,
            "results": results,
        },
        sys.stdout,
    )
    return 0


def compile_limit(directory: str) -> str:
    program = f"{directory}/limit"
    compiler = os.environ.get("CC", "cc").split()
    subprocess.run([*compiler, "-std=c11", "-O2", "-Wall", "-Wextra", str(HERE / "limit.c"), "-o", program], check=True)
    return program


def measure(options: argparse.Namespace, limit: str) -> dict[str, Any]:
    """Run :func:`inside` where there is IPVS."""
    command = [sys.executable, str(HERE / "reconcile.py"), "--inside", "--peers", options.peers]
    command += ["--workloads", options.workloads, "--repeat", str(options.repeat), "--budget", str(options.budget)]
    command += ["--quick"] if options.quick else []
    reason = why_no_host_ipvs()
    if reason is None and not options.guest:
        done = subprocess.run([*command, "--limit", limit], stdout=subprocess.PIPE, check=False, env=forwarded_environment())
        output, code, guest = done.stdout, done.returncode, False
    else:
        say(f"in a guest: {reason or 'as asked'}")
        out = bytearray()
        guest = Guest(
            [*command, "--limit", "/run/guest/limit"],
            mem=GUEST_MEMORY,
            rw=[],
            cwd=str(ROOT),
            timeout=None,
            files={"limit": Path(limit).read_bytes()},
        )
        code = guest.run(out.extend)
        output, guest = bytes(out), True
        if code:
            say(guest.console.decode(errors="replace")[-4000:])
    if code:
        sys.exit(f"the benchmark ended with status {code}")
    return json.loads(output) | {"guest": guest}


def machine_and_versions() -> dict[str, Any]:
    """What this was measured on, and with what."""
    versions = {}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    compiler = subprocess.run([*os.environ.get("CC", "cc").split(), "--version"], capture_output=True, text=True, check=True)
    return {**machine(), "compiler": compiler.stdout.splitlines()[0], "versions": versions}


def extra(script: str, *arguments: str) -> dict[str, Any]:
    """One of the questions that need no IPVS."""
    say(f"{script} ...")
    done = subprocess.run(
        [sys.executable, str(HERE / script), "-o", "json", *arguments], stdout=subprocess.PIPE, check=False, cwd=HERE
    )
    return json.loads(done.stdout) if done.returncode == 0 else {}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Bring IPVS tables about, with this library, its peers and the least that any program must do.",
        epilog="workloads: " + "; ".join(f"{w.name}: {w.title}" for w in WORKLOADS.values()),
    )
    parser.add_argument("--peers", default=",".join(PEERS), help="comma-separated; default all: %(default)s")
    parser.add_argument("--workloads", default=",".join(WORKLOADS), help="comma-separated; default all: %(default)s")
    parser.add_argument("--repeat", type=int, default=7, help="repetitions (default %(default)s)")
    parser.add_argument("--budget", type=float, default=30.0, help="seconds for a slow peer and workload (default %(default)s)")
    parser.add_argument("--quick", action="store_true", help="a check of one minute: W1 to W5, 3 repetitions, no extras")
    parser.add_argument("--guest", action="store_true", help="use a guest even if this kernel has IPVS")
    parser.add_argument(
        "-o", "--output", choices=("table", "json"), default="table", help="what to print (default %(default)s)"
    )
    parser.add_argument(
        "--save",
        action=argparse.BooleanOptionalAction,
        help="write results/reconcile.json, .md and .png, and the figures in README.md; default: when everything was measured",
    )
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--limit", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick and not options.inside:
        for name, value in QUICK.items():
            if getattr(options, name) == parser.get_default(name):
                setattr(options, name, value)
    for what, known in (("peers", PEERS), ("workloads", WORKLOADS)):
        unknown = [name for name in getattr(options, what).split(",") if name not in known]
        if unknown:
            parser.error(f"--{what}: no {', '.join(unknown)}; there are {', '.join(known)}")
    if options.repeat < 1:
        parser.error("--repeat: at least 1")
    return options


def main() -> int:
    options = arguments()
    if options.inside:
        return inside(options)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by an exception, so that the guest goes too
    signal.signal(signal.SIGINT, lambda *_: sys.exit(130))
    everything = not options.quick and options.peers == ",".join(PEERS) and options.workloads == ",".join(WORKLOADS)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as directory:
        limit = compile_limit(directory)
        try:
            data = measure(options, limit)
        except GuestUnavailableError as error:
            sys.exit(str(error))
        data["machine"] = machine_and_versions()
        data["machine"]["versions"]["ipvsadm"] = data["ipvsadm"]
        if not options.quick:
            data["native"] = extra("native.py", "--limit", limit)
            data["diff"] = extra("diff_cost.py")
        data["seconds_in_all"] = time.perf_counter() - began
    say(f"{data['seconds_in_all']:.0f} s in all")
    if options.output == "json":
        print(json.dumps(data, indent=1))
    else:
        print(report.markdown(data))
    if options.save or (options.save is None and everything):
        results = HERE / "results"
        results.mkdir(exist_ok=True)
        (results / "reconcile.json").write_text(json.dumps(data, indent=1) + "\n")
        for script in ("report.py", "plot.py"):
            subprocess.run([sys.executable, str(HERE / script), "--save"], check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
