"""Asks nodes' APIs all the time, in turn."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from itertools import cycle
from typing import Final

from pyminuteman.daemon.client import DaemonClient
from pyminuteman.daemon.client_errors import DaemonError
from pyminuteman.testing.daemon_cluster import DaemonCluster
from tests.soak.checkers import Finding
from tests.soak.checkers.api import ApiAnswers

__all__ = ["ApiWatch"]

_PAUSE_SECONDS: Final = 0.4
_PATHS: Final = ("/v1/status", "/v1/backends", "/metrics", "/v1/members", "/v1/events?format=json&since=0", "/v1/statistics")


class ApiWatch:
    """A thread. Close it.

    Args:
        cluster: Whose nodes.
        checker: What judges the answers.
        life_of: What changes whenever something is done to a node; None while it is disturbed.
    """

    def __init__(self, cluster: DaemonCluster, checker: ApiAnswers, life_of: Callable[[int], int | None]) -> None:
        self._cluster, self._checker, self._life_of = cluster, checker, life_of
        self._known: dict[int, int] = {}
        self._findings: list[Finding] = []
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="api watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop asking."""
        self._end.set()
        self._thread.join(60)

    def take_findings(self) -> list[Finding]:
        """Those since the last call."""
        with self._lock:
            taken, self._findings = self._findings, []
        return taken

    def _run(self) -> None:
        paths = cycle(_PATHS)
        for node in cycle(range(self._cluster.size)):
            life = self._life_of(node)
            if life is not None:
                self._ask(node, next(paths), life)
            if self._end.wait(_PAUSE_SECONDS):
                return

    def _ask(self, node: int, path: str, life: int) -> None:
        began, error = time.perf_counter(), ""
        try:
            with DaemonClient(self._cluster.socket(node)) as client:
                client.text(path)
        except DaemonError as refusal:
            error = str(refusal)
        took = time.perf_counter() - began
        if self._life_of(node) != life:
            return
        if self._known.get(node) != life:  # a daemon that has just been started need not be there yet
            if not error:
                self._known[node] = life
            return
        with self._lock:
            self._findings += self._checker.answered(node, path, took, error)
