"""Three daemons, each in a network namespace of its own with its own IPVS: what one says is in all kernels, and who dies is out of them."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from pyminuteman.daemon.client import DaemonClient
from pyminuteman.daemon.client_errors import DaemonUnreachable
from pyminuteman.ipvs import IPVSTable, NetlinkBackend, Scope
from pyminuteman.testing.cluster_namespaces import ClusterNamespaces

pytestmark = pytest.mark.kernel(timeout=180)

SIZE = 3
DEADLINE_SECONDS = 60.0
VIP = "11.0.0.1"


def until(true: Callable[[], Any], what: str, seconds: float = DEADLINE_SECONDS) -> float:
    began = time.perf_counter()
    while not true():
        if time.perf_counter() - began > seconds:
            pytest.fail(f"not so within {seconds:g} s: {what}")
        time.sleep(0.01)
    return time.perf_counter() - began


class Daemon:
    """One node: its directory, its process, its kernel's table."""

    def __init__(self, number: int, cluster: ClusterNamespaces, directory: Path) -> None:
        self.number, self.cluster, self.directory = number, cluster, directory
        self.address = str(cluster.address(number))
        self.socket = directory / "api.sock"
        self.log = (directory / "log").open("w")
        self.process: subprocess.Popen[Any] | None = None
        self.vips(8000 + number)
        (directory / "config.toml").write_text(
            f"""
[node]
name = "n{number}"
bind = "{self.address}:61420"
state_directory = "{directory}"
realtime = false
[cluster]
contacts = ["{cluster.address(0)}:61420"]
insecure = true
[[source]]
name = "files"
place = "file:{directory / "vips.toml"}"
[ipvs]
managed = ["11.0.0.0/8"]
max_loss_percent = 100
drain_seconds = 0
[health]
check = ""
[api]
socket = "{self.socket}"
group = ""
"""
        )

    def vips(self, *ports: int) -> None:
        rows = "".join(f'[[vip.backend]]\naddress = "{self.address}"\nport = {port}\n' for port in ports)
        (self.directory / "vips.new").write_text(
            f'[[vip]]\nlisten = "tcp://{VIP}:80"\nscheduler = "rr"\n{rows}' if ports else ""
        )
        (self.directory / "vips.new").replace(self.directory / "vips.toml")

    def start(self) -> None:
        command = [sys.executable, "-m", "pyminuteman", "run", "--config", str(self.directory / "config.toml")]
        self.process = self.cluster.start(self.number, command, stderr=self.log, stdout=self.log)

    def stop(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(30)

    def end(self) -> None:
        """Whatever becomes of the test."""
        self.log.close()
        if self.process is not None and self.process.poll() is None:
            self.process.kill()

    def rows(self) -> dict[str, int]:
        """What its kernel has behind the VIP."""
        with IPVSTable(
            scope=Scope.services(()), backend=NetlinkBackend(netns=f"/run/netns/{self.cluster.namespace(self.number)}")
        ) as table:
            snapshot = table.snapshot()
            return {f"{row.address}:{row.port}": row.weight for one in snapshot for row in snapshot.destinations(one.key)}

    def ask(self, path: str) -> Any:
        with DaemonClient(self.socket) as client:
            return client.get(path)


def everybody(daemons: list[Daemon]) -> dict[str, int]:
    return {f"{daemon.address}:{8000 + daemon.number}": 1 for daemon in daemons}


def minuteman(daemon: Daemon, *words: str) -> str:
    """What an operator's verb prints, asked of that node."""
    command = [sys.executable, "-m", "pyminuteman", *words, "--socket", str(daemon.socket)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


class Backend(threading.Thread):
    """An HTTP server in a node's namespace: the socket is made there, and serves from anywhere."""

    def __init__(self, daemon: Daemon) -> None:
        super().__init__(daemon=True)
        with daemon.cluster.inside(daemon.number):
            self.listener = socket.create_server((daemon.address, 8000 + daemon.number))
        self.word = f"n{daemon.number}".encode()
        self.start()

    def run(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n" + self.word)


def get(daemon: Daemon) -> str:
    """Who answers at the VIP, asked from a node."""
    with daemon.cluster.inside(daemon.number):
        connection = socket.create_connection((VIP, 80), timeout=5)
    connection.settimeout(5)
    with connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        response = http.client.HTTPResponse(connection)
        response.begin()
        return response.read().decode()


def announced(daemon: Daemon) -> bool:
    """Whether the VIP is an address of the node."""
    command = daemon.cluster.command_inside(daemon.number, ["ip", "-o", "address", "show", "to", VIP])
    return VIP in subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout


@pytest.fixture
def daemons(tmp_path: Path) -> Iterator[list[Daemon]]:
    with ExitStack() as stack:
        cluster = stack.enter_context(ClusterNamespaces(SIZE))
        made = []
        for number in range(SIZE):
            directory = tmp_path / f"n{number}"
            directory.mkdir()
            daemon = Daemon(number, cluster, directory)
            stack.callback(daemon.end)
            made.append(daemon)
            daemon.start()
        try:
            for daemon in made:
                until(lambda daemon=daemon: daemon.rows() == everybody(made), f"n{daemon.number} has all backends")
            yield made
        except BaseException:
            for daemon in made:
                sys.stderr.write(f"--- n{daemon.number}\n{(daemon.directory / 'log').read_text()[-3000:]}")
            raise


def told_of_marks(daemon: Daemon) -> list[tuple[str, str]]:
    """The kind and the reason of each mark that it has told."""
    events = daemon.ask("/v1/events?format=json&since=0")["events"]
    return [(event["kind"], event["data"]["reason"]) for event in events if event["kind"] in {"drained", "undrained", "weight"}]


def has_heard(daemon: Daemon) -> bool:
    """Whether it answers, and knows a VIP."""
    try:
        return bool(daemon.ask("/v1/backends")["vips"])
    except DaemonUnreachable:
        return False


def test_a_cluster_balances_repairs_itself_and_obeys(daemons: list[Daemon]) -> None:
    one, two, three = daemons
    backends = [Backend(daemon) for daemon in daemons]
    until(lambda: announced(one), "the VIP's address is there, which it is a moment after IPVS")
    assert {get(one) for _ in range(6)} == {"n0", "n1", "n2"}

    # An operator drains a node from another one, and all obey.
    minuteman(two, "drain", "node", "n2", "--reason", "disk", "--yes")
    key = f"{three.address}:8002"
    for daemon in daemons:
        until(lambda daemon=daemon: daemon.rows()[key] == 0, f"n{daemon.number} obeys")
    assert {get(one) for _ in range(6)} == {"n0", "n1"}
    row = next(row for vip in one.ask("/v1/backends")["vips"] for row in vip["backends"] if row["port"] == 8002)
    assert (row["drain"]["reason"], row["effective_weight"]) == ("disk", 0)
    assert "disk" in minuteman(one, "backends", "--out")
    assert json.loads(minuteman(one, "status", "-o", "json"))["members"]["alive"] == SIZE
    minuteman(one, "undrain", "node", "n2", "--reason", "new disk", "--yes")
    until(lambda: one.rows() == everybody(daemons) == two.rows(), "the drain is undone")
    for daemon in daemons:
        until(lambda daemon=daemon: told_of_marks(daemon) == [("drained", "disk"), ("undrained", "new disk")], "all tell of it")

    # A panic: its link goes, then its process.
    one.cluster.take_down([2])
    suspected = until(lambda: all(daemon.rows().get(key, 0) == 0 for daemon in (one, two)), "suspect is weight 0")
    assert three.process is not None
    three.process.kill()
    gone = until(lambda: all(key not in daemon.rows() for daemon in (one, two)), "down is removed")
    print(f"weight 0 after {suspected:.2f} s, removed after {suspected + gone:.2f} s")  # noqa: T201 - shown with -s
    assert {get(one) for _ in range(6)} == {"n0", "n1"}
    kinds = [event["kind"] for event in one.ask("/v1/events?format=json&since=0")["events"]]
    assert {"member_suspect", "member_down", "backend_out"} <= set(kinds)

    # It comes back, and so do its backends.
    three.process.wait(10)
    one.cluster.bring_up([2])
    three.start()
    for daemon in daemons:
        until(lambda daemon=daemon: daemon.rows() == everybody(daemons), f"n{daemon.number} has it again")
    assert {get(one) for _ in range(6)} == {"n0", "n1", "n2"}
    until(lambda: has_heard(three), "it has heard what is in the store")
    assert told_of_marks(three) == []  # they are older than it is now

    # A clean stop keeps its own table, and is told as a departure.
    before = two.rows()
    assert two.stop() == 0
    assert two.rows() == before
    until(lambda: f"{two.address}:8001" not in one.rows(), "who left is out")
    assert json.dumps(one.ask("/v1/status")["members"])
    for backend in backends:
        backend.listener.close()
