"""A cluster of one peer: processes in namespaces that can be killed as by a kernel panic, started again, frozen."""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Self, TextIO

from collector import Collector, Run
from peers import CONTACT, Node, Peer, name_of
from views import Alarm, Pair, Views, alarms

from pyminuteman.testing.cluster_namespaces import ClusterNamespaces

_POLL_SECONDS = 0.02
_REST_POLL_SECONDS = 0.5  # so seldom that a cluster at rest is at rest
_STATE_SECONDS = 2.0


class NodeEndedError(Exception):
    """A process ended, or fell silent, that nobody had killed; the text has its last lines."""


class Cluster:
    """The peer's processes in these namespaces, none of them started yet. Use `with`: it kills them."""

    def __init__(
        self, peer: Peer, namespaces: ClusterNamespaces, directory: Path, chance: random.Random, log: TextIO | None = None
    ) -> None:
        self.peer = peer
        self.size = namespaces.size
        self.namespaces = namespaces
        self.chance = chance
        self.views = Views(self.size, suspicion_ends=peer.suspicion_ends)
        self._directory = directory
        self._collector = Collector(peer, self.views, log)
        self._runs: list[list[Run]] = [[] for _ in range(self.size)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        now_ns = time.time_ns()
        for node in self.running():
            self._end(self._runs[node][-1], now_ns)
        self._collector.close()
        self.namespaces.bring_up(range(self.size))
        shutil.rmtree(self._directory, ignore_errors=True)

    # Who runs

    def running(self) -> set[int]:
        """Those that were started and not killed."""
        return {node for node, runs in enumerate(self._runs) if runs and runs[-1].ended_ns is None}

    def runs_at(self, node: int, time_ns: int) -> bool:
        """Whether a node could be heard of at a time: the truth against which alarms are wrong."""
        return any(run.runs_at(time_ns) for run in self._runs[node])

    def process(self, node: int) -> int:
        return self._runs[node][-1].process.pid

    def running_since_ns(self) -> int | None:
        """When the last of those that were started said that it is up; None if one has not."""
        since = [self._runs[node][-1].running_since_ns for node in self.running()]
        return max((at for at in since if at is not None), default=None) if None not in since else None

    def pick(self, count: int) -> list[int]:
        """Victims: running ones, at random, and never the contact."""
        return self.chance.sample(sorted(self.running() - {CONTACT}), count)

    # What is done to them

    def start(self, nodes: Collection[int]) -> None:
        for node in nodes:
            directory = self._directory / name_of(node)
            directory.mkdir(parents=True, exist_ok=True)
            contact = None if node == CONTACT else str(self.namespaces.address(CONTACT))
            command = self.peer.command(Node(node, str(self.namespaces.address(node)), contact, directory))
            self.views.forget(node)
            # A session of its own: Ctrl-C is for us to act on. One stream, so that a dying word stands among the events.
            process = self.namespaces.start(
                node,
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            run = Run(node, process)
            self._runs[node].append(run)
            self._collector.add(run)

    def kill(self, nodes: Collection[int]) -> int:
        """As a kernel panic: first the links go down, all together, so that nothing of the end is heard; then the processes.

        Returns:
            CLOCK_REALTIME in nanoseconds, before the first link went down.
        """
        down_ns = self.namespaces.take_down(nodes)
        for node in nodes:
            self._end(self._runs[node][-1], down_ns)
        return down_ns

    def revive(self, nodes: Collection[int]) -> None:
        self.namespaces.bring_up(nodes)
        self.start(nodes)

    def freeze(self, node: int, seconds: float) -> tuple[int, int]:
        """Stop a process, and let it go on.

        Returns:
            When it was stopped and when it went on, by CLOCK_REALTIME in nanoseconds.
        """
        process = self._runs[node][-1].process
        stopped_ns = time.time_ns()
        process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        thawed_ns = time.time_ns()
        process.send_signal(signal.SIGCONT)
        return stopped_ns, thawed_ns

    # What is waited for

    def wait_until(self, condition: Callable[[], bool], seconds: float, poll_seconds: float = _POLL_SECONDS) -> bool:
        """Whether it came true in time.

        Raises:
            NodeEndedError: meanwhile a process ended.
        """
        deadline = time.perf_counter() + seconds
        while not condition():
            left = deadline - time.perf_counter()
            if left <= 0:
                return False
            self.check()
            time.sleep(min(poll_seconds, left))
        return True

    def wait_for_views(self, seconds: float) -> list[Pair]:
        """Wait until every node has every view right; the pairs that are still wrong at the deadline."""
        self.wait_until(lambda: not self.views.wrong(self.running()), seconds)
        return self.views.wrong(self.running())

    def rest(self, seconds: float) -> None:
        """Let them run; notice who ends."""
        self.wait_until(lambda: False, seconds, _REST_POLL_SECONDS)

    def check(self) -> None:
        if self._collector.failure is not None:
            raise self._collector.failure
        for node in self.running():
            run = self._runs[node][-1]
            if run.process.poll() is not None:
                time.sleep(0.1)  # its last words are on their way
                words = b"\n  ".join(run.tail).decode(errors="replace")
                raise NodeEndedError(f"{name_of(node)} ended by itself with status {run.process.returncode}:\n  {words}")

    def neighbours(self) -> dict[int, tuple[int, ...]]:
        """Whom each node has links with, as it says itself. Empty for those who do not say."""
        if not self.peer.has_neighbours:
            return {}
        asked = [run for node in sorted(self.running()) if _handles(run := self._runs[node][-1], signal.SIGUSR1)]
        for run in asked:
            run.neighbours = None
            run.process.send_signal(signal.SIGUSR1)
        self.wait_until(lambda: all(run.neighbours for run in asked), _STATE_SECONDS)
        return {run.node: run.neighbours.numbers for run in asked if run.neighbours is not None}

    def alarms_since(self, mark: int) -> list[Alarm]:
        """What they wrongly said of each other since then."""
        return alarms(self.views.since(mark), self.runs_at)

    def _end(self, run: Run, now_ns: int) -> None:
        run.ended_ns = now_ns
        run.process.kill()
        run.process.wait(10.0)


def _handles(run: Run, number: signal.Signals) -> bool:
    """Whether a process has a handler; without one most signals are deadly."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{run.process.pid}/status").read_text().splitlines():
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False
