"""The unit as it is shipped, under a real systemd: it lets the daemon do what it does, and nothing else.

Of the unit, the command is another, and what hides the directories in which this Python lies.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pyminuteman.ipvs import IPVSTable, Scope
from pyminuteman.testing import owned_namespaces
from pyminuteman.testing.owned_namespaces import run_lines
from tests.support.kernel import ipvsadm
from tests.support.systemd import ROOT, Systemd

pytestmark = pytest.mark.kernel(timeout=90)

SERVICE = f"{sys.executable} -m tests.support.confined"
ALLOWED = {"drop", "converge", "device", "store", "listen", "read configuration", "watch", "seal", "certificates", "modules"}
FORBIDDEN = {
    "sysctl": "EROFS",
    "configuration": "EACCES",
    "namespace": "EPERM",
    "priority": "EPERM",
    "code": "EPERM",
    "packets": "EAFNOSUPPORT",
    "raw": "EPERM",
    "low port": "EACCES",
    "root": "EPERM",
    "others": "EPERM",
    "setuid file": "EPERM",
    "iptables-legacy": "EPERM",
}


@contextmanager
def other_namespace() -> Iterator[str]:
    """A network namespace with a name, as ``ip netns`` makes them, and its loopback device up."""
    name = f"{owned_namespaces.unused_stem()}-blue"
    run_lines([f"netns add {name}"])
    run_lines(["link set lo up"], namespace=name)
    try:
        yield f"/run/netns/{name}"
    finally:
        owned_namespaces.delete([name])


def found(systemd: Systemd, directory: str = "minuteman") -> dict[str, str]:
    systemd_says: dict[str, str] = json.loads(systemd.read(f"/var/lib/{directory}/found.json"))
    return systemd_says


def confined(*words: str, settings: tuple[str, ...] = (), drop_ins: tuple[str, ...] = ()) -> Systemd:
    command = " ".join([SERVICE, *words])
    return Systemd(command, drop_ins=drop_ins, settings=(f"WorkingDirectory={ROOT}", "WatchdogSec=3", *settings))


def test_the_daemons_work_is_permitted_and_nothing_else() -> None:
    with confined("NET_ADMIN") as systemd:
        systemd.control("start", "minuteman")
        answers = found(systemd)
        assert {name: answers[name] for name in ALLOWED} == dict.fromkeys(ALLOWED, "done")
        assert {name: answers[name] for name in FORBIDDEN} == FORBIDDEN
        # The sysctls are those that are shipped; "ip" and the Python itself are all the processes it ever sees.
        assert (answers["conntrack"], answers["umask"], answers["seen processes"]) == ("1", "0o77", "1")
        assert ipvsadm("-Sn") == "-A -t 11.0.0.1:80 -s wlc\n-a -t 11.0.0.1:80 -r 10.0.0.1:8080 -m -w 1\n"
        assert systemd.show("minuteman", "StatusText") == "1 service"
        _a_life(systemd)


def _a_life(systemd: Systemd) -> None:
    main = systemd.show("minuteman", "MainPID")
    systemd.control("reload", "minuteman")
    systemd.until(lambda: systemd.show("minuteman", "StatusText") == "reloaded", "it has reloaded")
    assert systemd.show("minuteman", "ActiveState") == "active"
    assert systemd.show("minuteman", "MainPID") == main

    # A loop that hangs is ended by the watchdog; the kernel's table stays, and the next one starts.
    before = ipvsadm("-Sn")
    systemd.control("kill", "--signal=USR2", "--kill-whom=main", "minuteman")
    systemd.until(lambda: systemd.show("minuteman", "NRestarts") == "1", "the watchdog has had it started again")
    assert ipvsadm("-Sn") == before
    systemd.until(lambda: systemd.show("minuteman", "ActiveState") == "active", "it runs again")
    assert systemd.show("minuteman", "MainPID") != main

    systemd.control("stop", "minuteman")
    assert (systemd.show("minuteman", "ActiveState"), systemd.show("minuteman", "Result")) == ("inactive", "success")
    assert ipvsadm("-Sn") == before


def test_other_namespaces_take_a_drop_in() -> None:
    with other_namespace() as path, confined("NET_ADMIN,SYS_ADMIN", path, drop_ins=("namespaces.conf",)) as systemd:
        systemd.control("start", "minuteman")
        answers = found(systemd)
        assert answers[f"enter {path}"] == "done"
        assert {name: answers[name] for name in ALLOWED} == dict.fromkeys(ALLOWED, "done")
        # What comes with it, as the page about it says: sysctls, namespaces of networks, and all that CAP_SYS_ADMIN is.
        changed = {"sysctl": "done", "namespace": "done", "setuid file": "EPERM"}
        assert {name: answers[name] for name in FORBIDDEN} == FORBIDDEN | changed


def test_a_daemon_for_one_namespace_takes_no_right_more() -> None:
    with other_namespace() as path, confined("NET_ADMIN") as systemd:
        name = Path(path).name
        systemd.control("start", f"minuteman@{name}")
        answers = found(systemd, f"minuteman-{name}")
        assert {key: answers[key] for key in ALLOWED} == dict.fromkeys(ALLOWED, "done")
        assert {key: answers[key] for key in FORBIDDEN} == FORBIDDEN | {"sysctl": "done"}
        assert ipvsadm("-Sn") == ""
        with IPVSTable(scope=Scope.everything(), netns=path) as table:
            assert table.export() == "-A -t 11.0.0.1:80 -s wlc\n-a -t 11.0.0.1:80 -r 10.0.0.1:8080 -m -w 1\n"


def test_drop_ins_permit_what_they_are_for() -> None:
    purposes = {
        "iptables.conf": {"iptables-legacy", "raw"},
        "low-ports.conf": {"low port"},
        "realtime.conf": {"priority"},
        "sysctls.conf": {"sysctl"},
    }
    permitted = set().union(*purposes.values())
    with confined("NET_ADMIN,NET_RAW,NET_BIND_SERVICE", drop_ins=tuple(purposes)) as systemd:
        systemd.control("start", "minuteman")
        answers = found(systemd)
        assert (answers["drop"], answers["drop more"]) == ("done", "done")
        assert {name: answers[name] for name in FORBIDDEN} == FORBIDDEN | dict.fromkeys(permitted, "done")


@pytest.mark.parametrize(("code", "again"), [(78, False), (1, True)])
def test_what_does_not_heal_by_itself_is_not_started_again(code: int, again: bool) -> None:
    with Systemd(f"/bin/sh -c 'exit {code}'") as systemd:
        systemd.control("start", "minuteman", check=False)
        if again:
            systemd.until(lambda: int(systemd.show("minuteman", "NRestarts")) >= 1, "it is started again")
        else:
            systemd.until(lambda: systemd.show("minuteman", "ActiveState") == "failed", "it is given up")
            assert systemd.show("minuteman", "NRestarts") == "0"
        assert systemd.show("minuteman", "ExecMainStatus") in {str(code), "0"}
