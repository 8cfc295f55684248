"""Forked processes, and the lines they exchange with their parent.

Forked, not executed: in a guest kernel a Python start costs a third of a second, a fork some 30 ms.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Final, Self

from pyminuteman.testing.processes import die_with_parent

now: Final = time.monotonic  # noqa: TID251 - one clock for all processes of the demo, and the demo is a driver

Message = dict[str, Any]


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

    def wait(self, seconds: float | None = 10.0) -> Message:
        """The next object; for dialogues where just one is due. None: however long that takes.

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
    """A forked process."""

    def __init__(self, name: str, pid: int, channel: Channel) -> None:
        """Known by its name."""
        self.name, self.pid, self.channel = name, pid, channel


class Children:
    """All of them; leaving the context ends them."""

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
        """Start ``main`` in a new process. No thread may run yet: the child would have their locks, and not them."""
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
        return child


def _child(parent: int, channel: Channel, main: Callable[[Channel], None]) -> None:
    """The life of a child. Never returns."""
    try:
        die_with_parent(parent)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        main(channel)
    except EOFError:  # the parent ended first
        os._exit(0)
    except BaseException:  # noqa: BLE001 - whatever it is, it must not run on as a second parent
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)
