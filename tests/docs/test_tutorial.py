"""The tutorial, carried out from its text: every command on machines that are namespaces, with the kernel's own IPVS."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support.documents import steps
from tests.support.machines import Machines

pytestmark = pytest.mark.kernel(timeout=400)

TUTORIAL = ROOT / "docs/tutorial.md"
WORDS = {"10.0.0.": "10.61.0."}
"""The machines of the test have other addresses."""


def test_the_tutorial_does_what_it_says(tmp_path: Path) -> None:
    with Machines(["web1", "web2", "web3"], tmp_path, WORDS) as machines:
        for step in steps(TUTORIAL):
            machines.carry_out(step)
