"""Forked processes, each in a network namespace of its own, and the lines they exchange with their parent.

Forked, not executed: in a guest kernel a Python start costs a third of a second, a fork some 30 ms.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Final, Self

from pyminuteman.testing.processes import die_with_parent

CLONE_NEWNS: Final = 0x00020000  # <linux/sched.h>
CLONE_NEWNET: Final = 0x40000000
MS_REC, MS_PRIVATE = 0x4000, 0x40000  # <linux/mount.h>
_LIBC: Final = ctypes.CDLL(None, use_errno=True)

now: Final = time.monotonic  # noqa: TID251 - one clock for all processes of the demo, and the demo is a driver

Message = dict[str, Any]


def _check(what: str, result: int) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def unshare(flags: int) -> None:
    """Leave the namespaces that ``flags`` names for new ones."""
    _check("unshare", _LIBC.unshare(flags))


def mount(source: str, target: str, kind: str, flags: int) -> None:
    """Mount a file system, or change how mounts propagate."""
    _check(f"mount {target}", _LIBC.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), None))


def run(*command: str, text: str = "") -> str:
    """Run a program, ``text`` on its standard input, and return its output.

    Raises:
        RuntimeError: It failed; the text has its own words.
    """
    try:
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, check=False, env=os.environ | {"LC_ALL": "C"}
        )
    except OSError as error:
        msg = f"{command[0]}: {error.strerror}"
        raise RuntimeError(msg) from None
    if done.returncode:
        msg = f"{' '.join(command)} failed ({done.returncode}): {(done.stderr or done.stdout).strip()}"
        raise RuntimeError(msg)
    return done.stdout


class Channel:
    """One end of a stream of JSON objects, a line each."""

    def __init__(self, stream: socket.socket) -> None:
        """Take one end of a socket pair."""
        self.stream: Final = stream
        self._partial = b""

    def fileno(self) -> int:
        """For selectors."""
        return self.stream.fileno()

    def send(self, **message: object) -> None:
        """Send one object."""
        self.stream.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> Iterator[Message]:
        """What one read brings.

        Raises:
            EOFError: The other end is gone.
        """
        data = self.stream.recv(1 << 20)
        if not data:
            raise EOFError
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            yield json.loads(line)

    def wait(self, seconds: float = 10.0) -> Message:
        """The next object; for dialogues where just one is due.

        Raises:
            EOFError, TimeoutError: There was none.
        """
        self.stream.settimeout(seconds)
        try:
            while True:
                for message in self.receive():
                    return message
        finally:
            self.stream.settimeout(None)


class Child:
    """A forked process in its own network namespace."""

    def __init__(self, name: str, pid: int, channel: Channel) -> None:
        """Known by its name."""
        self.name, self.pid, self.channel = name, pid, channel


class Children:
    """All of them; leaving the context ends them, and with them their namespaces and what is in these."""

    def __init__(self) -> None:
        """None yet."""
        self.all: Final[list[Child]] = []

    def __enter__(self) -> Self:
        """Nothing more to do."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Kill and reap, by process id."""
        for child in self.all:
            os.kill(child.pid, signal.SIGKILL)  # not reaped yet, so the number is still its own
        for child in self.all:
            os.waitpid(child.pid, 0)

    def fork(self, name: str, main: Callable[[Channel], None]) -> Child:
        """Start ``main`` in a new process and network namespace. It is first configured: see :meth:`configure`."""
        ours, theirs = socket.socketpair()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            ours.close()
            for child in self.all:
                child.channel.stream.close()
            _child(parent, Channel(theirs), main)
        theirs.close()
        child = Child(name, pid, Channel(ours))
        self.all.append(child)
        child.channel.wait()  # it has its namespace
        return child

    @staticmethod
    def configure(child: Child, commands: Sequence[str]) -> None:
        """Have the child configure its namespace (lines of ``ip -batch``) and start its work."""
        child.channel.send(commands="\n".join(commands))
        child.channel.wait()


def _child(parent: int, channel: Channel, main: Callable[[Channel], None]) -> None:
    """The life of a child. Never returns."""
    try:
        die_with_parent(parent)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        unshare(CLONE_NEWNET)
        channel.send(ready=True)
        run("ip", "-batch", "-", text=channel.wait()["commands"])
        main(channel)
    except EOFError:  # the parent ended first
        os._exit(0)
    except BaseException:  # noqa: BLE001 - whatever it is, it must not run on as a second parent
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)
