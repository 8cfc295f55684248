"""A stand-in for Consul's HTTP API: the catalog, the health of services, blocking queries, and what is odd about them.

It speaks real HTTP over a real socket on loopback. There is no Consul to be had for the tests, so what it does is what Consul's
documentation says (developer.hashicorp.com/consul/api-docs, "Blocking Queries", "Health", "Catalog") and its issues 3890 and 4988 add:

- a query with an index waits until the index of what it asks for is higher, or for ``wait`` and up to a sixteenth more;
- it may answer with data that are as before, under a higher index (others have changed) or the same (the wait is over);
- when a snapshot is restored all queries answer, and the index may be lower than before;
- without a leader it answers 500, in plain text; to an unknown token 403.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

import h11
import trio

__all__ = ["ConsulDouble"]

_CATALOG: Final = ""
_PREFIX: Final = "/v1/health/service/"
_STATES: Final = {"passing", "warning", "critical"}
_CHUNK: Final = 16


class ConsulDouble:
    """Services and their instances, and the ways in which to misbehave.

    Attributes:
        url: Where it serves, within :meth:`serving`.
        requests: Path and query of each request so far.
        token: What clients must show; empty for none.
        broken: How many requests are answered with :attr:`refusal` before all is well again.
        refusal: Status and text.
        cut: How many answers break off in the middle.
        chunk_seconds: Pause between pieces of a body; 0 sends it whole.
        sends_index: Whether answers carry ``X-Consul-Index``.
        waiting: How many blocking queries are open.
    """

    def __init__(self) -> None:
        """Begin without services."""
        self.url = ""
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.token = ""
        self.broken = 0
        self.refusal = (500, "No cluster leader")
        self.cut = 0
        self.chunk_seconds = 0.0
        self.sends_index = True
        self.waiting = 0
        self._index = 10
        self._indexes: dict[str, int] = {}
        self._rows: dict[str, dict[str, dict[str, Any]]] = {}
        self._stirred = trio.Event()
        self._restores = 0

    # -- what it holds --

    def register(
        self,
        service: str,
        address: str,
        port: int = 8080,
        *,
        tags: tuple[str, ...] = (),
        node: str = "n1",
        node_address: str = "10.9.0.1",
        status: str = "passing",
        weights: tuple[int, int] | None = (1, 1),
    ) -> str:
        """Add an instance, or change it; its id is made of service, address and port."""
        assert status in _STATES  # noqa: S101
        at = f"{service}-{address}-{port}"
        row: dict[str, Any] = {
            "Node": {"ID": "f00", "Node": node, "Address": node_address, "Datacenter": "dc1", "Meta": {}},
            "Service": {"ID": at, "Service": service, "Tags": list(tags), "Address": address, "Port": port, "Meta": None},
            "Checks": [
                {"Node": node, "CheckID": "serfHealth", "Status": "passing", "ServiceID": ""},
                {"Node": node, "CheckID": f"service:{at}", "Status": status, "ServiceID": at},
            ],
        }
        if weights is not None:
            row["Service"]["Weights"] = {"Passing": weights[0], "Warning": weights[1]}
        self._rows.setdefault(service, {})[at] = row
        self._touch(service)
        return at

    def deregister(self, service: str, at: str) -> None:
        """Remove an instance, and with its last one the service."""
        del self._rows[service][at]
        if not self._rows[service]:
            del self._rows[service]
        self._touch(service)

    def set_status(self, service: str, at: str, status: str) -> None:
        """Let an instance pass its check, or not."""
        assert status in _STATES  # noqa: S101
        self._rows[service][at]["Checks"][1]["Status"] = status
        self._touch(service, catalog=False)

    def stir(self) -> None:
        """Others have changed: all queries answer, under a higher index, with what they had."""
        self._index += 1
        self._indexes = dict.fromkeys([_CATALOG, *self._rows, *self._indexes], self._index)
        self._wake()

    def restore(self, index: int) -> None:
        """A snapshot was restored: all queries answer, under an index that may be lower."""
        self._index = index
        self._indexes = dict.fromkeys([_CATALOG, *self._rows, *self._indexes], index)
        self._restores += 1
        self._wake()

    def _touch(self, service: str, *, catalog: bool = True) -> None:
        self._index += 1
        self._indexes[service] = self._index
        if catalog:
            self._indexes[_CATALOG] = self._index
        self._wake()

    def _wake(self) -> None:
        self._stirred.set()
        self._stirred = trio.Event()

    # -- HTTP --

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[ConsulDouble]:
        """Serve on a port of loopback of its own choosing."""
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(partial(trio.serve_tcp, self._converse, 0, host="127.0.0.1"))
            self.url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
            yield self
            nursery.cancel_scope.cancel()

    async def _converse(self, stream: trio.SocketStream) -> None:
        connection = h11.Connection(h11.SERVER)
        try:
            while True:
                request = await _next_request(connection, stream)
                if request is None:
                    return
                await self._answer(connection, stream, request)
                if connection.our_state is not h11.DONE:
                    return
                connection.start_next_cycle()
        except (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError):
            return

    async def _answer(self, connection: h11.Connection, stream: trio.SocketStream, request: h11.Request) -> None:
        parts = urlsplit(request.target.decode())
        query = {name: values[-1] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        self.requests.append((unquote(parts.path), query))
        shown = dict(request.headers).get(b"authorization", b"").decode().removeprefix("Bearer ")
        if self.token and shown != self.token:
            await self._send(connection, stream, 403, b"ACL not found", "text/plain", 0)
        elif self.broken:
            self.broken -= 1
            status, text = self.refusal
            await self._send(connection, stream, status, text.encode(), "text/plain", 0)
        elif parts.path == "/v1/catalog/services":
            await self._block(_CATALOG, query)
            await self._send_data(connection, stream, self._catalog(), _CATALOG)
        elif parts.path.startswith(_PREFIX):
            service = unquote(parts.path.removeprefix(_PREFIX))
            await self._block(service, query)
            await self._send_data(connection, stream, self._health(service, passing="passing" in query), service)
        else:
            await self._send(connection, stream, 404, b"no such endpoint", "text/plain", 0)

    async def _block(self, subject: str, query: dict[str, str]) -> None:
        asked = int(query.get("index", "0"))
        if not asked:
            return
        wait = float(query.get("wait", "300s").removesuffix("s"))
        restores = self._restores
        self.waiting += 1
        try:
            with trio.move_on_after(wait + wait / 16):
                while self._index_of(subject) <= asked and restores == self._restores:
                    await self._stirred.wait()
        finally:
            self.waiting -= 1

    def _index_of(self, subject: str) -> int:
        return self._indexes.get(subject, self._index)

    def _catalog(self) -> dict[str, list[str]]:
        tags = {
            service: sorted({tag for row in rows.values() for tag in row["Service"]["Tags"]})
            for service, rows in self._rows.items()
        }
        return {"consul": [], **tags}

    def _health(self, service: str, *, passing: bool) -> list[dict[str, Any]]:
        rows = self._rows.get(service, {}).values()
        return [row for row in rows if not passing or all(check["Status"] == "passing" for check in row["Checks"])]

    async def _send_data(self, connection: h11.Connection, stream: trio.SocketStream, data: object, subject: str) -> None:
        await self._send(connection, stream, 200, json.dumps(data).encode(), "application/json", self._index_of(subject))

    async def _send(  # noqa: PLR0917 - what an answer has
        self, connection: h11.Connection, stream: trio.SocketStream, status: int, body: bytes, kind: str, index: int
    ) -> None:
        headers = [("content-type", kind), ("content-length", str(len(body))), ("x-consul-knownleader", "true")]
        if index and self.sends_index:
            headers.append(("x-consul-index", str(index)))
        head = connection.send(h11.Response(status_code=status, headers=headers))
        await stream.send_all(head or b"")
        if status == 200 and self.cut:  # noqa: PLR2004
            self.cut -= 1
            await stream.send_all(body[: len(body) // 2])
            await stream.aclose()
            return
        size = _CHUNK if self.chunk_seconds else max(len(body), 1)
        for begin in range(0, len(body), size):
            await stream.send_all(connection.send(h11.Data(data=body[begin : begin + size])) or b"")
            await trio.sleep(self.chunk_seconds)
        await stream.send_all(connection.send(h11.EndOfMessage()) or b"")


async def _next_request(connection: h11.Connection, stream: trio.SocketStream) -> h11.Request | None:
    """The next request, with its body behind it; None when there is no other."""
    request = None
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await stream.receive_some(1 << 16))
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.EndOfMessage):
            return request
        elif isinstance(event, h11.ConnectionClosed):
            return None
