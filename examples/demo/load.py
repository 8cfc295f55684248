"""The client: a steady stream of HTTP requests, each over a new connection, each with a deadline.

An open loop: requests start when they are due, whether or not earlier ones were answered, as with many independent users.
"""

from __future__ import annotations

import selectors
import socket
from dataclasses import dataclass
from typing import Final

from demo.network import VIP_PORT, VIPS
from demo.processes import Channel, now

DEADLINE_SECONDS: Final = 5.0
REPORT_SECONDS: Final = 0.1
_TURN: Final = ("web", "api", "web", "shop", "web")
"""Who is asked in turn: three fifths of the requests go to web."""


@dataclass(slots=True)
class _Request:
    service: str
    started: float
    deadline: float
    line: bytes
    answer: bytes = b""
    sent: bool = False


class Client:
    """The requests that are under way, and what became of those that ended since the last report."""

    def __init__(self, rate: float) -> None:
        """``rate`` requests a second."""
        self.finished: list[tuple[float, float, str, str, str]] = []
        """Start, seconds taken, service, backend (empty if none answered), what went wrong (empty if nothing)."""
        self.selector: Final = selectors.DefaultSelector()
        self.stopping = False
        self.started = 0
        self._pause: Final = 1 / rate
        self._due = now()
        self._running: Final[dict[socket.socket, _Request]] = {}

    @property
    def idle(self) -> bool:
        """Whether no request is under way."""
        return not self._running

    def turn(self) -> None:
        """Start what is due, wait until something more is, and handle what arrived meanwhile."""
        while not self.stopping and self._due <= now():
            # After a stall of the whole guest there is no burst: what was not started does not count as sent.
            self._due = max(self._due + self._pause, now() - 10 * self._pause)
            self.start(_TURN[self.started % len(_TURN)])
        pause = REPORT_SECONDS if self.stopping else min(max(self._due - now(), 0.0), REPORT_SECONDS)
        for ready, _ in self.selector.select(pause):
            if isinstance(ready.fileobj, socket.socket):
                self._proceed(ready.fileobj)
            else:
                ready.data()

    def start(self, service: str, slow_seconds: float = 0.0) -> None:
        """Start one request."""
        began = now()
        path = f"/slow/{slow_seconds}" if slow_seconds else "/"
        line = f"GET {path} HTTP/1.1\r\nHost: {service}.example\r\nConnection: close\r\n\r\n".encode()
        request = _Request(service, began, began + slow_seconds + DEADLINE_SECONDS, line)
        connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        connection.setblocking(False)
        self.started += 1
        self._running[connection] = request
        connection.connect_ex((VIPS[service], VIP_PORT))  # its error, if any, comes with the first sending
        self.selector.register(connection, selectors.EVENT_WRITE)

    def give_up(self) -> None:
        """End the requests that are past their deadline."""
        at = now()
        for connection, request in list(self._running.items()):
            if at > request.deadline:
                self._end(connection, request, "no answer in time")

    def _proceed(self, connection: socket.socket) -> None:
        request = self._running[connection]
        try:
            if not request.sent:
                connection.sendall(request.line)
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
        head, blank, body = request.answer.partition(b"\r\n\r\n")
        if blank and body.endswith(b"\n"):
            good = head.startswith(b"HTTP/1.1 200 ")
            self._end(connection, request, "" if good else head[:40].decode(errors="replace"), body.decode().strip())
        elif not data:
            self._end(connection, request, "half an answer")

    def _end(self, connection: socket.socket, request: _Request, error: str, backend: str = "") -> None:
        self.selector.unregister(connection)
        connection.close()
        del self._running[connection]
        took = now() - request.started
        self.finished.append((round(request.started, 6), round(took, 6), request.service, backend, error))


def generate(channel: Channel, rate: float) -> None:
    """Once told to start, send requests, reporting ten times a second; once told to stop, finish what is under way."""
    channel.send(ready=True)
    channel.wait(60)
    client = Client(rate)

    def told() -> None:
        for message in channel.receive():
            client.stopping = client.stopping or bool(message.get("stop"))
            for _ in range(message.get("slow", 0)):
                client.start(message["service"], message["seconds"])

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
