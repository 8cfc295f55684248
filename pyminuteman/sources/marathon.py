"""Marathon as a source: VIPs by the labels of its apps.

Invariants:

1. What counts is what ``/v2/apps`` says, always read whole. Events (``/v2/events``) only say when to read it again; so a lost event
   costs time, and never truth.
2. What was published last stands while Marathon cannot be read, unless it was said after how long it is withdrawn.
3. Every request has a deadline; failures are tried again after 2 to 60 seconds, with jitter; events never hurry a failing server.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Final

import trio

from pyminuteman.errors import ConfigurationError, MinutemanError
from pyminuteman.http_client import HttpOptions, without_secrets
from pyminuteman.sources.backoff import Backoff
from pyminuteman.sources.base import LatestState, SourceError, SourceProblem, SourceState, SourceStatus, feeding
from pyminuteman.sources.marathon_state import MarathonState
from pyminuteman.sources.mesos_lookup import HostAddresses
from pyminuteman.sources.mesos_outage import OutageStatus, check_agent, check_times, withdraw_when_silent
from pyminuteman.sources.mesos_servers import Servers
from pyminuteman.sources.mesos_vips import vips_of
from pyminuteman.sources.options import SourceSpec
from pyminuteman.sources.sse import EventDecoder
from pyminuteman.vips.model import VIPSettings

__all__ = ["MarathonOptions", "MarathonSource", "from_spec"]

_log = logging.getLogger("pyminuteman.sources")

_SETTLE_SECONDS: Final = 0.2
"""After an event: the next ones of the same change follow at once."""
_IDLE_SECONDS: Final = 300.0
"""A stream of events that says nothing for so long is opened again: the connection may be dead, and an idle cluster says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MarathonOptions:
    """Which Marathon, and how to read it.

    Attributes:
        urls: One or all of its instances (``http://10.0.0.1:8080``), as redirects name them.
        framework: The name that it has in Mesos (``--framework_name``): names of VIPs are names in that.
        http: How to reach them.
        poll_seconds: Between two readings when no event asks for one.
        unattached_poll_seconds: The same while there is no stream of events.
        retry_most_seconds: No wait after failures is longer.
        deadline_seconds: For a whole answer.
        withdraw_after_seconds: Without a good answer for so long, all VIPs are withdrawn; None keeps them.
        agent: Only tasks of the agent with that address; empty for all.
        legacy: Read labels by Minuteman's rules.
        ipv6: Take IPv6, as VIPs and as backends.
        settings: How these VIPs share their connections.

    Raises:
        ConfigurationError: A time or an address that is none, or withdrawal before two polls can have failed.
    """

    urls: tuple[str, ...]
    framework: str = "marathon"
    http: HttpOptions = field(default_factory=HttpOptions)
    poll_seconds: float = 30.0
    unattached_poll_seconds: float = 2.0
    retry_most_seconds: float = 60.0
    deadline_seconds: float = 30.0
    withdraw_after_seconds: float | None = None
    agent: str = ""
    legacy: bool = False
    ipv6: bool = True
    settings: VIPSettings = field(default_factory=VIPSettings)

    def __post_init__(self) -> None:
        """Validate."""
        if not self.framework:
            raise ConfigurationError(None, "framework", "is empty: the name that Marathon has in Mesos")
        names = ("poll_seconds", "unattached_poll_seconds", "retry_most_seconds", "deadline_seconds")
        times = {name: getattr(self, name) for name in names}
        check_times(times, poll="unattached_poll_seconds", after=self.withdraw_after_seconds, poll_seconds=self.poll_seconds)
        object.__setattr__(self, "agent", check_agent(self.agent))


