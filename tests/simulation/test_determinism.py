"""A seed is a run: the same in every process, whatever that process hashes with; and two seeds are two."""

from __future__ import annotations

import os
import subprocess
import sys

from pyminuteman.testing.simulation.runner import run_seed
from pyminuteman.testing.simulation.scenarios import FAMILIES, draw

SEEDS = tuple(range(len(FAMILIES)))
PROGRAM = f"""
from pyminuteman.testing.simulation.runner import run_seed
for seed in {SEEDS}:
    print(run_seed(seed).digest)
"""


def test_the_same_seed_gives_the_same_trace_in_processes_with_different_hash_seeds() -> None:
    traces = []
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True)
        traces.append(done.stdout.split())
    assert len(traces[0]) == len(SEEDS)
    assert traces[0] == traces[1]
    assert len(set(traces[0])) == len(SEEDS)
    assert run_seed(SEEDS[0]).digest == traces[0][0]


def test_a_seed_draws_the_same_scenario_each_time() -> None:
    assert [draw(seed) for seed in range(70)] == [draw(seed) for seed in range(70)]
    assert {draw(seed).family for seed in range(len(FAMILIES))} == set(FAMILIES)
