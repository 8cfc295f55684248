"""Run directories of a test's own."""

from __future__ import annotations

import os
import pathlib
import shutil
import signal
import tempfile
from collections.abc import Iterator

import pytest

from tests.support.guests import PACKAGE_ROOT, processes_of


@pytest.fixture
def run_base(monkeypatch: pytest.MonkeyPatch) -> Iterator[pathlib.Path]:
    """A directory for run directories that this test shares with nobody, also not in subprocesses."""
    base = pathlib.Path(tempfile.mkdtemp(prefix="pmm-test-", dir="/tmp"))
    monkeypatch.setenv("TMPDIR", str(base))
    monkeypatch.setattr(tempfile, "tempdir", str(base))
    monkeypatch.setenv("PYTHONPATH", str(PACKAGE_ROOT))
    yield base
    for pid in processes_of(base):  # only if the test failed
        os.kill(pid, signal.SIGKILL)
    shutil.rmtree(base)