class MarathonSource:
    """VIPs of Marathon's apps.

    Args:
        options: Which Marathon.
        random: For the jitter.
    """

    def __init__(self, options: MarathonOptions, random: Random | None = None) -> None:
        self.options = options
        self._random = Random() if random is None else random  # noqa: S311 - no secret
        self._status = OutageStatus()
        self._backoff = Backoff(options.unattached_poll_seconds, options.retry_most_seconds)
        Servers(options.urls, options.http)  # says now what is wrong with them
        self._asked = trio.Event()
        self._attached = False
        self._warned: frozenset[SourceProblem] = frozenset()

    @property
    def name(self) -> str:
        """``marathon:http://10.0.0.1:8080``."""
        return "marathon:" + ",".join(map(without_secrets, self.options.urls))

    @property
    def status(self) -> SourceStatus:
        """How it is.

        Counters: ``tasks``, ``waiting``, ``odd``, ``warnings``, ``fetches``, ``states``, ``failures``, ``events``, ``events_dropped``,
        ``streams``, ``stream_failures`` and ``withdrawals``.
        """
        return self._status

    def states(self) -> AbstractAsyncContextManager[AsyncIterator[SourceState]]:
        """Complete states: see :class:`~pyminuteman.sources.base.Source`."""
        return feeding(self._run)

    async def _run(self, latest: LatestState) -> None:
        options = self.options
        for name in ("fetches", "states", "failures", "events", "events_dropped", "streams", "stream_failures"):
            self._status.counters.setdefault(name, 0)
        async with (
            Servers(options.urls, options.http) as servers,
            Servers(options.urls, options.http) as for_events,
            trio.open_nursery() as nursery,
        ):
            if options.withdraw_after_seconds is not None:
                nursery.start_soon(withdraw_when_silent, latest, self._status, options.withdraw_after_seconds)
            nursery.start_soon(self._listen, for_events)
            await self._read(servers, latest)

    # -- reading -------------------------------------------------------------------------------------------------------

    async def _read(self, servers: Servers, latest: LatestState) -> None:
        hosts = HostAddresses()
        counters = self._status.counters
        while True:
            counters["fetches"] += 1
            self._asked = trio.Event()  # what is asked from here on is not answered by this reading
            try:
                state = await self._fetch(servers, hosts)
            except MinutemanError as error:
                counters["failures"] += 1
                self._status.failed(trio.current_time(), str(error))
                await trio.sleep(self._backoff.wait_seconds(self._status.failures, self._random))
                continue
            self._status.good(trio.current_time())
            counters["states"] += latest.put(state)
            wait = (
                self.options.poll_seconds
                if self._attached
                else min(self.options.poll_seconds, self.options.unattached_poll_seconds)
            )
            with trio.move_on_after(wait * self._random.uniform(0.9, 1.0)):
                await self._asked.wait()
                await trio.sleep(_SETTLE_SECONDS)

    async def _fetch(self, servers: Servers, hosts: HostAddresses) -> SourceState:
        options = self.options
        document = await servers.json(
            "GET", "/v2/apps", query={"embed": "apps.tasks"}, deadline_seconds=options.deadline_seconds
        )
        read = partial(MarathonState, document, framework=options.framework, legacy=options.legacy)
        state = await trio.to_thread.run_sync(read)
        addresses = await hosts.look_up(state.unresolved) if state.unresolved else {}
        known = await trio.to_thread.run_sync(state.tasks, addresses)
        tasks = [task for task in known if options.agent in {"", task.agent}]
        found = await trio.to_thread.run_sync(partial(vips_of, tasks, ipv6=options.ipv6, settings=options.settings))
        self._status.counters.update(
            tasks=len(tasks), waiting=len(state) - len(known), odd=state.odd, warnings=len(found.warnings)
        )
        for warning in found.warnings:
            if warning not in self._warned:
                _log.warning("%s: %s", self.name, warning)
        self._warned = frozenset(found.warnings)
        return SourceState(found.vips, found.problems)

    # -- events --------------------------------------------------------------------------------------------------------

    async def _listen(self, servers: Servers) -> None:
        failures = 0
        while True:
            before = self._status.counters["events"]
            try:
                await self._stream(servers)
            except MinutemanError as error:
                _log.info("%s: %s", self.name, error)
            self._attached = False
            self._asked.set()  # polls go by the shorter interval from now on
            self._status.counters["stream_failures"] += 1
            failures = 1 if self._status.counters["events"] > before else failures + 1
            await trio.sleep(self._backoff.wait_seconds(failures, self._random))

    async def _stream(self, servers: Servers) -> None:
        """One stream of events, until it ends.

        Raises:
            MinutemanError: How it ended.
        """
        decoder = EventDecoder()
        headers = {"accept": "text/event-stream"}
        async with servers.stream("GET", "/v2/events", headers=headers, timeout_seconds=_IDLE_SECONDS) as response:
            kind = response.headers.get("content-type", "")
            if not kind.startswith("text/event-stream"):
                msg = f"{servers}/v2/events: answered {kind!r}, and no stream of events"
                raise SourceError(msg)
            self._status.counters["streams"] += 1
            self._attached = True
            self._asked.set()  # what happened before was not told
            async for chunk in response.chunks():
                events = decoder.feed(chunk)
                self._status.counters["events"] += len(events)
                self._status.counters["events_dropped"] = decoder.dropped
                if events:
                    self._asked.set()


def from_spec(spec: SourceSpec) -> MarathonSource:
    """``marathon:http://10.0.0.1:8080``, or several instances with commas between them, and options.

    Raises:
        ConfigurationError: An option that cannot be.
    """
    options = MarathonOptions(
        urls=tuple(spec.place.split(",")),
        framework=spec.text("framework", "marathon"),
        http=spec.http(token_scheme="token="),  # noqa: S106 - no secret
        poll_seconds=spec.seconds("poll", 30.0, 0.1),
        unattached_poll_seconds=spec.seconds("unattached-poll", 2.0, 0.1, 60.0),
        deadline_seconds=spec.seconds("deadline", 30.0, 0.1),
        withdraw_after_seconds=spec.seconds("withdraw-after", 0.0) or None,
        agent=spec.text("agent"),
        legacy=spec.switch("legacy"),
        ipv6=spec.switch("ipv6", default=True),
    )
    return MarathonSource(options)
