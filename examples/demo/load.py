"""The client: a steady stream of HTTP requests to the VIP, each over a new connection, each with a deadline.

An open loop: requests start when they are due, whether or not earlier ones were answered, as with many independent users.
"""

from __future__ import annotations

import selectors
import socket
from dataclasses import dataclass
from typing import Final

from demo.processes import Channel, now
from pyminuteman.host.namespaces import enter

VIP: Final = ("11.0.0.1", 80)
DEADLINE_SECONDS: Final = 2.5
"""TCP sends its first segment again after a second, and then after two more: this gives it one more chance."""
REPORT_SECONDS: Final = 0.1
_STALL_SECONDS: Final = 0.25
_LINE: Final = b"GET / HTTP/1.1\r\nHost: web.example\r\nConnection: close\r\n\r\n"


@dataclass(slots=True)
class _Request:
    started: float
    deadline: float
    answer: bytes = b""
    sent: bool = False


class Client:
    """The requests that are under way, and what became of those that ended since the last report."""

    def __init__(self, rate: float, target: tuple[str, int] = VIP) -> None:
        """``rate`` requests a second."""
        self.finished: list[tuple[float, float, str, str]] = []
        """Start, seconds taken, backend (empty if none answered), what went wrong (empty if nothing)."""
        self.selector: Final = selectors.DefaultSelector()
        self.stopping = False
        self.started = 0
        self._target: Final = target
        self._pause: Final = 1 / rate
        self._due = now()
        self._turned_at = now()
        self._running: Final[dict[socket.socket, _Request]] = {}

    @property
    def idle(self) -> bool:
        """Whether no request is under way."""
        return not self._running

    def turn(self) -> None:
        """Start what is due, wait until something more is, and handle what arrived meanwhile."""
        self._forgive_stall()
        while not self.stopping and self._due <= now():
            # After a stall there is no burst: what was not started does not count as sent.
            self._due = max(self._due + self._pause, now() - 10 * self._pause)
            self.start()
        pause = REPORT_SECONDS if self.stopping else min(max(self._due - now(), 0.0), REPORT_SECONDS)
        for ready, _ in self.selector.select(pause):
            if isinstance(ready.fileobj, socket.socket):
                self._proceed(ready.fileobj)
            else:
                ready.data()

    def start(self) -> None:
        """Start one request."""
        began = now()
        connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        connection.setblocking(False)
        self.started += 1
        self._running[connection] = _Request(began, began + DEADLINE_SECONDS)
        connection.connect_ex(self._target)  # its error, if any, comes with the first sending
        self.selector.register(connection, selectors.EVENT_WRITE)

    def give_up(self) -> None:
        """End the requests that are past their deadline."""
        at = now()
        for connection, request in list(self._running.items()):
            if at > request.deadline:
                self._end(connection, request, "no answer in time")

    def _forgive_stall(self) -> None:
        """When this process itself was held up, no request is to blame for the time."""
        stalled = now() - self._turned_at
        self._turned_at += stalled
        if stalled > _STALL_SECONDS:
            for request in self._running.values():
                request.deadline += stalled

    def _proceed(self, connection: socket.socket) -> None:
        request = self._running[connection]
        try:
            if not request.sent:
                connection.sendall(_LINE)
                request.sent = True
                self.selector.modify(connection, selectors.EVENT_READ)
                return
            data = connection.recv(4096)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(connection, request, error.strerror or type(error).__name__)
            return
        request.answer += data
        if not data:
            head, blank, body = request.answer.partition(b"\r\n\r\n")
            good = head.startswith((b"HTTP/1.0 200 ", b"HTTP/1.1 200 ")) and blank and body
            self._end(connection, request, "" if good else "half an answer", body.decode(errors="replace") if good else "")

    def _end(self, connection: socket.socket, request: _Request, error: str, backend: str = "") -> None:
        self.selector.unregister(connection)
        connection.close()
        del self._running[connection]
        self.finished.append((round(request.started, 6), round(now() - request.started, 6), backend, error))


def generate(channel: Channel, rate: float) -> None:
    """Enter the namespace that is said first. Then send requests from each "start" to the "stop" after it, reporting ten times a second.

    What is under way at the stop is finished.
    """
    enter(channel.wait(300)["netns"])
    while True:
        channel.wait(None)
        _generate(channel, Client(rate))


def _generate(channel: Channel, client: Client) -> None:
    def told() -> None:
        client.stopping = any("stop" in message for message in channel.receive()) or client.stopping

    client.selector.register(channel, selectors.EVENT_READ, told)
    report_at = now()
    while not (client.stopping and client.idle):
        client.turn()
        if now() >= report_at:
            report_at = now() + REPORT_SECONDS
            client.give_up()
            channel.send(finished=client.finished)
            client.finished = []
    channel.send(finished=client.finished, started=client.started)
    client.selector.close()
