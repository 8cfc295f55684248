"""A web server on loopback (or a socket in the file system) that answers as the test says: real sockets, real TLS, real HTTP/1.1."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import h11
import trio

__all__ = ["CUT", "Answer", "Request", "WebServer", "json_answer", "web_server"]

CUT = None
"""In a body: here the connection ends."""


@dataclass(frozen=True)
class Request:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: Sequence[bytes | float | None] = ()
    """Pieces, pauses in seconds, and :data:`CUT`."""
    silent_seconds: float = 0.0
    """How long nothing comes at all."""


def json_answer(text: str | bytes, **headers: str) -> Answer:
    body = text if isinstance(text, bytes) else text.encode()
    return Answer(200, {"content-type": "application/json", **{k.replace("_", "-"): v for k, v in headers.items()}}, [body])


class WebServer:
    """Keeps what it was asked; ``answer`` may be replaced at any time."""

    def __init__(self, answer: Callable[[Request], Answer], scheme: str) -> None:
        self.answer = answer
        self.requests: list[Request] = []
        self.connections = 0
        self.port = 0
        self._scheme = scheme

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self.port}"

    async def serve(self, stream: trio.abc.Stream) -> None:
        self.connections += 1
        try:
            async with stream:
                await self._converse(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError):
            pass  # the client has gone, or did not like our certificate

    async def _converse(self, stream: trio.abc.Stream) -> None:
        connection = h11.Connection(h11.SERVER)
        while (request := await self._request(connection, stream)) is not None:
            self.requests.append(request)
            answer = self.answer(request)
            await trio.sleep(answer.silent_seconds)
            headers = [(name, value.encode("latin-1")) for name, value in answer.headers.items()]
            await stream.send_all(connection.send(h11.Response(status_code=answer.status, headers=headers)) or b"")
            for piece in answer.body:
                if piece is CUT:
                    return
                if isinstance(piece, float):
                    await trio.sleep(piece)
                else:
                    await stream.send_all(connection.send(h11.Data(data=piece)) or b"")
            await stream.send_all(connection.send(h11.EndOfMessage()) or b"")
            if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                return
            connection.start_next_cycle()

    @staticmethod
    async def _request(connection: h11.Connection, stream: trio.abc.Stream) -> Request | None:
        head: h11.Request | None = None
        body = b""
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await stream.receive_some())
            elif isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage) and head is not None:
                headers = {name.decode(): value.decode("latin-1") for name, value in head.headers}
                return Request(head.method.decode(), head.target.decode(), headers, body)
            else:
                return None


@asynccontextmanager
async def web_server(
    answer: Callable[[Request], Answer] | Answer,
    *,
    tls: ssl.SSLContext | None = None,
    unix_socket: Path | None = None,
) -> AsyncIterator[WebServer]:
    """Serve until the context ends."""
    made = WebServer(answer if callable(answer) else lambda _request: answer, "https" if tls else "http")
    if unix_socket is not None:
        socket = trio.socket.socket(trio.socket.AF_UNIX)
        await socket.bind(str(unix_socket))
        socket.listen()
        listeners = [trio.SocketListener(socket)]
    else:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        made.port = listeners[0].socket.getsockname()[1]

    async def serve(stream: trio.SocketStream) -> None:
        await made.serve(trio.SSLStream(stream, tls, server_side=True, https_compatible=True) if tls else stream)

    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, serve, listeners)
        yield made
        nursery.cancel_scope.cancel()
