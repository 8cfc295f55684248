"""What reads from the network, fuzzed: with coverage for a guide where there is atheris, and blindly everywhere."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import ROOT
from tests.fuzz import fuzz_wire
from tests.support.tools import is_ci

SEEDS = fuzz_wire.seeds()


@pytest.mark.parametrize("name", SEEDS)
def test_the_seeds_are_read(name: str) -> None:
    fuzz_wire.run(SEEDS[name])
    assert {seed[0] for seed in SEEDS.values()} == set(range(fuzz_wire.READERS))


@given(st.binary(max_size=400))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    fuzz_wire.run(data)


@given(st.sampled_from(sorted(SEEDS)), st.lists(st.tuples(st.integers(0, 2000), st.integers(1, 255)), min_size=1, max_size=4))
def test_seeds_that_are_altered_are_read_or_refused(name: str, changes: list[tuple[int, int]]) -> None:
    data = bytearray(SEEDS[name])
    for place, change in changes:
        data[1 + place % (len(data) - 1)] ^= change
    fuzz_wire.run(bytes(data))


@pytest.mark.skipif(find_spec("atheris") is None, reason="atheris has no wheel for this interpreter: not fuzzed with coverage")
def test_a_fuzzer_with_coverage_for_a_guide_finds_nothing_in_some_seconds(tmp_path: Path) -> None:
    options = [
        f"-max_total_time={10 if is_ci() else 5}",
        "-max_len=1300",
        "-timeout=5",
        "-rss_limit_mb=1024",
        "-print_final_stats=1",
    ]
    command = [
        sys.executable,
        "-m",
        "tests.fuzz.fuzz_wire",
        str(tmp_path / "corpus"),
        *options,
        f"-artifact_prefix={tmp_path}/",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-5000:]
    executed = re.search(r"stat::number_of_executed_units: +(\d+)", done.stderr)
    assert executed
    assert int(executed[1]) > 1000
