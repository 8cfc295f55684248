"""The cluster, from hundreds of seeds: one test a family of trouble. A seed that fails is told as a story, with how to replay it."""

from __future__ import annotations

import sys
import time
from collections import Counter

import pytest

from pyminuteman.testing.simulation.runner import run_many
from pyminuteman.testing.simulation.scenarios import FAMILIES, family_of

SEEDS = 504
STORIES_SHOWN = 2
ALWAYS_JUDGED = {"ViewsBounded", "LinksSymmetric", "GraphConnected", "MembersAgree", "RoutesHold", "MulticastOnce"}
ALSO_JUDGED = {
    "deaths": {"DetectionInTime", "NoFalseAlarms", "NoResurrection"},
    "restarts": {"NoResurrection"},
    "pauses": {"NoFalseAlarms", "RecoveryInTime"},
    "partitions": {"NoFalseAlarms", "NoResurrection"},
    "losses": {"DetectionInTime", "NoFalseAlarms", "NoResurrection"},
    "upgrade": {"NoResurrection"},
    "keys": {"KeysRotate"},
    "chaos": {"NoFalseAlarms", "NoResurrection"},
}
"""What each family is for: a checker that never had anything to judge would pass for the wrong reason."""


@pytest.mark.parametrize("family", FAMILIES)
def test_whatever_happens_everything_comes_right(family: str) -> None:
    seeds = [seed for seed in range(SEEDS) if family_of(seed) == family]
    began = time.perf_counter()
    judged: Counter[str] = Counter()
    failed = []
    for outcome in run_many(seeds):
        judged.update(outcome.judged)
        if not outcome.passed:
            failed.append(outcome)
    print(f"{family}: {len(seeds)} seeds in {time.perf_counter() - began:.1f} s", file=sys.stderr)  # noqa: T201 - progress
    stories = "\n".join(outcome.report() for outcome in failed[:STORIES_SHOWN])
    again = ",".join(str(outcome.scenario.seed) for outcome in sorted(failed, key=lambda one: one.scenario.seed))
    assert not failed, f"{stories}\n{len(failed)} of {len(seeds)} seeds failed: make simulate SEEDS={again}"
    assert {name for name in ALWAYS_JUDGED | ALSO_JUDGED[family] if not judged[name]} == set()
