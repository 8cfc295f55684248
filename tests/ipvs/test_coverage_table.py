"""docs/ipvs-coverage.md names all of the installed header, and what it says of files and tests is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support.tools import missing

HEADER = Path("/usr/include/linux/ip_vs.h")
ROWS = [
    re.findall(r"`([^`]+)`|\| (-) ", line)
    for line in (ROOT / "docs/ipvs-coverage.md").read_text().splitlines()
    if line.startswith("| `IPVS_")
]
TABLE = {"".join(cells[0]): ["".join(cell) for cell in cells[1:]] for cells in ROWS}


def test_every_name_of_the_header_is_there_and_no_other() -> None:
    if not HEADER.exists():
        missing("linux/ip_vs.h (apt-get install linux-libc-dev)")
    names = set(re.findall(r"^\s+(IPVS_\w+)\b", HEADER.read_text(), re.MULTILINE))
    assert {name for name in names if not name.endswith("_UNSPEC")} == set(TABLE)


@pytest.mark.parametrize("name", TABLE)
def test_the_files_do_it_and_the_test_is_there(name: str) -> None:
    sent, read, test = TABLE[name]
    for file in {sent, read} - {"-"}:
        assert re.search(rf"\b{name}\b", (ROOT / file).read_text()), file
    path, _, function = test.partition("::")
    assert re.search(rf"^def {function}\(", (ROOT / path).read_text(), re.MULTILINE)
