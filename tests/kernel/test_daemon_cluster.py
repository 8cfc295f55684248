"""Three daemons, each in a network namespace of its own with its own IPVS: what one says is in all kernels, and who dies is out of them."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyminuteman.daemon.client_errors import DaemonUnreachable
from pyminuteman.testing.daemon_cluster import DaemonCluster

pytestmark = pytest.mark.kernel(timeout=180)

SIZE = 3
VIP = "11.0.0.1"


def document(cluster: DaemonCluster, node: int) -> str:
    return (
        f'[[vip]]\nlisten = "tcp://{VIP}:80"\nscheduler = "rr"\n'
        f'[[vip.backend]]\naddress = "{cluster.address(node)}"\nport = {8000 + node}\n'
    )


def rows(cluster: DaemonCluster, node: int) -> dict[str, int]:
    """What its kernel has behind the VIP."""
    with cluster.table(node) as table:
        snapshot = table.snapshot()
        return {f"{row.address}:{row.port}": row.weight for one in snapshot for row in snapshot.destinations(one.key)}


def key(cluster: DaemonCluster, node: int) -> str:
    return f"{cluster.address(node)}:{8000 + node}"


def everybody(cluster: DaemonCluster) -> dict[str, int]:
    return {key(cluster, node): 1 for node in range(SIZE)}


def all_have_everybody(cluster: DaemonCluster) -> None:
    for node in range(SIZE):
        cluster.wait_until(lambda node=node: rows(cluster, node) == everybody(cluster), f"n{node} has all backends")  # type: ignore[misc]


def minuteman(cluster: DaemonCluster, node: int, *words: str) -> str:
    """What an operator's verb prints, asked of that node."""
    command = [sys.executable, "-m", "pyminuteman", *words, "--socket", str(cluster.socket(node))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


class Backend(threading.Thread):
    """An HTTP server in a node's namespace: the socket is made there, and serves from anywhere."""

    def __init__(self, cluster: DaemonCluster, node: int) -> None:
        super().__init__(daemon=True)
        with cluster.namespaces.inside(node):
            self.listener = socket.create_server((cluster.address(node), 8000 + node))
        self.word = f"n{node}".encode()
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


def get(cluster: DaemonCluster, node: int) -> str:
    """Who answers at the VIP, asked from a node."""
    with cluster.namespaces.inside(node):
        connection = socket.create_connection((VIP, 80), timeout=5)
    connection.settimeout(5)
    with connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        response = http.client.HTTPResponse(connection)
        response.begin()
        return response.read().decode()


def announced(cluster: DaemonCluster, node: int) -> bool:
    """Whether the VIP is an address of the node."""
    command = cluster.namespaces.command_inside(node, ["ip", "-o", "address", "show", "to", VIP])
    return VIP in subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[DaemonCluster]:
    with DaemonCluster(SIZE, tmp_path) as made:
        for node in range(SIZE):
            made.say(node, document(made, node))
        made.start(range(SIZE))
        try:
            all_have_everybody(made)
            yield made
        except BaseException:
            for node in range(SIZE):
                sys.stderr.write(f"--- n{node}\n{made.log(node)[-3000:]}")
            raise


def told_of_marks(cluster: DaemonCluster, node: int) -> list[tuple[str, str]]:
    """The kind and the reason of each mark that it has told."""
    events = cluster.ask(node, "/v1/events?format=json&since=0")["events"]
    return [(event["kind"], event["data"]["reason"]) for event in events if event["kind"] in {"drained", "undrained", "weight"}]


def has_heard(cluster: DaemonCluster, node: int) -> bool:
    """Whether it answers, and knows a VIP."""
    try:
        return bool(cluster.ask(node, "/v1/backends")["vips"])
    except DaemonUnreachable:
        return False


def test_a_cluster_balances_repairs_itself_and_obeys(cluster: DaemonCluster) -> None:
    until = cluster.wait_until
    backends = [Backend(cluster, node) for node in range(SIZE)]
    until(lambda: announced(cluster, 0), "the VIP's address is there, which it is a moment after IPVS")
    assert {get(cluster, 0) for _ in range(6)} == {"n0", "n1", "n2"}

    # An operator drains a node from another one, and all obey.
    minuteman(cluster, 1, "drain", "node", "n2", "--reason", "disk", "--yes")
    third = key(cluster, 2)
    for node in range(SIZE):
        until(lambda node=node: rows(cluster, node)[third] == 0, f"n{node} obeys")  # type: ignore[misc]
    assert {get(cluster, 0) for _ in range(6)} == {"n0", "n1"}
    found = cluster.ask(0, "/v1/backends")["vips"]
    row = next(row for vip in found for row in vip["backends"] if row["port"] == 8002)
    assert (row["drain"]["reason"], row["effective_weight"]) == ("disk", 0)
    assert "disk" in minuteman(cluster, 0, "backends", "--out")
    assert json.loads(minuteman(cluster, 0, "status", "-o", "json"))["members"]["alive"] == SIZE
    minuteman(cluster, 0, "undrain", "node", "n2", "--reason", "new disk", "--yes")
    all_have_everybody(cluster)
    told = [("drained", "disk"), ("undrained", "new disk")]
    for node in range(SIZE):
        until(lambda node=node: told_of_marks(cluster, node) == told, f"n{node} tells of it")  # type: ignore[misc]

    # A panic: its link goes, then its process.
    cluster.panic([2])
    suspected = until(lambda: all(rows(cluster, node).get(third, 0) == 0 for node in (0, 1)), "suspect is weight 0")
    gone = until(lambda: all(third not in rows(cluster, node) for node in (0, 1)), "down is removed")
    print(f"weight 0 after {suspected:.2f} s, removed after {suspected + gone:.2f} s")  # noqa: T201 - shown with -s
    assert {get(cluster, 0) for _ in range(6)} == {"n0", "n1"}
    expected = {"member_suspect", "member_down", "backend_out"}
    events = "/v1/events?format=json&since=0"
    until(
        lambda: expected <= {event["kind"] for event in cluster.ask(0, events)["events"]}, "it is told after the kernel has it"
    )

    # It comes back, and so do its backends.
    cluster.revive([2])
    all_have_everybody(cluster)
    assert {get(cluster, 0) for _ in range(6)} == {"n0", "n1", "n2"}
    until(lambda: has_heard(cluster, 2), "it has heard what is in the store")
    assert told_of_marks(cluster, 2) == []  # they are older than it is now

    # A clean stop keeps its own table, and is told as a departure.
    before = rows(cluster, 1)
    cluster.signal(1, signal.SIGTERM)
    assert cluster.wait_ended(1) == 0
    assert rows(cluster, 1) == before
    until(lambda: key(cluster, 1) not in rows(cluster, 0), "who left is out")
    assert cluster.ask(0, "/v1/status")["members"]["left"] == 1
    for backend in backends:
        backend.listener.close()
