"""Tasks of Mesos: what is told of one, in the words of ``/state`` or of the operator API, and where its ports are to be reached.

Pure. Invariants:

1. A task is known by its framework's id and its own: task ids alone are not unique (Spark numbers its tasks "0", "1", ...).
2. Of the statuses the newest by its timestamp counts, in whatever order they come. Where it does not say where the container is
   (the last ones of a task seldom do), the newest one that does counts for that.
3. Whatever is wrong with a label or a port costs that label or port, and is told (:attr:`TaskDescription.problems`).

The rules are dcos-net's; ``docs/labels.md`` has them, and the few places where they differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Final, NamedTuple

from pyminuteman.ipvs.service import Protocol
from pyminuteman.sources.mesos_json import address, identity, labels, number, port, rows, table, text
from pyminuteman.vips.labels import (
    InvalidLabelError,
    LabelProblem,
    LabelVIP,
    NetworkScope,
    TaskVIP,
    parse_protocol,
    read_port_labels,
    read_task_labels,
)

__all__ = [
    "PortMapping",
    "Runtime",
    "Task",
    "TaskDescription",
    "TaskKey",
    "TaskPhase",
    "TaskPort",
    "TaskStatus",
    "describe",
    "newest_status",
    "resolve",
    "task_phase",
]

_ENDED: Final = frozenset({"FINISHED", "FAILED", "KILLED", "LOST", "ERROR", "DROPPED", "GONE", "GONE_BY_OPERATOR"})
"""``TaskState`` in mesos.proto: those that are terminal."""
_RANGES_MAX: Final = 4096
"""Ranges of ports that one task may hold."""


class TaskKey(NamedTuple):
    """What tells tasks apart."""

    framework_id: str
    task_id: str

    def __str__(self) -> str:
        """As problems name it."""
        return f"{self.framework_id}/{self.task_id}"


class Runtime(Enum):
    """What runs the container. It matters for who stands in the way of connections that start on the same host."""

    MESOS = "mesos"
    DOCKER = "docker"
    UNKNOWN = "unknown"


class TaskPhase(Enum):
    """How far a task is."""

    PREPARING = "preparing"
    """Not yet running, or out of its agent's reach: it takes no connections."""
    RUNNING = "running"
    KILLING = "killing"
    """It is told to end, and finishes what it has."""
    ENDED = "ended"


class PortMapping(NamedTuple):
    """A port of the host that leads to one of the container."""

    protocol: Protocol
    container_port: int
    host_port: int


@dataclass(frozen=True, slots=True)
class TaskPort:
    """A port of a task.

    Attributes:
        protocol: TCP or UDP.
        port: The container's; None when it is not known.
        host_port: The host's that leads there; None when nothing has to be mapped.
        name: As its framework calls it.
        vips: Where clients find it: keys of labels, and what they say.
    """

    protocol: Protocol
    port: int | None
    host_port: int | None = None
    name: str = "default"
    vips: tuple[LabelVIP, ...] = ()


@dataclass(frozen=True, slots=True)
class TaskDescription:
    """What is said of a task once and for all."""

    key: TaskKey
    name: str
    agent_id: str
    runtime: Runtime
    on_host_network: bool
    """Nothing says that it has a network of its own."""
    has_health_check: bool
    ports: tuple[TaskPort, ...]
    mappings: tuple[PortMapping, ...]
    resource_ports: tuple[tuple[int, int], ...]
    """Ranges, both ends included, in their order."""
    labels: tuple[TaskVIP, ...]
    problems: tuple[LabelProblem, ...]


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """What was said last of a task.

    Attributes:
        timestamp: Seconds since 1970 by the clock of who said it.
        healthy: What a health check found; None when none did.
        addresses: Where the container is; empty when not known.
        mappings: Ports of the host that lead to it.
    """

    timestamp: float = 0.0
    healthy: bool | None = None
    addresses: tuple[str, ...] = ()
    mappings: tuple[PortMapping, ...] = ()

    def followed_by(self, other: TaskStatus) -> TaskStatus:
        """Both together: the newer one counts, and the older one where the newer is silent about the container."""
        older, newer = (self, other) if other.timestamp >= self.timestamp else (other, self)
        return (
            newer if newer.addresses else replace(newer, addresses=older.addresses, mappings=newer.mappings or older.mappings)
        )


