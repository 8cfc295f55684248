"""The page as a daemon would serve it, with a made-up cluster behind: real sockets on loopback, and faults as the test says."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pyminuteman.daemon.assets import load_assets
from pyminuteman.daemon.page import CONTENT_SECURITY_POLICY, render_page
from tests.support.page_cluster import PageCluster

__all__ = ["PageServer", "page_server"]


class PageServer:
    """``cluster`` may be changed, or replaced, at any time; call :meth:`tell` after events were said."""

    def __init__(self, cluster: PageCluster) -> None:
        self.cluster = cluster
        self.assets = load_assets()
        self.failing: set[str] = set()
        """Paths that are answered with status 503."""
        self.unreachable = False
        """Every connection is closed without an answer."""
        self.faults = False
        """Whether the console may speak of requests that failed."""
        self.asked: list[str] = []
        self.resumed_from: list[str | None] = []
        """The header Last-Event-ID of each stream."""
        self.changed = threading.Condition()
        self.generation = 0
        self.farewell = False
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def tell(self) -> None:
        """Wake the streams: there are new events."""
        with self.changed:
            self.changed.notify_all()

    def cut(self, farewell: bool = False) -> None:
        """End every stream, with the event ``bye`` or without a word."""
        with self.changed:
            self.generation += 1
            self.farewell = farewell
            self.changed.notify_all()

    def page(self) -> bytes:
        cluster = self.cluster
        return render_page(
            status=cluster.status(),
            members=cluster.members(),
            backends=cluster.backends(),
            topology=cluster.topology(),
            events=cluster.since_event(0),
            at=datetime.now(UTC),
        ).encode()

    def answer(self, path: str, query: dict[str, list[str]]) -> tuple[str, bytes] | None:
        if path == "/":
            return "text/html; charset=utf-8", self.page()
        if path.startswith("/web/"):
            asset = self.assets.get(path.removeprefix("/web/"))
            return None if asset is None else (asset.media_type, asset.content)
        if path == "/v1/events":
            return "application/json", json.dumps(
                self.cluster.since_event(int(query["since"][0]), query.get("life", [""])[0])
            ).encode()
        name = path.removeprefix("/v1/")
        if name not in ("status", "members", "topology", "backends", "statistics"):
            return None
        body: dict[str, Any] = getattr(self.cluster, name)()
        return "application/json", json.dumps(body).encode()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        page = self.server.page
        page.asked.append(self.path)
        parts = urlsplit(self.path)
        query = parse_qs(parts.query)
        if page.unreachable:
            self.close_connection = True
            return
        if parts.path in page.failing:
            self._send(503, "application/json", b'{"error":{"code":"busy","message":"the table is being read","hint":""}}')
        elif parts.path == "/v1/events" and "format" not in query:
            self._stream()
        elif (found := page.answer(parts.path, query)) is None:
            self._send(404, "application/json", b'{"error":{"code":"not_found","message":"no such thing","hint":""}}')
        else:
            self._send(200, *found)

    def _send(self, status: int, media_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-cache")
        self.send_header("Content-Security-Policy", CONTENT_SECURITY_POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(body)

    def _stream(self) -> None:
        page = self.server.page
        resumed = self.headers["Last-Event-ID"]
        page.resumed_from.append(resumed)
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(b"retry: 200\n\n")
        generation = page.generation
        life, _, number = (resumed or "").rpartition("-")
        last = len(page.cluster.events) if not number else int(number) if life == page.cluster.life else 0
        while page.generation == generation:
            for event in page.cluster.events[last:]:
                self.wfile.write(
                    f"id: {page.cluster.life}-{event['id']}\nevent: {event['kind']}\ndata: {json.dumps(event)}\n\n".encode()
                )
            last = len(page.cluster.events)
            with page.changed:
                if page.generation == generation and len(page.cluster.events) == last:
                    page.changed.wait()
        if page.farewell:
            self.wfile.write(b"event: bye\ndata: {}\n\n")

    def log_message(self, *_: object) -> None:
        """The test has the list of what was asked."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, page: PageServer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.page = page
        page.port = self.server_address[1]

    def handle_error(self, *_: object) -> None:
        """The browser hung up."""


@contextmanager
def page_server(cluster: PageCluster) -> Iterator[PageServer]:
    page = PageServer(cluster)
    server = _Server(page)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield page
    finally:
        page.unreachable = True
        page.cut()
        server.shutdown()
        thread.join()
        server.server_close()
