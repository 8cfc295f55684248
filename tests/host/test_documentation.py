"""Every finding is in docs/doctor.md, and every setting in docs/host.md."""

from __future__ import annotations

import re
from pathlib import Path

from pyminuteman.host.sysctls import settings
from tests.conftest import ROOT

SOURCES = [*sorted((ROOT / "pyminuteman/host").glob("*.py")), ROOT / "pyminuteman/cli/doctor_config.py"]
DOCTOR, HOST = (Path(ROOT / "docs" / name).read_text() for name in ("doctor.md", "host.md"))


def identities() -> set[str]:
    """Those that stand in the code, with the part that is put in as NAME."""
    found: set[str] = set()
    for path in SOURCES:
        text = path.read_text()
        texts = re.findall(
            r'(?:Finding\(\s*|identity = |_finding\(\s*|_right\(\s*|_port\(\s*|\("gossip[^"]*", )f?"([a-z_.]+[^" ]*)"', text
        )
        found |= {re.sub(r"\{[^}]*\}", "NAME", one) for one in texts if "." in one or one in {"managers", "config"}}
    return found


def test_every_finding_is_explained() -> None:
    known = identities()
    assert len(known) >= 25
    listed = set(re.findall(r"^\| `([a-z_A-Z.]+)` \|", DOCTOR, re.MULTILINE))
    assert known - listed == set()
    assert listed - known == set()


def test_every_setting_is_explained() -> None:
    for setting in settings(forward=True, ipv6=True):
        assert f"`{setting.name}`" in HOST


def test_the_tests_that_invariants_name_exist() -> None:
    tests = "".join(path.read_text() for folder in ("host", "kernel") for path in (ROOT / "tests" / folder).glob("test_*.py"))
    for name in re.findall(r"`(test_\w+)`", HOST):
        assert f"def {name}(" in tests
