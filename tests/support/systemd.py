"""A systemd of a test's own, inside the guest: process 1 of a PID namespace, with the units that are shipped and hardly any others."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Self

import pytest

from pyminuteman.testing.guest_init import FILES
from tests.support.tools import tool

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "contrib/systemd"
_DIRECTORY = Path("/run/systemd-of-a-test")
_MANAGER = "/lib/systemd/systemd"
_TARGETS = ("sysinit", "basic", "shutdown", "network-online", "nss-lookup", "multi-user", "default")
_PATIENCE = 30.0
# /etc and /var are the host's, read-only: what is installed goes on top. The manager comes after, in a PID namespace of its own.
_START = """
set -e
for place in etc var; do
    mkdir -p {directory}/$place/upper {directory}/$place/work
    mount -t overlay overlay -o lowerdir=/$place,upperdir={directory}/$place/upper,workdir={directory}/$place/work /$place
done
mount -t cgroup2 none /sys/fs/cgroup
mkdir -p /run/systemd
mount -t tmpfs -o mode=755 none /run/systemd
for kind in sysusers tmpfiles sysctl; do
    mkdir -p /etc/$kind.d
    cp {shipped}/$kind.d/*.conf /etc/$kind.d/
done
systemd-sysusers minuteman.conf
systemd-tmpfiles --create minuteman.conf minuteman-iptables.conf
/lib/systemd/systemd-sysctl /etc/sysctl.d/50-minuteman.conf
export SYSTEMD_UNIT_PATH={directory}/units container=other
exec unshare --pid --fork --kill-child --mount-proc {manager} --system --show-status=no --log-target=null
"""


class Systemd:
    """Its manager, while the block lasts. Services live in the network namespace of who made it.

    Args:
        command: What the unit starts in place of ``minuteman run``.
        drop_ins: Drop-ins for ``minuteman.service``, of those that are shipped.
        settings: Further lines for its section [Service].
        namespace: Also a unit ``minuteman@NAME.service``, of this name.
    """

    def __init__(self, command: str, *, drop_ins: Iterable[str] = (), settings: Iterable[str] = ()) -> None:
        if not Path(FILES).exists():
            pytest.skip("this would start a systemd on the machine itself: only in a guest (--kernel=guest)")
        tool(_MANAGER, "systemd")
        units = _DIRECTORY / "units"
        shutil.rmtree(_DIRECTORY, ignore_errors=True)
        units.mkdir(parents=True)
        for target in _TARGETS:
            (units / f"{target}.target").write_text("[Unit]\nDefaultDependencies=no\n")
        for unit in SHIPPED.glob("*.service"):
            shutil.copy(unit, units)
        for unit in ("minuteman.service", "minuteman@.service"):
            below = units / f"{unit}.d"
            below.mkdir()
            lines = ["[Service]", "ExecStart=", f"ExecStart={command}", f"StandardError=append:{_DIRECTORY}/said", *_places()]
            (below / "test.conf").write_text("\n".join([*lines, *settings, ""]))
        for name in drop_ins:
            shutil.copy(SHIPPED / "minuteman.service.d" / name, units / "minuteman.service.d")
        self._process: subprocess.Popen[bytes] | None = None
        self._pid = 0

    def __enter__(self) -> Self:
        script = _START.format(directory=_DIRECTORY, shipped=SHIPPED, manager=_MANAGER)
        self._process = subprocess.Popen(
            [tool("unshare", "util-linux"), "--mount", "sh", "-c", script], stdin=subprocess.DEVNULL
        )
        self.until(self._find, "systemd is there")
        self.until(lambda: self.control("is-active", "init.scope", check=False) == "active", "systemd answers")
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)  # process 1 takes all others of its namespace along
        else:
            self._process.kill()
        self._process.wait(_PATIENCE)

    def _find(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, "it has ended"
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        try:
            if Path(f"/proc/{children[0]}/cmdline").read_text().split("\0")[0] != _MANAGER:
                return False
        except (IndexError, FileNotFoundError, ProcessLookupError):  # between two commands of the script
            return False
        self._pid = int(children[0])
        return True

    def control(self, *words: str, check: bool = True) -> str:
        """What ``systemctl`` says, from inside: the manager talks to nobody else."""
        inside = [tool("nsenter", "util-linux"), f"--target={self._pid}", "--pid", "--mount"]
        done = subprocess.run([*inside, "systemctl", "--no-pager", *words], capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, (done, self.said())
        return done.stdout.strip()

    def show(self, unit: str, name: str) -> str:
        return self.control("show", "--value", f"--property={name}", unit)

    @property
    def root(self) -> str:
        """The file system, as the manager sees it."""
        return f"/proc/{self._pid}/root"

    def read(self, path: str) -> str:
        """A file of it; of /proc, that of the manager's processes."""
        return Path(f"{self.root}{path}").read_text()

    def write(self, path: str, text: str) -> None:
        """Put a file there, as careful people write one."""
        place = Path(f"{self.root}{path}")
        place.parent.mkdir(parents=True, exist_ok=True)
        new = place.with_name(f".{place.name}.new")
        new.write_text(text)
        new.replace(place)

    @staticmethod
    def said() -> str:
        """What the services have said to standard error."""
        path = _DIRECTORY / "said"
        return path.read_text() if path.exists() else ""

    def until(self, condition: Callable[[], object], what: str) -> None:
        end = time.perf_counter() + _PATIENCE
        while not condition():
            assert time.perf_counter() < end, f"not within {_PATIENCE:g} s: {what}; {self.said()}"
            time.sleep(0.05)


def _places() -> list[str]:
    """Where this Python and the sources are, which may be where the unit sees nothing: in /root, /home or /tmp."""
    hidden = ("/root", "/home", "/tmp", "/var/tmp")  # noqa: S108 - no file of ours
    places = dict.fromkeys(str(Path(place).resolve()) for place in (sys.base_prefix, sys.prefix, ROOT))
    found = [place for place in places if place.startswith(hidden)]
    home = ["ProtectHome=tmpfs"] if any(place.startswith(("/root", "/home")) for place in found) else []
    return [*home, *(f"BindReadOnlyPaths={place}" for place in found)]
