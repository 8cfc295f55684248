"""VIPs of services that are registered with a Consul (docs/sources/consul.md).

1. There is no state before the catalog and every service in question were read once. Afterwards whatever cannot be read keeps what it
   said last, and :attr:`ConsulSource.status` is unhappy until all can.
2. One blocking query is open for the catalog and one for each service; each answers when something changes, or after ``wait_seconds``.
   No query has less than ``pause_seconds`` from the one before, so that a Consul whose index runs away is not run over.
3. An index that goes back, or is missing, makes the next query answer at once; so does a failure.
4. An answer that is as it was before costs nothing further: Consul answers also when only others have changed.

Needs httpx2, from the extra ``sources``.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from random import Random
from typing import Final, NoReturn
from urllib.parse import quote

import trio

from pyminuteman.errors import ConfigurationError, MinutemanError
from pyminuteman.http_client import HttpClient, HttpError, HttpOptions, without_secrets
from pyminuteman.sources.backoff import Backoff
from pyminuteman.sources.base import LatestState, Source, SourceError, SourceProblem, SourceState, SourceStatus, feeding
from pyminuteman.sources.consul_services import (
    Instance,
    assemble,
    is_claimed,
    next_index,
    read_catalog,
    read_instances,
    vip_document,
)
from pyminuteman.sources.options import SourceSpec

__all__ = ["ConsulOptions", "ConsulSource", "from_spec"]

SERVICES_MAX: Final = 128
"""Services that are watched: each holds a connection, of which a Consul agent takes 200 from one client (http_max_conns_per_client)."""
_BODY_MAX_BYTES: Final = 64 << 20
_WAIT_MAX_SECONDS: Final = 600.0  # Consul's own limit
_READ_IN_PLACE_MAX_BYTES: Final = 1 << 16
BACKOFF: Final = Backoff(1.0, 60.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsulOptions:
    """What to make of a Consul, and how to ask it.

    Attributes:
        services: Services and the documents of their VIPs without backends, or their text as tags have it (``tcp://11.0.0.1:80``).
        tags: Whether services may claim VIPs by their tags, too.
        datacenter: Another one than the agent's own.
        keep_critical: Keep instances that fail their checks, at weight 0: their connections live on, and a VIP of which all fail keeps
            its backends. Otherwise they are no backends.
        with_agents: Consul's nodes are members of our cluster, under the same addresses: a backend is in reach while its node is.
        wait_seconds: How long a query may stay open (1 to 600).
        pause_seconds: Between two queries for one thing (0 to 60).
        settle_seconds: How long changes are gathered before they are told.

    Raises:
        ConfigurationError: A number out of its range.
    """

    services: Mapping[str, Mapping[str, object] | str] = field(default_factory=dict)
    tags: bool = True
    datacenter: str = ""
    keep_critical: bool = False
    with_agents: bool = False
    wait_seconds: float = 300.0
    pause_seconds: float = 0.2
    settle_seconds: float = 0.05

    def __post_init__(self) -> None:
        """Validate."""
        for name, low, high in (
            ("wait_seconds", 1.0, _WAIT_MAX_SECONDS),
            ("pause_seconds", 0.0, 60.0),
            ("settle_seconds", 0.0, 60.0),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigurationError(None, f"consul {name}", f"{value!r} is not from {low:g} to {high:g}")
        if not self.services and not self.tags:
            raise ConfigurationError(None, "consul", "asks for no service: name some, or let them claim VIPs by tags")

    def documents(self) -> dict[str, Mapping[str, object]]:
        """Services and the documents of their VIPs."""
        return {name: vip_document(said) if isinstance(said, str) else said for name, said in self.services.items()}


class ConsulSource:
    """The VIPs of a Consul."""

    def __init__(
        self,
        base_url: str,
        options: ConsulOptions | None = None,
        http: HttpOptions | None = None,
        *,
        random: Random | None = None,
        backoff: Backoff = BACKOFF,
    ) -> None:
        """Take what is to be read, such as ``http://127.0.0.1:8500``; nothing is reached for yet.

        A token goes into ``http.token_file``; it needs ``service:read`` and ``node:read``.
        """
        self.options = ConsulOptions() if options is None else options
        self._base_url = base_url
        self._http = http
        self._random = Random() if random is None else random  # noqa: S311 - for jitter
        self._backoff = backoff
        self._status = SourceStatus(
            counters={"queries": 0, "unchanged": 0, "index_resets": 0, "failures": 0, "states": 0, "services": 0}
        )

    @property
    def name(self) -> str:
        """``consul:http://127.0.0.1:8500``."""
        return f"consul:{without_secrets(self._base_url)}"

    @property
    def status(self) -> SourceStatus:
        """How it is now: unhappy when anything that it asks for cannot be read."""
        return self._status

    @asynccontextmanager
    async def states(self) -> AsyncIterator[AsyncIterator[SourceState]]:
        """Complete states, each only when it differs from the one before.

        Raises:
            ConfigurationError: The URL is none, or a file of the options is no good.
        """
        async with HttpClient(self._base_url, self._http) as client, feeding(_Run(self, client).run) as states:
            yield states


def from_spec(spec: SourceSpec) -> Source:
    """``consul:http://127.0.0.1:8500?services=web=tcp://11.0.0.1:80,dns=udp://dns:53``.

    Its options are those of everything that talks HTTP, ``services``, ``tags``, ``critical`` (``leave-out`` or ``keep``), ``agents``,
    ``datacenter`` and ``wait``, in the words of :class:`ConsulOptions`.
    """
    services: dict[str, str] = {}
    for text in filter(None, spec.text("services").split(",")):
        name, equals, vip = text.partition("=")
        if not (name and equals and vip) or name in services:
            raise spec.fail("services", f"{text!r:.60} is not written NAME=tcp://ADDRESS:PORT, or is there twice")
        services[name] = vip
    options = ConsulOptions(
        services=services,
        tags=spec.switch("tags", default=True),
        datacenter=spec.text("datacenter"),
        keep_critical=spec.choice("critical", ("leave-out", "keep")) == "keep",
        with_agents=spec.switch("agents"),
        wait_seconds=spec.seconds("wait", 300.0, 1.0, _WAIT_MAX_SECONDS),
    )
    return ConsulSource(spec.place, options, spec.http())


class _Run:
    """One life of the source."""

    def __init__(self, source: ConsulSource, client: HttpClient) -> None:
        self._options = source.options
        self._documents = source.options.documents()
        self._status = source.status
        self._random = source._random  # noqa: SLF001 - of this module
        self._backoff = source._backoff  # noqa: SLF001
        self._client = client
        self._catalog: dict[str, frozenset[str]] = {}
        self._read: dict[str, tuple[list[Instance], list[SourceProblem]]] = {}
        self._watched: dict[str, trio.CancelScope] = {}
        self._left_out: list[str] = []
        self._failing: dict[str, str] = {}
        self._news = trio.Event()
        self._is_changed = False
        self._has_catalog = not source.options.tags
        self._is_complete = False

    async def run(self, latest: LatestState) -> None:
        async with trio.open_nursery() as nursery:
            self._choose(nursery)
            if self._options.tags:
                nursery.start_soon(self._follow_catalog, nursery)
            await self._build(latest)

    # -- queries --

    async def _follow_catalog(self, nursery: trio.Nursery) -> None:
        def take(answer: object) -> None:
            self._catalog = read_catalog(answer)
            self._has_catalog = True
            self._choose(nursery)

        await self._follow("catalog", "/v1/catalog/services", {}, take)

    async def _follow_service(self, name: str, scope: trio.CancelScope) -> None:
        def take(answer: object) -> None:
            self._read[name] = read_instances(answer)

        query = {} if self._options.keep_critical else {"passing": "true"}
        with scope:
            await self._follow(f"service {name}", f"/v1/health/service/{quote(name, safe='')}", query, take)

    def _choose(self, nursery: trio.Nursery) -> None:
        """Watch those services that are in question now, and no others."""
        claiming = sorted(name for name, tags in self._catalog.items() if is_claimed(tags))
        wanted = list(dict.fromkeys([*sorted(self._documents), *claiming]))
        self._left_out, wanted = wanted[SERVICES_MAX:], wanted[:SERVICES_MAX]
        for name in self._watched.keys() - set(wanted):
            self._watched.pop(name).cancel()
            self._read.pop(name, None)
            self._failing.pop(f"service {name}", None)
        for name in wanted:
            if name not in self._watched:
                self._watched[name] = trio.CancelScope()
                nursery.start_soon(self._follow_service, name, self._watched[name])
        self._status.counters["services"] = len(self._watched)

    async def _follow(self, what: str, path: str, query: Mapping[str, str], take: Callable[[object], None]) -> NoReturn:
        """Ask again and again, and hand on what differs from before."""
        counters = self._status.counters
        index, failures, digest = 0, 0, b""
        while True:
            try:
                body, answered = await self._ask(path, query, index)
                found = blake2b(body, digest_size=16).digest()
                if found == digest:
                    counters["unchanged"] += 1
                else:
                    take(await _parse(body))
                    digest, self._is_changed = found, True
            except MinutemanError as error:
                failures, index = failures + 1, 0
                counters["failures"] += 1
                self._failing[what] = str(error)
                self._status.failed(trio.current_time(), f"{what}: {error}")
                await trio.sleep(self._backoff.wait_seconds(failures, self._random))
                continue
            failures = 0
            self._failing.pop(what, None)
            self._news.set()
            following = next_index(index, answered)
            counters["index_resets"] += following == 0
            index = following
            # Without an index the next query answers at once: then we are a poller, and pause like one.
            pause = self._options.pause_seconds if index else max(self._options.pause_seconds, 1.0)
            await trio.sleep(pause * self._random.uniform(0.75, 1.25))

    async def _ask(self, path: str, query: Mapping[str, str], index: int) -> tuple[bytes, str | None]:
        wait = self._options.wait_seconds
        asked = {**query, **({"dc": self._options.datacenter} if self._options.datacenter else {})}
        patience = self._client.options.timeout_seconds
        if index:
            asked |= {"index": str(index), "wait": f"{wait:g}s"}
            patience += wait + wait / 16  # by which Consul itself spreads the answers of a wait
        self._status.counters["queries"] += 1
        with trio.move_on_after(patience + self._client.options.timeout_seconds):
            async with self._client.stream("GET", path, query=asked, timeout_seconds=patience) as response:
                body = await response.read(_BODY_MAX_BYTES)
                return body, response.headers.get("x-consul-index")
        raise HttpError(f"{without_secrets(self._client.base_url + path)}: no whole answer in time")

    # -- states --

    async def _build(self, latest: LatestState) -> NoReturn:
        while True:
            await self._news.wait()
            self._news = trio.Event()
            # One that came later and cannot be read does not hold up the others.
            self._is_complete |= self._has_catalog and self._watched.keys() <= self._read.keys()
            if self._is_complete and self._is_changed:
                self._is_changed = False
                self._status.counters["states"] += latest.put(self._state())
            if self._is_complete and not self._failing:
                self._status.good(trio.current_time())
            await trio.sleep(self._options.settle_seconds)

    def _state(self) -> SourceState:
        documents = {name: said for name, said in self._documents.items() if name in self._read}
        catalog = {name: tags for name, tags in self._catalog.items() if name in self._read}
        instances = {name: found for name, (found, _) in self._read.items()}
        state = assemble(documents, catalog, instances, with_agents=self._options.with_agents)
        problems = [*state.problems, *(problem for _, found in self._read.values() for problem in found)]
        reason = f"only {SERVICES_MAX} services are watched, those mapped and then the first by name"
        problems += [SourceProblem(f"service {name}", reason) for name in self._left_out]
        return SourceState(state.vips, tuple(sorted(problems, key=lambda one: (one.where, one.reason))))


async def _parse(body: bytes) -> object:
    try:
        if len(body) <= _READ_IN_PLACE_MAX_BYTES:
            return json.loads(body)
        return await trio.to_thread.run_sync(json.loads, body)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"the answer is no JSON: {error}") from None
