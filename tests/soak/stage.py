"""Does to the cluster what the schedule says."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from pyminuteman.daemon.client_errors import DaemonError
from pyminuteman.testing.daemon_cluster import DaemonCluster
from tests.soak.kernels import Kernels
from tests.soak.schedule import PORTS, STEADY_VIP, first_document
from tests.soak.steady_client import SteadyClient
from tests.soak.steps import Document, Kind, Step
from tests.soak.world import LEASE_SECONDS

__all__ = ["SETTINGS", "Stage"]

AUDIT_SECONDS: Final = 12
"""An audit starts some programs, to see whether the host is still set up: of ten daemons on one processor that is felt."""
SETTINGS: Final = {
    "store.lease_seconds": f"{LEASE_SECONDS:g}",
    "ipvs.audit_seconds": str(AUDIT_SECONDS),
    "ipvs.drain_seconds": "2",
}
_DISK: Final = "8m"
_FILLER: Final = "filler"
_BROKEN_TEXT: Final = '[[vip]]\nlisten = "tcp://11.0.0.1:'
_BROKEN_CONFIG: Final = "[node]\nname = \n"
_BROKEN_CONFIG_SECONDS: Final = 0.5
_MARK_SECONDS: Final = 20.0


class Stage:
    """The cluster with all that the soak needs of it: small disks, backends, kernels. Close it.

    Args:
        size: Nodes.
        directory: Of all that is written.
    """

    def __init__(self, size: int, directory: Path) -> None:
        self.size = size
        self._mounted: list[Path] = []
        self._backends: subprocess.Popen[bytes] | None = None
        self._denied = dict.fromkeys(range(size), False)
        self.cluster = DaemonCluster(size, directory, settings=SETTINGS)
        self.kernels = Kernels(self.cluster)
        try:
            for node in range(size):
                self._give_disk(node)
                self._configure(node)
                self.say(node, first_document(node))
            self._start_backends()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End all of it. A second call does nothing."""
        self.kernels.close()
        if self._backends is not None and self._backends.poll() is None:
            self._backends.kill()
            self._backends.communicate()
        self.cluster.close()
        while self._mounted:
            subprocess.run(["umount", str(self._mounted.pop())], check=True, timeout=30)

    def client(self, rate: float) -> SteadyClient:
        """The steady client."""
        nodes = {self.cluster.address(node): node for node in range(self.size)}
        return SteadyClient(self.cluster.netns(0), STEADY_VIP, nodes, rate)

    def state_directory(self, node: int) -> Path:
        """Where a node keeps its state: a disk of its own."""
        return self.cluster.directory(node) / "state"

    def state_sizes(self, node: int) -> dict[str, int]:
        """The files there, and their sizes."""
        found: dict[str, int] = {}
        with os.scandir(self.state_directory(node)) as entries:
            for entry in entries:
                try:
                    found[entry.name] = entry.stat().st_size
                except FileNotFoundError:  # a draft, which has been moved into place
                    continue
        found.pop(_FILLER, None)
        return found

    # Steps

    def do(self, step: Step) -> None:
        """One step.

        Raises:
            DaemonEndedError: A daemon has ended that nobody had ended.
            RuntimeError, TimeoutError: It could not be done.
        """
        many: dict[Kind, Callable[[Any], object]] = {
            Kind.PANIC: self.cluster.panic,
            Kind.REVIVE: self.cluster.revive,
            Kind.JOIN: self.cluster.start,
            Kind.CUT: self.cluster.namespaces.take_down,
            Kind.MEND: self.cluster.namespaces.bring_up,
        }
        if step.kind in many:
            many[step.kind](step.nodes)
            return
        for node in step.nodes:
            self._do(step, node)

    def _do(self, step: Step, node: int) -> None:  # noqa: C901, PLR0912 - a table
        cluster = self.cluster
        match step.kind:
            case Kind.LEAVE:
                cluster.signal(node, signal.SIGTERM)
                code = cluster.wait_ended(node)
                if code:
                    raise RuntimeError(f"n{node} was asked to end, and did with {code}")
            case Kind.KILL:
                cluster.signal(node, signal.SIGKILL)
                cluster.wait_ended(node)
                cluster.start([node])
            case Kind.LOSE_STATE:
                cluster.wait_ended(node)
                self._lose_state(node)
            case Kind.FREEZE:
                cluster.signal(node, signal.SIGSTOP)
            case Kind.THAW:
                cluster.signal(node, signal.SIGCONT)
            case Kind.SAY:
                self.say(node, step.document)
            case Kind.BREAK_SOURCE:
                cluster.say(node, _BROKEN_TEXT)
            case Kind.RELOAD:
                self._denied[node] = not self._denied[node]
                self._configure(node)
                cluster.signal(node, signal.SIGHUP)
            case Kind.BREAK_CONFIG:
                self._write_config(node, _BROKEN_CONFIG)
                cluster.signal(node, signal.SIGHUP)
                time.sleep(_BROKEN_CONFIG_SECONDS)
                self._configure(node)
                cluster.signal(node, signal.SIGHUP)
            case Kind.FILL_DISK:
                _fill(self.state_directory(node) / _FILLER)
            case Kind.FREE_DISK:
                (self.state_directory(node) / _FILLER).unlink()
            case (
                Kind.DRAIN_NODE
                | Kind.UNDRAIN_NODE
                | Kind.DRAIN_BACKEND
                | Kind.UNDRAIN_BACKEND
                | Kind.WEIGHT
                | Kind.CLEAR_WEIGHT
            ):
                self._mark(step, node)
            case _:
                self.kernels.interfere(node, step.kind, step.vip, step.port)

    def say(self, node: int, document: Document) -> None:
        """A node's source says this."""
        self.cluster.say(node, _toml(self.cluster.address(node), document))

    def _mark(self, step: Step, node: int) -> None:
        """By way of the node itself or of node 0, and the same way for the same node: who takes a mark back has to have heard of it."""
        via = node if node % 2 else 0
        backend = {"backend": f"{self.cluster.address(node)}:{step.port}", "vip": f"tcp://{step.vip}"}
        body: dict[str, Any]
        match step.kind:
            case Kind.DRAIN_NODE | Kind.UNDRAIN_NODE:
                body = {"node": self._id(via, node)}
            case Kind.WEIGHT | Kind.CLEAR_WEIGHT:
                body = {**backend, "weight": step.weight if step.kind is Kind.WEIGHT else None}
            case _:
                body = backend
        verb = {"drain": "drain", "undrain": "undrain"}.get(step.kind.split()[0], "weight")
        try:
            self.cluster.post(via, f"/v1/{verb}", {**body, "reason": "soak"})
        except DaemonError as error:
            raise RuntimeError(f"n{via} refuses: {step}: {error}") from error

    def _id(self, via: int, node: int) -> str:
        """Of the node that has this name now: one that lost its state has the name of one that is down."""
        rows = self.cluster.ask(via, "/v1/members")["members"]
        return next(str(row["id"]) for row in rows if row["name"] == f"n{node}" and row["status"] == "alive")

    # Set-up

    def _give_disk(self, node: int) -> None:
        directory = self.state_directory(node)
        directory.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_DISK}", "soak", str(directory)], check=True, timeout=30)
        self._mounted.append(directory)

    def _lose_state(self, node: int) -> None:
        for path in self.state_directory(node).iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        self.kernels.clear(node)

    def _configure(self, node: int) -> None:
        path = self.cluster.directory(node) / "config.first"
        if not path.exists():
            text = (self.cluster.directory(node) / "config.toml").read_text()
            path.write_text(text.replace(f'"{self.cluster.directory(node)}"', f'"{self.state_directory(node)}"', 1))
        denied = '["192.0.2.0/24"]' if self._denied[node] else "[]"
        self._write_config(node, f"{path.read_text()}[policy]\ndenied = {denied}\n")

    def _write_config(self, node: int, text: str) -> None:
        new = self.cluster.directory(node) / "config.new"
        new.write_text(text)
        new.replace(self.cluster.directory(node) / "config.toml")

    def _start_backends(self) -> None:
        command = [sys.executable, "-m", "pyminuteman.testing.answerers"]
        self._backends = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._backends.stdin is not None
        assert self._backends.stdout is not None
        for node in range(self.size):
            at = ", ".join(f'["{self.cluster.address(node)}", {port}]' for port in PORTS)
            self._backends.stdin.write(
                f'{{"listen": "n{node}", "netns": "{self.cluster.netns(node)}", "at": [{at}]}}\n'.encode()
            )
        self._backends.stdin.flush()
        for _ in range(self.size):
            self._backends.stdout.readline()


def _toml(address: str, document: Document) -> str:
    lines: Iterable[str] = (
        f'[[vip]]\nlisten = "tcp://{vip}"\nscheduler = "wlc"\n'
        + "".join(f'[[vip.backend]]\naddress = "{address}"\nport = {port}\nweight = {rows[port]}\n' for port in sorted(rows))
        for vip, rows in document.items()
    )
    return "".join(lines)


def _fill(path: Path) -> None:
    block = bytes(1 << 16)
    with path.open("wb", buffering=0) as file:
        for size in (len(block), 512, 1):
            try:
                while file.write(block[:size]) == size:
                    pass
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
