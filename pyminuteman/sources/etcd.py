"""VIPs that are written into an etcd: each key under a prefix holds one, as JSON (docs/sources/etcd.md).

1. There is no state before all keys were read, and none is ever a part of what was there at one moment: changes of one transaction
   come together.
2. Whatever fails, the last state stands, and :attr:`EtcdSource.status` says what and since when. Attempts come with back-off and jitter.
3. Changes that follow one another quickly are told together: at most one state in ``settle_seconds``.

Needs httpx2, from the extra ``etcd``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Final
from urllib.parse import unquote

import trio

from pyminuteman.errors import ConfigurationError
from pyminuteman.etcd.client import EtcdClient, EtcdCredentials
from pyminuteman.etcd.errors import EtcdError
from pyminuteman.etcd.mirror import PrefixMirror
from pyminuteman.http_client import HttpOptions, without_secrets
from pyminuteman.sources.backoff import Backoff
from pyminuteman.sources.base import LatestState, Source, SourceState, SourceStatus, feeding
from pyminuteman.sources.document import VIPS_MAX
from pyminuteman.sources.keyed import KeyedVIPs
from pyminuteman.sources.options import SourceSpec

__all__ = ["EtcdSource", "from_spec"]

_BYTES_MAX: Final = 256 << 20
_READ_IN_PLACE_MAX: Final = 50
"""More documents than these are read in a thread: a hundred take milliseconds, which others on the loop would miss."""
BACKOFF: Final = Backoff(0.5, 30.0)


class EtcdSource:
    """The VIPs under a prefix of an etcd."""

    def __init__(
        self,
        endpoints: Sequence[str],
        prefix: str,
        options: HttpOptions | None = None,
        credentials: EtcdCredentials | None = None,
        *,
        random: Random | None = None,
        settle_seconds: float = 0.05,
        backoff: Backoff = BACKOFF,
        idle_seconds: float = 60.0,
    ) -> None:
        """Take what is to be read; nothing is reached for yet.

        Args:
            endpoints: URLs of the cluster's members, such as ``http://127.0.0.1:2379``.
            prefix: What the keys begin with, such as ``/minuteman/vips/``. A ``/`` is added where it does not end with one.
            options: How to reach them.
            credentials: For an etcd with authentication.
            random: For the jitter.
            settle_seconds: How long changes are gathered before they are told.
            backoff: After failures.
            idle_seconds: See :mod:`pyminuteman.etcd.mirror`.

        Raises:
            ConfigurationError: No endpoint or no prefix is given.
        """
        if not prefix.strip("/"):
            raise ConfigurationError(None, "etcd", "needs a prefix, such as /minuteman/vips/: all keys of an etcd are not VIPs")
        self._endpoints = list(endpoints)
        self._prefix = prefix if prefix.endswith("/") else f"{prefix}/"
        self._options = options
        self._credentials = credentials
        self._random = Random() if random is None else random  # noqa: S311 - for jitter
        self._settle_seconds = settle_seconds
        self._backoff = backoff
        self._idle_seconds = idle_seconds
        self._status = SourceStatus(
            counters={"readings": 0, "watches": 0, "compactions": 0, "failures": 0, "failovers": 0, "states": 0}
        )
        if not self._endpoints:
            raise ConfigurationError(None, "etcd", "needs at least one endpoint, such as http://127.0.0.1:2379")

    @property
    def name(self) -> str:
        """``etcd:http://127.0.0.1:2379/minuteman/vips/``."""
        return f"etcd:{','.join(without_secrets(url) for url in self._endpoints)}{'' if self._prefix.startswith('/') else '/'}{self._prefix}"

    @property
    def status(self) -> SourceStatus:
        """How it is now."""
        return self._status

    @asynccontextmanager
    async def states(self) -> AsyncIterator[AsyncIterator[SourceState]]:
        """Complete states, each only when it differs from the one before.

        Raises:
            ConfigurationError: An endpoint is no URL, or a file of the options is no good.
        """
        async with EtcdClient(self._endpoints, self._options, self._credentials) as client:
            mirror = PrefixMirror(
                client,
                self._prefix.encode(),
                self._random,
                most_keys=VIPS_MAX,
                most_bytes=_BYTES_MAX,
                idle_seconds=self._idle_seconds,
            )
            async with feeding(_Run(self, client, mirror).run) as states:
                yield states


def from_spec(spec: SourceSpec) -> Source:
    """``etcd:http://10.0.0.1:2379,http://10.0.0.2:2379/minuteman/vips``: URLs of members, and after the last one the prefix.

    Its options are those of everything that talks HTTP, ``user`` and ``password-file``.
    """
    *others, last = spec.place.split(",")
    scheme, _, rest = last.partition("://")
    host, slash, prefix = rest.partition("/")
    user, password_file = spec.text("user"), spec.path("password-file")
    if bool(user) != (password_file is not None):
        raise spec.fail("user", "user and password-file go together")
    credentials = None if password_file is None else EtcdCredentials(user, password_file)
    endpoints = [url for url in (*others, f"{scheme}://{host}") if url]
    return EtcdSource(endpoints, unquote(slash + prefix), spec.http(), credentials)


class _Run:
    """One life of the source: what was told by the mirror and is not in a state yet."""

    def __init__(self, source: EtcdSource, client: EtcdClient, mirror: PrefixMirror) -> None:
        self._source = source
        self._client = client
        self._mirror = mirror
        self._changed: set[bytes] = set()
        self._news = trio.Event()
        self._vips = KeyedVIPs()

    async def run(self, latest: LatestState) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._follow)
            nursery.start_soon(self._build, latest)

    def _tell(self, changed: set[bytes]) -> None:
        self._source.status.good(trio.current_time())
        self._count()
        self._changed |= changed
        self._news.set()

    async def _follow(self) -> None:
        source, status = self._source, self._source.status
        while True:
            try:
                await self._mirror.follow(self._tell)
            except EtcdError as error:
                status.counters["failures"] += 1
                status.failed(trio.current_time(), str(error))
                self._count()
            await trio.sleep(source._backoff.wait_seconds(status.failures, source._random))  # noqa: SLF001 - of this module

    async def _build(self, latest: LatestState) -> None:
        is_first = True
        while True:
            await self._news.wait()
            self._news = trio.Event()
            changed, self._changed = self._changed, set()
            if not changed and not is_first:
                continue
            found = self._mirror.contents
            changes = {key: found[key].value if key in found else None for key in changed}
            if len(changes) <= _READ_IN_PLACE_MAX:
                self._vips.change(changes)
            else:
                await trio.to_thread.run_sync(self._vips.change, changes)
            self._source.status.counters["states"] += latest.put(self._vips.state())
            is_first = False
            await trio.sleep(self._source._settle_seconds)  # noqa: SLF001 - of this module

    def _count(self) -> None:
        counters = self._source.status.counters
        counters["readings"], counters["watches"] = self._mirror.readings, self._mirror.watches
        counters["compactions"], counters["failovers"] = self._mirror.compactions, self._client.failovers
