"""The C code under AddressSanitizer and UndefinedBehaviorSanitizer, with a puppet for a kernel; and its decoder, fuzzed.

To fuzz for longer::

    python -m tests.fuzz.build /tmp/fuzz && mkdir /tmp/found && /tmp/fuzz -max_total_time=3600 /tmp/found tests/fuzz/corpus
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.fuzz import build, seeds
from tests.support.tools import is_ci, missing, tool

SANITIZE = "-fsanitize=address,undefined -fno-sanitize-recover=all -g -O1 -fno-omit-frame-pointer"
SUITES = [
    "tests/ipvs/test_netlink_misbehaviour.py",
    "tests/ipvs/test_tcp_metrics.py",
    "tests/contracts/test_table_backend.py",
    "tests/contracts/test_statistics_and_control.py",
    "tests/csrc/test_boundary.py",
    "tests/host/test_announcements.py",
]


def preload(name: str) -> str:
    done = subprocess.run([tool("gcc"), f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    path = done.stdout.strip()
    return path if "/" in path else missing(f"{name} (apt-get install libasan8 libubsan1)")


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the C modules are, built with sanitizers, beside the tree and not in it."""
    preload("libasan.so")
    place = tmp_path_factory.mktemp("sanitized")
    environment = os.environ | {"CFLAGS": SANITIZE, "CC": tool("gcc"), "LDFLAGS": "-fsanitize=address,undefined"}
    command = [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", str(place), "--build-temp", str(place / "temp")]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(list(place.rglob("_native*.so"))) == 2
    return place


def test_no_sanitizer_has_anything_to_report(sanitized: Path) -> None:
    environment = os.environ | {
        "LD_PRELOAD": f"{preload('libasan.so')} {preload('libubsan.so')}",
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1",
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
        "PMM_NATIVE_MODULES": str(sanitized),
        "HYPOTHESIS_PROFILE": "sanitizer",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "tests.support.other_native", "-p", "no:cacheprovider"]
    command += ["-m", "not kernel", "-k", "puppet or misbehaviour or boundary or announcements", *SUITES]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    assert "passed" in done.stdout
    assert "Sanitizer" not in done.stdout + done.stderr
    assert "runtime error" not in done.stdout + done.stderr


def test_the_sanitized_modules_are_those_that_were_tested(sanitized: Path) -> None:
    for module in sanitized.rglob("_native*.so"):
        symbols = subprocess.run([tool("nm", "binutils"), "-D", str(module)], capture_output=True, text=True, check=True)
        assert "__asan_init" in symbols.stdout


def test_the_decoder_takes_whatever_a_fuzzer_thinks_of_in_some_seconds(tmp_path: Path) -> None:
    fuzzer = build.build(tmp_path / "fuzz_decode", tool("clang"))
    if fuzzer is None:
        missing("libFuzzer (apt-get install libclang-rt-14-dev)")
    found = tmp_path / "found"
    found.mkdir()
    command = [
        str(fuzzer),
        f"-max_total_time={10 if is_ci() else 5}",
        "-seed=1",
        "-timeout=5",
        "-rss_limit_mb=1024",
        "-print_final_stats=1",
    ]
    command += [f"-artifact_prefix={tmp_path}/", str(found), str(ROOT / "tests/fuzz/corpus")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-5000:]
    runs = [int(line.split()[-1]) for line in done.stderr.splitlines() if "number_of_executed_units" in line]
    assert runs[0] > 1000


def test_the_seeds_are_what_the_script_makes() -> None:
    made = seeds.make()
    assert {path.name: path.read_bytes() for path in (ROOT / "tests/fuzz/corpus").iterdir()} == made
