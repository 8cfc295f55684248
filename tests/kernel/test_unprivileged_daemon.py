"""Long-running commands as an unprivileged user with CAP_NET_ADMIN and nothing else, under the unit as it is shipped."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from pyminuteman.capabilities import Capability
from tests.support.kernel import ipvsadm
from tests.support.systemd import ROOT, Systemd

pytestmark = pytest.mark.kernel(timeout=90)

COMMAND = f"{sys.executable} -m pyminuteman"
VIPS = "/etc/minuteman/vips.d/web.toml"
SETTINGS = (f"WorkingDirectory={ROOT}", "WatchdogSec=5")
CONFIGURATION = """
[node]
name = "web1"
bind = "127.0.0.1:61420"

[[source]]
name = "files"
place = "file:/etc/minuteman/vips.d"

[ipvs]
managed = ["11.0.0.0/8"]
"""


def vips(*numbers: int) -> str:
    rows = [f'[[vip.backend]]\naddress = "10.0.0.{number}"\nport = 8080\n' for number in numbers]
    return "".join(['[[vip]]\nlisten = "tcp://11.0.0.1:80"\nscheduler = "rr"\n', *rows])


def table(*numbers: int) -> str:
    return "".join(
        ["-A -t 11.0.0.1:80 -s rr\n", *(f"-a -t 11.0.0.1:80 -r 10.0.0.{number}:8080 -m -w 1\n" for number in numbers)]
    )


def assert_unprivileged(systemd: Systemd) -> None:
    """What the kernel says of the main process."""
    lines = systemd.read(f"/proc/{systemd.show('minuteman', 'MainPID')}/status").splitlines()
    fields = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    assert "0" not in fields["Uid"] + fields["Gid"] + fields["Groups"]
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd"):
        assert int(fields[name][0], 16) == 1 << Capability.NET_ADMIN, name
    assert fields["NoNewPrivs"] == ["1"]
    assert fields["Seccomp"] == ["2"]


def priorities(systemd: Systemd) -> set[tuple[int, int]]:
    """Policy and real-time priority of each thread of the main process, as proc(5) has them."""
    tasks = f"/proc/{systemd.show('minuteman', 'MainPID')}/task"
    found = set()
    for thread in Path(systemd.root + tasks).iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            fields = systemd.read(f"{tasks}/{thread.name}/stat").rpartition(")")[2].split()
            found.add((int(fields[38]), int(fields[37])))
    return found


def test_vips_from_files_are_kept_in_the_kernel() -> None:
    command = f"{COMMAND} vips apply --watch --source file:/etc/minuteman/vips.d --scope 11.0.0.0/8"
    with Systemd(command, settings=(*SETTINGS, "Type=exec", "WatchdogSec=0")) as systemd:
        systemd.write(VIPS, vips(1, 2))
        systemd.control("start", "minuteman")
        systemd.until(lambda: ipvsadm("-Sn") == table(1, 2), "the table is there")
        assert_unprivileged(systemd)
        systemd.write(VIPS, vips(1, 2, 3))
        systemd.until(lambda: ipvsadm("-Sn") == table(1, 2, 3), "the table follows the file")
        systemd.control("stop", "minuteman")
        assert systemd.show("minuteman", "Result") == "success"
        assert ipvsadm("-Sn") == table(1, 2, 3)


def test_a_node_is_a_member_and_keeps_its_state() -> None:
    command = f"{COMMAND} members run --name one --bind 127.0.0.1:61420 --state-dir /var/lib/minuteman -o json"
    with Systemd(command, settings=(*SETTINGS, "Type=exec", "WatchdogSec=0")) as systemd:
        systemd.control("start", "minuteman")
        systemd.until(lambda: list(Path(f"{systemd.root}/var/lib/minuteman").glob("*")), "its state is written")
        assert_unprivileged(systemd)
        systemd.control("stop", "minuteman")
        assert systemd.show("minuteman", "Result") == "success"


def test_the_daemon_runs() -> None:
    with Systemd(f"{COMMAND} run --config /etc/minuteman/config.toml", settings=SETTINGS) as systemd:
        systemd.write("/etc/minuteman/config.toml", CONFIGURATION)
        systemd.write(VIPS, vips(1, 2))
        systemd.control("start", "minuteman")
        assert ipvsadm("-Sn") == table(1, 2), "ready means that the table is in the kernel"
        assert_unprivileged(systemd)
        assert priorities(systemd) == {(os.SCHED_OTHER, 0)}
        assert "ordinary priority, for real-time priority is not permitted" in systemd.said()
        assert systemd.show("minuteman", "StatusText")
        socket = Path(f"{systemd.root}/run/minuteman/api.sock").stat()
        assert socket.st_mode & 0o777 == 0o660
        systemd.write(VIPS, vips(1, 2, 3))
        systemd.until(lambda: ipvsadm("-Sn") == table(1, 2, 3), "the table follows the file")
        systemd.control("reload", "minuteman")
        systemd.until(lambda: systemd.show("minuteman", "ActiveState") == "active", "it has reloaded")
        assert systemd.show("minuteman", "NRestarts") == "0"
        systemd.control("stop", "minuteman")
        assert systemd.show("minuteman", "Result") == "success"
        assert ipvsadm("-Sn") == table(1, 2, 3), "what becomes of the table is on_exit, and that is to keep it"


def test_with_its_drop_in_the_daemon_has_real_time_priority() -> None:
    with Systemd(
        f"{COMMAND} run --config /etc/minuteman/config.toml", drop_ins=["realtime.conf"], settings=SETTINGS
    ) as systemd:
        systemd.write("/etc/minuteman/config.toml", CONFIGURATION)
        systemd.write(VIPS, vips(1, 2))
        systemd.control("start", "minuteman")
        assert ipvsadm("-Sn") == table(1, 2)
        assert_unprivileged(systemd)
        systemd.until(
            lambda: priorities(systemd) == {(os.SCHED_FIFO, 10), (os.SCHED_FIFO, 9)}, "threads are one below the loop"
        )
        assert "ordinary priority" not in systemd.said()
