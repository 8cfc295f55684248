"""An unprivileged user with CAP_NET_ADMIN, and nothing else, does what the daemon does; and nothing else."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from pyminuteman import capabilities
from pyminuteman.capabilities import Capability, Privileges
from pyminuteman.daemon.privileges import RightsMissing, User, drop, needed
from pyminuteman.health.checks import CheckFailed, CommandCheck
from pyminuteman.ipvs import (
    Destination,
    IPVSTable,
    NetlinkBackend,
    NotPermitted,
    Scope,
    Service,
    Snapshot,
)
from tests.support.kernel import ipvsadm
from tests.support.tools import tool

pytestmark = pytest.mark.kernel

WEB, A = Service.tcp("11.0.0.1", 80, scheduler="wlc"), Destination("10.0.0.1", 8080)
NOBODY = User("nobody", 65534, 65534)
NET_ADMIN, SYS_ADMIN = 1 << Capability.NET_ADMIN, 1 << Capability.SYS_ADMIN


def in_a_child(work: Callable[[], object]) -> object:
    """What ``work`` returns in a process of its own, which has one thread, as JSON tells it; what it raised, as text."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            answer = work()
        except Exception as error:  # noqa: BLE001 - all of it is the answer
            traceback.print_exc()
            answer = f"{type(error).__name__}: {error}"
        os.write(writer, json.dumps(answer).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return json.loads(text)


def refused(work: Callable[[], object]) -> bool:
    try:
        work()
    except PermissionError:
        return True
    return False


def masks(now: Privileges) -> list[int]:
    return [now.effective, now.permitted, now.inheritable, now.bounding, now.ambient]


def test_a_user_with_the_one_right_programs_the_kernel() -> None:
    ip = tool("ip", "iproute2")

    def work() -> list[object]:
        drop(needed(), NOBODY)
        with IPVSTable(scope=Scope.everything()) as table:
            table.converge({WEB: [A]})
            there = table.snapshot() == Snapshot.of({WEB: [A]})
            table.set_timeouts(table.timeouts())
        switch = Path("/proc/sys/net/ipv4/vs/conntrack")
        switch.write_text("1")
        # A program that is started has the right as well: nft and iptables need it.
        subprocess.run([ip, "link", "add", "minuteman", "type", "dummy"], check=True)
        subprocess.run([ip, "address", "add", "11.0.0.1/32", "dev", "minuteman"], check=True)
        return [os.getuid(), os.getgroups(), there, switch.read_text().strip()]

    assert in_a_child(work) == [65534, [65534], True, "1"]
    assert ipvsadm("-Sn") == "-A -t 11.0.0.1:80 -s wlc\n-a -t 11.0.0.1:80 -r 10.0.0.1:8080 -m -w 1\n"
    assert Path("/proc/thread-self/net/fib_trie").read_text().count("11.0.0.1") == 2


def test_the_user_has_no_other_right_and_gets_none_back() -> None:
    secret = Path("/run/secret")
    secret.write_text("")
    secret.chmod(0o600)

    def work() -> list[object]:
        now = drop(needed(), NOBODY)
        attempts: list[Callable[[], object]] = [
            lambda: os.setuid(0),
            lambda: os.setgroups([0]),
            secret.read_text,
            lambda: os.chroot("/"),
            lambda: os.kill(os.getppid(), 0),
            lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)),
            lambda: socket.create_server(("127.0.0.1", 80)),
        ]
        return [masks(now), now.no_new_privs, [refused(attempt) for attempt in attempts]]

    assert in_a_child(work) == [[NET_ADMIN] * 5, True, [True] * 7]


def test_root_may_stay_root_and_has_only_what_is_kept() -> None:
    def work() -> list[object]:
        now = drop(needed())
        with IPVSTable(scope=Scope.everything()) as table:
            table.converge({WEB: [A]})
        # What root starts would have all rights again, were they not out of the bounding set.
        child = subprocess.run(["/bin/cat", "/proc/self/status"], capture_output=True, text=True, check=True).stdout
        effective = next(line.split()[1] for line in child.splitlines() if line.startswith("CapEff:"))
        return [now.uid, masks(now), int(effective, 16), refused(lambda: os.chroot("/"))]

    assert in_a_child(work) == [0, [NET_ADMIN] * 5, NET_ADMIN, True]


