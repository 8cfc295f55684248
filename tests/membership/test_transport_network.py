"""What only real sockets have: addresses to choose and refuse, ports, families, the kernel's moods."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import trio

from pyminuteman.addresses import Endpoint
from pyminuteman.errors import ConfigurationError
from pyminuteman.membership import priority, transport
from pyminuteman.membership.alarm import Alarm
from pyminuteman.membership.priority import Priority, take_realtime_priority
from pyminuteman.membership.transport import NetworkTransport

LOOPBACK = Endpoint("127.0.0.1", 0)


@pytest.fixture
def opened() -> Iterator[list[NetworkTransport]]:
    made: list[NetworkTransport] = []
    yield made
    for each in made:
        each.close()


async def dial(transport: NetworkTransport, to: Endpoint) -> None:
    await (await transport.connect(to)).aclose()


@pytest.mark.parametrize(
    ("bind", "more", "key", "words"),
    [
        ("fe80::1", {}, "bind", "link-local"),
        ("fe80::1%lo", {}, "bind", "without a scope"),
        ("localhost", {}, "bind", "not an IP address"),
        ("224.0.0.1", {}, "bind", "no address of one machine"),
        ("255.255.255.255", {}, "bind", "no address of one machine"),
        ("ff02::1", {}, "bind", "no address of one machine"),
        ("127.0.0.1", {"advertise": Endpoint("0.0.0.0", 1)}, "advertise", "every address"),  # noqa: S104
        ("127.0.0.1", {"advertise": Endpoint("::", 1)}, "advertise", "every address"),
        ("127.0.0.1", {"advertise": Endpoint("fe80::1", 1)}, "advertise", "link-local"),
        ("127.0.0.1", {"dual_stack": True}, "dual_stack", r"\[::\]"),
        ("::1", {"dual_stack": True}, "dual_stack", r"\[::\]"),
    ],
)
def test_addresses_that_are_refused(bind: str, more: dict[str, Any], key: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as caught:
        NetworkTransport(Endpoint(bind, 0), **more)
    assert caught.value.key == key


def test_what_is_advertised_may_be_another_address_and_port(opened: list[NetworkTransport]) -> None:
    for advertise, expected in ((Endpoint("192.0.2.7", 1234), 1234), (Endpoint("192.0.2.7", 0), None)):
        made = NetworkTransport(LOOPBACK, advertise=advertise)
        opened.append(made)
        assert made.advertised == Endpoint("192.0.2.7", expected or made.bound.port)
        assert made.bound.address == "127.0.0.1"


def test_bound_to_every_address_it_advertises_one_that_leads_to_the_contacts(opened: list[NetworkTransport]) -> None:
    for bind, contact in (("0.0.0.0", "127.0.0.9"), ("::", "::1")):  # noqa: S104
        opened.append(NetworkTransport(Endpoint(bind, 0), contacts=[Endpoint(contact, 1)]))
        assert opened[-1].advertised.address == {"127.0.0.9": "127.0.0.1", "::1": "::1"}[contact]
        assert not opened[-1].is_private


def test_bound_to_every_address_without_a_route(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "_ELSEWHERE", {transport.IPV4: "127.0.0.5", transport.IPV6: "::1"})
    monkeypatch.setattr(transport, "is_loopback", lambda address: address != "127.0.0.5")
    with pytest.raises(ConfigurationError, match=r"give it, as in advertise=10\.0\.0\.1"):
        NetworkTransport(Endpoint("0.0.0.0", 0))  # noqa: S104


def test_a_taken_port(opened: list[NetworkTransport]) -> None:
    opened.append(NetworkTransport(LOOPBACK))
    taken = opened[0].bound
    with pytest.raises(OSError, match=f"cannot listen on {taken}: Address already in use") as caught:
        NetworkTransport(taken)
    assert caught.value.errno == errno.EADDRINUSE
    with pytest.raises(OSError, match=r"cannot listen on 192\.0\.2\.1:0"):
        NetworkTransport(Endpoint("192.0.2.1", 0))


def test_a_port_that_is_taken_for_tcp_alone_is_not_taken(
    monkeypatch: pytest.MonkeyPatch, opened: list[NetworkTransport]
) -> None:
    """Where any port will do, it tries others."""
    bind = socket.socket.bind
    refused = []

    class Grudging(socket.socket):
        def bind(self, address: Any, /) -> None:
            if self.type & socket.SOCK_STREAM == socket.SOCK_STREAM and len(refused) < 3:
                refused.append(address)
                raise OSError(errno.EADDRINUSE, "taken")
            bind(self, address)

    monkeypatch.setattr(socket, "socket", Grudging)
    opened.append(NetworkTransport(LOOPBACK))
    assert len(refused) == 3  # the kernel may well offer one port twice
    refused.clear()
    with pytest.raises(OSError, match="taken"):
        NetworkTransport(Endpoint("127.0.0.1", opened[0].bound.port + 1))


@pytest.mark.trio
async def test_both_families_on_one_socket(opened: list[NetworkTransport]) -> None:
    both = NetworkTransport(Endpoint("::", 0), dual_stack=True, contacts=[Endpoint("127.0.0.1", 1)])
    only6 = NetworkTransport(Endpoint("::", 0), contacts=[Endpoint("::1", 1)])
    four, six = NetworkTransport(LOOPBACK), NetworkTransport(Endpoint("::1", 0))
    opened += [both, only6, four, six]
    assert both.advertised.address == "127.0.0.1"
    for other in (four, six):
        port = both.bound.port
        assert other.send(b"in", Endpoint(other.bound.address, port))
        await both.wait(trio.current_time() + 2)
        assert both.receive() == b"in"
        assert both.send(b"out", other.bound)
        await other.wait(trio.current_time() + 2)
        assert other.receive() == b"out"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(dial, other, Endpoint(other.bound.address, port))
            stream, source = await both.accept()
        assert source == other.bound.address
        await stream.aclose()
    four.send(b"x", Endpoint("127.0.0.1", only6.bound.port))
    await only6.wait(trio.current_time() + 0.05)
    assert only6.receive() is None


@pytest.mark.trio
async def test_connections_come_from_the_address_that_is_bound(opened: list[NetworkTransport]) -> None:
    one, two = NetworkTransport(Endpoint("127.0.0.3", 0)), NetworkTransport(LOOPBACK)
    opened += [one, two]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dial, one, two.bound)
        stream, source = await two.accept()
    assert source == "127.0.0.3"
    await stream.aclose()


@pytest.mark.trio
async def test_icmp_errors_and_refusals_of_the_kernel_are_counted_and_forgotten(
    opened: list[NetworkTransport], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = NetworkTransport(LOOPBACK)
    opened.append(made)

    class Moody:
        moods = (errno.EAGAIN, errno.ENOBUFS, errno.EPERM, errno.ENETUNREACH, errno.EPERM, 9999)

        def __init__(self) -> None:
            self.left = list(self.moods)

        def sendto(self, *_: object) -> int:
            raise OSError(self.left.pop(0), "no")

        def recv_into(self, _: memoryview) -> int:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "ICMP")

        def close(self) -> None:
            pass

    real = made._datagrams
    monkeypatch.setattr(made, "_datagrams", Moody())
    for _ in Moody.moods:
        assert not made.send(b"x", Endpoint("127.0.0.1", 9))
    assert made.receive() is None
    assert made.counters.unsent == {"EAGAIN": 1, "ENOBUFS": 1, "EPERM": 2, "ENETUNREACH": 1, "other": 1}
    monkeypatch.setattr(made, "_datagrams", real)


@pytest.mark.trio
async def test_a_listener_out_of_descriptors_goes_on_later(
    opened: list[NetworkTransport], monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    assert autojump_clock.autojump_threshold == 0
    made = NetworkTransport(LOOPBACK)
    opened.append(made)

    class Listener:
        calls = 0

        async def accept(self) -> tuple[Any, Any]:
            self.calls += 1
            await trio.lowlevel.checkpoint()
            if self.calls < 4:
                raise OSError(errno.EMFILE, "Too many open files")
            return trio.socket.from_stdlib_socket(socket.socket()), ("127.0.0.1", 1)

    listener = Listener()
    monkeypatch.setattr(made, "_listener", listener)
    before = trio.current_time()
    stream, _ = await made.accept()
    assert trio.current_time() - before >= 0.3
    await stream.aclose()


def test_many_targets_are_not_kept_for_ever(opened: list[NetworkTransport], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "_TARGETS_MAX", 3)
    opened.append(NetworkTransport(LOOPBACK))
    for port in range(10):
        opened[0].send(b"x", Endpoint("127.0.0.1", 40_000 + port))
        assert len(opened[0]._targets) <= 3


def test_the_buffer_for_what_arrives_is_large(opened: list[NetworkTransport]) -> None:
    opened.append(NetworkTransport(LOOPBACK))
    # The kernel doubles what is asked for, up to net.core.rmem_max, of which the usual value is 212,992.
    assert opened[0]._datagrams.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) > 212_992


@pytest.mark.trio
async def test_an_alarm_closed_twice_and_a_time_far_away() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as watched:
        alarm = Alarm(watched)
        with trio.move_on_after(0.02) as scope:
            await alarm.wait(trio.current_time() + 1e9)
        assert scope.cancelled_caught
        alarm.close()
        alarm.close()


def test_an_alarm_without_timers(monkeypatch: pytest.MonkeyPatch) -> None:
    class Libc:
        @staticmethod
        def timerfd_create(_clock: int, _flags: int) -> int:
            return -1

    monkeypatch.setattr("ctypes.PyDLL", lambda *_, **__: Libc)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as watched, pytest.raises(OSError, match="timerfd_create"):
        Alarm(watched)


def priorities_of_a_program(*lines: str) -> list[int]:
    """What a program prints that begins like this: with the right to real-time priority, or the test is skipped."""
    program = (
        "import os, subprocess, sys; from pyminuteman.membership.priority import *; from pyminuteman.capabilities import *\n"
    )
    program += "had = be_realtime()\nif not had.granted: sys.exit(had.reason)\n" + "\n".join(lines)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=30)
    if "rtprio" in done.stderr:
        pytest.skip(f"there is no real-time priority to be had: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return [int(word) for word in done.stdout.split()]


PRIORITY = "priority = lambda: os.sched_getparam(0).sched_priority"
CHILD = "child = lambda: int(subprocess.run([sys.executable, '-c', 'import os; print(os.sched_getparam(0).sched_priority)'], capture_output=True).stdout)"


def test_a_program_has_real_time_priority_and_its_threads_are_one_below() -> None:
    ask = "print(priority(), in_own_thread(priority), in_own_thread(lambda: in_own_thread(priority)), in_own_thread(child))"
    left = "print(in_own_thread(lambda: 1 if sys.getprofile() else 0))"
    assert priorities_of_a_program(PRIORITY, CHILD, ask, left) == [10, 9, 9, 9, 0]


def test_a_thread_keeps_its_priority_from_what_it_starts() -> None:
    work = (
        "def work():",
        "    hand_on_no_priority(); print(priority(), in_own_thread(priority), child())",
        "in_own_thread(work)",
    )
    assert priorities_of_a_program(PRIORITY, CHILD, *work) == [9, 0, 0]


def test_real_time_priority_is_taken_or_refused_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int, int]] = []
    answers: list[OSError | None] = [None, PermissionError(errno.EPERM, "no"), OSError(errno.EINVAL, "Invalid argument")]

    def ask(who: int, policy: int, parameters: Any) -> None:
        asked.append((who, policy, parameters.sched_priority))
        if answer := answers.pop(0):
            raise answer

    monkeypatch.setattr(priority.os, "sched_setscheduler", ask)
    assert take_realtime_priority() == Priority(granted=True)
    assert asked == [(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, 10)]
    assert "CAP_SYS_NICE" in take_realtime_priority().reason
    assert take_realtime_priority(3) == Priority(granted=False, reason="the system refuses it: Invalid argument")
