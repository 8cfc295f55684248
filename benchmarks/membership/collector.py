"""Reads what all the nodes print, as it comes, and says when.

A thread of its own at nice -10: a line that waits to be read while other processes compute would make a peer look slow whose lines
carry no time of their own.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, TextIO

from peers import Neighbours, Peer
from views import Belief, Views

_NICE = -10
_TAIL_LINES = 30
_READ_BYTES = 1 << 16


class Run:
    """One process of a node, from its start to its end."""

    def __init__(self, node: int, process: subprocess.Popen[Any]) -> None:
        self.node = node
        self.process = process
        self.running_since_ns: int | None = None  # when it first said that it is up
        self.ended_ns: int | None = None  # what it prints after this is not believed
        self.neighbours: Neighbours | None = None
        self.tail: deque[bytes] = deque(maxlen=_TAIL_LINES)
        self._rest = b""

    def lines(self, data: bytes) -> list[bytes]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        self.tail.extend(lines)
        return lines

    def runs_at(self, time_ns: int) -> bool:
        """Whether it ran and could be heard of then."""
        since, end = self.running_since_ns, self.ended_ns
        return since is not None and since <= time_ns and (end is None or time_ns < end)


class Collector:
    """Puts what the processes print into views.

    Args:
        log: a file that gets every line with the time it was read, or None.
    """

    def __init__(self, peer: Peer, views: Views, log: TextIO | None) -> None:
        self._peer = peer
        self._views = views
        self._log = log
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = os.pipe()
        self._selector.register(self._wake, selectors.EVENT_READ, None)
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._guarded(self._read_all), name="collector", daemon=True)
        self._thread.start()

    def add(self, run: Run) -> None:
        assert run.process.stdout is not None
        os.set_blocking(run.process.stdout.fileno(), False)
        self._selector.register(run.process.stdout, selectors.EVENT_READ, run)

    def close(self) -> None:
        os.write(self._woken, b"x")
        self._thread.join(10.0)
        for key in list(self._selector.get_map().values()):
            if key.data is not None:
                key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()
        os.close(self._wake)
        os.close(self._woken)

    def _guarded(self, work: Callable[[], None]) -> Callable[[], None]:
        """A thread that dies unheard would make every figure a deadline."""

        def guarded() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - it is raised again by who waits
                self.failure = error

        return guarded

    def _read_all(self) -> None:
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)  # of this thread only
        while True:
            for key, _ in self._selector.select():
                run: Run | None = key.data
                if run is None:
                    return
                data = os.read(key.fd, _READ_BYTES)
                read_ns = time.time_ns()
                if not data:
                    self._selector.unregister(key.fileobj)
                    key.fileobj.close()  # type: ignore[union-attr]
                for line in run.lines(data):
                    self._take(run, line, read_ns)

    def _take(self, run: Run, line: bytes, read_ns: int) -> None:
        if self._log is not None:
            self._log.write(f"{read_ns} {run.node} {line.decode(errors='replace')}\n")
        if run.ended_ns is not None:
            return
        told = self._peer.parse(line, read_ns)
        if isinstance(told, Neighbours):
            run.neighbours = told
        elif told is not None:
            if told.subject == run.node and told.belief is Belief.UP and run.running_since_ns is None:
                run.running_since_ns = told.time_ns
            self._views.record(told.time_ns, run.node, told.subject, told.belief)
