"""HTTP backends by the thousand in one process: sockets that listen in any number of network namespaces, and say who they are.

A program, `python -m pyminuteman.testing.answerers`, which is told by lines of JSON on standard input where to listen, and answers each
with a line. Each request is answered with the word of its socket, and its connection closed. One process and one thread: it answers some
10,000 connections a second, so that a benchmark on one processor measures the balancer and not its backends.

    {"listen": "n3", "netns": "/run/netns/x", "at": [["10.61.0.4", 8000], ["10.61.0.4", 8001]]}
    {"close": "n3"}

    {"listening": "n3", "sockets": 2}       {"closed": "n3", "answered": 17}
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import sys
from collections import Counter
from typing import Any, Final

from pyminuteman.host.namespaces import in_namespace
from pyminuteman.testing.processes import die_with_parent

__all__ = ["main"]

_BACKLOG: Final = 128
_ACCEPTS_AT_A_TIME: Final = 16
_READ_BYTES: Final = 1 << 16


def main() -> int:
    """Until standard input ends."""
    die_with_parent(os.getppid())
    return _Answerers().run()


class _Answerers:
    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._listeners: dict[str, list[socket.socket]] = {}
        self._answers: dict[socket.socket, tuple[str, bytes]] = {}
        self._answered: Counter[str] = Counter()

    def run(self) -> int:
        self._selector.register(0, selectors.EVENT_READ)
        partial = b""
        while True:
            for key, _ in self._selector.select():
                if key.fd == 0:
                    data = os.read(0, _READ_BYTES)
                    if not data:
                        return 0
                    *lines, partial = (partial + data).split(b"\n")
                    for line in lines:
                        self._obey(json.loads(line))
                elif key.data is None:
                    self._accept(key.fileobj)  # type: ignore[arg-type]
                else:
                    self._answer(key.fileobj, *key.data)  # type: ignore[arg-type]

    def _obey(self, order: dict[str, Any]) -> None:
        if "listen" in order:
            name = order["listen"]
            made = in_namespace(order["netns"], lambda: [_listener(address, port) for address, port in order["at"]])
            self._listeners.setdefault(name, []).extend(made)
            word = name.encode()
            for listener in made:
                self._answers[listener] = name, b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(word), word)
                self._selector.register(listener, selectors.EVENT_READ)
            _say(listening=name, sockets=len(made))
        else:
            for listener in self._listeners.pop(order["close"], ()):
                self._selector.unregister(listener)
                del self._answers[listener]
                listener.close()
            _say(closed=order["close"], answered=self._answered[order["close"]])

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(_ACCEPTS_AT_A_TIME):
            try:
                connection, _address = listener.accept()
            except OSError:  # there is no more, or it has gone already
                return
            connection.setblocking(False)
            self._selector.register(connection, selectors.EVENT_READ, self._answers.get(listener))

    def _answer(self, connection: socket.socket, name: str, answer: bytes) -> None:
        """To the first bytes: a request of one line and few headers comes at once."""
        self._selector.unregister(connection)
        with connection:
            try:
                if connection.recv(_READ_BYTES):
                    connection.send(answer)
                    self._answered[name] += 1
            except OSError:  # the client has gone
                pass


def _listener(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.create_server((address, port), family=family, backlog=_BACKLOG)
    listener.setblocking(False)
    return listener


def _say(**words: object) -> None:
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
