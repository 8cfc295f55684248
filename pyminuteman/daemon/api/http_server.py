"""HTTP/1.1 for an ASGI application: h11 does the protocol, trio the waiting, and this module the limits.

hypercorn and anycorn were tried. Both send under a shield from cancellation and without a deadline, so that one client that reads nothing
keeps the process from ending (hypercorn 0.18, anycorn 0.20); neither lets the application know who is at the other end of a unix socket;
and both take upgrades to protocols that nothing here speaks.

1. A connection is one task: it reads a request, runs the application, and reads the next.
2. Every wait has a deadline: for the head of a request, for the next piece of its body, for the client to take what is sent.
3. The number of connections has a limit, and so has the share of one peer in it. Who comes beyond is let go at once, and counted.
4. At the end idle connections are closed at once, the others get a while for what they are at, and then are cut.
5. What is wrong with a request is answered with the same JSON as every other error, and never with a traceback.
"""

from __future__ import annotations

import logging
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, Final, TypeAlias
from urllib.parse import unquote

import h11
import trio

from pyminuteman.daemon.api.answers import error_body
from pyminuteman.daemon.api.peers import Peer, peer_of

__all__ = ["ASGIApplication", "HttpServer", "Message", "PeerGone", "ServerLimits"]

_log = logging.getLogger(__name__)

Message: TypeAlias = MutableMapping[str, Any]
ASGIApplication: TypeAlias = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]

_PIECE_BYTES: Final = 65536
_LINGER_BYTES: Final = 1 << 20
"""So much of a body that nobody asked for is taken and thrown away."""
_COUNTERS: Final = ("connections", "refused_connections", "requests", "malformed", "slow_readers", "failures", "cut")


class PeerGone(OSError):
    """The client went away, or takes nothing: what is sent to it has no reader."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLimits:
    """What a server bears.

    Attributes:
        connections: Open at a time.
        connections_of_a_peer: Of these, those of one user or one address. Root is not counted: an operator always gets in.
        head_bytes: Request line and headers.
        head_seconds: From the first byte of a request, or from the connection, to the end of its head.
        idle_seconds: From one request to the next.
        body_seconds: For each next piece of a body.
        send_seconds: For the client to take a piece of at most 64 KiB.
        handshake_seconds: For TLS.
        linger_seconds: For a client to finish sending a body that was answered before its end.
        end_seconds: What is under way at the end gets so long.
    """

    connections: int = 64
    connections_of_a_peer: int = 48
    head_bytes: int = 16384
    head_seconds: float = 10.0
    idle_seconds: float = 30.0
    body_seconds: float = 5.0
    send_seconds: float = 10.0
    handshake_seconds: float = 10.0
    linger_seconds: float = 1.0
    end_seconds: float = 2.0


class HttpServer:
    """Serves one application on any number of listeners.

    Attributes:
        counters: What has happened since the start, by name.
        closing: Set when the end has begun: streams of events say goodbye then.
    """

    def __init__(self, app: ASGIApplication, limits: ServerLimits | None = None) -> None:
        self.app = app
        self.limits = ServerLimits() if limits is None else limits
        self.counters: Counter[str] = Counter(dict.fromkeys(_COUNTERS, 0))
        self.closing = trio.Event()
        self._peers: Counter[str] = Counter()
        self._idle: set[trio.CancelScope] = set()

    @property
    def open_connections(self) -> int:
        """How many there are just now."""
        return self._peers.total()

    async def serve(
        self,
        listeners: Sequence[tuple[trio.SocketListener, Callable[[], ssl.SSLContext | None]]],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until :attr:`closing` is set, or until cancelled. For each listener it is asked with each connection what its TLS is, if any."""
        async with trio.open_nursery() as connections:
            async with trio.open_nursery() as accepting:
                for listener, context in listeners:
                    handler = self._handler(context)
                    accepting.start_soon(_accept, handler, listener, connections)
                task_status.started()
                await self.closing.wait()
                accepting.cancel_scope.cancel()
            for scope in list(self._idle):
                scope.cancel()
            connections.cancel_scope.deadline = trio.current_time() + self.limits.end_seconds
        self.counters["cut"] += connections.cancel_scope.cancelled_caught

    def _handler(self, context: Callable[[], ssl.SSLContext | None]) -> Callable[[trio.SocketStream], Awaitable[None]]:
        async def handle(stream: trio.SocketStream) -> None:
            try:
                await self._take(stream, context())
            except (OSError, trio.BrokenResourceError, trio.ClosedResourceError, ssl.SSLError):
                pass  # the client's affair
            except Exception:  # noqa: BLE001 - one connection is not the daemon
                self.counters["failures"] += 1
                _log.exception("a connection of the API ended by an error of ours")
            finally:
                await trio.aclose_forcefully(stream)

        return handle

    async def _take(self, stream: trio.SocketStream, context: ssl.SSLContext | None) -> None:
        """Serve a connection, if there is room for it."""
        peer = peer_of(stream.socket)
        own = self._peers[peer.key]
        full = self.open_connections >= self.limits.connections
        if (full and not (peer.is_root and not own)) or (own >= self.limits.connections_of_a_peer and not peer.is_root):
            self.counters["refused_connections"] += 1
            return
        self.counters["connections"] += 1
        self._peers[peer.key] += 1
        try:
            await self._serve(stream, peer, context)
        finally:
            self._peers[peer.key] -= 1
            if not self._peers[peer.key]:
                del self._peers[peer.key]

    async def _serve(self, stream: trio.SocketStream, peer: Peer, context: ssl.SSLContext | None) -> None:
        channel: trio.abc.Stream = stream
        if context is not None:
            secured = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
            with trio.move_on_after(self.limits.handshake_seconds) as scope:
                await secured.do_handshake()
            if scope.cancelled_caught:
                return
            peer = peer.with_certificate(secured.getpeercert())
            channel = secured
        await _Connection(self, channel, peer, "http" if context is None else "https").run()
        if context is not None:
            with trio.move_on_after(1):
                await channel.aclose()

    async def wait_for_request(self, wait: Callable[[], Awaitable[Any]], seconds: float) -> Any:
        """For connections: the next event of one that may be let go meanwhile. None when it is, or when the time is up."""
        with trio.move_on_after(seconds) as scope:
            self._idle.add(scope)
            try:
                if self.closing.is_set():
                    return None
                return await wait()
            finally:
                self._idle.discard(scope)
        return None


