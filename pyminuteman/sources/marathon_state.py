"""What Marathon says of its apps (``/v2/apps?embed=apps.tasks``), as tasks with their ports.

Pure. Invariants:

1. A document that is no list of apps raises, and is never an empty state.
2. A task counts once its agent's address is known: Marathon names agents by their hostnames.
3. The numbers of host ports come from the task, in the order in which the app asks for them; what they mean comes from the app. Where
   a task has fewer than its app asks for now, which a deployment brings about, the ports without a number lead nowhere for that task.

Labels of ports stand in ``portDefinitions`` (host network), ``portMappings`` (of the container, or before Marathon 1.5 of Docker) or
``ipAddress.discovery.ports`` (before 1.5, an address for each task); labels of apps are the task labels of Mesos.
Source: Marathon's REST API (``/v2/apps``) and its documents "Ports" and "Networking", 0.13 to 1.9.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pyminuteman.ipvs.service import Protocol
from pyminuteman.sources.base import SourceError
from pyminuteman.sources.mesos_json import address, labels, port, rows, table, text
from pyminuteman.sources.mesos_state import TASKS_MAX
from pyminuteman.sources.mesos_tasks import (
    Runtime,
    Task,
    TaskDescription,
    TaskKey,
    TaskPhase,
    TaskPort,
    TaskStatus,
    resolve,
    task_phase,
)
from pyminuteman.vips.labels import (
    InvalidLabelError,
    LabelProblem,
    LabelVIP,
    TaskVIP,
    parse_protocol,
    read_port_labels,
    read_task_labels,
)

__all__ = ["MarathonState"]

_PORTS_MAX: Final = 1000
"""Ports that one app may have."""


@dataclass(frozen=True, slots=True)
class _AppPort:
    """What an app says of a port. One that is on TCP and UDP is two."""

    protocols: tuple[Protocol, ...]
    name: str
    container_port: int | None
    on_host: bool
    """Whether the next of the task's numbers is its own."""
    vips: tuple[LabelVIP, ...]


@dataclass(frozen=True, slots=True)
class _App:
    """What is the same for all tasks of an app."""

    name: str
    runtime: Runtime
    on_host_network: bool
    has_health_check: bool
    ports: tuple[_AppPort, ...]
    labels: tuple[TaskVIP, ...]
    problems: tuple[LabelProblem, ...]


class MarathonState:
    """Apps and their tasks.

    Args:
        document: The answer of ``/v2/apps?embed=apps.tasks``.
        framework: The name that Marathon has in Mesos, in which its names of VIPs stand.
        legacy: Whether labels are read by Minuteman's rules.

    Raises:
        SourceError: It is no such answer, or holds too many tasks.
    """

    def __init__(self, document: object, *, framework: str, legacy: bool = False) -> None:
        apps = table(document).get("apps")
        if not isinstance(apps, list):
            msg = "the answer is no list of apps of Marathon: expected an object with apps"
            raise SourceError(msg)
        self._framework = framework
        self._tasks: list[tuple[str, TaskDescription, TaskStatus, TaskPhase]] = []
        self.odd = 0
        """Tasks without id or host; they are left out."""
        for row in rows(apps):
            app = _app(row, legacy=legacy)
            for task in rows(row.get("tasks")):
                self._add(app, task)

    def _add(self, app: _App, task: Mapping[str, Any]) -> None:
        name, host = text(task.get("id")), text(task.get("host"))
        if not name or not host:
            self.odd += 1
            return
        if len(self._tasks) >= TASKS_MAX:
            msg = f"more than {TASKS_MAX} tasks"
            raise SourceError(msg)
        numbers = _numbers(task.get("ports"))
        ports, problems = _task_ports(app, numbers)
        description = TaskDescription(
            TaskKey(self._framework, name),
            app.name,
            host,
            app.runtime,
            app.on_host_network,
            app.has_health_check,
            ports,
            (),
            tuple((number, number) for number in numbers if number is not None),
            app.labels,
            (*app.problems, *problems),
        )
        found = [address(row.get("ipAddress")) for row in rows(task.get("ipAddresses"))]
        addresses = tuple(dict.fromkeys(entry for entry in found if entry is not None))
        self._tasks.append((host, description, TaskStatus(0.0, _healthy(task), addresses), _phase(task)))

    @property
    def unresolved(self) -> set[str]:
        """Hostnames of agents that are to be looked up."""
        return {host for host, *_ in self._tasks if address(host) is None}

    def tasks(self, addresses: Mapping[str, str]) -> list[Task]:
        """Every task whose agent's address is known, in the order of their ids.

        Args:
            addresses: What was looked up, by hostname.
        """
        found = []
        for host, description, status, phase in self._tasks:
            agent = address(host) or addresses.get(host)
            if agent is not None:
                found.append(resolve(description, status, phase, self._framework, agent))
        return sorted(found, key=lambda task: task.key)

    def __len__(self) -> int:
        """How many tasks there are, with a known address or not."""
        return len(self._tasks)


