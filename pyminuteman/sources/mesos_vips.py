"""From tasks to VIPs: which backends each has, and with what weight.

Pure. Invariants:

1. What comes out depends on the set of tasks, and not on their order.
2. An address as a VIP has backends of its own family only; a name takes both families.
3. A VIP by address belongs to one framework. Where two claim it, it is the one whose id is the lesser: Mesos numbers frameworks as they
   register, so every node decides alike, whatever it saw first. The other's claim is told as a problem.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache

from pyminuteman.ipvs.service import Protocol
from pyminuteman.sources.base import SourceProblem
from pyminuteman.sources.mesos_tasks import Runtime, Task, TaskPort
from pyminuteman.vips.labels import LabelVIP
from pyminuteman.vips.model import VIP, Backend, BackendKey, InvalidVIPError, VIPKey, VIPSettings

__all__ = ["TaskVIPs", "vips_of"]


@dataclass(frozen=True, slots=True)
class TaskVIPs:
    """What tasks ask for.

    Attributes:
        vips: In the order of their keys.
        problems: What was left out, in the order of where.
        warnings: What was understood but should be written otherwise, likewise.
    """

    vips: tuple[VIP, ...] = ()
    problems: tuple[SourceProblem, ...] = ()
    warnings: tuple[SourceProblem, ...] = ()


@dataclass(slots=True)
class _Claim:
    """What one framework says of one VIP."""

    framework_id: str
    backends: dict[BackendKey, Backend] = field(default_factory=dict)
    where: str = ""

    def add(self, task: Task, where: str, backends: Iterable[Backend]) -> None:
        self.framework_id = min(self.framework_id, task.key.framework_id)
        self.where = min(self.where or where, where)
        for backend in backends:
            known = self.backends.get(backend.key)
            # One ends where the next has begun, or two containers of a pod share an address: whoever takes connections counts.
            if known is None or _rank(backend) > _rank(known):
                self.backends[backend.key] = backend


def vips_of(tasks: Iterable[Task], *, ipv6: bool = True, settings: VIPSettings | None = None) -> TaskVIPs:
    """The VIPs of those tasks.

    Args:
        tasks: In any order. Those that are not present (:attr:`Task.is_present`) count for nothing.
        ipv6: Whether IPv6 is taken, as VIPs and as backends.
        settings: How these VIPs share their connections.
    """
    claims = _Claims(ipv6=ipv6)
    for task in tasks:
        if task.is_present:
            claims.add(task)
    vips = claims.settle(settings or VIPSettings())
    return TaskVIPs(vips, _in_order(claims.problems), _in_order(claims.warnings))


class _Claims:
    """What all tasks say, and who gets what."""

    def __init__(self, *, ipv6: bool) -> None:
        self._ipv6 = ipv6
        self._claims: dict[VIPKey, dict[str, _Claim]] = {}
        self.problems: set[SourceProblem] = set()
        self.warnings: set[SourceProblem] = set()

    def add(self, task: Task) -> None:
        for problem in task.problems:
            kind = self.warnings if problem.warning else self.problems
            kind.add(SourceProblem(f"task {task.key}: {problem.key}", problem.reason))
        for entry in task.ports:
            for label in entry.vips:
                where = f"task {task.key}: VIP {label.host}:{label.port}"
                try:
                    key = _key(label, entry.protocol, task.framework)
                    backends = _backends(task, entry, label, ipv6=self._ipv6)
                except InvalidVIPError as error:
                    self.problems.add(SourceProblem(where, str(error)))
                    continue
                of_key = self._claims.setdefault(key, {})
                of_key.setdefault(task.framework, _Claim(task.key.framework_id)).add(task, where, backends)

    def settle(self, settings: VIPSettings) -> tuple[VIP, ...]:
        vips = []
        for key in sorted(self._claims, key=lambda key: key.sort_key):
            claims = self._claims[key]
            holder = min(claims, key=lambda framework: (claims[framework].framework_id, framework))
            for framework, claim in claims.items():
                if framework != holder:
                    reason = f"{key} belongs to framework {holder!r}; {framework!r} cannot have it as well"
                    self.problems.add(SourceProblem(claim.where, reason))
            vips.append(VIP(key, tuple(claims[holder].backends.values()), settings, holder))
        return tuple(vips)


@lru_cache(maxsize=65536)  # the tasks of an app say the same, and to check a name takes longer than all else here
def _key(label: LabelVIP, protocol: Protocol, framework: str) -> VIPKey:
    """The VIP, of which that framework can be the principal.

    Raises:
        InvalidVIPError: There is none.
    """
    return VIP(label.key(protocol, framework), principal=framework).key


def _in_order(problems: set[SourceProblem]) -> tuple[SourceProblem, ...]:
    return tuple(sorted(problems, key=lambda problem: (problem.where, problem.reason)))


def _backends(task: Task, entry: TaskPort, label: LabelVIP, *, ipv6: bool) -> list[Backend]:
    """Where the port is reached.

    Raises:
        InvalidVIPError: Nowhere, and it can be said why.
    """
    if entry.host_port is not None:
        found = [Backend(task.agent, entry.host_port, task.weight, task.agent, _local(task, entry))]
    elif entry.port is not None and task.addresses:
        found = [Backend(address, entry.port, task.weight, task.agent) for address in task.addresses]
    else:
        msg = "it is not known where the container is: its status says no address"
        raise InvalidVIPError(msg)
    fitting = [backend for backend in found if ipv6 or not _is_ipv6(backend.address)]
    if not label.named:
        if _is_ipv6(label.host) and not ipv6:
            msg = "IPv6 is switched off"
            raise InvalidVIPError(msg)
        fitting = [backend for backend in fitting if _is_ipv6(backend.address) is _is_ipv6(label.host)]
    if not fitting:
        family = "IPv6" if not label.named and _is_ipv6(label.host) else "IPv4"
        msg = f"no address of the task is {family}: {', '.join(sorted({backend.address for backend in found}))}"
        raise InvalidVIPError(msg)
    return fitting


def _local(task: Task, entry: TaskPort) -> BackendKey | None:
    """Past the port mapping. Not for Docker: a container on its bridge cannot reach its own address through a VIP (DCOS-45115)."""
    if task.runtime is Runtime.DOCKER or entry.port is None:
        return None
    fitting = [address for address in task.addresses if _is_ipv6(address) is _is_ipv6(task.agent)]
    return BackendKey(fitting[0], entry.port) if fitting else None


def _rank(backend: Backend) -> tuple[int, str, str]:
    return backend.weight, backend.agent, str(backend.local)


def _is_ipv6(address: str) -> bool:
    return ":" in address
