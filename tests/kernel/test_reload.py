"""Daemons that read their configuration again under traffic: what changes counts, and what does not change is not written to any kernel."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from pyminuteman.testing.daemon_cluster import DaemonCluster

pytestmark = pytest.mark.kernel(timeout=300)

VIP, OTHER_VIP = "11.0.0.1", "11.0.0.2"
RELOADS = 10


def document(address: str, *backends: tuple[str, int]) -> str:
    rows = "".join(f'[[vip.backend]]\naddress = "{host}"\nport = {port}\n' for host, port in backends)
    return f'[[vip]]\nlisten = "tcp://{address}:80"\nscheduler = "rr"\n{rows}'


def serve(listener: socket.socket, word: bytes) -> None:
    """Answer whoever asks, until the listener is closed."""
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection, contextlib.suppress(OSError):
            connection.recv(4096)
            connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(word), word))


class Traffic(threading.Thread):
    """Somebody on a node who asks the VIP again and again."""

    def __init__(self, cluster: DaemonCluster, node: int) -> None:
        super().__init__(daemon=True)
        self.cluster, self.node = cluster, node
        self.answers: Counter[str] = Counter()
        self.failures: list[str] = []
        self.ended = threading.Event()

    def run(self) -> None:
        with self.cluster.namespaces.inside(self.node):  # of this thread
            while not self.ended.is_set():
                try:
                    self.answers[self.ask()] += 1
                except (OSError, http.client.HTTPException) as error:
                    self.failures.append(f"{time.strftime('%T')} {error!r}")
                time.sleep(0.01)

    def ask(self) -> str:
        with socket.create_connection((VIP, 80), timeout=10) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            response = http.client.HTTPResponse(connection)
            response.begin()
            return response.read().decode()


class Site:
    """Two nodes with a backend each, and what they are told."""

    def __init__(self, cluster: DaemonCluster, stack: ExitStack) -> None:
        self.cluster = cluster
        self.configs = [(cluster.directory(node) / "config.toml").read_text() for node in range(2)]
        self.listeners = []
        for node in range(2):
            with cluster.namespaces.inside(node):
                listener = stack.enter_context(socket.create_server((cluster.address(node), 8000)))
            threading.Thread(target=serve, args=(listener, f"n{node}".encode()), daemon=True).start()
            self.listeners.append(listener)
            cluster.say(node, document(VIP, (cluster.address(node), 8000)))

    def rows(self, node: int) -> dict[str, int]:
        """What its kernel has: weights by service and destination."""
        with self.cluster.table(node) as table:
            snapshot = table.snapshot()
            return {
                f"{one.key.address} {row.address}": row.weight for one in snapshot for row in snapshot.destinations(one.key)
            }

    def until_rows(self, rows: dict[str, int], why: str) -> None:
        """Both kernels have these, and both nodes have told that they wrote them."""
        for node in range(2):
            self.cluster.wait_until(lambda node=node: self.rows(node) == rows, f"n{node}: {why}")  # type: ignore[misc]
            self.cluster.wait_until(
                lambda node=node: self.cluster.ask(node, "/v1/status")["kernel"][0]["destinations"] == len(rows),  # type: ignore[misc]
                f"n{node} has told of it",
            )

    def events(self, node: int, kind: str) -> list[str]:
        found: list[dict[str, Any]] = self.cluster.ask(node, "/v1/events?format=json&since=0")["events"]
        return [event["text"] for event in found if event["kind"] == kind]

    def written(self) -> list[list[str]]:
        """What each has written to its kernel, as it has told."""
        return [self.events(node, "sync") for node in range(2)]

    def reload(self, node: int, change: Callable[[str], str] = lambda text: text) -> str:
        """Write its configuration anew, send it SIGHUP, and wait until it says what came of it."""
        self.configs[node] = change(self.configs[node])
        (self.cluster.directory(node) / "config.toml").write_text(self.configs[node])
        before = len(self.events(node, "reload"))
        os.kill(self.cluster.pid(node), signal.SIGHUP)
        self.cluster.wait_until(lambda: len(self.events(node, "reload")) > before, f"n{node} has reloaded")
        return self.events(node, "reload")[-1]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with ExitStack() as stack:
        cluster = stack.enter_context(DaemonCluster(2, tmp_path))
        made = Site(cluster, stack)
        cluster.start(range(2))
        try:
            yield made
        except BaseException:
            for node in range(2):
                sys.stderr.write(f"--- n{node}\n{cluster.log(node)[-4000:]}")
            raise


def test_reloads_under_traffic(site: Site) -> None:
    cluster = site.cluster
    one, two = cluster.address(0), cluster.address(1)
    both = {f"{VIP} {one}": 1, f"{VIP} {two}": 1}
    site.until_rows(both, "both backends are there")
    traffic = Traffic(cluster, 0)
    with cluster.namespaces.inside(0):
        cluster.wait_until(lambda: _answers(traffic), "the VIP's address is there, which it is a moment after IPVS")
    traffic.start()

    # Nothing has changed.
    before = site.written()
    for number in range(RELOADS):
        assert site.reload(number % 2) == "read again: nothing has changed"
    assert site.written() == before

    # A source comes: on one node after the other, for each must know it to let it have VIPs.
    for node, says in ((0, ""), (1, document(OTHER_VIP, (two, 8000)))):
        more = cluster.directory(node) / "more.toml"
        more.write_text(says)
        section = f'[[source]]\nname = "more"\nplace = "file:{more}"\n'
        assert site.reload(node, lambda text, section=section: text + section) == "source.more: added"  # type: ignore[misc]
    site.until_rows({**both, f"{OTHER_VIP} {two}": 1}, "what the new source says")

    # What the first one says is read elsewhere from now on, where nothing can be read at first.
    before = site.written()
    vips, moved = cluster.directory(1) / "vips.toml", cluster.directory(1) / "moved.toml"
    moved.write_text("nonsense")
    assert "source.files.place: " in site.reload(1, lambda text: text.replace(str(vips), str(moved)))
    cluster.wait_until(lambda: site.events(1, "source_stale"), "the broken place is told of")
    moved.write_text(document(VIP, (two, 8000)))
    cluster.wait_until(lambda: site.events(1, "source_good"), "it is read there")

    # What does not read.
    text = site.reload(1, lambda text: f"{text}[ipvs]\n")
    assert "nothing was changed: " in text
    assert "config.toml" in text
    site.reload(1, lambda text: text.removesuffix("[ipvs]\n"))
    assert site.written() == before
    site.until_rows({**both, f"{OTHER_VIP} {two}": 1}, "as it was")

    # The second source goes, by the operator's verb.
    text = site.configs[1].partition('[[source]]\nname = "more"')[0]
    (cluster.directory(1) / "config.toml").write_text(text)
    site.configs[1] = text
    command = [sys.executable, "-m", "pyminuteman", "reload", "--socket", str(cluster.socket(1))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.returncode) == ("source.more: removed\n", 0), done.stderr
    site.until_rows(both, "what it said is gone")

    traffic.ended.set()
    traffic.join(30)
    assert not traffic.failures, traffic.failures[:5]
    assert traffic.answers.keys() == {"n0", "n1"}
    assert traffic.answers.total() > RELOADS

    # The source's backends are checked from now on, and the one on this host has died.
    site.listeners[1].close()
    with contextlib.suppress(OSError):
        site.listeners[1].shutdown(socket.SHUT_RDWR)
    health = '[source.health]\ncheck = "tcp"\ninterval_seconds = 0.2\nfall = 2\n'
    assert "source.files.health: its own" in site.reload(1, lambda text: text.replace("[ipvs]", f"{health}[ipvs]", 1))
    site.until_rows({f"{VIP} {one}": 1, f"{VIP} {two}": 0}, "who fails the check gets no new connections")
    site.reload(1, lambda text: text.replace(health, ""))
    site.until_rows(both, "nobody is checked any more")


def _answers(traffic: Traffic) -> bool:
    try:
        return bool(traffic.ask())
    except OSError:
        return False