@dataclass(frozen=True, slots=True)
class Task:
    """A task of which everything is known that it takes to send connections there.

    Attributes:
        agent: Address of its agent.
        addresses: Where the container is; the agent's address when it shares its network.
        healthy: None when there is no health check; False also while a check has not found anything yet.
    """

    key: TaskKey
    name: str
    framework: str
    agent: str
    runtime: Runtime
    phase: TaskPhase
    healthy: bool | None
    addresses: tuple[str, ...]
    ports: tuple[TaskPort, ...]
    problems: tuple[LabelProblem, ...] = ()

    @property
    def is_present(self) -> bool:
        """Whether it has connections, or may take some."""
        return self.phase in {TaskPhase.RUNNING, TaskPhase.KILLING}

    @property
    def weight(self) -> int:
        """1 for new connections; 0 for those that it has, and no more."""
        return int(self.phase is TaskPhase.RUNNING and self.healthy is not False)


# -- what is said of a task --------------------------------------------------------------------------------------------


def task_phase(state: object) -> TaskPhase:
    """``TASK_RUNNING`` and so on; what is not known is preparing, for nothing is sent there."""
    name = text(state).removeprefix("TASK_")
    if name == "RUNNING":
        return TaskPhase.RUNNING
    if name == "KILLING":
        return TaskPhase.KILLING
    return TaskPhase.ENDED if name in _ENDED else TaskPhase.PREPARING


def newest_status(statuses: Sequence[Mapping[str, Any]]) -> TaskStatus:
    """What statuses say together."""
    found = TaskStatus()
    for status in sorted(map(_status, statuses), key=lambda status: status.timestamp):
        found = found.followed_by(status)
    return found


def _status(status: Mapping[str, Any]) -> TaskStatus:
    infos = rows(table(status.get("container_status")).get("network_infos"))
    healthy = status.get("healthy")
    return TaskStatus(
        number(status.get("timestamp")) or 0.0,
        healthy if isinstance(healthy, bool) else None,
        tuple(dict.fromkeys(found for info in infos for found in _addresses(info))),
        tuple(mapping for info in infos for mapping in _mappings(info.get("port_mappings"))),
    )


def _addresses(info: Mapping[str, Any]) -> list[str]:
    found = [address(row.get("ip_address")) for row in rows(info.get("ip_addresses"))]
    known = [entry for entry in found if entry is not None]
    single = address(info.get("ip_address"))  # before Mesos 0.26 there was one
    return known or ([single] if single is not None else [])


def _mappings(value: object) -> list[PortMapping]:
    found = []
    for row in rows(value):
        container, host = port(row.get("container_port")), port(row.get("host_port"))
        try:
            protocol = parse_protocol(text(row.get("protocol")))
        except InvalidLabelError:
            continue  # a mapping of SCTP, say: no port of ours goes there
        if container is not None and host is not None:
            found.append(PortMapping(protocol, container, host))
    return found


def describe(task: Mapping[str, Any], *, legacy: bool = False) -> TaskDescription | None:
    """Read a task of ``/state`` or of the operator API; None when it has no id or no framework's."""
    key = TaskKey(identity(task.get("framework_id")), identity(task.get("task_id")) or identity(task.get("id")))
    if not all(key):
        return None
    discovery = table(task.get("discovery"))
    container = table(task.get("container"))
    runtime = _runtime(container)
    networks = rows(container.get("network_infos"))
    docker = table(container.get("docker"))
    of_task = read_task_labels(labels(task.get("labels")), legacy=legacy)
    if runtime is Runtime.DOCKER:
        mappings = _mappings(docker.get("port_mappings"))
    else:
        mappings = [mapping for network in networks for mapping in _mappings(network.get("port_mappings"))]
    ports, problems = _discovery_ports(rows(table(discovery.get("ports")).get("ports")), mappings, legacy=legacy)
    return TaskDescription(
        key,
        text(discovery.get("name")) or text(task.get("name")),
        identity(task.get("agent_id")) or identity(task.get("slave_id")),
        runtime,
        not networks and text(docker.get("network")) in {"", "HOST"},
        isinstance(task.get("health_check"), dict),
        ports,
        tuple(mappings),
        _resource_ports(task.get("resources")),
        of_task.vips,
        (*problems, *of_task.problems),
    )


def _runtime(container: Mapping[str, Any]) -> Runtime:
    try:
        return Runtime(text(container.get("type")).lower())
    except ValueError:
        return Runtime.UNKNOWN


