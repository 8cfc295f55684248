"""VIPs from a URL: a JSON document that is polled.

Invariants:

1. Whatever the server answers, what it said last that was good stands until it says something else that is good.
2. One attempt has one deadline, from the first connection to the last byte, and one limit of bytes.
3. A server that asks to be left alone (``Retry-After``) is, for up to ten minutes.

What has not changed is not sent again: the request names the entity tag (RFC 9110, section 8.8) of what we have.

Needs httpx2, from the extra ``sources``.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from random import Random
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import trio

from pyminuteman.errors import ConfigurationError, MinutemanError
from pyminuteman.http_client import HttpClient, HttpError, HttpOptions, without_secrets
from pyminuteman.sources.backoff import Backoff
from pyminuteman.sources.base import LatestState, SourceError, SourceState, SourceStatus, feeding, poll
from pyminuteman.sources.document import DOCUMENT_MAX_BYTES, read_json

__all__ = ["HttpSource"]

_NOT_MODIFIED: Final = 304


class HttpSource:
    """A JSON document of VIPs at a URL, asked for again and again.

    Args:
        url: ``https://host/vips.json``; a query is sent as it is, and is never shown.
        options: How to reach the server.
        interval_seconds: From one answer to the next request, above 0.
        deadline_seconds: For one attempt as a whole.
        backoff: After failures.
        random: For the jitter; seeded by the system unless given.

    Raises:
        ConfigurationError: The URL or a file of the options is no good.
    """

    def __init__(
        self,
        url: str,
        options: HttpOptions | None = None,
        *,
        interval_seconds: float = 10.0,
        deadline_seconds: float = 60.0,
        backoff: Backoff | None = None,
        random: Random | None = None,
    ) -> None:
        self.name = without_secrets(url)
        try:
            parts = urlsplit(url)
        except ValueError:
            raise ConfigurationError(None, self.name, "is not a URL such as https://host/vips.json") from None
        self._base = urlunsplit((parts.scheme, parts.netloc, "", "", ""))
        self._path = urlunsplit(("", "", parts.path or "/", parts.query, ""))
        self._options = options
        self._interval_seconds = interval_seconds
        self._deadline_seconds = deadline_seconds
        self._backoff = backoff or Backoff()
        self._random = random or Random(os.urandom(16))  # noqa: S311 - no secret hangs on when we ask
        self.status = SourceStatus(counters={"not_modified": 0, "bytes": 0})
        HttpClient(self._base, options)  # now is the time to say that it cannot be

    def states(self) -> AbstractAsyncContextManager[AsyncIterator[SourceState]]:
        """See :class:`~pyminuteman.sources.base.Source`."""
        return feeding(_Poller(self).run)

    def conversation(self) -> HttpClient:
        """A new client: what it read from files of the options is as they are now."""
        return HttpClient(self._base, self._options)


class _Poller:
    """One reader's view of the document."""

    def __init__(self, source: HttpSource) -> None:
        self._source = source
        self._client: HttpClient | None = None
        self._tag = ""
        self._last: SourceState | None = None

    async def run(self, latest: LatestState) -> None:
        source = self._source
        try:
            await poll(
                self._fetch,
                latest,
                source.status,
                interval_seconds=source._interval_seconds,  # noqa: SLF001 - of this module
                backoff=source._backoff,  # noqa: SLF001
                random=source._random,  # noqa: SLF001
            )
        finally:
            await self._hang_up()

    async def _fetch(self) -> SourceState | None:
        source = self._source
        seconds = source._deadline_seconds  # noqa: SLF001
        try:
            with trio.fail_after(seconds):
                return await self._get()
        except trio.TooSlowError:
            await self._hang_up()
            raise SourceError(f"{source.name}: no whole answer within {seconds:g} seconds") from None
        except MinutemanError:
            await self._hang_up()
            raise

    async def _hang_up(self) -> None:
        """The next attempt has a connection of its own, and certificates as they are by then."""
        if self._client is not None:
            client, self._client = self._client, None
            await client.__aexit__(None, None, None)

    async def _get(self) -> SourceState | None:
        source = self._source
        if self._client is None:
            self._client = await source.conversation().__aenter__()
        headers = {"accept": "application/json"} | ({"if-none-match": self._tag} if self._tag else {})
        try:
            async with self._client.stream("GET", source._path, headers=headers) as response:  # noqa: SLF001
                body = await response.read(DOCUMENT_MAX_BYTES)
                tag = response.headers.get("etag", "")
        except HttpError as error:
            if error.status == _NOT_MODIFIED and self._tag:
                source.status.counters["not_modified"] += 1
                return None
            if error.location:
                moved = without_secrets(error.location)
                raise SourceError(f"{error} (it has moved to {moved}: redirects are not followed, name that URL)") from None
            raise
        source.status.counters["bytes"] += len(body)
        previous = self._last.vips if self._last else ()
        self._last = await trio.to_thread.run_sync(read_json, body, source.name, previous, abandon_on_cancel=True)
        self._tag = tag if tag.isascii() and tag.isprintable() else ""  # others cannot be sent
        return self._last
