"""The C code under valgrind, on the kernel: what the sanitizers cannot see (memory that was never written), and leaks."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.support.tools import tool

pytestmark = pytest.mark.kernel(timeout=240)

SCRIPT = """
from pyminuteman.ipvs import *

tables = [
    {Service.tcp(f"11.0.0.{n}", 80): [Destination(f"10.0.{n}.{m}", 80, turn + 1) for m in range(1, 30 + turn)] for n in range(1, 5)}
    for turn in range(3)
]
with IPVSTable(scope=Scope.everything()) as table:
    for desired in (*tables, {}, tables[0]):
        table.converge(desired)
        table.statistics()
        table.export()
    table.set_timeouts(Timeouts(udp=5))
    assert table.timeouts().udp == 5
    assert table.sync_daemons() == ()
    table.zero()
    assert table.connections() == []
    try:
        table.apply(Plan.of([AddService(next(iter(tables[0])))] * 600 + [AddDestination(Service.fwmark(9), Destination("10.0.0.1", 0))]))
    except ApplyError as error:
        str(error)
    assert table.snapshot() == Snapshot.of(tables[0])
    table.flush()
print("done")
"""


def test_valgrind_has_nothing_to_say_of_our_code() -> None:
    """Only reports with one of our functions in their stack count: Python has its quirks, and cffi when it loads a module."""
    command = [tool("valgrind"), "--leak-check=full", "--show-leak-kinds=definite", "--errors-for-leak-kinds=definite"]
    command += ["--num-callers=40", "--error-limit=no", sys.executable, "-c", SCRIPT]
    environment = os.environ | {"PYTHONMALLOC": "malloc", "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr[-3000:]
    assert "ERROR SUMMARY" in done.stderr
    reports = done.stderr.split("== \n")
    assert [report for report in reports if "pmm_" in report] == []
