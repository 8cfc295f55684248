"""VIPs that are pushed: a JSON document that somebody PUTs to a socket of ours.

Invariants:

1. A document of which nothing can be read changes nothing, and who pushed it is told why.
2. Before something was pushed, the source says nothing: that is not the same as an empty document.
3. Whoever may not push is refused before a byte of the document is read: by the mode of the socket in the file system; on TCP, which is
   loopback only, by a token, and browsers by ``Host`` and ``Origin``.
4. Connections, headers, documents and waits have limits (:class:`PushLimits`), and what is above them is counted.

What was pushed is gone with the process: push it again after a start.

Needs h11, from the extra ``sources``.
"""

from __future__ import annotations

import hmac
import json
import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final

import h11
import trio

from pyminuteman.errors import ConfigurationError
from pyminuteman.sources.backoff import Backoff
from pyminuteman.sources.base import LatestState, SourceError, SourceState, SourceStatus, feeding
from pyminuteman.sources.document import DOCUMENT_MAX_BYTES, read_json
from pyminuteman.sources.push_place import is_for_loopback, listening, parse_place

__all__ = ["PushLimits", "PushServer"]

PROBLEMS_TOLD_MAX: Final = 100
"""In an answer; ``problems_total`` says how many there are."""
_TOKEN_MAX_BYTES: Final = 16384
_PIECE_BYTES: Final = 65536
_PARTING_SECONDS: Final = 1.0
"""How long what is still coming is thrown away, so that a refusal arrives: closing at once would reset the connection."""
_COUNTERS: Final = ("connections", "turned_away", "pushes", "states", "broken", "refused", "unauthorized", "timeouts", "bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class PushLimits:
    """What one server takes upon itself.

    Attributes:
        connections: At a time; others are told 503.
        header_bytes: Of one request.
        document_bytes: Of one document.
        held_bytes: Of all documents that are being received or read at a time; above it, 503.
        header_seconds: For the headers of a request, from its first byte; of the first one, from the connection.
        request_seconds: From there to the end of the answer.
        idle_seconds: Between two requests.
    """

    connections: int = 16
    header_bytes: int = 16 << 10
    document_bytes: int = DOCUMENT_MAX_BYTES
    held_bytes: int = 2 * DOCUMENT_MAX_BYTES
    header_seconds: float = 10.0
    request_seconds: float = 60.0
    idle_seconds: float = 60.0


class PushServer:
    """Listens while its states are read, and tells what is pushed. One reader at a time.

    Args:
        place: ``unix:/run/minuteman/push.sock``, or a loopback address and a port: ``127.0.0.1:61422``, ``[::1]:61422``.
        token_file: A file with the token that each request must bear, read at each. TCP does not go without.
        limits: Of connections, bytes and seconds.
        backoff: After it could not listen.

    Raises:
        ConfigurationError: The place is none of these, or is TCP without a token.
    """

    def __init__(
        self,
        place: str,
        token_file: Path | None = None,
        *,
        limits: PushLimits | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self.name = f"push:{place}"
        self.limits = limits or PushLimits()
        self.status = SourceStatus(counters=dict.fromkeys(_COUNTERS, 0))
        self.held_bytes = 0
        self.place = parse_place(place, self.name)
        if token_file is None and not isinstance(self.place, Path):
            raise ConfigurationError(None, self.name, "on TCP every user of this host could push: name a token-file")
        self._token_file = token_file
        self._backoff = backoff or Backoff()
        self._random = Random(os.urandom(16))  # noqa: S311 - no secret hangs on when we try again
        self._last: SourceState | None = None
        self._latest = LatestState()
        self._turn = trio.Lock()
        self.connections = 0

    def states(self) -> AbstractAsyncContextManager[AsyncIterator[SourceState]]:
        """See :class:`~pyminuteman.sources.base.Source`. The socket is there as long as the context is."""
        return feeding(self._run)

    async def _run(self, latest: LatestState) -> None:
        self._latest = latest
        if self._last is not None:
            latest.put(self._last)
        while True:
            try:
                self.token()
                with listening(self.place, self.limits.connections) as listener:
                    self.status.failing_since, self.status.failures, self.status.reason = None, 0, ""
                    await trio.serve_listeners(self._serve, [listener])
            except SourceError as error:
                self.status.failed(trio.current_time(), str(error))
                await trio.sleep(self._backoff.wait_seconds(self.status.failures, self._random))

    async def _serve(self, stream: trio.SocketStream) -> None:
        conversation = _Conversation(self, stream)
        async with stream:
            if self.connections >= self.limits.connections:
                self.status.counters["turned_away"] += 1
                await conversation.turn_away()
                return
            self.status.counters["connections"] += 1
            self.connections += 1
            try:
                await conversation.run()
            finally:
                self.connections -= 1

    def token(self) -> bytes | None:
        """What a request must bear; None when none is asked for.

        Raises:
            SourceError: There is none in the file.
        """
        if self._token_file is None:
            return None
        try:
            with self._token_file.open("rb") as file:
                token = file.read(_TOKEN_MAX_BYTES + 1).strip()
        except OSError as error:
            raise SourceError(f"the token in {self._token_file} cannot be read: {error.strerror or error}") from None
        if not 0 < len(token) <= _TOKEN_MAX_BYTES or not (token.isascii() and token.decode("ascii").isprintable()):
            raise SourceError(f"the token in {self._token_file} is none: expected one line of ASCII characters")
        return token

    async def push(self, body: bytes) -> dict[str, Any]:
        """From now on this is desired. What comes meanwhile waits: it is read against what this leaves.

        Raises:
            SourceError: Nothing of it can be read. Nothing was changed.
        """
        counters = self.status.counters
        async with self._turn:
            previous = self._last.vips if self._last else ()
            try:
                state = await trio.to_thread.run_sync(read_json, body, self.name, previous, abandon_on_cancel=True)
                if state.problems and not state.vips:
                    raise SourceError(f"none of its VIPs is right; the first: {state.problems[0]}")
            except SourceError as error:
                counters["broken"] += 1
                self.status.failed(trio.current_time(), str(error))
                raise
            is_new = state != self._last
            counters["pushes"] += 1
            counters["states"] += is_new
            self._last = state
            self.status.good(trio.current_time())
            self._latest.put(state)
        problems = [{"where": problem.where, "reason": problem.reason} for problem in state.problems[:PROBLEMS_TOLD_MAX]]
        return {"changed": is_new, "vips": len(state.vips), "problems": problems, "problems_total": len(state.problems)}

    def summary(self) -> dict[str, Any]:
        """What stands, and since when: ``vips`` and ``age_seconds``, null when nothing was pushed."""
        at = self.status.last_good_at
        age = None if at is None else round(trio.current_time() - at, 3)
        return {"vips": len(self._last.vips) if self._last else 0, "age_seconds": age}


class _Refusal(Exception):
    """An answer that is none of the good ones."""

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers


class _Conversation:
    """One connection."""

    def __init__(self, server: PushServer, stream: trio.SocketStream) -> None:
        self._server = server
        self._stream = stream
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=server.limits.header_bytes)
        self._is_first = True
        self._is_head = False
        """Its answer has no body."""

    async def run(self) -> None:
        try:
            while await self._answer():
                self._http.start_next_cycle()
                self._is_first = False
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return  # who asked has gone

    async def turn_away(self) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError), trio.move_on_after(_PARTING_SECONDS):
            refusal = _Refusal(503, "there are as many connections as there may be")
            await self._send(503, {"error": {"code": 503, "message": str(refusal)}}, {"Retry-After": "1"})

    async def _answer(self) -> bool:
        """One request. False when the connection is to be closed."""
        limits = self._server.limits
        try:
            if not self._is_first and not self._http.trailing_data[0]:
                with trio.move_on_after(limits.idle_seconds):
                    await self._receive()
                if not self._http.trailing_data[0]:
                    return False
            with trio.fail_after(limits.header_seconds):
                request = await self._event()
            if not isinstance(request, h11.Request):
                return False
            with trio.fail_after(limits.request_seconds):
                await self._send(200, await self._heed(request))
        except trio.TooSlowError:
            self._server.status.counters["timeouts"] += 1
            return await self._refuse(_Refusal(408, "the request was not complete in time"))
        except h11.RemoteProtocolError as error:
            return await self._refuse(_Refusal(error.error_status_hint, str(error)))
        except _Refusal as refusal:
            return await self._refuse(refusal)
        return self._is_over

    @property
    def _is_over(self) -> bool:
        """Whether the request and its answer are complete, and another may follow."""
        return self._http.our_state is h11.DONE and self._http.their_state is h11.DONE

    async def _heed(self, request: h11.Request) -> dict[str, Any]:
        self._is_head = request.method == b"HEAD"
        headers = {bytes(name): bytes(value) for name, value in request.headers}
        if sum(len(name) + len(value) for name, value in request.headers) > self._server.limits.header_bytes:
            raise _Refusal(431, "the headers are too long")  # h11 takes any that come in one piece
        length, is_chunked = headers.get(b"content-length"), b"transfer-encoding" in headers
        if not is_chunked and not int(length or 0):
            await self._event()  # its end, for which no more bytes are needed
        self._check(request, headers)
        if request.method == b"GET":
            return self._server.summary()
        if length is None and not is_chunked:
            raise _Refusal(411, "a document has a Content-Length, or is chunked")
        if int(length or 0) > self._server.limits.document_bytes:
            raise self._too_large()
        kind = headers.get(b"content-type", b"application/json").partition(b";")[0].strip().lower()
        if kind != b"application/json" or headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise _Refusal(415, "a document is application/json, and is not compressed")
        if self._http.they_are_waiting_for_100_continue:
            await self._stream.send_all(self._http.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
        return await self._take()

    def _check(self, request: h11.Request, headers: dict[bytes, bytes]) -> None:
        """Refuse who may not, and what there is not."""
        server = self._server
        if b"origin" in headers:
            raise _Refusal(403, "pages in browsers may not push (the request has an Origin)")
        if not isinstance(server.place, Path) and not is_for_loopback(headers.get(b"host", b"").decode("latin-1")):
            raise _Refusal(403, "the Host of the request is neither localhost nor a loopback address")
        try:
            token = server.token()
        except SourceError as error:
            raise _Refusal(503, str(error)) from None
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        if token is not None and not (hmac.compare_digest(given.strip(), token) and scheme.lower() == b"bearer"):
            server.status.counters["unauthorized"] += 1
            raise _Refusal(401, "the request bears no token, or another", www_authenticate="Bearer")
        if request.target != b"/":
            raise _Refusal(404, "there is only /")
        if request.method not in {b"GET", b"PUT"}:
            raise _Refusal(405, "there are GET and PUT", allow="GET, PUT")

    async def _take(self) -> dict[str, Any]:
        server, body = self._server, bytearray()
        try:
            while self._http.their_state is h11.SEND_BODY and isinstance(event := await self._event(), h11.Data):
                if len(body) + len(event.data) > server.limits.document_bytes:
                    raise self._too_large()
                if server.held_bytes + len(event.data) > server.limits.held_bytes:
                    raise _Refusal(503, "too much is being pushed at a time", retry_after="1")
                body += event.data
                server.held_bytes += len(event.data)
                server.status.counters["bytes"] += len(event.data)
            return await server.push(bytes(body))
        except SourceError as error:
            raise _Refusal(400, str(error)) from None
        finally:
            server.held_bytes -= len(body)

    def _too_large(self) -> _Refusal:
        return _Refusal(413, f"a document has at most {self._server.limits.document_bytes} bytes")

    async def _receive(self) -> None:
        self._http.receive_data(bytes(await self._stream.receive_some(_PIECE_BYTES)))

    async def _event(self) -> object:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            await self._receive()
        return event

    async def _refuse(self, refusal: _Refusal) -> bool:
        self._server.status.counters["refused"] += 1
        with trio.move_on_after(_PARTING_SECONDS):
            if self._http.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
                headers = {name.replace("_", "-").title(): value for name, value in refusal.headers.items()}
                await self._send(refusal.status, {"error": {"code": refusal.status, "message": str(refusal)}}, headers)
            if self._is_over:
                return True
            await self._stream.send_eof()
            while await self._stream.receive_some(_PIECE_BYTES):
                pass
        return False

    async def _send(self, status: int, document: dict[str, Any], more: dict[str, str] | None = None) -> None:
        body = json.dumps(document).encode() + b"\n"
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), "Cache-Control": "no-store"}
        headers |= more or {}
        if self._http.their_state is not h11.DONE:
            headers["Connection"] = "close"
        events: list[h11.Event] = [h11.Response(status_code=status, headers=list(headers.items()))]
        events += [] if self._is_head else [h11.Data(data=body)]
        await self._stream.send_all(b"".join(self._http.send(event) or b"" for event in [*events, h11.EndOfMessage()]))
