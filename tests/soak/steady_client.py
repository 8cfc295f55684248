"""A client on node 0 that asks the steady VIP at a steady rate, and finds out for each failure which backend the kernel had chosen."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Final

from pyminuteman.host.namespaces import enter
from pyminuteman.ipvs.connections import parse_connections
from tests.soak.checkers.requests import Failure

__all__ = ["SteadyClient"]

TIMEOUT_SECONDS: Final = 5.0
_REQUEST: Final = b"GET / HTTP/1.0\r\n\r\n"
_CONNECTIONS: Final = Path("/proc/thread-self/net/ip_vs_conn")


class SteadyClient:
    """A thread. Close it.

    Args:
        netns: The path of the namespace that it is in.
        vip: What it asks, as ``11.0.0.1:80``.
        nodes: Node by address, for its failures.
        rate: Requests a second.
    """

    def __init__(self, netns: str, vip: str, nodes: dict[str, int], rate: float) -> None:
        self.answers: Counter[str] = Counter()
        """By who answered."""
        self.worst_seconds = 0.0
        address, _, port = vip.partition(":")
        self._target, self._nodes, self._netns, self._pause = (address, int(port)), nodes, netns, 1 / rate
        self._failures: list[Failure] = []
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="steady client", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop asking; the last request is waited for."""
        self._end.set()
        self._thread.join(2 * TIMEOUT_SECONDS)

    def take_failures(self) -> list[Failure]:
        """Those since the last call."""
        with self._lock:
            taken, self._failures = self._failures, []
        return taken

    def _run(self) -> None:
        enter(self._netns)
        due = time.perf_counter()
        while not self._end.wait(max(0.0, due - time.perf_counter())):
            due = max(due + self._pause, time.perf_counter() - 1)  # what was missed for longer is not made up for
            self._ask()

    def _ask(self) -> None:
        started = time.perf_counter()
        with socket.socket() as connection:
            connection.settimeout(TIMEOUT_SECONDS)
            try:
                connection.connect(self._target)
                connection.sendall(_REQUEST)
                answer = b""
                while data := connection.recv(4096):
                    answer += data
                head, _, word = answer.partition(b"\r\n\r\n")
                if not head.startswith(b"HTTP/1.0 200") or not word:
                    raise ConnectionError(f"the answer is {answer[:200]!r}")
            except OSError as error:
                node = self._backend(connection)
                failure = Failure(started, time.perf_counter(), node, f"{type(error).__name__}: {error}")
                with self._lock:
                    self._failures.append(failure)
                return
        self.answers[word.decode()] += 1
        self.worst_seconds = max(self.worst_seconds, time.perf_counter() - started)

    def _backend(self, connection: socket.socket) -> int | None:
        port = 0
        with contextlib.suppress(OSError):
            port = connection.getsockname()[1]
        with _CONNECTIONS.open() as lines:
            for one in parse_connections(lines):
                if one.client_port == port and (one.virtual, one.virtual_port) == self._target:
                    return self._nodes.get(one.destination)
        return None
