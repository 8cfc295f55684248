"""A backend: a small HTTP/1.1 server that answers with its name.

``GET /`` answers at once, ``GET /slow/2.5`` after so many seconds.
"""

from __future__ import annotations

import contextlib
import heapq
import selectors
import socket
from collections.abc import Callable
from typing import Final

from demo.network import BACKEND_PORT, BACKENDS
from demo.processes import Channel, now


class Backend:
    """One server: a selector, and a heap of answers that are not yet due."""

    def __init__(self, name: str, listener: socket.socket) -> None:
        """Serve on a socket that listens already."""
        body = f"{name}\n".encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        self.selector: Final = selectors.DefaultSelector()
        self.served = 0
        self._answer: Final = head.encode() + body
        self._listener: Final = listener
        self._partial: Final[dict[socket.socket, bytes]] = {}
        self._later: Final[list[tuple[float, int, socket.socket]]] = []
        listener.setblocking(False)
        self.selector.register(listener, selectors.EVENT_READ, self._accept)

    def turn(self, seconds: float) -> None:
        """Wait, at most so long, and do what there is to do."""
        if self._later:
            seconds = min(seconds, max(self._later[0][0] - now(), 0.0))
        for ready, _ in self.selector.select(seconds):
            callback: Callable[[socket.socket], None] = ready.data
            callback(ready.fileobj)  # type: ignore[arg-type]
        while self._later and self._later[0][0] <= now():
            self._finish(heapq.heappop(self._later)[2])

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except OSError:  # gone before we looked
            return
        connection.setblocking(False)
        self._partial[connection] = b""
        self._proceed(connection)

    def _resume(self, connection: socket.socket) -> None:
        self.selector.unregister(connection)
        self._proceed(connection)

    def _proceed(self, connection: socket.socket) -> None:
        if not self._read(connection):
            self.selector.register(connection, selectors.EVENT_READ, self._resume)

    def _read(self, connection: socket.socket) -> bool:
        """Whether nothing more is to be read of this connection."""
        try:
            data = connection.recv(4096)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        text = self._partial.pop(connection) + data
        if data and b"\r\n\r\n" not in text:
            self._partial[connection] = text
            return False
        if not data:
            connection.close()
            return True
        self.served += 1
        path = text.split(b" ", 2)[1].decode()
        if path.startswith("/slow/"):
            heapq.heappush(self._later, (now() + float(path.removeprefix("/slow/")), self.served, connection))
        else:
            self._finish(connection)
        return True

    def _finish(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the client gave up, and counts that as a failure itself
            connection.sendall(self._answer)
        connection.close()


def serve(name: str, channel: Channel) -> None:
    """Serve for ever. A line on the channel asks how many requests came."""
    listener = socket.create_server((BACKENDS[name], BACKEND_PORT), backlog=256)
    backend = Backend(name, listener)

    def told(_: object) -> None:
        for _ in channel.receive():
            channel.send(served=backend.served)

    backend.selector.register(channel, selectors.EVENT_READ, told)
    channel.send(ready=True)
    while True:
        backend.turn(60.0)
