"""Other network namespaces, and processes without the right."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio

from pyminuteman.ipvs import (
    Destination,
    IPVSTable,
    IPVSUnavailableError,
    KernelError,
    NetlinkBackend,
    NotPermitted,
    Scope,
    Service,
    Snapshot,
)
from pyminuteman.testing.network_namespace import bring_idle_threads, fresh_network_namespace
from tests.support.kernel import ipvsadm

pytestmark = pytest.mark.kernel

WEB, A = Service.tcp("11.0.0.1", 80), Destination("10.0.0.1", 8080)


@pytest.fixture
def other() -> Iterator[str]:
    """Path of a namespace that a thread of its own holds, its loopback device up."""
    ready, over = threading.Event(), threading.Event()
    paths: list[str] = []

    def hold() -> None:
        fresh_network_namespace()
        paths.append(f"/proc/{os.getpid()}/task/{threading.get_native_id()}/ns/net")
        ready.set()
        over.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    ready.wait()
    yield paths[0]
    over.set()
    thread.join()


def test_threads_that_trio_keeps_come_along_to_another_namespace() -> None:
    """Else a test's work in a thread would be done where the test before it was."""

    def where() -> Path:
        return Path("/proc/thread-self/ns/net").readlink()

    async def several() -> list[Path]:
        together, found = threading.Barrier(3), []

        async def one() -> None:
            found.append(await trio.to_thread.run_sync(lambda: (together.wait(10), where())[1]))

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(one)
        return found

    before = where()
    assert trio.run(several) == [before] * 3
    fresh_network_namespace()
    assert where() != before
    assert trio.run(several) == [before] * 3
    bring_idle_threads()
    assert trio.run(several) == [where()] * 3


def test_a_table_of_another_namespace_is_another_table(other: str) -> None:
    own = Path("/proc/thread-self/ns/net").readlink()
    with IPVSTable(scope=Scope.everything(), netns=other) as there, IPVSTable(scope=Scope.everything()) as here:
        there.converge({WEB: [A]})
        assert here.snapshot() == {}
        assert there.snapshot() == Snapshot.of({WEB: [A]})
        assert there.connections() == []
        assert ipvsadm("-Sn") == ""
        here.converge({WEB: []})
        assert there.snapshot() == Snapshot.of({WEB: [A]})
    assert Path("/proc/thread-self/ns/net").readlink() == own


def test_no_descriptor_is_left_behind(other: str) -> None:
    before = os.listdir("/proc/self/fd")  # noqa: PTH208
    for _ in range(20):
        NetlinkBackend(netns=other).close()
    assert os.listdir("/proc/self/fd") == before  # noqa: PTH208


@pytest.mark.parametrize("path", ["/no/such/namespace", "/proc/self/ns/nothing"])
def test_a_namespace_that_is_not_there_is_an_error(path: str) -> None:
    with pytest.raises(IPVSUnavailableError, match="No such file"):
        NetlinkBackend(netns=path)


def test_a_file_that_is_no_namespace_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    with pytest.raises(KernelError, match="Invalid argument"):
        NetlinkBackend(netns=tmp_path / "plain")


def in_a_child(work: Callable[[], object]) -> str:
    """What ``work`` raised, in a process of its own that has given up its rights."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            work()
            os.write(writer, b"nothing")
        except BaseException as error:  # noqa: BLE001 - all of it is the answer
            os.write(writer, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return text


def test_without_the_right_neither_reading_nor_writing() -> None:
    with IPVSTable(scope=Scope.everything()) as table:
        table.converge({WEB: [A]})

    def read() -> None:
        IPVSTable(scope=Scope.everything()).snapshot()

    def write() -> None:
        IPVSTable(scope=Scope.everything()).converge({})

    def change_timeouts() -> None:
        with IPVSTable(scope=Scope.everything()) as own:
            own.set_timeouts(own.timeouts())

    for work in (read, write, change_timeouts):
        assert in_a_child(work).startswith(f"{NotPermitted.__name__}: "), work
        assert "CAP_NET_ADMIN" in in_a_child(work)
    with IPVSTable(scope=Scope.everything()) as table:
        assert table.snapshot() == Snapshot.of({WEB: [A]})


def test_without_the_right_another_namespace_cannot_be_entered(other: str) -> None:
    assert "Permission denied" in in_a_child(lambda: NetlinkBackend(netns=other))


def test_importing_the_package_loads_no_libnl() -> None:
    script = "import pyminuteman.ipvs, sys; print([line for line in open('/proc/self/maps') if 'libnl' in line or '_native' in line])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
