"""The C code under valgrind: what the sanitizers cannot see (memory that was never written), and leaks."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.support.tools import is_ci, tool

SCRIPT = """
from pyminuteman.ipvs import *
from tests.support.puppet import PuppetKernel

puppet = PuppetKernel()
tables = [
    {Service.tcp(f"11.0.0.{n}", 80): [Destination(f"10.0.{n}.{m}", 80, turn + 1) for m in range(1, 30 + turn)] for n in range(1, 5)}
    for turn in range(3)
]
with IPVSTable(scope=Scope.everything(), backend=puppet.backend()) as table:
    for desired in (*tables, {}, tables[0]):
        table.converge(desired)
        table.statistics()
        table.export()
    table.set_timeouts(Timeouts(udp=5))
    table.timeouts()
    table.start_sync_daemon(SyncDaemon(SyncRole.MASTER, "eth0", 1, 1000, "ff02::81", 9000, 2))
    table.sync_daemons()
    table.stop_sync_daemon(SyncRole.MASTER)
    puppet.fake.fail(0, 22, "words")
    try:
        table.converge({})
    except ApplyError as error:
        str(error)
puppet.close()
print("done")
"""


def test_valgrind_has_nothing_to_say_of_our_code() -> None:
    """Python itself has its quirks: and so has cffi when it loads a module; only reports with one of our functions in their stack count."""
    if not is_ci() and "PMM_SLOW" not in os.environ:
        pytest.skip("takes half a minute: runs where CI or PMM_SLOW is set")
    command = [tool("valgrind"), "--leak-check=full", "--show-leak-kinds=definite", "--errors-for-leak-kinds=definite"]
    command += ["--num-callers=40", "--error-limit=no", sys.executable, "-c", SCRIPT]
    environment = os.environ | {"PYTHONMALLOC": "malloc", "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr[-3000:]
    assert "ERROR SUMMARY" in done.stderr
    reports = done.stderr.split("== \n")
    assert [report for report in reports if "pmm_" in report] == []