def test_programs_have_the_right_only_if_it_is_handed_on() -> None:
    def work(*, hand_on: bool) -> list[object]:
        now = drop(needed(), NOBODY, hand_on=hand_on)
        text = subprocess.run(["/bin/cat", "/proc/self/status"], capture_output=True, text=True, check=True).stdout
        effective = next(line.split()[1] for line in text.splitlines() if line.startswith("CapEff:"))
        return [now.effective, now.ambient, int(effective, 16)]

    assert in_a_child(lambda: work(hand_on=True)) == [NET_ADMIN] * 3
    assert in_a_child(lambda: work(hand_on=False)) == [NET_ADMIN, 0, 0]


@pytest.mark.parametrize("user", [NOBODY, None])
def test_a_check_has_none_of_the_daemons_rights(user: User | None) -> None:
    """Neither as somebody to whom they are handed on, nor as root, who has the bounding set with each program."""

    def work() -> list[object]:
        before = drop(needed(), user)
        text = "grep ^CapEff /proc/self/status; ip link add none type dummy && echo added; exit 1"
        try:
            trio.run(CommandCheck(("/bin/sh", "-c", f"({text}) 2>&1 | tr '\\n\\t' '  '; exit 1")).run)
        except CheckFailed as error:
            return [str(error), Privileges.now() == before, before.effective]
        return []

    said, same, effective = in_a_child(work)  # type: ignore[misc]
    assert (same, effective) == (True, NET_ADMIN)
    assert "CapEff: 0000000000000000 RTNETLINK answers: Operation not permitted" in said


def test_other_namespaces_take_another_right() -> None:
    holder = subprocess.Popen([tool("unshare", "util-linux"), "--net", tool("sleep"), "60"], stdout=subprocess.DEVNULL)
    own = os.readlink("/proc/thread-self/ns/net")  # noqa: PTH115
    while os.readlink(f"/proc/{holder.pid}/ns/net") == own:  # noqa: PTH115
        assert holder.poll() is None
    named = Path("/run/netns-of-a-test")
    named.touch()
    subprocess.run([tool("mount"), "--bind", f"/proc/{holder.pid}/ns/net", str(named)], check=True)

    def enter(*, namespaces: bool) -> list[object]:
        now = drop(needed(namespaces=namespaces), NOBODY)
        try:
            with NetlinkBackend(netns=named) as backend, IPVSTable(scope=Scope.everything(), backend=backend) as table:
                table.converge({WEB: []})
                return [masks(now), table.snapshot() == Snapshot.of({WEB: []})]
        except NotPermitted as error:
            return [masks(now), type(error).__name__]

    try:
        without, with_it = in_a_child(lambda: enter(namespaces=False)), in_a_child(lambda: enter(namespaces=True))
    finally:
        subprocess.run([tool("umount"), str(named)], check=True)
        named.unlink()
        holder.kill()
        holder.wait()
    assert without == [[NET_ADMIN] * 5, "NotPermitted"]
    assert with_it == [[NET_ADMIN | SYS_ADMIN] * 5, True]
    assert ipvsadm("-Sn") == ""


def test_dropped_twice_is_dropped_once() -> None:
    """As under a unit that has done it all, and whose filter forbids the calls."""

    def work() -> bool:
        first = drop(needed(), NOBODY)
        del capabilities._prctl, capabilities.set_capabilities, os.setresuid, os.setresgid, os.setgroups
        return drop(needed(), NOBODY) == first

    assert in_a_child(work) is True


def test_what_was_dropped_cannot_be_kept() -> None:
    def work() -> None:
        drop(needed(), NOBODY)
        drop(needed(namespaces=True), NOBODY)

    answer = in_a_child(work)
    assert isinstance(answer, str)
    assert answer.startswith(
        f"{RightsMissing.__name__}: the process has no CAP_SYS_ADMIN: run it as root, or by a unit with Ambient"
    )


def test_somebody_who_is_nobody_cannot_become_another() -> None:
    def work() -> None:
        drop(needed(), NOBODY)
        drop(needed(), User("daemon", 1, 1))

    assert in_a_child(work) == (
        "RightsMissing: this process cannot become daemon (Operation not permitted): start it as root, or as daemon"
    )
