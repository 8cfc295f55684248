"""The unit and its companions, as systemd's own tools see them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from pyminuteman.cli import exit_codes
from tests.support.tools import tool

ROOT = Path(__file__).parents[2]
SYSTEMD = ROOT / "contrib/systemd"
PAGE = ROOT / "docs/how-to/install-as-a-service.md"
DROP_INS = sorted((SYSTEMD / "minuteman.service.d").glob("*.conf"))
MOST_EXPOSED = 1.9
"""The aim; a drop-in of the operator's choice may come to more."""


def run(*words: str | Path, check: bool = True) -> str:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, done
    return done.stdout + done.stderr


def installed(directory: Path, *drop_ins: Path) -> Path:
    """The units with a program that is here, for systemd asks whether it is."""
    for unit in SYSTEMD.glob("*.service"):
        text = unit.read_text()
        assert text.count("ExecStart=/usr/bin/minuteman run") == 1
        (directory / unit.name).write_text(text.replace("/usr/bin/minuteman", tool("true")))
    for one in drop_ins:
        below = directory / "minuteman.service.d"
        below.mkdir(exist_ok=True)
        (below / one.name).write_text(one.read_text())
    return directory / "minuteman.service"


def exposure(unit: Path) -> float:
    text = run(tool("systemd-analyze", "systemd"), "security", "--offline=true", "--no-pager", unit)
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", text)
    assert found, text
    return float(found[1])


def slack() -> float:
    """The figures in the page are those of systemd 252; others weigh a few things anew."""
    return 0.0 if run(tool("systemd-analyze", "systemd"), "--version").startswith("systemd 252 ") else 0.3


def documented(what: str) -> float:
    found = re.search(rf"^\| `{re.escape(what)}` \|.*\| ([0-9.]+) \|$", PAGE.read_text(), re.MULTILINE)
    assert found, f"{PAGE} has no row of {what}"
    return float(found[1])


@pytest.mark.parametrize("drop_in", [None, *DROP_INS], ids=lambda path: path.name if path else "alone")
def test_systemd_has_nothing_to_complain_of(tmp_path: Path, drop_in: Path | None) -> None:
    installed(tmp_path, *filter(None, [drop_in]))
    for name in ("minuteman.service", "minuteman@blue.service"):
        if drop_in is None or "@" not in name:
            assert run(tool("systemd-analyze", "systemd"), "verify", "--man=no", tmp_path / name) == ""


def test_a_mistake_would_be_complained_of(tmp_path: Path) -> None:
    unit = installed(tmp_path)
    unit.write_text(unit.read_text().replace("ProtectHome=yes", "ProtectHomes=yes"))
    assert "ProtectHomes" in run(tool("systemd-analyze", "systemd"), "verify", "--man=no", unit, check=False)


def test_the_unit_is_as_little_exposed_as_it_says(tmp_path: Path) -> None:
    found = exposure(installed(tmp_path))
    assert found <= MOST_EXPOSED
    assert found == pytest.approx(documented("minuteman.service"), abs=slack())
    template = exposure(tmp_path / "minuteman@.service")
    assert template <= MOST_EXPOSED
    assert template == pytest.approx(documented("minuteman@.service"), abs=slack())


@pytest.mark.parametrize("drop_in", DROP_INS, ids=lambda path: path.name)
def test_drop_ins_cost_what_they_are_said_to(tmp_path: Path, drop_in: Path) -> None:
    """Offline, systemd reads no drop-ins: what they say is put behind the unit's own, which means the same."""
    unit = installed(tmp_path)
    more = drop_in.read_text().partition("[Service]\n")[2]
    head, install, tail = unit.read_text().partition("[Install]")
    unit.write_text(f"{head}{more}{install}{tail}")
    assert exposure(unit) == pytest.approx(documented(drop_in.name), abs=slack())


def test_the_exit_codes_that_are_final_are_those_of_the_command() -> None:
    final = {exit_codes.USAGE, exit_codes.NOT_PERMITTED, exit_codes.CONFIGURATION}
    line = re.search(r"^RestartPreventExitStatus=(.*)$", (SYSTEMD / "minuteman.service").read_text(), re.MULTILINE)
    assert line
    assert {int(word) for word in line[1].split()} == final


def test_the_template_differs_only_where_it_must() -> None:
    def settings(name: str) -> set[str]:
        lines = (SYSTEMD / name).read_text().splitlines()
        return {line.replace("-%i", "") for line in lines if line and line[0] not in "#["}

    one, template = settings("minuteman.service"), settings("minuteman@.service")
    assert {line.partition("=")[0] for line in one ^ template} == {
        "Description",
        "Wants",
        "After",
        "AssertPathExists",
        "NetworkNamespacePath",
        "ExecStart",
        "ProtectKernelTunables",
    }


@pytest.mark.kernel  # not for the kernel's sake: files are given to another user, and in the guest everybody is root
def test_the_user_and_the_directories_are_made(tmp_path: Path) -> None:
    for name in ("sysusers", "tmpfiles"):
        (tmp_path / f"usr/lib/{name}.d").mkdir(parents=True)
        for one in (SYSTEMD / f"{name}.d").glob("*.conf"):
            (tmp_path / f"usr/lib/{name}.d" / one.name).write_text(one.read_text())
    (tmp_path / "etc/minuteman").mkdir(parents=True)
    keyring = tmp_path / "etc/minuteman/keyring"
    keyring.write_text("")
    keyring.chmod(0o644)
    run(tool("systemd-sysusers", "systemd"), f"--root={tmp_path}")
    user = next(line for line in (tmp_path / "etc/passwd").read_text().splitlines() if line.startswith("minuteman:"))
    _, _, uid, gid, _, home, shell = user.split(":")
    assert (home, Path(shell).name) == ("/var/lib/minuteman", "nologin")
    assert 0 < int(uid) < 1000
    run(tool("systemd-tmpfiles", "systemd"), "--create", f"--root={tmp_path}")
    lock = (tmp_path / "run/xtables.lock").stat()
    assert (lock.st_mode & 0o777, lock.st_uid, lock.st_gid) == (0o640, 0, int(gid))
    assert {path.name for path in (tmp_path / "etc/minuteman").iterdir()} == {"conf.d", "vips.d", "keyring"}
    found = keyring.stat()
    assert (found.st_mode & 0o777, found.st_uid, found.st_gid) == (0o600, int(uid), int(gid))
