"""What the pages for operators say, carried out from their text on the two machines that the tutorial leaves behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support.documents import steps
from tests.support.machines import Machines

pytestmark = pytest.mark.kernel(timeout=400)

TUTORIAL = ROOT / "docs/tutorial.md"
WORDS = {"10.0.0.": "10.61.0."}
"""The machines of the test have other addresses."""


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    """Both balance, and have a backend each."""
    with Machines(["web1", "web2", "web3"], tmp_path, WORDS) as made:
        for step in steps(TUTORIAL):
            if step.section == "A server ends":
                break
            made.carry_out(step)
        else:
            pytest.fail("the tutorial has another section")
        yield made


@pytest.mark.parametrize("page", ["how-to/drain", "how-to/rotate-keys", "operations"])
def test_the_page_does_what_it_says(machines: Machines, page: str) -> None:
    for step in steps(ROOT / f"docs/{page}.md"):
        machines.carry_out(step)