def _discovery_ports(
    found: Sequence[Mapping[str, Any]], mappings: Sequence[PortMapping], *, legacy: bool
) -> tuple[tuple[TaskPort, ...], tuple[LabelProblem, ...]]:
    ports: list[TaskPort] = []
    problems: list[LabelProblem] = []
    for row in found:
        said = read_port_labels(labels(row.get("labels")), legacy=legacy)
        problems += said.problems
        value = port(row.get("number"))
        if value is None:
            if said.vips:
                shown = row.get("number")
                problems.append(LabelProblem("number", f"{shown!r:.40} is not a port (1 to 65535): its VIPs lead nowhere"))
            continue
        try:
            protocol = parse_protocol(text(row.get("protocol")))
        except InvalidLabelError as error:
            problems.append(LabelProblem(f"port {value}", str(error)))
            continue
        name = text(row.get("name")) or "default"
        on_host = said.scope is NetworkScope.HOST
        if said.scope is None:
            on_host = legacy or _is_host_port(protocol, value, mappings)
        inside, outside = (None, value) if on_host else (value, None)
        ports.append(TaskPort(protocol, inside, outside, name, said.vips))
    return tuple(ports), tuple(problems)


def _is_host_port(protocol: Protocol, value: int, mappings: Sequence[PortMapping]) -> bool:
    """Whether a number whose scope nobody said is a host's: only when some mapping has it there, and none at the container."""
    fitting = [mapping for mapping in mappings if mapping.protocol is protocol]
    at_container = any(mapping.container_port == value for mapping in fitting)
    return not at_container and any(mapping.host_port == value for mapping in fitting)


def _resource_ports(resources: object) -> tuple[tuple[int, int], ...]:
    if isinstance(resources, dict):  # as /state has them: {"ports": "[31000-31001, 31005-31005]"}
        parts = [part.partition("-") for part in text(resources.get("ports")).strip("[] ").split(",")]
        pairs = [(_digits(begin), _digits(end if dash else begin)) for begin, dash, end in parts]
    else:
        pairs = []
        for row in rows(resources):
            if row.get("name") == "ports":
                scalar = port(table(row.get("scalar")).get("value"))
                pairs += [(scalar, scalar)] if scalar is not None else []
                pairs += [
                    (port(entry.get("begin")), port(entry.get("end"))) for entry in rows(table(row.get("ranges")).get("range"))
                ]
    ranges = [(begin, end) for begin, end in pairs if begin is not None and end is not None and begin <= end]
    return tuple(ranges[:_RANGES_MAX])


def _digits(value: str) -> int | None:
    value = value.strip()
    return port(int(value)) if value.isascii() and value.isdigit() and len(value) <= 5 else None  # noqa: PLR2004 - 65535


# -- where its ports are -----------------------------------------------------------------------------------------------


def resolve(description: TaskDescription, status: TaskStatus, phase: TaskPhase, framework: str, agent: str) -> Task:
    """The task, when its framework's name and its agent's address are known."""
    addresses = status.addresses or ((agent,) if description.on_host_network else ())
    ports, problems = _label_ports(description)
    mappings = description.mappings
    if description.runtime is not Runtime.DOCKER and not mappings:
        mappings = status.mappings  # the containers of a pod: their network is the executor's
    ports = [_merge(entry, mappings) for entry in ports]
    if addresses == (agent,):
        ports = [replace(entry, port=entry.host_port or entry.port, host_port=None) for entry in ports]
    healthy = status.healthy
    if healthy is None and description.has_health_check:
        healthy = False
    return Task(
        description.key,
        description.name,
        framework,
        agent,
        description.runtime,
        phase,
        healthy,
        addresses,
        tuple(ports),
        (*description.problems, *problems),
    )


def _label_ports(description: TaskDescription) -> tuple[list[TaskPort], list[LabelProblem]]:
    """The discovery ports, and what the task's own labels add: VIPs of these, or ports that nothing else tells of."""
    ports = list(description.ports)
    problems: list[LabelProblem] = []
    for label in description.labels:
        value = _nth(description.resource_ports, label.index)
        if value is None:
            problems.append(LabelProblem(f"vip_port{label.index}", f"the task has no port {label.index} (counted from 0)"))
            continue
        for at, known in enumerate(ports):
            number_of_host = known.port if known.host_port is None else known.host_port
            if known.protocol is label.protocol and number_of_host == value:
                ports[at] = replace(known, vips=tuple(dict.fromkeys((*known.vips, label.vip))))
                break
        else:
            ports.append(TaskPort(label.protocol, None, value, vips=(label.vip,)))
    return ports, problems


def _nth(ranges: Sequence[tuple[int, int]], index: int) -> int | None:
    for begin, end in ranges:
        if index <= end - begin:
            return begin + index
        index -= end - begin + 1
    return None


def _merge(entry: TaskPort, mappings: Sequence[PortMapping]) -> TaskPort:
    """Fill in what the mappings know of a port."""
    for mapping in mappings:
        if mapping.protocol is entry.protocol and (
            (entry.host_port is None and entry.port == mapping.container_port) or entry.host_port == mapping.host_port
        ):
            return replace(entry, port=mapping.container_port, host_port=mapping.host_port)
    return entry
