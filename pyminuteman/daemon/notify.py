"""What the service manager is told: ready, reloading, stopping, alive; the protocol of sd_notify(3), without libsystemd.

Invariants:

1. Nothing here ever fails or holds up the daemon. A manager that does not listen costs a counter.
2. What the manager must know (ready, reloading, stopping) and the last status are kept until it has taken them.
3. The watchdog's beat comes from the loop, and only while nothing says that the daemon is stuck. trio runs every task that can run once
   before any runs again, so a turn of this task is a turn of all; a loop that is held up does not beat, and is restarted.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, MutableMapping
from typing import Final, Self

import trio

__all__ = ["Notifier"]

_STATUS_MOST: Final = 500
"""Characters of a status; ``systemctl status`` shows it on one line."""
_PATH_MOST: Final = 107
"""Bytes of the address of a unix socket (``sun_path`` in unix(7), less the NUL)."""
_RETRY_SECONDS: Final = 1.0
_WATCHDOG_MOST_SECONDS: Final = 86400.0


def _nothing() -> str:
    return ""


class Notifier:
    """The way to the service manager; without a manager every call does nothing.

    Args:
        address: A path, or ``@`` and the name of an abstract socket; empty: there is no manager.
        watchdog_seconds: The manager restarts a daemon that it has not heard of for so long; 0: it does not watch.

    Attributes:
        sent: Messages that the manager's socket has taken.
        failures: Messages that it has not.
        problem: Why not, the last time; empty after one that was taken.
    """

    def __init__(self, address: str = "", watchdog_seconds: float = 0.0) -> None:
        """Open the socket, if there is anybody to talk to."""
        self.watchdog_seconds: Final = watchdog_seconds
        self.sent = 0
        self.failures = 0
        self.problem = ""
        self._address: str | bytes = ""
        self._socket: socket.socket | None = None
        self._state: list[str] = []
        """What was not taken yet."""
        self._status = self._told = self._trouble = ""
        if address:
            self._open(address)

    def _open(self, address: str) -> None:
        raw = os.fsencode(address)
        if address[0] not in "/@" or len(raw) < 2 or len(raw) > _PATH_MOST:  # noqa: PLR2004 - a sign and a name
            self._failed(f"{address!r} is neither the path nor the @name of a unix socket")
            return
        # An abstract name begins with a NUL, which an environment cannot hold; hence the @.
        self._address = b"\0" + raw[1:] if address[0] == "@" else raw
        try:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        except OSError as error:
            self._failed(str(error))

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str] = os.environ) -> Self:
        """As the manager has said in ``NOTIFY_SOCKET``, ``WATCHDOG_USEC`` and ``WATCHDOG_PID``.

        They are taken out of the environment: what this process starts (checks, tools) is not to speak for it.
        """
        address = environment.pop("NOTIFY_SOCKET", "")
        microseconds = environment.pop("WATCHDOG_USEC", "")
        pid = environment.pop("WATCHDOG_PID", "")
        watchdog = 0.0
        if pid in {"", str(os.getpid())} and microseconds.isascii() and microseconds.isdigit() and len(microseconds) <= 15:  # noqa: PLR2004
            watchdog = min(int(microseconds) / 1e6, _WATCHDOG_MOST_SECONDS)
        return cls(address, watchdog)

    @property
    def is_heard(self) -> bool:
        """Whether there is a manager to talk to."""
        return self._socket is not None

    def ready(self, status: str = "") -> None:
        """The start, or the reload, is done."""
        self._say(["READY=1"], status)

    def reloading(self, status: str = "") -> None:
        """A reload has begun; :meth:`ready` ends it, also when the new configuration was refused."""
        # A service of Type=notify-reload must say when: the manager tells an old message from the answer to its signal by it.
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._say(["RELOADING=1", f"MONOTONIC_USEC={now}"], status)

    def stopping(self, status: str = "") -> None:
        """The end has begun; what takes longer than ``TimeoutStopSec`` is killed."""
        self._say(["STOPPING=1"], status)

    def status(self, text: str) -> None:
        """One line for ``systemctl status``; control characters become blanks, and the end is cut. Said twice, it is sent once."""
        self._status = _line(text)
        self._flush([])

    def beat(self) -> None:
        """Alive, as of now. Nothing else may call this than :meth:`keep`, or another task of the main loop."""
        self._flush(["WATCHDOG=1"])

    async def keep(self, stuck: Callable[[], str] = _nothing) -> None:
        """Beat at twice the rate that the manager wants, and repeat what it has not taken, until cancelled.

        Args:
            stuck: Why the daemon does not work, although its loop turns: a thread has been in the kernel for minutes, say. Then there is
                no beat, and the reason is the status. Empty: it works.
        """
        while self.is_heard:
            self._trouble = _line(stuck())
            self._flush(["WATCHDOG=1"] if self.watchdog_seconds and not self._trouble else [])
            await trio.sleep(self.watchdog_seconds / 2 or _RETRY_SECONDS)

    def close(self) -> None:
        """Say nothing any more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _say(self, state: list[str], status: str) -> None:
        # A newer state replaces one that was not taken: who missed the begin of a reload needs only its end.
        self._state = state
        self._status = _line(status) or self._status
        self._flush([])

    def _flush(self, more: list[str]) -> None:
        """Send what has not been taken yet, and ``more``."""
        status = f"stuck: {self._trouble}" if self._trouble else self._status
        lines = [*self._state, *([f"STATUS={status}"] if status != self._told else []), *more]
        if self._socket is None or not lines:
            return
        try:
            self._socket.sendto("\n".join(lines).encode("utf-8", "replace"), self._address)
        except OSError as error:  # its queue is full, or it is gone: a manager that starts itself anew comes back
            self._failed(str(error))
            return
        self.sent += 1
        self.problem = ""
        self._state, self._told = [], status

    def _failed(self, why: str) -> None:
        self.failures += 1
        self.problem = why


def _line(text: str) -> str:
    """The protocol has a field a line."""
    return "".join(c if c.isprintable() else " " for c in text)[:_STATUS_MOST].strip()
