"""A wheel built from a clean copy has the manual, the completion scripts and the unit where programs look for them."""

from __future__ import annotations

import zipfile
from pathlib import Path

EXPECTED = {
    "share/man/man1/minuteman.1",
    "share/man/man1/minuteman-ipvs.1",
    "share/man/man5/minuteman.toml.5",
    "share/man/man8/minuteman.8",
    "share/bash-completion/completions/minuteman",
    "share/zsh/site-functions/_minuteman",
    "share/fish/vendor_completions.d/minuteman.fish",
    "share/minuteman/systemd/minuteman.service",
    "share/minuteman/systemd/minuteman.service.d/realtime.conf",
    "share/minuteman/systemd/sysctl.d/50-minuteman.conf",
}


def test_a_wheel_has_all_of_it(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        data = next(name for name in names if ".data/data/" in name).partition(".data/data/")[0] + ".data/data/"
        assert {name.removeprefix(data) for name in names if name.startswith(data)} >= EXPECTED
        assert "cp311-abi3" in wheel.name
        assert archive.read(f"{data}share/man/man8/minuteman.8").startswith(b".TH MINUTEMAN 8")