async def _accept(
    handler: Callable[[trio.SocketStream], Awaitable[None]], listener: trio.SocketListener, connections: trio.Nursery
) -> None:
    await trio.serve_listeners(handler, [listener], handler_nursery=connections)


class _Connection:
    """One connection, and the request that is under way on it."""

    def __init__(self, server: HttpServer, stream: trio.abc.Stream, peer: Peer, scheme: str) -> None:
        self.server, self.stream, self.peer, self.scheme = server, stream, peer, scheme
        self.limits = server.limits
        self.http = h11.Connection(h11.SERVER, max_incomplete_event_size=self.limits.head_bytes)
        self.body_read = self.head_only = False
        self.early: Any = None
        """The event after the head, if it came with it: of a request without a body its end, which no application asks for."""

    async def run(self) -> None:
        """Serve requests until one of both sides has enough."""
        seconds = self.limits.head_seconds
        while True:
            try:
                request = await self.server.wait_for_request(self._next_event, seconds)
                if isinstance(request, h11.Request):
                    self._check_size(request)
                    self._look_ahead()
            except h11.RemoteProtocolError as error:
                await self._refuse(error)
                return
            if not isinstance(request, h11.Request):
                return
            self.server.counters["requests"] += 1
            await self._answer(request)
            if self.http.their_state is h11.SEND_BODY:
                await self._take_the_rest()
                return
            if self.http.our_state is not h11.DONE or self.http.their_state is not h11.DONE or self.server.closing.is_set():
                return
            self.http.start_next_cycle()
            self.early = None
            seconds = self.limits.idle_seconds

    def _check_size(self, request: h11.Request) -> None:
        """h11 looks at heads that are not complete yet; one that came at once it takes."""
        size = len(request.target) + sum(len(name) + len(value) + 4 for name, value in request.headers)
        if size > self.limits.head_bytes:
            raise h11.RemoteProtocolError("the headers are too large", HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def _look_ahead(self) -> None:
        event = self.http.next_event()
        self.early = None if event is h11.NEED_DATA or event is h11.PAUSED else event

    async def _next_event(self) -> Any:
        if self.early is not None:
            event, self.early = self.early, None
            return event
        while True:
            event = self.http.next_event()
            if event is not h11.NEED_DATA:
                return event
            if self.http.they_are_waiting_for_100_continue:
                await self._send(h11.InformationalResponse(status_code=100, headers=[]))
            self.http.receive_data(bytes(await self.stream.receive_some(_PIECE_BYTES)))

    async def _answer(self, request: h11.Request) -> None:
        self.body_read, self.head_only = False, request.method == b"HEAD"
        try:
            await self.server.app(self._scope(request), self._receive, self._tell)
        except PeerGone:
            return
        except Exception:  # noqa: BLE001 - it is in the log, and the next request may do better
            self.server.counters["failures"] += 1
            _log.exception("the API could not answer %s %s", request.method.decode(), _shown(request.target))
            await self._say(500, "internal", "an error of ours; it is in the log", "report it, with the log")
            return
        await self._say(500, "internal", "there was no answer", "report it")

    async def _take_the_rest(self) -> None:
        """Of a body that nobody asked for: a client that is still sending it would find the connection reset, and not the answer."""
        taken = 0
        with trio.move_on_after(self.limits.linger_seconds):
            while taken < _LINGER_BYTES:
                try:
                    event = await self._next_event()
                except h11.RemoteProtocolError:
                    return
                if not isinstance(event, h11.Data):
                    return
                taken += len(event.data)

    def _scope(self, request: h11.Request) -> MutableMapping[str, Any]:
        path, _, query = request.target.partition(b"?")
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": request.http_version.decode(),
            "method": request.method.decode().upper(),
            "scheme": self.scheme,
            "path": unquote(path.decode("ascii")),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": [(name, value) for name, value in request.headers],
            "client": None,
            "server": None,
            "state": {"peer": self.peer},
        }

    async def _receive(self) -> Message:
        """The next piece of the body; after its end, that the client is gone."""
        if not self.body_read:
            with trio.move_on_after(self.limits.body_seconds):
                try:
                    event = await self._next_event()
                except h11.RemoteProtocolError as error:
                    await self._refuse(error)
                    raise PeerGone from None
                if isinstance(event, h11.Data):
                    return {"type": "http.request", "body": bytes(event.data), "more_body": True}
                self.body_read = True
                if isinstance(event, h11.EndOfMessage):
                    return {"type": "http.request", "body": b"", "more_body": False}
                raise PeerGone
            seconds = self.limits.body_seconds
            await self._say(408, "too_slow", f"no more of the body came within {seconds:g} s", "send the body without pauses")
            raise PeerGone
        # Whatever comes now is the next request, which waits its turn.
        if not self.http.trailing_data[0]:
            try:
                received = bytes(await self.stream.receive_some(_PIECE_BYTES))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                received = b""
            if not received:
                return {"type": "http.disconnect"}
            self.http.receive_data(received)
        return await trio.sleep_forever()

    async def _tell(self, message: Message) -> None:
        match message["type"]:
            case "http.response.start":
                headers = [*message.get("headers", []), (b"date", formatdate(usegmt=True).encode())]
                if self.http.their_state is not h11.DONE:
                    # A body is left unread: whatever is wrong with it, the connection is of no use after.
                    headers.append((b"connection", b"close"))
                await self._send(h11.Response(status_code=message["status"], headers=headers))
            case "http.response.body":
                body = message.get("body", b"")
                for begin in range(0, 0 if self.head_only else len(body), _PIECE_BYTES):
                    await self._send(h11.Data(data=body[begin : begin + _PIECE_BYTES]))
                if not message.get("more_body", False):
                    await self._send(h11.EndOfMessage())
            case other:
                raise ValueError(f"{other!r} is no message of a response")

    async def _send(self, event: h11.Event) -> None:
        data = self.http.send(event)
        if not data:
            return
        try:
            with trio.move_on_after(self.limits.send_seconds) as scope:
                await self.stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise PeerGone from error
        if scope.cancelled_caught:
            self.server.counters["slow_readers"] += 1
            raise PeerGone

    async def _refuse(self, error: h11.RemoteProtocolError) -> None:
        """Answer what is no HTTP, or too much of it."""
        self.server.counters["malformed"] += 1
        if error.error_status_hint == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE:
            hint = f"send at most {self.limits.head_bytes} bytes of headers"
            await self._say(error.error_status_hint, "headers_too_large", str(error), hint)
        else:
            await self._say(error.error_status_hint, "bad_request", str(error), "send a request of HTTP/1.1")

    async def _say(self, status: int, code: str, text: str, hint: str) -> None:
        if self.http.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
            return
        body = error_body(code, text, hint)
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        try:
            await self._send(h11.Response(status_code=status, headers=headers))
            if not self.head_only:
                await self._send(h11.Data(data=body))
            await self._send(h11.EndOfMessage())
        except PeerGone:
            pass


def _shown(target: bytes) -> str:
    return target[:200].decode("ascii", "backslashreplace")
