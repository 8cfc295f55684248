"""What a Mesos master or agent knows: agents, frameworks and tasks, from ``/state``, from the operator API, or event by event.

Pure. Invariants:

1. A document that is no state raises, and is never an empty state: an error page must not take every VIP away.
2. A task is told only when its framework's name and its agent's address are known. Until then it is parked, for as long as it lives.
3. Applying the events of a stream gives the tasks that ``GET_STATE`` gives at its end.
4. After a master's failover nothing is published before its agents have come back, or their time is up (:class:`Readiness`): what such
   a master knows at first is nearly nothing.

Sources: ``v1/master/master.proto`` and ``v1/agent/agent.proto`` of Mesos; for ``/state`` its documentation of that endpoint.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from math import inf
from typing import Any, Final, Self

from pyminuteman.sources.base import SourceError
from pyminuteman.sources.mesos_json import agent_address, identity, number, rows, table, text
from pyminuteman.sources.mesos_tasks import (
    Task,
    TaskDescription,
    TaskKey,
    TaskPhase,
    TaskStatus,
    describe,
    newest_status,
    resolve,
    task_phase,
)

__all__ = ["HEARTBEAT_DEFAULT_SECONDS", "TASKS_MAX", "MesosState", "Readiness"]

TASKS_MAX: Final = 500_000
"""Tasks that one state may hold: ten times the largest cluster that Mesos's makers told of."""
HEARTBEAT_DEFAULT_SECONDS: Final = 15.0
"""What Mesos uses (``DEFAULT_HEARTBEAT_INTERVAL``), for a stream that does not say."""
_HEARTBEAT_RANGE: Final = (0.01, 600.0)


@dataclass(slots=True)
class _Agent:
    hostname: str
    address: str | None


@dataclass(slots=True)
class _Record:
    description: TaskDescription
    phase: TaskPhase
    status: TaskStatus
    task: Task | None = None
    """What it came to last; None when something has changed since."""


