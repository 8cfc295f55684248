"""What the Python drivers share: a server that runs one workload at a time, so that every repetition finds a warm process.

On stdin ``fresh`` (let go of everything, and enter a new, empty network namespace) or ``run W5 9`` (prepare, then make nine passes);
on stdout a line of JSON for each. Only :meth:`Driver.run` is timed: imports, sockets, and building the driver's objects are not.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from workloads import TRACED, WORKLOADS, Workload

from pyminuteman.testing.network_namespace import fresh_network_namespace


class Driver:
    """One way to bring a table about."""

    def open(self) -> None:
        """Open sockets, in the namespace that has just been entered."""

    def prepare(self, workload: Workload) -> None:
        """Build what `run` needs. The kernel's table is already as the workload wants it to begin."""

    def run(self, workload: Workload, number: int) -> dict[str, Any] | None:
        """The measured part: pass `number`, those with odd numbers going back. What it returns goes into the results."""
        raise NotImplementedError

    def close(self) -> None:
        """Close sockets."""


def serve(driver: Driver) -> None:
    is_open = False
    for line in sys.stdin:
        verb, *words = line.split()
        answer: dict[str, Any] = {}
        if verb == "fresh":
            if is_open:
                driver.close()
                is_open = False
            fresh_network_namespace()
        else:
            workload = (WORKLOADS | TRACED)[words[0]]
            if not is_open:
                driver.open()
                is_open = True
            driver.prepare(workload)
            passes = answer["passes"] = []
            for number in range(int(words[1])):
                began = time.perf_counter()
                more = driver.run(workload, number)
                passes.append({"seconds": time.perf_counter() - began} | (more or {}))
        print(json.dumps(answer), flush=True)
