"""Events as a stream (``text/event-stream``) and as a list.

A reader has a place in the log, and no queue of its own: what it has not read stays in the log, which has a limit. One that takes nothing
for as long as the server waits is cut and counted there; one that is so slow that the log has moved on is told so, by an event ``missed``.

A place is a life of the daemon and a number. Who comes back with a place of another life is told all that is kept of this one.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Final

import trio
from starlette.requests import Request
from starlette.responses import Response

from pyminuteman.daemon.api.answers import ApiError, dump, json_response
from pyminuteman.daemon.api.http_server import Message, PeerGone
from pyminuteman.daemon.api.subject import Happenings
from pyminuteman.daemon.views import event_view, events_view, missed_view

__all__ = ["EventStreams"]

_BREATH_SECONDS: Final = 15.0
"""A comment so often: proxies and clients find out that the other end is there."""
_RETRY_MILLISECONDS: Final = 2000
_LIFE: Final = re.compile("[0-9a-f]{16}")
_NUMBER_MAX: Final = 2**63 - 1


class EventStreams:
    """The streams that are open.

    Args:
        events: The log.
        closing: When it is set, all are told ``bye`` and end.
        most: How many there may be.

    Attributes:
        open: How many there are.
        refused: How many there were too many.
        missed: Events that readers were too slow for.
    """

    def __init__(self, events: Happenings, closing: trio.Event, most: int) -> None:
        self._events, self._closing, self._most = events, closing, most
        self.open = self.refused = self.missed = 0

    async def answer(self, request: Request) -> Response:
        """``GET /v1/events``.

        Raises:
            ApiError: Too many streams, or a number that is none.
        """
        form = request.query_params.get("format", "stream")
        if form not in {"stream", "json"}:
            raise ApiError(400, "bad_parameter", f"format {form[:40]!r} is none", "say format=json, or nothing for a stream")
        events = self._events
        since = _number(request.query_params.get("since"), "since")
        life = _life(request.query_params.get("life"))
        if life not in {"", events.life}:
            since = 0
        if form == "json":
            found = events.since(since or 0)
            view = events_view(found, life=events.life, oldest=events.oldest, newest=events.newest)
            return json_response(request, view)
        if request.method == "HEAD":
            return Response(media_type="text/event-stream")
        last = self._place(request.headers.get("last-event-id"))
        if self.open >= self._most:
            self.refused += 1
            text = f"there are {self.open} streams of events already"
            raise ApiError(503, "too_many_streams", text, "close one, or poll with format=json", {"retry-after": "5"})
        position = since if last is None else last
        if position is None:
            position = events.newest
        elif position > events.newest:  # of an earlier life of the daemon, which counted for itself
            position = 0
        return _Stream(self, position)

    def _place(self, text: str | None) -> int | None:
        """The number of a ``Last-Event-ID``: with the life that it is of, as a stream says it, or without."""
        life, dash, number = (text or "").rpartition("-")
        found = _number(number, "Last-Event-ID")
        return 0 if dash and _life(life) != self._events.life else found

    async def run(self, position: int, send: Callable[[bytes], Awaitable[None]]) -> None:
        """Tell one reader all that comes after ``position``, until the end."""
        events = self._events
        hello = {"life": events.life, "id": position, "oldest": events.oldest, "newest": events.newest}
        await send(f"retry: {_RETRY_MILLISECONDS}\n\n".encode() + self._frame("hello", dump(hello), position))
        while not self._closing.is_set():
            oldest = events.oldest
            if position and oldest > position + 1:
                self.missed += oldest - position - 1
                missed = missed_view(position + 1, oldest - 1, events.since(oldest - 1)[0].time)
                await send(self._frame("missed", dump(missed), oldest - 1))
                position = oldest - 1
            found = events.since(position)
            for event in found:
                await send(self._frame(event.kind, dump(event_view(event)), event.id))
                position = event.id
            if not found:
                await self._news(position, send)
        await send(b"event: bye\ndata: {}\n\n")

    def _frame(self, kind: str, data: bytes, number: int) -> bytes:
        """JSON has no line breaks, so it is one line of data."""
        return f"id: {self._events.life}-{number}\nevent: {kind}\n".encode() + b"data: " + data + b"\n"

    async def _news(self, position: int, send: Callable[[bytes], Awaitable[None]]) -> None:
        """Wait for an event, the end, or the time to breathe."""
        came = False

        async def until(wait: Callable[[], Awaitable[None]]) -> None:
            nonlocal came
            await wait()
            came = True
            nursery.cancel_scope.cancel()

        with trio.move_on_after(_BREATH_SECONDS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(until, lambda: self._events.wait_beyond(position))
                nursery.start_soon(until, self._closing.wait)
        if not came:
            await send(b": still here\n\n")


class _Stream(Response):
    """The answer that goes on. Its end is that of the log's reader, of the client, or of the server."""

    media_type = "text/event-stream"

    def __init__(self, streams: EventStreams, position: int) -> None:
        super().__init__(headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._streams, self._position = streams, position

    async def __call__(
        self,
        _scope: object,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        async def piece(body: bytes) -> None:
            await send({"type": "http.response.body", "body": body, "more_body": True})

        async def listen() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            nursery.cancel_scope.cancel()

        self._streams.open += 1
        failure: PeerGone | None = None
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async with trio.open_nursery() as nursery:
                nursery.start_soon(listen)
                try:
                    await self._streams.run(self._position, piece)
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
                except PeerGone as error:  # not in a group of errors: whoever called knows what it means
                    failure = error
                nursery.cancel_scope.cancel()
        finally:
            self._streams.open -= 1
        if failure is not None:
            raise failure


def _life(text: str | None) -> str:
    if text and not _LIFE.fullmatch(text):
        raise ApiError(
            400, "bad_parameter", f"life {text[:40]!r} is none", "give the one that /v1/events said: 16 hexadecimal digits"
        )
    return text or ""


def _number(text: str | None, name: str) -> int | None:
    if text is None or text == "":
        return None
    if not (text.isascii() and text.isdigit() and int(text[:20]) <= _NUMBER_MAX and len(text) <= len(str(_NUMBER_MAX))):
        raise ApiError(400, "bad_parameter", f"{name} {text[:40]!r} is not the number of an event", "give a whole number")
    return int(text)