@dataclass(slots=True)
class MesosState:
    """A state, and what events make of it.

    Attributes:
        legacy: Whether labels are read by Minuteman's rules (:mod:`pyminuteman.vips.labels`).
        registered: False for an agent that no master has taken in yet: it runs nothing that anybody asked for.
        recovering: Agents that the master knows from its log alone, and that have not come back yet.
        heartbeat_seconds: How often the stream says something.
        odd: Tasks and events that could not be understood, by what was wrong; they are left out.
    """

    legacy: bool = False
    registered: bool = True
    recovering: set[str] = field(default_factory=set)
    heartbeat_seconds: float = HEARTBEAT_DEFAULT_SECONDS
    odd: dict[str, int] = field(default_factory=dict)
    _agents: dict[str, _Agent] = field(default_factory=dict)
    _frameworks: dict[str, str] = field(default_factory=dict)
    _records: dict[TaskKey, _Record] = field(default_factory=dict)

    # -- whole documents -----------------------------------------------------------------------------------------------

    @classmethod
    def of_state(cls, document: object, *, legacy: bool = False) -> Self:
        """Read ``/state`` of an agent or a master.

        Raises:
            SourceError: It is none, or holds more than :data:`TASKS_MAX` tasks.
        """
        found = table(document)
        if not isinstance(found.get("frameworks"), list) or not text(found.get("pid")):
            msg = "the answer is no /state of a Mesos agent or master: expected an object with frameworks and pid"
            raise SourceError(msg)
        state = cls(legacy)
        if "slave" in text(found.get("pid")).partition("@")[0]:  # an agent, which is its own and only one
            state.registered = bool(identity(found.get("id")))
            state._add_agent(found, found.get("pid"))
        state.recovering |= {identity(row.get("id")) for row in rows(found.get("recovered_slaves"))}
        for row in rows(found.get("slaves")):
            state._add_agent(row, row.get("pid"))
        for framework in rows(found["frameworks"]):
            state._add_framework(framework)
            state._add_tasks(rows(framework.get("tasks")))
            for executor in rows(framework.get("executors")):
                state._add_tasks(rows(executor.get("tasks")))
        return state

    @classmethod
    def of_operator_api(cls, document: object, agent: object = None, *, legacy: bool = False) -> Self:
        """Read the answer to ``GET_STATE``, and for an agent, which does not speak of itself there, that to ``GET_AGENT``.

        Raises:
            SourceError: They are none, or there are more than :data:`TASKS_MAX` tasks.
        """
        state = cls(legacy)
        state._load(_part(document, "GET_STATE", "get_state"))
        if agent is not None:
            info = table(_part(agent, "GET_AGENT", "get_agent").get("agent_info"))
            state.registered = bool(identity(info.get("id")))
            state._add_agent(info, None)
        return state

    @classmethod
    def of_stream(cls, event: object, *, legacy: bool = False) -> Self:
        """Read ``SUBSCRIBED``, the first event of a stream.

        Raises:
            SourceError: It is something else, or holds more than :data:`TASKS_MAX` tasks.
        """
        state = cls(legacy)
        subscribed = _part(event, "SUBSCRIBED", "subscribed")
        if not isinstance(subscribed.get("get_state"), dict):
            msg = "the stream begins without a state"
            raise SourceError(msg)
        state._load(table(subscribed["get_state"]))
        said = number(subscribed.get("heartbeat_interval_seconds"))
        if said is not None and _HEARTBEAT_RANGE[0] <= said <= _HEARTBEAT_RANGE[1]:
            state.heartbeat_seconds = said
        return state

    def _load(self, found: Mapping[str, Any]) -> None:
        agents = table(found.get("get_agents"))
        for row in rows(agents.get("agents")):
            self._add_agent(table(row.get("agent_info")), row.get("pid"))
        for row in rows(agents.get("recovered_agents")):
            self.recovering.add(identity(row.get("id")))
        frameworks = table(found.get("get_frameworks"))
        for row in rows(frameworks.get("frameworks")):
            self._add_framework(table(row.get("framework_info")))
        for row in rows(frameworks.get("recovered_frameworks")):
            self._add_framework(row)
        tasks = table(found.get("get_tasks"))
        for name in ("tasks", "launched_tasks", "orphan_tasks"):
            self._add_tasks(rows(tasks.get(name)))

    def _add_agent(self, info: Mapping[str, Any], pid: object) -> None:
        agent = identity(info.get("id"))
        if not agent:
            return
        hostname = text(info.get("hostname"))
        address = agent_address(hostname, pid)
        known = self._agents.get(agent)
        if address is None and known is not None and known.hostname == hostname:
            address = known.address  # it was looked up
        self._agents[agent] = _Agent(hostname, address)
        self.recovering.discard(agent)

    def _add_framework(self, info: Mapping[str, Any]) -> None:
        framework = identity(info.get("id"))
        if framework:
            self._frameworks[framework] = text(info.get("name"))

    def _add_tasks(self, tasks: Iterable[Mapping[str, Any]]) -> None:
        for task in tasks:
            description = describe(task, legacy=self.legacy)
            if description is None:
                self._count("task without id")
                continue
            phase = task_phase(task.get("state"))
            if phase is TaskPhase.ENDED:
                self._records.pop(description.key, None)
                continue
            self._records[description.key] = _Record(description, phase, newest_status(rows(task.get("statuses"))))
            if len(self._records) > TASKS_MAX:
                msg = f"more than {TASKS_MAX} tasks"
                raise SourceError(msg)

    def _count(self, what: str) -> None:
        self.odd[what] = self.odd.get(what, 0) + 1

    # -- events --------------------------------------------------------------------------------------------------------

    def apply(self, event: object) -> bool:
        """Take in an event of the stream; whether it may have changed what is told.

        Raises:
            SourceError: A second ``SUBSCRIBED``, which only a broken server sends; or too many tasks.
        """
        found = table(event)
        kind = text(found.get("type"))
        body = table(found.get(kind.lower()))
        match kind:
            case "HEARTBEAT":
                return False
            case "TASK_ADDED":
                self._add_tasks([table(body.get("task"))])
            case "TASK_UPDATED":
                return self._update_task(body)
            case "FRAMEWORK_ADDED" | "FRAMEWORK_UPDATED":
                self._add_framework(table(table(body.get("framework")).get("framework_info")))
            case "FRAMEWORK_REMOVED":
                self._remove_framework(identity(table(body.get("framework_info")).get("id")))
            case "AGENT_ADDED":
                agent = table(body.get("agent"))
                self._add_agent(table(agent.get("agent_info")), agent.get("pid"))
            case "AGENT_REMOVED":
                gone = identity(body.get("agent_id"))
                self._agents.pop(gone, None)  # its tasks are parked: they end one by one, or it comes back with them
                self.recovering.discard(gone)
            case "SUBSCRIBED":
                msg = "the stream begins a second time without an end of the first"
                raise SourceError(msg)
            case _:
                self._count("unknown event")
                return False
        return True

    def _update_task(self, body: Mapping[str, Any]) -> bool:
        status = table(body.get("status"))
        framework = identity(body.get("framework_id"))
        record = self._records.get(TaskKey(framework, identity(status.get("task_id"))))
        if record is None:
            self._count("update of an unknown task")  # one that has ended: its agent goes on telling until it is heard
            return False
        # The status is the one that is being acknowledged just now; the state of the event is the latest (DCOS_OSS-3539).
        phase = task_phase(body.get("state") or status.get("state"))
        if phase is TaskPhase.ENDED:
            del self._records[record.description.key]
            return True
        record.phase, record.task = phase, None
        record.status = record.status.followed_by(newest_status([status]))
        return True

    def _remove_framework(self, framework: str) -> None:
        """It cannot come back, and its tasks end with it."""
        self._frameworks.pop(framework, None)
        for key in [key for key in self._records if key.framework_id == framework]:
            del self._records[key]

    # -- what comes of it ----------------------------------------------------------------------------------------------

    @property
    def unresolved(self) -> set[str]:
        """Hostnames of agents that are to be looked up."""
        return {agent.hostname for agent in self._agents.values() if agent.address is None and agent.hostname}

    def resolve(self, addresses: Mapping[str, str]) -> None:
        """Take in what was looked up: addresses by hostname."""
        for agent in self._agents.values():
            if agent.address is None:
                agent.address = addresses.get(agent.hostname)

    @property
    def waiting(self) -> int:
        """Tasks that are parked: the name of their framework or the address of their agent is not known."""
        return sum(not self._is_known(record) for record in self._records.values())

    def _is_known(self, record: _Record) -> bool:
        agent = self._agents.get(record.description.agent_id)
        return record.description.key.framework_id in self._frameworks and agent is not None and agent.address is not None

    def tasks(self) -> list[Task]:
        """Every task of which all is known, in no order. What has not changed since it was told last costs nearly nothing."""
        found = []
        for key, record in self._records.items():
            agent = self._agents.get(record.description.agent_id)
            framework = self._frameworks.get(key.framework_id)
            if framework is None or agent is None or agent.address is None:
                continue
            if record.task is None or (record.task.framework, record.task.agent) != (framework, agent.address):
                record.task = resolve(record.description, record.status, record.phase, framework, agent.address)
            found.append(record.task)
        return found


