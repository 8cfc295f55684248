"""What the service manager hears, at the other end of a real socket."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from pyminuteman.daemon.notify import Notifier


class Manager:
    """The manager's end: what has arrived, a dictionary a message."""

    def __init__(self, address: str | bytes) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.socket.bind(address)

    def heard(self) -> list[dict[str, str]]:
        messages = []
        while True:
            try:
                text = self.socket.recv(1 << 16).decode()
            except BlockingIOError:
                return messages
            messages.append(dict(line.split("=", 1) for line in text.split("\n")))

    def fill(self) -> None:
        """Until its queue takes no more."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as other:
            for _ in range(100_000):
                try:
                    other.sendto(b"FILLER=1", self.socket.getsockname())
                except BlockingIOError:
                    return
        raise AssertionError("its queue has no end")


@pytest.fixture(params=["path", "abstract"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "notify") if request.param == "path" else f"@pmm-notify-{os.getpid()}"


@pytest.fixture
def manager(address: str) -> Iterator[Manager]:
    made = Manager(b"\0" + address[1:].encode() if address[0] == "@" else address)
    yield made
    made.socket.close()


@pytest.fixture
def notifier(manager: Manager, address: str) -> Iterator[Notifier]:  # noqa: ARG001 - it must be there first
    made = Notifier(address, watchdog_seconds=0.1)
    yield made
    made.close()


def test_a_life_is_told(manager: Manager, notifier: Notifier) -> None:
    notifier.ready("3 services")
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notifier.reloading()
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notifier.ready()
    notifier.status("4 services")
    notifier.stopping("leaving")
    first, reload, *rest = manager.heard()
    assert first == {"READY": "1", "STATUS": "3 services"}
    assert reload.keys() == {"RELOADING", "MONOTONIC_USEC"}
    assert before <= int(reload["MONOTONIC_USEC"]) <= after
    assert rest == [{"READY": "1"}, {"STATUS": "4 services"}, {"STOPPING": "1", "STATUS": "leaving"}]
    assert (notifier.sent, notifier.failures) == (5, 0)


def test_a_status_is_one_line_and_is_sent_once(manager: Manager, notifier: Notifier) -> None:
    notifier.status("a\nWATCHDOG=trigger\x1b[31m" + "x" * 1000)
    notifier.status("a\nWATCHDOG=trigger\x1b[31m" + "x" * 1000)
    (message,) = manager.heard()
    assert message.keys() == {"STATUS"}
    assert message["STATUS"].startswith("a WATCHDOG=trigger [31mxxx")
    assert len(message["STATUS"]) == 500


def test_what_the_environment_says_is_taken_out_of_it(manager: Manager, address: str) -> None:
    environment = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid()), "HOME": "/"}
    notifier = Notifier.from_environment(environment)
    assert environment == {"HOME": "/"}
    assert (notifier.is_heard, notifier.watchdog_seconds) == (True, 30.0)
    notifier.ready()
    assert manager.heard() == [{"READY": "1"}]
    notifier.close()


@pytest.mark.parametrize(
    ("pid", "microseconds", "seconds"),
    [
        ("", "2000000", 2.0),
        ("1", "2000000", 0.0),
        ("", "soon", 0.0),
        ("", "9" * 40, 0.0),
        ("", "9" * 15, 86400.0),
        ("", "", 0.0),
    ],
)
def test_the_watchdog_is_who_it_is_meant_for(pid: str, microseconds: str, seconds: float) -> None:
    environment = {"WATCHDOG_USEC": microseconds, "WATCHDOG_PID": pid}
    assert Notifier.from_environment(environment).watchdog_seconds == seconds


@pytest.mark.parametrize(
    "address", ["", "vsock:2:1", "relative", "@", "/", "/" + "x" * 200, "@" + "x" * 200, "/no/such/socket"]
)
@pytest.mark.trio
async def test_without_a_manager_nothing_happens_and_nothing_fails(address: str) -> None:
    notifier = Notifier(address, watchdog_seconds=0.01)
    notifier.ready("up")
    notifier.reloading()
    notifier.beat()
    notifier.stopping()
    with trio.move_on_after(0.05):
        await notifier.keep()
    assert notifier.sent == 0
    assert bool(notifier.problem) == bool(address)
    notifier.close()
    notifier.ready()


@pytest.mark.trio
async def test_what_must_be_known_is_kept_until_it_is_taken(manager: Manager, notifier: Notifier) -> None:
    manager.fill()
    notifier.ready("up")
    notifier.reloading()
    notifier.ready()
    assert (notifier.sent, notifier.failures) == (0, 3)
    assert "unavailable" in notifier.problem
    assert {"FILLER": "1"} in manager.heard()
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(notifier.keep)
            while notifier.sent < 2:  # noqa: ASYNC110 - nobody tells
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
    first, second, *_ = manager.heard()
    assert first == {"READY": "1", "STATUS": "up", "WATCHDOG": "1"}
    assert second == {"WATCHDOG": "1"}
    assert notifier.problem == ""


@pytest.mark.trio
async def test_a_loop_that_does_not_turn_does_not_beat(manager: Manager, notifier: Notifier) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(notifier.keep)
        with trio.fail_after(5):
            while notifier.sent < 3:  # noqa: ASYNC110 - nobody tells
                await trio.sleep(0.01)
        assert manager.heard() == [{"WATCHDOG": "1"}] * notifier.sent
        time.sleep(0.4)  # noqa: ASYNC251 - four times what the manager waits
        assert manager.heard() == []
        with trio.fail_after(5):
            while not manager.heard():  # noqa: ASYNC110 - nobody tells
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()


@pytest.mark.trio
async def test_who_is_stuck_does_not_beat_and_says_why(manager: Manager, notifier: Notifier) -> None:
    reason = ["the kernel has not answered for 90 s"]
    notifier.status("3 services")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(notifier.keep, lambda: reason[0])
        await trio.sleep(0.3)
        assert manager.heard() == [{"STATUS": "3 services"}, {"STATUS": f"stuck: {reason[0]}"}]
        reason[0] = ""
        with trio.fail_after(5):
            while not (again := manager.heard()):  # noqa: ASYNC110 - nobody tells
                await trio.sleep(0.01)
        assert again[0] == {"STATUS": "3 services", "WATCHDOG": "1"}
        nursery.cancel_scope.cancel()


@pytest.mark.trio
async def test_without_a_watchdog_there_is_no_beat(manager: Manager, address: str) -> None:
    notifier = Notifier(address)
    with trio.move_on_after(0.1):
        await notifier.keep()
    assert manager.heard() == []
    notifier.close()
