"""A double of a Mesos master or agent: real HTTP on loopback, with the oddities of the original, and the faults that a test asks for.

There is no Mesos to be had where these tests run. What the double answers was recorded from real ones (``tests/data``), or follows
their documentation; how it answers (chunks cut anywhere, redirects without a scheme, streams that fall silent) is chosen by the test.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from math import inf
from typing import Any, Final, Self

import h11
import trio

from pyminuteman.sources.recordio import encode_record

__all__ = ["Fault", "HttpDouble", "MesosDouble", "Reply", "Request", "open_http_double", "open_mesos_double"]

_RECEIVE_BYTES: Final = 1 << 16
_REQUEST_MAX_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asked."""

    method: str
    target: str
    """Path and query."""
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes
    at: float = 0.0
    """When it had arrived, in seconds of trio's clock."""

    @property
    def path(self) -> str:
        """Without the query."""
        return self.target.partition("?")[0]

    @property
    def json(self) -> Any:
        """The body as JSON; None when it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What goes wrong with one answer.

    Attributes:
        status: Answer that instead.
        headers: With it.
        body: With it.
        hang: Say nothing at all, until the client goes.
        cut_after: Break the connection after so many bytes of the body.
        end_after: End the body after so many bytes as if that were all.
        pause_seconds: Between the pieces of the body.
        piece: Bytes in a piece; 0 for the whole in one.
    """

    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    hang: bool = False
    cut_after: int | None = None
    end_after: int | None = None
    pause_seconds: float = 0.0
    piece: int = 0


class Reply:
    """An answer on its way. The body goes out in chunks, each as it was written."""

    def __init__(self, stream: trio.SocketStream, connection: h11.Connection) -> None:
        self._stream = stream
        self._connection = connection

    async def begin(self, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        """Send the head."""
        fields = {"transfer-encoding": "chunked", **(headers or {})}
        await self._send(h11.Response(status_code=status, headers=list(fields.items())))

    async def write(self, data: bytes) -> None:
        """Send a chunk."""
        if data:
            await self._send(h11.Data(data=data))

    async def end(self) -> None:
        """The answer is complete."""
        await self._send(h11.EndOfMessage())

    async def send(
        self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None, fault: Fault | None = None
    ) -> None:
        """A whole answer, with what goes wrong with it.

        Raises:
            ConnectionAbortedError: To break the connection.
        """
        fault = fault or Fault()
        await self.begin(status, headers)
        cut = fault.cut_after if fault.cut_after is not None else fault.end_after
        shown = body if cut is None else body[:cut]
        step = fault.piece or len(shown) or 1
        for at in range(0, len(shown), step):
            await self.write(shown[at : at + step])
            await trio.sleep(fault.pause_seconds)
        if fault.cut_after is not None:
            raise ConnectionAbortedError
        await self.end()

    async def _send(self, event: Any) -> None:
        data = self._connection.send(event)
        if data:
            await self._stream.send_all(data)


Handler = Callable[[Request, Reply], Awaitable[None]]


class HttpDouble:
    """A server on loopback.

    Attributes:
        url: Where it is, without a path.
        requests: What was asked, in order.
    """

    def __init__(self, handler: Handler, port: int) -> None:
        self._handler = handler
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.requests: list[Request] = []

    async def serve(self, stream: trio.SocketStream) -> None:
        """One connection, until it ends."""
        connection = h11.Connection(h11.SERVER)
        async with stream:
            try:
                while (request := await self._receive(stream, connection)) is not None:
                    self.requests.append(request)
                    await self._handler(request, Reply(stream, connection))
                    if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                        return
                    connection.start_next_cycle()
            except (OSError, trio.BrokenResourceError, trio.ClosedResourceError, h11.ProtocolError):
                pass  # the client went, or the handler broke it off

    @staticmethod
    async def _receive(stream: trio.SocketStream, connection: h11.Connection) -> Request | None:
        head: h11.Request | None = None
        body = bytearray()
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await stream.receive_some(_RECEIVE_BYTES))
            elif isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > _REQUEST_MAX_BYTES:
                    return None
            elif isinstance(event, h11.EndOfMessage) and head is not None:
                headers = {name.decode(): value.decode() for name, value in head.headers}
                return Request(head.method.decode(), head.target.decode(), headers, bytes(body), trio.current_time())
            else:
                return None


@asynccontextmanager
async def open_http_double(handler: Handler, *, port: int = 0) -> AsyncIterator[HttpDouble]:
    """Serve on loopback while the block runs; then every connection is cut."""
    listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
    double = HttpDouble(handler, listeners[0].socket.getsockname()[1])
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, double.serve, listeners)
        try:
            yield double
        except Exception as error:  # noqa: BLE001 - raised below, outside of the group
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