def _part(document: object, kind: str, name: str) -> Mapping[str, Any]:
    found = table(document)
    if found.get("type") != kind or not isinstance(found.get(name), dict):
        msg = f"the answer is no {kind}: expected an object with type and {name}"
        raise SourceError(msg)
    return table(found[name])


class _Stage(Enum):
    AGENTS = "agents"
    TASKS = "tasks"
    READY = "ready"


class Readiness:
    """When a stream knows enough to be believed: once agents that a master knows from its log are back, and then their tasks.

    Args:
        now: When the stream began; seconds of any clock that does not go back.
        recovering: Whether agents are yet to come back.
        agents_seconds: How long they have (Mesos's ``agent_reregister_timeout`` is ten minutes).
        tasks_seconds: How long tasks have after that, to be told and to find their frameworks.
    """

    def __init__(self, now: float, *, recovering: bool, agents_seconds: float, tasks_seconds: float) -> None:
        self._tasks_seconds = tasks_seconds
        self._stage = _Stage.AGENTS if recovering else _Stage.TASKS
        self._ends_at = now + (agents_seconds if recovering else tasks_seconds)
        self._after_recovery = recovering

    def check(self, now: float, *, recovering: bool, waiting: bool) -> bool:
        """Whether it knows enough now.

        Args:
            now: The time.
            recovering: Whether agents are yet to come back.
            waiting: Whether tasks are parked.
        """
        if self._stage is _Stage.AGENTS and (not recovering or now >= self._ends_at):
            self._stage, self._ends_at = _Stage.TASKS, now + self._tasks_seconds
        # After a recovery, agents come before their tasks, so that none is parked proves nothing.
        if self._stage is _Stage.TASKS and (now >= self._ends_at or not (waiting or self._after_recovery)):
            self._stage, self._ends_at = _Stage.READY, inf
        return self._stage is _Stage.READY

    @property
    def due(self) -> float:
        """When to check again, whatever happens; infinity once it knows enough."""
        return self._ends_at

    def __str__(self) -> str:
        """What is waited for."""
        return {_Stage.AGENTS: "waiting for agents to come back", _Stage.TASKS: "waiting for tasks", _Stage.READY: "ready"}[
            self._stage
        ]
