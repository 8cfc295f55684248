"""The moves from predecessors, carried out from the text of their pages: keepalived itself, and the kernel's IPVS."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support.documents import steps
from tests.support.machines import Machines
from tests.support.tools import tool

WORDS = {"10.0.0.": "10.61.0."}
"""The machines of the test have other addresses."""


@pytest.mark.kernel(timeout=300)
def test_keepalived_hands_its_table_over(tmp_path: Path) -> None:
    tool("keepalived")
    with Machines(["lb1", "web1", "web2"], tmp_path, WORDS) as machines:
        for step in steps(ROOT / "docs/how-to/migrate-from-keepalived.md"):
            machines.carry_out(step)