class MesosDouble:
    """A master or an agent.

    Attributes:
        state: What ``GET /state`` answers.
        get_state: What ``GET_STATE`` answers.
        get_agent: What ``GET_AGENT`` answers; a master, which has none, says 501.
        history: Events that a new subscriber gets, the first of them ``SUBSCRIBED``.
        heartbeat_seconds: Between heartbeats; None for none.
        leader: Where requests are redirected to; empty for a leader. Mesos writes ``//10.0.0.2:5050``.
        token: What requests must bring (``Authorization``); empty for none.
        faults: What goes wrong with the next answers, one each.
        piece: Streams go out in pieces of so many bytes, wherever that cuts; 0 sends each record whole.
        subscribers: Streams that are open.
    """

    def __init__(self) -> None:
        """Nothing is known yet: set what it answers."""
        self.state: object = {}
        self.get_state: object = {}
        self.get_agent: object = None
        self.history: list[object] = []
        self.heartbeat_seconds: float | None = None
        self.leader = ""
        self.token = ""
        self.faults: deque[Fault] = deque()
        self.piece = 0
        self._subscribers: set[trio.MemorySendChannel[bytes | None]] = set()
        self._server: HttpDouble | None = None

    @classmethod
    def master(cls, events: Sequence[object]) -> Self:
        """A leading master that tells those events to whoever subscribes."""
        double = cls()
        double.history = list(events)
        return double

    @property
    def server(self) -> HttpDouble:
        """What it is served by."""
        assert self._server is not None  # noqa: S101 - a mistake of the test
        return self._server

    @property
    def url(self) -> str:
        """Where it is."""
        return self.server.url

    @property
    def requests(self) -> list[Request]:
        """What was asked."""
        return self.server.requests

    @property
    def subscribers(self) -> int:
        """Streams that are open."""
        return len(self._subscribers)

    async def tell(self, *events: object) -> None:
        """Events: to those who listen, and to later ones after what they get first."""
        self.history += events
        for event in events:
            await self.tell_bytes(encode_record(json.dumps(event).encode()))

    async def tell_bytes(self, data: bytes | None) -> None:
        """Bytes as they are to those who listen; None ends their streams."""
        for subscriber in list(self._subscribers):
            await subscriber.send(data)

    async def handle(self, request: Request, reply: Reply) -> None:
        """Answer as Mesos does."""
        fault = self.faults.popleft() if self.faults else Fault()
        if fault.hang:
            await trio.sleep_forever()
        if fault.status:
            await reply.send(fault.status, fault.body, fault.headers)
        elif self.token and request.headers.get("authorization") != self.token:
            await reply.send(401, b"", {"www-authenticate": 'Basic realm="mesos-agent-readonly"'})
        elif self.leader:
            await reply.send(307, b"", {"location": self.leader + request.path})
        elif (request.method, request.path) in {("GET", "/state"), ("GET", "/state.json")}:
            await self._json(reply, self.state, fault)
        elif (request.method, request.path) != ("POST", "/api/v1"):
            await reply.send(404)
        else:
            await self._call(request, reply, fault)

    async def _call(self, request: Request, reply: Reply, fault: Fault) -> None:
        call = request.json
        kind = call.get("type") if isinstance(call, dict) else None
        if request.headers.get("content-type") != "application/json":
            await reply.send(415, b"Expecting 'Content-Type' of application/json")
        elif kind == "GET_STATE":
            await self._json(reply, self.get_state, fault)
        elif kind == "GET_AGENT" and self.get_agent is not None:
            await self._json(reply, self.get_agent, fault)
        elif kind == "SUBSCRIBE" and self.history:
            await self._stream(reply, fault)
        else:
            await reply.send(501 if kind else 400, b"Failed to validate call")

    @staticmethod
    async def _json(reply: Reply, document: object, fault: Fault) -> None:
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        await reply.send(200, body, {"content-type": "application/json"}, fault)

    async def _stream(self, reply: Reply, fault: Fault) -> None:
        await reply.begin(200, {"content-type": "application/json"})
        send, receive = trio.open_memory_channel[bytes | None](1000)
        first = b"".join(encode_record(json.dumps(event).encode()) for event in self.history)
        self._subscribers.add(send)
        try:
            await self._pieces(reply, first, fault)
            while True:
                data: bytes | None = encode_record(b'{"type":"HEARTBEAT"}')
                with trio.move_on_after(inf if self.heartbeat_seconds is None else self.heartbeat_seconds):
                    data = await receive.receive()
                if data is None:
                    break
                await self._pieces(reply, data, fault)
            await reply.end()
        finally:
            self._subscribers.discard(send)

    async def _pieces(self, reply: Reply, data: bytes, fault: Fault) -> None:
        if fault.cut_after is not None:
            await reply.write(data[: fault.cut_after])
            raise ConnectionAbortedError
        step = fault.piece or self.piece or len(data)
        for at in range(0, len(data), step):
            await reply.write(data[at : at + step])
            if step < len(data):
                await trio.sleep(fault.pause_seconds)


@asynccontextmanager
async def open_mesos_double(double: MesosDouble, *, port: int = 0) -> AsyncIterator[MesosDouble]:
    """Serve the double on loopback while the block runs."""
    async with open_http_double(double.handle, port=port) as server:
        double._server = server  # noqa: SLF001 - of this module
        yield double
