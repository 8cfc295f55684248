"""How long does it take from VIPs to the plan for the kernel: all of them new, nothing changed, one backend changed?

The steps are those of ``minuteman vips apply --watch``, in its order, each by the function that it calls. The kernel's table is a
double's, whose reading costs nothing: what reading the kernel takes is another benchmark's question (benchmarks/README.md).
Run in a process of its own: ``python -m benchmarks.sources.deciding SHAPE REPETITIONS``.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.sources import documents
from benchmarks.sources.memory import memory_peak_mib
from benchmarks.sources.spread import spread
from pyminuteman.ipvs import IPVSTable, Scope, Snapshot
from pyminuteman.ipvs.shrinkage import shrinkage
from pyminuteman.sources.document import parse_vip
from pyminuteman.testing.fake_kernel import FakeKernel
from pyminuteman.vips.claims import Claim
from pyminuteman.vips.desired import DesiredState, DesiredTable
from pyminuteman.vips.model import VIP
from pyminuteman.vips.resolution import Reach

ROOT = Path(__file__).resolve().parents[2]
SHAPES = {
    "1000x10": (documents.SERVICES, documents.PER_SERVICE, "1,000 VIPs of 10 backends"),
    "10000x1": (documents.BACKENDS, 1, "10,000 VIPs of one"),
}
STEPS = {
    "desired": "`DesiredTable.replace`, `.refresh`",
    "guard": "`IPVSTable.pack`, `shrinkage`",
    "plan": "`IPVSTable.plan`",
}
CASES = {"all": "all is new", "nothing": "nothing changed", "one": "one weight changed"}


class StillKernel(FakeKernel):
    """Its table was read already: as it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.table = Snapshot()

    def read(self, previous: Snapshot | None = None, *, kernel_order: bool = False) -> Snapshot:  # noqa: ARG002
        return self.table


class Host:
    """What a process keeps from one change to the next."""

    def __init__(self) -> None:
        self.desired = DesiredTable()
        self.kernel = StillKernel()
        self.scope = Scope.networks("11.0.0.0/8")
        self.table = IPVSTable(scope=self.scope, backend=self.kernel)

    def decide(self, vips: list[VIP]) -> tuple[dict[str, float], int]:
        """Milliseconds of each step, and how many operations the plan has; which is then held to be carried out."""
        claims = [Claim(vip, "bench") for vip in vips]

        def refresh() -> DesiredState:
            self.desired.replace(claims)
            return self.desired.refresh(lambda _agent: Reach.UP)

        took: dict[str, float] = {}
        state = timed(took, "desired", refresh)
        current = self.table.snapshot()
        timed(took, "guard", lambda: shrinkage(current, self.table.pack(state.services), self.scope))
        plan = timed(took, "plan", lambda: self.table.plan(state.services))
        self.kernel.table = Snapshot.of(state.services)
        return took, len(plan)


def timed(took: dict[str, float], step: str, work: Callable[[], Any]) -> Any:
    gc.collect()
    began = time.perf_counter()
    found = work()
    took[step] = (time.perf_counter() - began) * 1e3
    return found


def changed(vips: list[VIP], weight: int) -> list[VIP]:
    """The first backend of the first VIP has that weight; all else is the same objects."""
    first, *others = vips
    head, *tail = first.backends
    return [replace(first, backends=(replace(head, weight=weight), *tail)), *others]


def measure_here(shape: str, repetitions: int) -> dict[str, Any]:
    services, backends, _ = SHAPES[shape]
    vips = [parse_vip(documents.vip_document(service, backends), "") for service in range(services)]
    memory, _ = memory_peak_mib(lambda: Host().decide(vips))
    found: dict[str, dict[str, list[float]]] = {case: {step: [] for step in STEPS} for case in CASES}
    for repetition in range(repetitions):
        host = Host()
        operations = {}
        for case, wanted in (("all", vips), ("nothing", list(vips)), ("one", changed(vips, 2 + repetition))):
            took, operations[case] = host.decide(wanted)
            for step, milliseconds in took.items():
                found[case][step].append(milliseconds)
        if operations != {"all": services * (1 + backends), "nothing": 0, "one": 1}:
            raise AssertionError(f"the plans had {operations} operations")
    cases = {case: {step: spread(values) for step, values in steps.items()} for case, steps in found.items()}
    return {"cases": cases, "memory_mib": round(memory, 1)}


def measure(shape: str, repetitions: int) -> dict[str, Any]:
    """In a process of its own."""
    command = [sys.executable, "-m", __spec__.name, shape, str(repetitions)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, cwd=ROOT).stdout)


if __name__ == "__main__":
    print(json.dumps(measure_here(sys.argv[1], int(sys.argv[2]))))