def _healthy(task: Mapping[str, Any]) -> bool | None:
    results = [row.get("alive") for row in rows(task.get("healthCheckResults"))]
    return all(result is True for result in results) if results else None


def _phase(task: Mapping[str, Any]) -> TaskPhase:
    state = text(task.get("state"))
    if state:
        return task_phase(state)
    return TaskPhase.RUNNING if text(task.get("startedAt")) else TaskPhase.PREPARING  # before Marathon 1.2


def _numbers(value: object) -> list[int | None]:
    return [port(entry) for entry in value[:_PORTS_MAX]] if isinstance(value, list) else []


def _app(row: Mapping[str, Any], *, legacy: bool) -> _App:
    container = table(row.get("container"))
    docker = table(container.get("docker"))
    modes = {text(network.get("mode")) for network in rows(row.get("networks"))}
    old_mode = text(docker.get("network"))
    bridged = "container/bridge" in modes or old_mode == "BRIDGE"
    own_network = bridged or "container" in modes or old_mode == "USER" or isinstance(row.get("ipAddress"), dict)
    problems: list[LabelProblem] = []
    mappings = rows(container.get("portMappings")) or rows(docker.get("portMappings"))
    found: list[_AppPort] = []
    if not own_network:
        found += _ports(_definitions(row), "port", problems, legacy=legacy, on_host=lambda _: True)
    else:
        found += _ports(
            mappings,
            "containerPort",
            problems,
            legacy=legacy,
            on_host=lambda entry: bridged or entry.get("hostPort") is not None,
        )
        discovery = table(table(row.get("ipAddress")).get("discovery"))
        found += _ports(rows(discovery.get("ports")), "number", problems, legacy=legacy, on_host=lambda _: False)
    of_app = read_task_labels(labels(row.get("labels")), legacy=legacy)
    try:
        runtime = Runtime(text(container.get("type")).lower())
    except ValueError:
        runtime = Runtime.UNKNOWN
    checks = row.get("healthChecks")
    return _App(
        text(row.get("id")),
        runtime,
        not own_network,
        isinstance(checks, list) and bool(checks),
        tuple(found),
        of_app.vips,
        (*problems, *of_app.problems),
    )


def _definitions(row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """``portDefinitions``; before Marathon 1.0 only numbers."""
    found = rows(row.get("portDefinitions"))
    return found or [{"port": number} for number in _numbers(row.get("ports"))]


def _ports(
    entries: Sequence[Mapping[str, Any]], number: str, problems: list[LabelProblem], *, legacy: bool, on_host: Any
) -> Iterator[_AppPort]:
    for at, entry in enumerate(entries[:_PORTS_MAX]):
        said = read_port_labels(labels(entry.get("labels")), legacy=legacy)
        problems += said.problems
        protocols: list[Protocol] = []
        try:
            protocols = [parse_protocol(part.strip()) for part in (text(entry.get("protocol")) or "tcp").split(",")]
        except InvalidLabelError as error:
            problems.append(LabelProblem(f"port {at}", str(error)))
        name = text(entry.get("name")) or "default"
        own = port(entry.get(number)) if number != "port" else None  # the port of a definition is that of a load balancer
        yield _AppPort(tuple(dict.fromkeys(protocols)), name, own, on_host(entry), said.vips)


def _task_ports(app: _App, numbers: Sequence[int | None]) -> tuple[tuple[TaskPort, ...], list[LabelProblem]]:
    left = iter(numbers)
    ports: list[TaskPort] = []
    problems: list[LabelProblem] = []
    for at, entry in enumerate(app.ports):
        host_port = next(left, None) if entry.on_host else None
        inside = entry.container_port
        if inside is None and not app.on_host_network:
            inside = host_port  # containerPort 0 is the same number as the host's
        if (host_port if entry.on_host else inside) is None:
            if entry.vips:
                problems.append(LabelProblem(f"port {at}", "the task has no number for it: its VIPs lead nowhere"))
            continue
        ports += [TaskPort(protocol, inside, host_port, entry.name, entry.vips) for protocol in entry.protocols]
    return tuple(ports), problems
