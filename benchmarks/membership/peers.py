"""Who is measured: how a node of each is started, and what its lines mean."""

from __future__ import annotations

import base64
import compileall
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from views import Belief

_PACKAGE = Path(__file__).resolve().parents[2] / "pyminuteman"

CONTACT = 0  # the node that all others are told to join, and that is never a victim


@dataclass(frozen=True, slots=True)
class Node:
    """What a process is told of itself."""

    number: int
    address: str
    contact: str | None  # None: it is the contact
    directory: Path  # its own, empty before its first start, and kept when it is started again

    @property
    def name(self) -> str:
        return name_of(self.number)


@dataclass(frozen=True, slots=True)
class Told:
    """A line that says what the printing node now holds of another."""

    time_ns: int
    subject: int
    belief: Belief


@dataclass(frozen=True, slots=True)
class Neighbours:
    """A line that says with whom the printing node has links."""

    time_ns: int
    numbers: tuple[int, ...]


class Peer(Protocol):
    """An implementation of membership, as one process a node that prints what it sees."""

    name: str
    title: str
    # Where these are False, the report leaves the question open.
    suspicion_ends: bool  # it says when a suspicion is over
    suspicion_spreads: bool  # every node says whom it suspects, not only the one that probed
    has_neighbours: bool  # it can be asked for its links, by SIGUSR1
    down_deadline_seconds: float  # after this, who is not told counts as missing
    settling_seconds: float  # how long after a disturbance something may still come of it

    def prepare(self, directory: Path) -> None:
        """Make what all nodes share, in a directory that lives as long as they; or raise PeerMissingError."""

    def command(self, node: Node) -> list[str]:
        """The command line of a node."""

    def parse(self, line: bytes, read_ns: int) -> Told | Neighbours | None:
        """What a line says, that was read at this time; None if it is about something else."""


def name_of(number: int) -> str:
    return f"n{number:02}"


def number_of(name: str) -> int:
    return int(name.removeprefix("n"))


class Serf:
    """Debian's serf, as it comes: profile lan. Its log tells the millisecond only when it is read from the pipe."""

    name = "serf"
    suspicion_ends = False
    suspicion_spreads = False
    has_neighbours = False
    down_deadline_seconds = 25.0
    settling_seconds = 2.0

    _EVENT = re.compile(rb"serf: EventMember(Join|Failed|Leave|Update|Reap): n(\d+)\b")
    _SUSPECT = re.compile(rb"memberlist: Suspect n(\d+) has failed")
    _MEANS: ClassVar = {b"Join": Belief.UP, b"Failed": Belief.DOWN, b"Leave": Belief.LEFT}

    def __init__(self) -> None:
        self.title = f"serf {_debian_version('serf')}, profile lan"

    def prepare(self, directory: Path) -> None:  # noqa: ARG002 - it needs no files
        if shutil.which("serf") is None:
            raise PeerMissingError("no serf: apt-get install serf")

    def command(self, node: Node) -> list[str]:
        command = ["serf", "agent", f"-node={node.name}", f"-bind={node.address}:7946", "-profile=lan", "-log-level=info"]
        if node.contact is not None:  # -join gives up when the contact is not there yet, and a retry comes after 30 s
            command += [f"-retry-join={node.contact}:7946", "-retry-interval=200ms"]
        return command

    def parse(self, line: bytes, read_ns: int) -> Told | Neighbours | None:
        if found := self._EVENT.search(line):
            belief = self._MEANS.get(found[1])
            return Told(read_ns, int(found[2]), belief) if belief else None
        if found := self._SUSPECT.search(line):
            return Told(read_ns, int(found[1]), Belief.SUSPECT)
        return None


class Minuteman:
    """This library, by its command `minuteman members run`."""

    name = "minuteman"
    suspicion_ends = True
    suspicion_spreads = True
    has_neighbours = True
    down_deadline_seconds = 10.0
    settling_seconds = 1.0

    PORT = 61420

    def __init__(self) -> None:
        self.title = "minuteman members run --profile lan --priority realtime"
        self._program: list[str] = []
        self._key_file = Path()
        self._numbers: dict[str, int] = {}  # by node id: a list of links has no names

    def prepare(self, directory: Path) -> None:
        # The code as it is now, compiled: nobody who edits it during a run has a hand in the figures.
        shutil.copytree(_PACKAGE, directory / _PACKAGE.name, dirs_exist_ok=True)
        compileall.compile_dir(directory / _PACKAGE.name, quiet=2)
        self._program = ["env", f"PYTHONPATH={directory}", sys.executable, "-m", "pyminuteman", "members", "run"]
        asked = subprocess.run([*self._program, "--help"], capture_output=True, text=True, check=False, timeout=30)
        if asked.returncode != 0:
            raise PeerMissingError(f"`minuteman members run` does not run: {asked.stderr.strip()}")
        self._key_file = directory / "keys"
        self._key_file.touch(mode=0o600)
        self._key_file.write_bytes(base64.b64encode(os.urandom(32)) + b"\n")

    def command(self, node: Node) -> list[str]:
        command = [*self._program, "--name", node.name, "--bind", f"{node.address}:{self.PORT}"]
        if node.contact is not None:
            command += ["--contact", f"{node.contact}:{self.PORT}"]
        command += ["--key-file", str(self._key_file), "--state-dir", str(node.directory)]
        return [*command, "--profile", "lan", "--priority", "realtime", "-o", "json"]

    def parse(self, line: bytes, read_ns: int) -> Told | Neighbours | None:  # noqa: ARG002 - its lines have their time
        if not line.startswith(b"{"):
            return None
        said = json.loads(line)
        if said["event"] == "state":
            numbers = (self._numbers.get(node) for node in said.get("active_view", ()))
            return Neighbours(said["time_ns"], tuple(number for number in numbers if number is not None))
        if said["event"] not in set(Belief):
            return None
        number = number_of(said["name"])
        self._numbers[said["node"]] = number
        return Told(said["time_ns"], number, Belief(said["event"]))


class PeerMissingError(Exception):
    """It is not installed; the text says how to."""


PEERS: dict[str, type[Minuteman | Serf]] = {"minuteman": Minuteman, "serf": Serf}


def _debian_version(package: str) -> str:
    with contextlib.suppress(OSError):
        asked = subprocess.run(["dpkg-query", "-W", "-f=${Version}", package], capture_output=True, text=True, check=False)
        return asked.stdout or "?"
    return "?"
