"""On the kernel that is measured: a source, ``minuteman vips apply --watch`` as a process, and changes one after the other.

``python -m benchmarks.sources.inside`` takes a list of runs (:class:`Run`) as JSON in its one argument, prints a line of JSON for each on
standard output, and what it is doing on standard error.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from benchmarks.sources.changers import CHANGERS, Changer, documents
from benchmarks.sources.documents import vip_document
from benchmarks.sources.marked import POINTS
from pyminuteman.testing.network_namespace import fresh_network_namespace

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0
"""Seconds until something must have happened."""
PAUSE = (0.2, 0.4)
"""Seconds between two changes, at random: so that they fall on any phase of whoever does something regularly."""


@dataclass(frozen=True, slots=True)
class Run:
    """What is measured in one life of the process."""

    source: str
    backends: int
    changes: int
    marked: bool = False
    """The process notes what passes when, and nobody watches the table; else it is the command as it is."""
    double: bool = False
    """The kernel is a double; only with `marked`."""


class Poller:
    """The process that watches the table."""

    def __init__(self) -> None:
        vip = vip_document(0, 1)
        address, _, port = vip["listen"].removeprefix("tcp://").partition(":")
        command = [sys.executable, "-m", "benchmarks.sources.poller", address, port, vip["backend"][0]["address"]]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, cwd=ROOT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._process.kill()
        self._process.communicate()

    def look(self) -> None:
        """From now on, until the next change."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")

    def seen(self) -> float:
        """When it came."""
        assert self._process.stdout is not None
        return float(self._process.stdout.readline())


def destinations() -> int:
    return Path("/proc/net/ip_vs").read_text().count("\n  -> ") - 1  # one of them is the heading


def wait_until_loaded(run: Run, process: subprocess.Popen[bytes]) -> None:
    end = time.perf_counter() + PATIENCE
    while not run.double and destinations() != run.backends:
        if process.poll() is not None or time.perf_counter() > end:
            raise RuntimeError(f"{run}: {destinations()} destinations are there, and the process has status {process.poll()}")
        time.sleep(0.01)
    time.sleep(3.0 if run.double else 1.0)  # what comes after a start: the first audit of its own work, freed memory


def measure(run: Run) -> dict[str, Any]:
    chance = random.Random(run.backends)
    with ExitStack() as stack:
        if not run.double:
            fresh_network_namespace()
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="minuteman-bench-")))
        changer: Changer = stack.enter_context(CHANGERS[run.source](directory))
        changer.load(documents(run.backends))
        notes = directory / "notes"
        program = ["benchmarks.sources.marked", str(notes)] if run.marked else ["pyminuteman"]
        words = ["vips", "apply", "--watch", "--source", changer.source]
        talk = stack.enter_context((directory / "talk").open("w"))
        process = subprocess.Popen(
            [sys.executable, "-m", *program, *words],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=talk,
            env=os.environ | ({"MARKED_DOUBLE": "1"} if run.double else {}),
        )
        stack.callback(process.wait)
        stack.callback(process.terminate)
        wait_until_loaded(run, process)
        poller = None if run.marked else stack.enter_context(Poller())
        if poller:
            poller.look()
            poller.seen()
        times: list[tuple[float, float, float]] = []
        for at in range(run.changes):
            time.sleep(chance.uniform(*PAUSE))
            document = vip_document(0, min(run.backends, 10), 2 + at % 2)
            if poller:
                poller.look()
            began, written = changer.change(document)
            times.append((began, written, poller.seen() if poller else 0.0))
        time.sleep(0.5)
        process.terminate()
        if process.wait(PATIENCE):
            raise RuntimeError(f"{run}: the process ended with status {process.returncode}")
        found: dict[str, Any] = {"said": remarks((directory / "talk").read_text())}
        found |= {"written_ms": [round((written - began) * 1e3, 3) for began, written, _ in times]}
        if poller:
            found["seen_ms"] = [round((seen - began) * 1e3, 3) for began, _, seen in times]
        if run.marked:
            found["parts_ms"] = parts([began for began, _, _ in times], json.loads(notes.read_text()))
    return found


def remarks(talk: str) -> list[str]:
    """What the process said beyond what it always does: that it lost its source for a moment, say."""
    usual = ("scope: ", "the table is as desired", "edit 1 destination: ", "add ", "ended; ")
    return [line for line in talk.splitlines() if not line.startswith(usual)]


def parts(begins: list[float], notes: list[tuple[str, float]]) -> dict[str, list[float]]:
    """When each change first passed each point, in milliseconds after it was begun."""
    found: dict[str, list[float]] = {point: [] for point in POINTS}
    for at, began in enumerate(begins):
        end = begins[at + 1] if at + 1 < len(begins) else float("inf")
        after = 0.0
        for point in POINTS:  # each after the one before
            passed = [when for name, when in notes if name == point and max(began, after) <= when < end]
            if passed:
                after = min(passed)
                found[point].append(round((after - began) * 1e3, 3))
    return {point: values for point, values in found.items() if values}


def system_call_us() -> float:
    """What the cheapest one costs here."""

    def once() -> float:
        began = time.perf_counter()
        for _ in range(2000):
            os.getppid()
        return (time.perf_counter() - began) / 2000

    return min(once() for _ in range(5)) * 1e6


def main(text: str) -> None:
    print(json.dumps({"release": os.uname().release, "system_call_us": system_call_us()}), flush=True)
    for row in json.loads(text):
        run = Run(**row)
        print(f"{run.source}, {run.backends} backends{', parts' if run.marked else ''}", file=sys.stderr, flush=True)
        print(json.dumps(measure(run)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
