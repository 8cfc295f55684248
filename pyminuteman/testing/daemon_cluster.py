r"""A cluster of real daemons, each in a network namespace of its own with an IPVS table of its own, forked from one warm process.

For tests, demos and benchmarks on a kernel that has IPVS. Every node has its directory: `config.toml`, `vips.toml` (a file source,
which says what this node's tasks are), `api.sock`, `log`, and the daemon's state.

    with DaemonCluster(5, directory) as cluster:
        cluster.say(0, '[[vip]]\nlisten = "tcp://11.0.0.1:80"\n...')
        cluster.start(range(5))
        cluster.panic([3])     # its link goes, then its process
        cluster.revive([3])

The directory must be on a file system that tells of changes (tmpfs does, a guest's view of its host's files does not).
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self, cast

from pyminuteman.daemon.client import DaemonClient
from pyminuteman.ipvs import IPVSTable, NetlinkBackend, Scope
from pyminuteman.testing.cluster_namespaces import ClusterNamespaces

__all__ = ["DaemonCluster", "DaemonEndedError"]

_START_SECONDS: Final = 60.0
_END_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.01
_CONTACTS: Final = 3
_ENDING: Final = frozenset({signal.SIGKILL, signal.SIGTERM})
_NEIGHBOURS: Final = "/proc/sys/net/ipv4/neigh/default/gc_thresh{}"


class DaemonEndedError(Exception):
    """A daemon ended that nobody had ended. The text has the last lines of its log."""


class DaemonCluster:
    """`size` nodes, numbered from 0; none runs yet. Use `with`: it ends them.

    Args:
        size: How many.
        directory: Of all they write; must be there.
        settings: Settings of the configuration for every node, as `minuteman run --set` takes them, by `section.key`. The defaults of this
            class (see `config`) are replaced by them.
        ipv6: Whether nodes have IPv6 addresses.

    Raises:
        ClusterUnavailableError: There can be no such namespaces here.
        TimeoutError: The process that starts daemons does not begin.
    """

    def __init__(self, size: int, directory: Path, *, settings: Mapping[str, str] | None = None, ipv6: bool = False) -> None:
        _raise_neighbour_limits(size)
        self.size = size
        self._directory = directory
        self._settings = dict(settings or {})
        self._running: dict[int, int] = {}
        self._codes: dict[int, int] = {}
        self._expected: set[int] = set()
        self._answers: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._orders: IO[bytes] | None = None
        self.namespaces = ClusterNamespaces(size, ipv6=ipv6)
        try:
            for node in range(size):
                self.directory(node).mkdir(exist_ok=True)
                self.say(node, "")
                (self.directory(node) / "config.toml").write_text(self._config(node), encoding="utf-8")
            self._start_starter()
            self._take(lambda answer: "ready" in answer)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Kill them all, and take their namespaces away. A second call does nothing."""
        if self._orders is not None and not self._orders.closed:
            self._orders.close()
            try:
                self._starter.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                self._starter.kill()  # what it started dies with it
                self._starter.wait()
            self._reader.join(_END_SECONDS)
            cast("IO[bytes]", self._starter.stdout).close()
        self.namespaces.close()

    # What is where

    def directory(self, node: int) -> Path:
        """Of all that a node writes."""
        return self._directory / f"n{node}"

    def address(self, node: int) -> str:
        """A node's IPv4 address."""
        return str(self.namespaces.address(node))

    def socket(self, node: int) -> Path:
        """Where its API is."""
        return self.directory(node) / "api.sock"

    def log(self, node: int) -> str:
        """What it has logged, in all its lives."""
        path = self.directory(node) / "log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def pid(self, node: int) -> int:
        """Its daemon's process id.

        Raises:
            KeyError: It does not run.
        """
        return self._running[node]

    @property
    def running(self) -> frozenset[int]:
        """Those whose daemon runs."""
        self._take_all()
        return frozenset(self._running)

    # What they are told

    def say(self, node: int, vips: str) -> None:
        """Have a node's source say this: a document of the `file` source, which replaces what it said."""
        new = self.directory(node) / "vips.new"
        new.write_text(vips, encoding="utf-8")
        new.replace(self.directory(node) / "vips.toml")

    def ask(self, node: int, path: str) -> Any:
        """What its API answers.

        Raises:
            DaemonError: It does not, or says no.
        """
        with DaemonClient(self.socket(node)) as client:
            return client.get(path)

    def post(self, node: int, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Have its API do something.

        Raises:
            DaemonError: It does not, or says no.
        """
        with DaemonClient(self.socket(node)) as client:
            return client.post(path, body)

    def table(self, node: int) -> IPVSTable:
        """Its kernel's table, to be read, and closed by the caller."""
        return IPVSTable(scope=Scope.services(()), backend=NetlinkBackend(netns=self.netns(node)))

    def netns(self, node: int) -> str:
        """The path of its namespace."""
        return f"/run/netns/{self.namespaces.namespace(node)}"

    # Lives and deaths

    def start(self, nodes: Iterable[int], *, at_a_time: int = 4) -> None:
        """Start their daemons; whether they are ready is another question (`wait_until` and `ask`).

        Args:
            nodes: Which.
            at_a_time: How many may be setting up their host together: each starts some dozens of programs for it, which on one processor
                would keep the members that are there already from being heard.

        Raises:
            TimeoutError: One does not come up.
            DaemonEndedError: One ended.
        """
        coming: list[int] = []
        for node in nodes:
            self.socket(node).unlink(missing_ok=True)  # of a life that was killed
            self.wait_until(
                lambda: sum(not self.socket(one).exists() for one in coming) < at_a_time,
                f"of n{coming}, all but {at_a_time - 1} have set up their host",
                _START_SECONDS,
            )
            coming.append(node)
            words = ["run", "--config", str(self.directory(node) / "config.toml")]
            for name, value in self._settings.items():
                words += ["--set", f"{name}={value}"]
            log = str(self.directory(node) / "log")
            self._codes.pop(node, None)
            self._expected.discard(node)
            self._order(start=str(node), netns=self.netns(node), log=log, words=words)
            self._take(lambda answer, node=node: answer.get("started") == str(node))  # type: ignore[misc]

    def signal(self, node: int, number: int) -> None:
        """Send its daemon a signal; SIGKILL and SIGTERM make its end expected."""
        if number in _ENDING:
            self._expected.add(node)
        self._order(signal=str(node), number=int(number))

    def wait_ended(self, node: int, seconds: float = _END_SECONDS) -> int:
        """Wait until its daemon has ended; its exit code, negative for a signal.

        Raises:
            TimeoutError: It did not end.
        """
        self.wait_until(lambda: node not in self.running, f"n{node} ends", seconds)
        return self._codes[node]

    def panic(self, nodes: Collection[int]) -> int:
        """As a kernel panic: first their links go down, all together, so that nothing of the end is heard; then their daemons are killed.

        Returns:
            CLOCK_REALTIME in nanoseconds, before the first link went down.
        """
        began_ns = self.namespaces.take_down(nodes)
        for node in nodes:
            self.signal(node, 9)
        return began_ns

    def revive(self, nodes: Collection[int]) -> None:
        """Bring their links up, and start their daemons again, with the state that they had."""
        for node in nodes:
            self.wait_ended(node)
        self.namespaces.bring_up(nodes)
        self.start(nodes)

    def wait_until(self, true: Callable[[], object], what: str, seconds: float = 60.0) -> float:
        """Wait until something is so; how long that took, in seconds.

        Raises:
            TimeoutError: It did not become so in time.
            DaemonEndedError: A daemon ended meanwhile that nobody had ended.
        """
        began = time.perf_counter()
        while not true():
            self._take_all()
            if time.perf_counter() - began > seconds:
                raise TimeoutError(f"not so within {seconds:g} s: {what}")
            time.sleep(_POLL_SECONDS)
        return time.perf_counter() - began

    # The process that starts them

    def _config(self, node: int) -> str:
        contacts = ", ".join(f'"{self.address(contact)}:61420"' for contact in range(min(_CONTACTS, self.size)))
        return f"""[node]
name = "n{node}"
bind = "{self.address(node)}:61420"
state_directory = "{self.directory(node)}"
realtime = false
[cluster]
contacts = [{contacts}]
insecure = true
[[source]]
name = "files"
place = "file:{self.directory(node) / "vips.toml"}"
[ipvs]
managed = ["11.0.0.0/8"]
max_loss_percent = 100
drain_seconds = 0
[health]
check = ""
[api]
socket = "{self.socket(node)}"
group = ""
"""

    def _start_starter(self) -> None:
        command = [sys.executable, "-m", "pyminuteman.testing.warm_starter"]
        self._starter = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603 - our own words
        self._orders, answers = cast("IO[bytes]", self._starter.stdin), cast("IO[bytes]", self._starter.stdout)
        self._reader = threading.Thread(target=self._read, args=(answers,), name="warm-starter", daemon=True)
        self._reader.start()

    def _order(self, **words: Any) -> None:
        assert self._orders is not None  # noqa: S101 - for the type checker: it is there from the beginning
        self._orders.write(json.dumps(words).encode() + b"\n")
        self._orders.flush()

    def _read(self, answers: IO[bytes]) -> None:
        with answers:
            for line in answers:
                self._answers.put(json.loads(line))
        self._answers.put(None)

    def _take_all(self) -> None:
        """Take in who has ended."""
        while not self._answers.empty():
            self._hear(self._answers.get())

    def _take(self, is_it: Callable[[dict[str, Any]], bool]) -> None:
        """Take answers until this one."""
        while True:
            try:
                answer = self._answers.get(timeout=_START_SECONDS)
            except queue.Empty:
                raise TimeoutError("the process that starts daemons does not answer") from None
            self._hear(answer)
            if answer is not None and is_it(answer):
                return

    def _hear(self, answer: dict[str, Any] | None) -> None:
        if answer is None:
            raise DaemonEndedError("the process that starts daemons has ended")
        if "started" in answer:
            self._running[int(answer["started"])] = answer["pid"]
        elif "ended" in answer:
            node = int(answer["ended"])
            self._running.pop(node, None)
            self._codes[node] = answer["code"]
            if node not in self._expected:
                raise DaemonEndedError(f"n{node} ended with {answer['code']}:\n{self.log(node)[-4000:]}")


def _raise_neighbour_limits(size: int) -> None:
    """The kernel's neighbour table is one for all namespaces, and holds 1,024: 40 nodes that all know each other have 1,560.

    Raises:
        OSError: It may not be changed.
    """
    for number, least in enumerate((2, 4, 8), 1):
        path = _NEIGHBOURS.format(number)
        if not os.path.exists(path):  # noqa: PTH110 - only the initial namespace has it
            return
        with open(path, "r+", encoding="ascii") as file:  # noqa: PTH123 - one open for both
            wanted = max(1024, least * size * size)
            if int(file.read()) < wanted:
                file.seek(0)
                file.write(f"{wanted}\n")
