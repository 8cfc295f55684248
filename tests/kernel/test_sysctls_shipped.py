"""What is shipped for systemd-modules-load and systemd-sysctl exists in a kernel, and does what the comments say."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pyminuteman.host import sysctls
from tests.support.tools import tool

pytestmark = pytest.mark.kernel

SYSTEMD = Path(__file__).parents[2] / "contrib/systemd"


def lines(path: Path) -> list[str]:
    return [line.strip() for line in path.read_text().splitlines() if line.strip() and line[0] not in "#;"]


def test_every_sysctl_is_there_and_takes_its_value() -> None:
    settings = [line.split(" = ") for line in lines(SYSTEMD / "sysctl.d/50-minuteman.conf")]
    assert {name for name, _ in settings} >= {"net.ipv4.vs.conntrack", "net.ipv4.vs.expire_nodest_conn"}
    for name, value in settings:
        place = Path("/proc/sys") / name.replace(".", "/")
        assert place.read_text().strip() != value, f"{name} has this value already: no need to ship it"
        place.write_text(value)
        assert place.read_text().strip() == value


def test_every_module_is_there() -> None:
    modules = lines(SYSTEMD / "modules-load.d/minuteman.conf")
    assert "ip_vs" in modules
    done = subprocess.run(
        [tool("modprobe", "kmod"), "-d", "/run/kmod", "-n", "-a", *modules], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_it_is_what_the_daemon_would_write() -> None:
    """Under the unit it cannot write: what it wants must be shipped, or be the kernel's own value."""
    shipped = dict(line.split(" = ") for line in lines(SYSTEMD / "sysctl.d/50-minuteman.conf"))
    wanted = {one.name: one.value for one in sysctls.settings() if one.is_written}
    assert shipped.items() <= wanted.items()
    for name, value in wanted.items():
        assert shipped.get(name) == value or Path("/proc/sys", name.replace(".", "/")).read_text().strip() == value, name
