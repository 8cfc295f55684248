"""How soon has the kernel what a source says? Runs :mod:`benchmarks.sources.inside` where there is IPVS, and the parts of it here too.

The guest makes system calls fifty times as dear, and an etcd makes many; so the same changes are also measured on this host, with a double in
place of the kernel: all but IPVS's own work is at its true price there.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.sources.inside import Run
from pyminuteman.testing.kernel_guest import Guest, forwarded_environment
from pyminuteman.testing.network_namespace import why_no_host_ipvs

ROOT = Path(__file__).resolve().parents[2]
MANY = 1000


def runs(changes: int, *, quick: bool) -> list[Run]:
    """On the kernel."""
    if quick:
        return [Run("etcd", 1, changes), Run("etcd", MANY, changes, marked=True), Run("file", 1, changes)]
    return [
        Run("etcd", 1, changes),
        Run("etcd", MANY, changes),
        Run("file", 1, changes),
        Run("file", MANY, changes),
        Run("http", 1, changes),
        Run("etcd", 1, changes, marked=True),
        Run("etcd", MANY, changes, marked=True),
        Run("file", MANY, changes, marked=True),
    ]


def runs_here(changes: int, *, quick: bool) -> list[Run]:
    """On this host, with a double."""
    sizes = (1,) if quick else (1, MANY)
    return [Run("etcd", size, changes, marked=True, double=True) for size in sizes]


def on_the_kernel(planned: list[Run], say: Callable[[str], object]) -> dict[str, Any]:
    """In a guest, unless this host has IPVS.

    Raises:
        GuestUnavailableError: There is neither.
        RuntimeError: It ended early; its last words are in the text.
    """
    command = _command(planned)
    lines = _Lines(planned, say)
    if why_no_host_ipvs() is None:
        return {"guest": False, **_directly(command, lines)}
    talk = bytearray()
    guest = Guest(command, mem="1G", rw=[], cwd=str(ROOT), timeout=600)
    code = guest.run(lines.feed, talk.extend)
    if code:
        raise RuntimeError(f"the guest ended with status {code}: {bytes(talk)[-2000:].decode(errors='replace')}")
    return {"guest": True, **lines.found()}


def here(planned: list[Run], say: Callable[[str], object]) -> dict[str, Any]:
    """Without a kernel: every run has a double."""
    return _directly(_command(planned), _Lines(planned, say))


def _command(planned: list[Run]) -> list[str]:
    return [sys.executable, "-m", "benchmarks.sources.inside", json.dumps([asdict(run) for run in planned])]


def _directly(command: list[str], lines: _Lines) -> dict[str, Any]:
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT, env=forwarded_environment()
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.feed(line)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command[:3])} ended with status {process.returncode}")
    return lines.found()


class _Lines:
    """Reads the lines of results as they come, in pieces of any size."""

    def __init__(self, planned: list[Run], say: Callable[[str], object]) -> None:
        self._planned = planned
        self._say = say
        self._rest = b""
        self._found: list[dict[str, Any]] = []

    def feed(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._found.append(json.loads(line))
            if len(self._found) > 1:
                run = self._planned[len(self._found) - 2]
                self._say(f"{run.source}, {run.backends} backends{', in parts' if run.marked else ''}")

    def found(self) -> dict[str, Any]:
        about, *results = self._found
        if len(results) != len(self._planned):
            raise RuntimeError(f"{len(results)} of {len(self._planned)} runs came to an end")
        pairs = zip(self._planned, results, strict=True)
        return {**about, "runs": [{"run": asdict(run), **result} for run, result in pairs]}
