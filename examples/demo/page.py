"""The nodes' web pages on this machine's loopback, while their daemons run in namespaces, and perhaps on another kernel.

`http://127.0.0.1:PORT/n2/` is the page of n2. Each request becomes a stream to :mod:`demo.relay`, and its answer, be it a stream of events
without end, is passed on as it comes. Nothing but GET is, and only when this server was asked by its own name: the daemons take
whoever comes by the relay for root.
"""

from __future__ import annotations

import contextlib
import itertools
import queue
import threading
from collections.abc import Callable, Generator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from demo.streams import Frames, frame

_READY_SECONDS: Final = 10.0
_SILENCE_SECONDS: Final = 40.0
"""A stream of events says something every 15 s, if only that it is there."""
_PIECES: Final = 256
_AT_ONCE: Final = 32
_PASSED_ON: Final = ("Accept", "Accept-Encoding", "If-None-Match", "Last-Event-ID")
_LONGEST: Final = 8192


class PageServer(ThreadingHTTPServer):
    """Serves from when it is made until it is closed. `feed` it what the inner end says; `send` is how that is told something."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, send: Callable[[bytes], object], names: tuple[str, ...], port: int = 0) -> None:
        """Listen on loopback; port 0 takes a free one.

        Raises:
            OSError: The port is taken.
        """
        super().__init__(("127.0.0.1", port), _Handler)
        self.names: Final = names
        self.port: Final = int(self.server_address[1])
        self.url: Final = f"http://127.0.0.1:{self.port}/"
        self.hosts: Final = {f"{name}:{self.port}" for name in ("127.0.0.1", "localhost")}
        self.room: Final = threading.BoundedSemaphore(_AT_ONCE)
        self._send_to: Final = send
        self._sending: Final = threading.Lock()
        self._frames: Final = Frames()
        self._numbers: Final = itertools.count(1)
        self._streams: Final[dict[int, queue.Queue[bytes]]] = {}
        self._heard: Final = threading.Event()
        self._thread: Final = threading.Thread(
            target=self.serve_forever, kwargs={"poll_interval": 0.1}, name="page", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Answer nobody any more."""
        self.shutdown()
        self._thread.join()
        self.server_close()

    def feed(self, data: bytes) -> None:
        """Take what the inner end says. Never waits: a browser that does not take its answer in loses it."""
        for number, piece in self._frames.feed(data):
            self._heard.set()
            stream = self._streams.get(number)
            if stream is not None:
                try:
                    stream.put_nowait(piece)
                except queue.Full:
                    self._streams.pop(number, None)

    def answer(self, name: str, request: bytes) -> Generator[bytes, None, None]:
        """What that node's daemon answers, piece by piece; nothing when it does not run."""
        if not self._heard.wait(_READY_SECONDS):
            return
        number = next(self._numbers)
        stream = self._streams[number] = queue.Queue(_PIECES)
        ended = False
        try:
            self._send(frame(number, f"{name} ".encode() + request))
            while piece := stream.get(timeout=_SILENCE_SECONDS):
                yield piece
            ended = True
        except (queue.Empty, OSError):  # it is silent, or the cluster has ended
            return
        finally:
            self._streams.pop(number, None)
            if not ended:
                self._forget(number)

    def _send(self, data: bytes) -> None:
        with self._sending:
            self._send_to(data)

    def _forget(self, number: int) -> None:
        with contextlib.suppress(OSError):  # the cluster has ended, and the stream with it
            self._send(frame(number, b""))

    def handle_error(self, request: Any, client_address: Any) -> None:
        """The browser hung up, which is its right."""


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    timeout = 60

    def do_GET(self) -> None:
        """Pass it on."""
        server = self.server
        _, name, *rest = self.path.split("/", 2)
        if self.headers.get("Host", "").lower() not in server.hosts:
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST, f"ask for {server.url}")
        elif name in server.names and rest and len(self.path) < _LONGEST:
            self._pass_on(name, "/" + rest[0])
        elif self.path == "/":
            self.send_response(HTTPStatus.FOUND)
            self.send_header("Location", f"/{server.names[0]}/")
            self.end_headers()
        else:
            self.send_error(HTTPStatus.NOT_FOUND, f"the nodes are {', '.join(server.names)}")

    def _pass_on(self, name: str, path: str) -> None:
        lines = [f"GET {path} HTTP/1.1", "Host: localhost", "Connection: close"]
        lines += [f"{header}: {' '.join(self.headers[header].split())}" for header in _PASSED_ON if header in self.headers]
        request = "\r\n".join([*lines, "", ""]).encode("latin-1")
        if len(request) > _LONGEST:
            self.send_error(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            return
        if not self.server.room.acquire(blocking=False):
            self.send_error(HTTPStatus.SERVICE_UNAVAILABLE, "too many requests at once")
            return
        try:
            answered = False
            with contextlib.closing(self.server.answer(name, request)) as pieces:
                for piece in pieces:
                    answered = True
                    self.wfile.write(piece)
            if not answered:
                self.send_error(HTTPStatus.BAD_GATEWAY, f"{name} does not answer")
        finally:
            self.server.room.release()

    def log_message(self, *_: object) -> None:
        """The screen is the demo's."""
