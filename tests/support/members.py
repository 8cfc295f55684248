"""Nodes as processes: started, signalled, listened to."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

COMMAND = [sys.executable, "-m", "pyminuteman", "members", "run", "-o", "json"]


class NodeProcess:
    """One ``minuteman members run``, and the lines it has printed so far."""

    def __init__(
        self,
        options: Sequence[str],
        start: Callable[..., subprocess.Popen[str]] = subprocess.Popen,
        *,
        stdout: int = subprocess.PIPE,
    ) -> None:
        """Start one; with a ``stdout`` of the caller's, its lines are for the caller to read."""
        self.events: list[dict[str, Any]] = []
        self._news = threading.Condition()
        self.process = start([*COMMAND, *options], stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE, text=True)
        self._readers = [threading.Thread(target=self._read, daemon=True), threading.Thread(target=self._hear, daemon=True)]
        self.talk = ""
        for reader in self._readers:
            reader.start()
        if stdout == subprocess.PIPE:
            self.me = self.wait_for(lambda event: event["event"] == "up", "its own up")

    def _read(self) -> None:
        if self.process.stdout is None:
            return
        for line in self.process.stdout:
            with self._news:
                self.events.append(json.loads(line))
                self._news.notify_all()

    def _hear(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.talk += line

    @property
    def id(self) -> str:
        return str(self.me["node"])

    def wait_for(
        self, wanted: Callable[[dict[str, Any]], object], what: str, *, seconds: float = 20.0, after: int = 0
    ) -> dict[str, Any]:
        """The first event, from number ``after`` on, that is wanted."""
        deadline = time.perf_counter() + seconds
        seen = after
        with self._news:
            while True:
                for event in self.events[seen:]:
                    if wanted(event):
                        return event
                seen = len(self.events)
                left = deadline - time.perf_counter()
                assert left > 0, f"{what}: not within {seconds} s; {self.events[-10:]}, {self.talk}"
                assert self._news.wait(min(left, 0.5)) or self.process.poll() is None, f"it has ended: {self.talk}"

    def wait_event(self, kind: str, node: str, *, seconds: float = 20.0, after: int = 0) -> dict[str, Any]:
        return self.wait_for(
            lambda event: event["event"] == kind and event["node"] == node, f"{kind} of {node}", seconds=seconds, after=after
        )

    def state(self) -> dict[str, Any]:
        """What it prints when it is asked."""
        after = len(self.events)
        self.process.send_signal(signal.SIGUSR1)
        return self.wait_for(lambda event: event["event"] == "state", "state", after=after)

    def wait_state(self, wanted: Callable[[dict[str, Any]], object], *, seconds: float = 30.0) -> dict[str, Any]:
        """Ask for its state until it is as wanted."""
        deadline = time.perf_counter() + seconds
        while not wanted(state := self.state()):
            assert time.perf_counter() < deadline, state
            time.sleep(0.05)
        return state

    def wait_members(self, count: int, *, seconds: float = 30.0) -> dict[str, Any]:
        """Wait until it holds so many, itself included, to be alive."""

        def enough(state: dict[str, Any]) -> bool:
            return [member["status"] for member in state["members"].values()].count("alive") == count

        return self.wait_state(enough, seconds=seconds)

    def end(self, number: int = signal.SIGTERM, *, code: int = 0) -> None:
        self.process.send_signal(number)
        assert self.process.wait(20) == code, self.talk
        for reader in self._readers:
            reader.join(5)

    def kill(self) -> None:
        """At the end of a test, whatever became of it."""
        self.process.kill()
        self.process.wait()
        for reader in self._readers:
            reader.join(5)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
