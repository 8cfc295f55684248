"""Mesos as a source: VIPs by the labels of its tasks.

Three ways to read it, of which the first two are for the agent on the same host and the third for masters:

- ``state``: ``GET /state``, as Minuteman did, two seconds after the last answer.
- ``operator``: ``GET_STATE`` and, for an agent, ``GET_AGENT`` of the operator API, as dcos-net does, as often.
- ``subscribe``: the event stream of the leading master. Nothing is published before the agents of a new leader have come back.

Invariants:

1. What was published last stands while Mesos cannot be read, unless it was said after how long it is withdrawn.
2. Every request has a deadline, every stream a watchdog of three heartbeats; failures are tried again after 2 to 60 seconds, with jitter.
3. A leader is followed to a configured server only.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from math import inf
from random import Random
from typing import Any, Final

import trio

from pyminuteman.errors import MinutemanError
from pyminuteman.http_client import HttpOptions, HttpResponse, without_secrets
from pyminuteman.sources.backoff import Backoff
from pyminuteman.sources.base import LatestState, SourceError, SourceProblem, SourceState, feeding, poll
from pyminuteman.sources.mesos_lookup import HostAddresses
from pyminuteman.sources.mesos_outage import OutageStatus, check_agent, check_times, withdraw_when_silent
from pyminuteman.sources.mesos_servers import Servers, parse_json
from pyminuteman.sources.mesos_state import MesosState, Readiness
from pyminuteman.sources.mesos_tasks import Task
from pyminuteman.sources.mesos_vips import vips_of
from pyminuteman.sources.options import SourceSpec
from pyminuteman.sources.recordio import RECORD_MAX_BYTES, RecordDecoder
from pyminuteman.vips.model import VIPSettings

__all__ = ["MesosMode", "MesosOptions", "MesosSource", "from_spec"]

_log = logging.getLogger("pyminuteman.sources")

_API: Final = "/api/v1"
_HEARTBEATS_MISSED: Final = 3
_SETTLE_SECONDS: Final = 0.1
"""Events that come together are published together: a deployment sends hundreds."""
_IDLE_SHARE: Final = 4
"""With so many tasks that publishing takes long, a fifth of the time goes into it at most."""
_LOOK_UP_SECONDS: Final = 10.0
"""Names of agents that had no address are looked up again so often."""
_STREAM_WAIT_SECONDS: Final = 3600.0
"""Longer than any watchdog, which is what ends a silent stream."""


class MesosMode(Enum):
    """How it is read."""

    STATE = "state"
    OPERATOR = "operator"
    SUBSCRIBE = "subscribe"


@dataclass(frozen=True, slots=True, kw_only=True)
class MesosOptions:
    """Which Mesos, and how to read it.

    Attributes:
        urls: The agent (``http://127.0.0.1:5051``), or all masters (``http://10.0.0.1:5050``, ...), as redirects name them.
        mode: See the module.
        http: How to reach them; Mesos's tokens take ``token_scheme="token="``.
        poll_seconds: From an answer to the next request.
        retry_most_seconds: No wait after failures is longer.
        deadline_seconds: For a whole answer, and for the beginning of a stream.
        withdraw_after_seconds: Without a good answer for so long, all VIPs are withdrawn; None keeps them.
        agent: Only tasks of the agent with that address; empty for all that are told.
        legacy: Read labels by Minuteman's rules.
        ipv6: Take IPv6, as VIPs and as backends.
        settings: How these VIPs share their connections.
        agents_seconds: How long a new leader waits for its agents.
        tasks_seconds: How long for their tasks after that.

    Raises:
        ConfigurationError: A time or an address that is none, or withdrawal before two polls can have failed.
    """

    urls: tuple[str, ...]
    mode: MesosMode = MesosMode.STATE
    http: HttpOptions = field(default_factory=HttpOptions)
    poll_seconds: float = 2.0
    retry_most_seconds: float = 60.0
    deadline_seconds: float = 30.0
    withdraw_after_seconds: float | None = None
    agent: str = ""
    legacy: bool = False
    ipv6: bool = True
    settings: VIPSettings = field(default_factory=VIPSettings)
    agents_seconds: float = 600.0
    tasks_seconds: float = 10.0

    def __post_init__(self) -> None:
        """Validate."""
        names = ("poll_seconds", "retry_most_seconds", "deadline_seconds", "agents_seconds", "tasks_seconds")
        times = {name: getattr(self, name) for name in names}
        check_times(times, poll="poll_seconds", after=self.withdraw_after_seconds, poll_seconds=self.poll_seconds)
        object.__setattr__(self, "agent", check_agent(self.agent))


class MesosSource:
    """VIPs of Mesos's tasks.

    Args:
        options: Which Mesos.
        random: For the jitter.
    """

    def __init__(self, options: MesosOptions, random: Random | None = None) -> None:
        self.options = options
        self._random = Random() if random is None else random  # noqa: S311 - no secret
        self._status = OutageStatus()
        Servers(options.urls, options.http)  # says now what is wrong with them
        self._warned: frozenset[SourceProblem] = frozenset()
        self._readiness: Readiness | None = None
        """While a master that is polled waits for its agents."""

    @property
    def name(self) -> str:
        """``mesos:http://127.0.0.1:5051``."""
        return "mesos:" + ",".join(map(without_secrets, self.options.urls))

    @property
    def status(self) -> OutageStatus:
        """How it is.

        Counters: ``tasks``, ``waiting``, ``unresolved``, ``odd``, ``warnings``, ``unregistered``, ``recovering``, ``streams``, ``records``,
        ``withdrawals``, and those of :func:`~pyminuteman.sources.base.poll`.
        """
        return self._status

    def states(self) -> AbstractAsyncContextManager[AsyncIterator[SourceState]]:
        """Complete states: see :class:`~pyminuteman.sources.base.Source`."""
        return feeding(self._run)

    async def _run(self, latest: LatestState) -> None:
        options = self.options
        backoff = Backoff(options.poll_seconds, options.retry_most_seconds)
        async with Servers(options.urls, options.http) as servers, trio.open_nursery() as nursery:
            if options.withdraw_after_seconds is not None:
                nursery.start_soon(withdraw_when_silent, latest, self._status, options.withdraw_after_seconds)
            if options.mode is MesosMode.SUBSCRIBE:
                await _Stream(self, servers, latest).run(backoff, self._random)
            hosts = HostAddresses()
            await poll(
                lambda: self._fetch(servers, hosts),
                latest,
                self._status,
                interval_seconds=options.poll_seconds,
                backoff=backoff,
                random=self._random,
            )

    async def _fetch(self, servers: Servers, hosts: HostAddresses) -> SourceState | None:
        options = self.options
        wait = options.deadline_seconds
        if options.mode is MesosMode.STATE:
            document = await servers.json("GET", "/state", deadline_seconds=wait)
            read = partial(MesosState.of_state, document, legacy=options.legacy)
        else:
            document = await servers.json("POST", _API, body={"type": "GET_STATE"}, deadline_seconds=wait)
            agent = None
            if not _knows_agents(document):
                agent = await servers.json("POST", _API, body={"type": "GET_AGENT"}, deadline_seconds=wait)
            read = partial(MesosState.of_operator_api, document, agent, legacy=options.legacy)
        state = await trio.to_thread.run_sync(read)
        if not state.registered:
            self._status.counters["unregistered"] = self._status.counters.get("unregistered", 0) + 1
            return None  # an agent that starts has not yet found its containers again
        if not self._is_whole(state):
            self._status.counters["recovering"] = self._status.counters.get("recovering", 0) + 1
            return None
        if state.unresolved:
            state.resolve(await hosts.look_up(state.unresolved))
        return await self.publishable(state, await trio.to_thread.run_sync(state.tasks))

    def _is_whole(self, state: MesosState) -> bool:
        """False while a new leader knows nearly nothing."""
        now, recovering = trio.current_time(), bool(state.recovering)
        if self._readiness is None and recovering:
            options = self.options
            self._readiness = Readiness(
                now, recovering=True, agents_seconds=options.agents_seconds, tasks_seconds=options.tasks_seconds
            )
        if self._readiness is None:
            return True
        if not self._readiness.check(now, recovering=recovering, waiting=state.waiting > 0):
            return False
        if not recovering:
            self._readiness = None
        return True

    async def publishable(self, state: MesosState, tasks: list[Task]) -> SourceState:
        """What the tasks of that state ask for; counted, and warnings told once."""
        tasks = [task for task in tasks if self.options.agent in {"", task.agent}]
        found = await trio.to_thread.run_sync(partial(vips_of, tasks, ipv6=self.options.ipv6, settings=self.options.settings))
        self._status.counters.update(
            tasks=len(tasks),
            waiting=state.waiting,
            odd=sum(state.odd.values()),
            warnings=len(found.warnings),
            unresolved=len(state.unresolved),
        )
        for warning in found.warnings:
            if warning not in self._warned:
                _log.warning("%s: %s", self.name, warning)
        self._warned = frozenset(found.warnings)
        return SourceState(found.vips, found.problems)


class _Stream:
    """The stream of events of the leading master, opened again whenever it ends."""

    def __init__(self, source: MesosSource, servers: Servers, latest: LatestState) -> None:
        self._source = source
        self._options = source.options
        self._servers = servers
        self._latest = latest
        self._hosts = HostAddresses()
        self._status = source.status

    async def run(self, backoff: Backoff, random: Random) -> None:
        """For ever."""
        for name in ("streams", "records", "states", "failures"):
            self._status.counters.setdefault(name, 0)
        while True:
            try:
                await self._session()
            except MinutemanError as error:
                self._status.counters["failures"] += 1
                self._status.failed(trio.current_time(), str(error))
            await trio.sleep(backoff.wait_seconds(self._status.failures, random))

    async def _session(self) -> None:
        """One stream, from its beginning to its end, which is an error always.

        Raises:
            MinutemanError: Why it ended.
        """
        begun = False
        watchdog = trio.CancelScope(deadline=trio.current_time() + self._options.deadline_seconds)
        try:
            with watchdog:
                async with self._servers.stream(
                    "POST",
                    _API,
                    body={"type": "SUBSCRIBE"},
                    headers={"accept": "application/json"},
                    timeout_seconds=_STREAM_WAIT_SECONDS,
                ) as response:
                    begun = True
                    self._status.counters["streams"] += 1
                    await self._read(response, watchdog)
            begun = True
            msg = f"{self._servers}: the stream is silent: neither events nor heartbeats"
            raise SourceError(msg)
        except MinutemanError:
            if begun:  # else the servers have moved on already
                self._servers.try_next()
            raise

    def _begin(self, event: Any) -> MesosState:
        state = MesosState.of_stream(event, legacy=self._options.legacy)
        state.tasks()  # here, in a thread: once told, most tasks do not change
        return state

    async def _read(self, response: HttpResponse, watchdog: trio.CancelScope) -> None:
        failure: MinutemanError | None = None
        async with trio.open_nursery() as nursery:
            try:
                await self._read_records(response, watchdog, nursery)
            except MinutemanError as error:
                failure = error  # raised below, for it must not come in a group
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def _read_records(self, response: HttpResponse, watchdog: trio.CancelScope, nursery: trio.Nursery) -> None:
        decoder = RecordDecoder(RECORD_MAX_BYTES)
        session: _Session | None = None
        async for chunk in response.chunks():
            for record in decoder.feed(chunk):
                self._status.counters["records"] += 1
                watchdog.deadline = inf  # it counts the silence of the server, and not what we take to read a large record
                event = await parse_json(record, str(self._servers))
                if session is None:
                    state = await trio.to_thread.run_sync(self._begin, event)
                    session = _Session(self._source, state, self._latest, self._hosts)
                    nursery.start_soon(session.publish)
                else:
                    session.take(event)
                watchdog.deadline = trio.current_time() + _HEARTBEATS_MISSED * session.state.heartbeat_seconds
        cut = "" if decoder.is_between else ", within a record"
        msg = f"{self._servers}: the stream has ended{cut}"
        raise SourceError(msg)


class _Session:
    """What one stream has told, and publishing it once it is enough and whenever it changes."""

    def __init__(self, source: MesosSource, state: MesosState, latest: LatestState, hosts: HostAddresses) -> None:
        self._source = source
        self.state = state
        self._latest = latest
        self._hosts = hosts
        self._changed = trio.Event()
        self._changed.set()
        self._served = False
        now = trio.current_time()
        self._readiness = Readiness(
            now,
            recovering=bool(state.recovering),
            agents_seconds=source.options.agents_seconds,
            tasks_seconds=source.options.tasks_seconds,
        )

    def take(self, event: Any) -> None:
        """One event."""
        if self.state.apply(event):
            self._changed.set()
        now = trio.current_time()
        if self._served:
            self._source.status.good(now)  # a heartbeat says that all stands as it stood
        else:
            self._source.status.heard(now)  # a leader that waits for its agents is not silent

    async def publish(self) -> None:
        """For as long as the stream lasts."""
        while True:
            if self._is_ready():
                self._changed = trio.Event()
                begun = trio.current_time()
                if self.state.unresolved:
                    self.state.resolve(await self._hosts.look_up(self.state.unresolved))
                found = await self._source.publishable(self.state, self.state.tasks())
                self._source.status.good(trio.current_time())
                self._served = True
                self._source.status.counters["states"] += self._latest.put(found)
                await trio.sleep(max(_SETTLE_SECONDS, _IDLE_SHARE * (trio.current_time() - begun)))
            else:
                self._source.status.reason = f"{self._source.status.withdrawn}{self._readiness}"
                self._changed = trio.Event()
            again = trio.current_time() + _LOOK_UP_SECONDS if self.state.unresolved else inf
            with trio.move_on_at(min(self._readiness.due, again)):
                await self._changed.wait()

    def _is_ready(self) -> bool:
        recovering, waiting = bool(self.state.recovering), self.state.waiting > 0
        return self._readiness.check(trio.current_time(), recovering=recovering, waiting=waiting)


def from_spec(spec: SourceSpec) -> MesosSource:
    """``mesos:http://127.0.0.1:5051``, or several masters with commas between them, and options.

    Raises:
        ConfigurationError: An option that cannot be.
    """
    poll_seconds = spec.seconds("poll", 2.0, 0.1)
    options = MesosOptions(
        urls=tuple(spec.place.split(",")),
        mode=MesosMode(spec.choice("mode", tuple(mode.value for mode in MesosMode))),
        http=spec.http(token_scheme="token="),  # noqa: S106 - no secret
        poll_seconds=poll_seconds,
        retry_most_seconds=spec.seconds("retry-most", max(60.0, poll_seconds), poll_seconds),
        deadline_seconds=spec.seconds("deadline", 30.0, 0.1),
        withdraw_after_seconds=spec.seconds("withdraw-after", 0.0) or None,
        agent=spec.text("agent"),
        legacy=spec.switch("legacy"),
        ipv6=spec.switch("ipv6", default=True),
    )
    return MesosSource(options)


def _knows_agents(document: Any) -> bool:
    """Whether it is a master's: an agent says nothing of agents."""
    state = document.get("get_state") if isinstance(document, dict) else None
    return not isinstance(state, dict) or "get_agents" in state
