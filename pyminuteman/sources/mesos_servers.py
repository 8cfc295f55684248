"""Several servers of which one leads: ask the one that answered last, and go where a redirect points if it is one of ours.

A redirect names the leader. We follow it to a server that was configured, and to no other: whoever can answer in a master's place
must not send us, and our token, anywhere they like. Elsewhere is reported, for then the configuration misses a server.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final, Self
from urllib.parse import urlsplit

import trio

from pyminuteman.addresses import format_endpoint
from pyminuteman.errors import ConfigurationError
from pyminuteman.http_client import HttpClient, HttpError, HttpOptions, HttpResponse, without_secrets
from pyminuteman.sources.base import SourceError

__all__ = ["Servers", "parse_json"]

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_SHOWN: Final = 100
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_IN_THREAD_BYTES: Final = 256 << 10
"""JSON that takes more than some milliseconds is parsed in a thread, so that health checks and gossip go on."""


class Servers:
    """Clients of servers that answer for one another. An async context manager.

    Args:
        urls: Where they are; one or more.
        options: How to reach them.
        key: The name of the option that the URLs came from, for errors.

    Raises:
        ConfigurationError: No URL, one that is none, or the same server twice.
    """

    def __init__(self, urls: Sequence[str], options: HttpOptions, *, key: str = "url") -> None:
        if not urls:
            raise ConfigurationError(None, key, "is missing: at least one URL such as http://127.0.0.1:5051")
        self._clients = [HttpClient(url, options) for url in urls]
        self._places = [_place(client.base_url, "") for client in self._clients]
        if len(set(self._places)) < len(self._places):
            raise ConfigurationError(None, key, "names one server twice")
        self._at = 0
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        for client in self._clients:
            await self._stack.enter_async_context(client)
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._stack.aclose()

    def __str__(self) -> str:
        """The one that is asked at present."""
        return without_secrets(self._clients[self._at].base_url)

    @asynccontextmanager
    async def stream(self, method: str, path: str, **request: Any) -> AsyncIterator[HttpResponse]:
        """As :meth:`~pyminuteman.http_client.HttpClient.stream` of the server that leads.

        Raises:
            HttpError: As there; the next request goes to the next server.
            SourceError: The leader is none of ours, or redirects go in a circle.
        """
        async with AsyncExitStack() as stack:
            yield await self._open(stack, method, path, **request)

    async def _open(self, stack: AsyncExitStack, method: str, path: str, **request: Any) -> HttpResponse:
        for _ in self._clients:
            try:
                return await stack.enter_async_context(self._clients[self._at].stream(method, path, **request))
            except HttpError as error:
                if error.status not in _REDIRECTS or not error.location:
                    self.try_next()
                    raise
                self._follow(error.location)
        self.try_next()
        msg = f"each of the {len(self._clients)} servers says that another one leads"
        raise SourceError(msg)

    async def json(self, method: str, path: str, *, deadline_seconds: float, **request: Any) -> Any:
        """An answer, read as JSON.

        Raises:
            HttpError: As for :meth:`stream`.
            SourceError: As there; or it took longer, or is no JSON.
        """
        asked = str(self)
        body: bytes | None = None
        with trio.move_on_after(deadline_seconds):
            async with self.stream(method, path, **request) as response:
                try:
                    body = await response.read()
                except HttpError:
                    self.try_next()
                    raise
        if body is None:
            self.try_next()
            msg = f"{asked}{path}: no complete answer within {deadline_seconds:g} s"
            raise SourceError(msg)
        return await parse_json(body, asked)

    def try_next(self) -> None:
        """Ask another one the next time."""
        self._at = (self._at + 1) % len(self._clients)

    def _follow(self, location: str) -> None:
        try:
            place = _place(location, self._clients[self._at].base_url)
        except ValueError:
            here = str(self)
            self.try_next()
            msg = f"{here} redirects to {location[:_SHOWN]!r}, which is no URL"
            raise SourceError(msg) from None
        if place not in self._places:
            here, there = str(self), format_endpoint(*place)
            self.try_next()
            msg = f"{here} says that {there} leads, which is none of the configured servers"
            raise SourceError(msg)
        self._at = self._places.index(place)


def _place(url: str, base: str) -> tuple[str, int]:
    """Host and port of a URL; ``//host:5050/api/v1``, as Mesos writes them, has the scheme of where it was found.

    Raises:
        ValueError: It is no URL.
    """
    parts = urlsplit(url)
    if not parts.hostname:
        parts = urlsplit(base)  # a path: the same server
    scheme = parts.scheme or urlsplit(base).scheme
    return parts.hostname or "", parts.port or _DEFAULT_PORTS.get(scheme, 0)


async def parse_json(body: bytes, where: str) -> Any:
    """Parse it; what is large, in a thread.

    Raises:
        SourceError: It is no JSON.
    """
    try:
        if len(body) > _IN_THREAD_BYTES:
            return await trio.to_thread.run_sync(json.loads, body)
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        msg = f"{where}: the answer is no JSON: {error}"
        raise SourceError(msg) from None
