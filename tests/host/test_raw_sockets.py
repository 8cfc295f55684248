"""Whether rules come to go through iptables-legacy, by the programs that a machine has."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyminuteman.host.firewall import EngineName, takes_raw_sockets


@pytest.mark.parametrize(
    ("programs", "name", "expected"),
    [
        ({"iptables-restore": "xtables-legacy-multi"}, "iptables", True),
        ({"iptables-restore": "xtables-legacy-multi"}, "auto", True),
        ({"iptables-restore": "xtables-legacy-multi"}, "nft", False),
        ({"iptables-restore": "xtables-legacy-multi", "nft": "nft"}, "auto", False),
        ({"iptables-restore": "xtables-legacy-multi", "nft": "nft"}, "iptables", True),
        ({"iptables-restore": "xtables-multi"}, "iptables", True),
        ({"iptables-restore": "xtables-nft-multi", "iptables-legacy-restore": "xtables-legacy-multi"}, "iptables", False),
        ({"iptables-legacy-restore": "xtables-legacy-multi"}, "auto", True),
        ({}, "auto", False),
    ],
)
def test_by_the_programs_that_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, programs: dict[str, str], name: EngineName, expected: bool
) -> None:
    for link, program in programs.items():
        (tmp_path / program).touch()
        if link != program:
            (tmp_path / link).symlink_to(program)
    monkeypatch.setattr("pyminuteman.host.firewall.find", lambda wanted: str(tmp_path / wanted) if wanted in programs else None)
    assert takes_raw_sockets(name) is expected
