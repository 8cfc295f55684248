"""A real etcd for tests: one member or a few, on loopback ports of its own choosing, with its data in a directory that it is given.

Every wait has a deadline, and says what the etcd wrote when it passes. The processes end with the context, and with the thread that
launched them (``setpriv --pdeathsig``), so that a test run that is killed leaves none: launch them from the main thread.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

__all__ = ["EtcdCluster", "EtcdMember", "EtcdStartError", "EtcdTLS", "why_no_etcd"]

_READY_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 5.0
_STOPPED_SECONDS: Final = 10.0
_TRIES: Final = 5
"""Ports are free when they are chosen; somebody else may take one before the etcd does."""
_LOG_SHOWN: Final = 2000


class EtcdStartError(Exception):
    """The etcd did not start, or did not get ready in time; the text ends with what it wrote."""


@dataclass(frozen=True, slots=True)
class EtcdTLS:
    """Files in PEM for the clients' port. Clients must show a certificate of the same authority."""

    ca_file: Path
    certificate_file: Path
    key_file: Path


def why_no_etcd() -> str | None:
    """None when an etcd can be started, else the reason."""
    return None if shutil.which("etcd") else "there is no etcd here (Debian: etcd-server)"


class EtcdMember:
    """One process of a cluster, and how to treat it badly."""

    def __init__(
        self, name: str, directory: Path, ports: tuple[int, int, int], tls: EtcdTLS | None, extra: tuple[str, ...]
    ) -> None:
        """Start nothing yet."""
        self.name = name
        self.data = directory / name
        self.log = directory / f"{name}.log"
        self.client_port, self.peer_port, self._metrics_port = ports
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.client_port}"
        self.peer_url = f"http://127.0.0.1:{self.peer_port}"
        self._tls = tls
        self._extra = extra
        self._process: subprocess.Popen[bytes] | None = None
        self.initial_cluster = ""

    @property
    def is_running(self) -> bool:
        """Whether its process is there; it may be paused."""
        return self._process is not None and self._process.poll() is None

    def launch(self) -> None:
        """Start the process, with the data that is there; a running one is left alone."""
        if self.is_running:
            return
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own words
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={name: value for name, value in os.environ.items() if not name.startswith("ETCD")},
            )

    def wait_ready(self, seconds: float = _READY_SECONDS) -> None:
        """Return when it is healthy, which takes a leader.

        Raises:
            EtcdStartError: It ended, or is not by then.
        """
        deadline = time.monotonic() + seconds  # noqa: TID251 - a driver
        while time.monotonic() < deadline:  # noqa: TID251
            if not self.is_running:
                raise EtcdStartError(f"{self.name} has ended: {self._written()}")
            if self._is_healthy():
                return
            time.sleep(0.02)
        raise EtcdStartError(f"{self.name} is not healthy after {seconds:g} s: {self._written()}")

    def start(self) -> None:
        """:meth:`launch` and :meth:`wait_ready`."""
        self.launch()
        self.wait_ready()

    def kill(self) -> None:
        """SIGKILL; returns when it is gone. Its data stays."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM; returns when it is gone. Its data stays."""
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """SIGSTOP; returns when all of its threads stand still. Connections stay open, and nothing answers.

        Raises:
            TimeoutError: One still runs after 10 s, which the kernel does not let happen for long.
        """
        self._signal(signal.SIGSTOP)
        deadline = time.monotonic() + _STOPPED_SECONDS  # noqa: TID251 - a driver
        while self._process is not None and self._process.poll() is None and not _stands_still(self._process.pid):
            if time.monotonic() > deadline:  # noqa: TID251
                raise TimeoutError(f"{self.name} was told to stand still, and runs on")
            time.sleep(0.001)

    def resume(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def wipe(self) -> None:
        """Remove its data; it must not run."""
        assert not self.is_running  # noqa: S101
        shutil.rmtree(self.data)

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        self._signal(number)
        if number is not signal.SIGKILL:
            self._signal(signal.SIGCONT)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(_STOP_SECONDS)
        self._process = None

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def _command(self) -> list[str]:
        command = ["etcd", "--name", self.name, "--data-dir", str(self.data), "--logger", "zap", "--log-level", "warn"]
        command += ["--listen-client-urls", self.url, "--advertise-client-urls", self.url]
        command += ["--listen-peer-urls", self.peer_url, "--initial-advertise-peer-urls", self.peer_url]
        command += ["--listen-metrics-urls", f"http://127.0.0.1:{self._metrics_port}"]
        command += ["--initial-cluster", self.initial_cluster, "--initial-cluster-token", "tests"]
        if self._tls is not None:
            command += ["--cert-file", str(self._tls.certificate_file), "--key-file", str(self._tls.key_file)]
            command += ["--trusted-ca-file", str(self._tls.ca_file), "--client-cert-auth"]
        command += self._extra
        setpriv = shutil.which("setpriv")
        return [setpriv, "--pdeathsig", "KILL", *command] if setpriv else command

    def _is_healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._metrics_port}/health", timeout=1) as answer:
                return bool(json.load(answer).get("health") == "true")
        except (OSError, ValueError):
            return False

    def _written(self) -> str:
        return self.log.read_text(errors="replace")[-_LOG_SHOWN:].strip() if self.log.exists() else ""


class EtcdCluster:
    """Some members, healthy within the context. With one, kill it and there is no etcd; with three, kill two and there is no leader."""

    def __init__(self, directory: Path, size: int = 1, *, tls: EtcdTLS | None = None, extra: tuple[str, ...] = ()) -> None:
        """Take a directory that is there; ``extra`` are options of etcd."""
        self._directory = directory
        self._size = size
        self._tls = tls
        self._extra = extra
        self.members: list[EtcdMember] = []

    @property
    def urls(self) -> list[str]:
        """For clients."""
        return [member.url for member in self.members]

    def __enter__(self) -> Self:
        for tried in range(1, _TRIES + 1):
            self._make()
            try:
                for member in self.members:
                    member.launch()
                for member in self.members:
                    member.wait_ready()
            except BaseException as error:
                self._end()
                if tried == _TRIES or not isinstance(error, EtcdStartError) or "address already in use" not in str(error):
                    raise
            else:
                return self
        raise AssertionError

    def __exit__(self, *_error: object) -> None:
        self._end()

    def _end(self) -> None:
        for member in self.members:
            member.kill()

    def _make(self) -> None:
        ports = _free_ports(3 * self._size)
        self.members = [
            EtcdMember(f"m{at}", self._directory, (ports.pop(), ports.pop(), ports.pop()), self._tls, self._extra)
            for at in range(self._size)
        ]
        for member in self.members:
            shutil.rmtree(member.data, ignore_errors=True)
            member.initial_cluster = ",".join(f"{one.name}={one.peer_url}" for one in self.members)


def _free_ports(count: int) -> list[int]:
    """Ports of loopback that are free now, all different."""
    held = [socket.socket() for _ in range(count)]
    try:
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in held]
    finally:
        for one in held:
            one.close()


def _stands_still(pid: int) -> bool:
    """Whether a process is stopped, which its threads are one after the other: one that still runs may answer, or start another."""
    tasks = Path(f"/proc/{pid}/task")
    try:
        before = {task.name for task in tasks.iterdir()}
        states = {(tasks / task / "stat").read_text().rpartition(")")[2].split()[0] for task in before}
        return states == {"T"} and before == {task.name for task in tasks.iterdir()}
    except (FileNotFoundError, ProcessLookupError):  # a thread has ended meanwhile
        return False
