"""What has to be done to a table, and in which order: operations, plans, their reports, and the readable diff.

Pure. ``csrc/pmm_diff.c`` computes the same plans faster; a property test holds the two together.

The order, over the whole plan:

1. add services, 2. add destinations, 3. edit services, 4. edit destinations whose weight does not fall, 5. edit those whose
weight falls, 6. remove destinations, 7. remove services (with what is left behind them).

So what works is added before anything that works is taken away: at no moment does a service have fewer destinations with a
weight above 0 than it had before, or than it will have after, whichever is less. Rows that exist are edited in place, never
removed and added: the kernel keeps removed destinations on a list that every addition searches.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, Final, overload

from pyminuteman.ipvs import records
from pyminuteman.ipvs.destination import Destination, TunnelFlags, TunnelType
from pyminuteman.ipvs.errors import KernelError, OutsideScope, Unsupported, kernel_error
from pyminuteman.ipvs.ipvsadm import format_destination, format_key, format_service
from pyminuteman.ipvs.records import Command
from pyminuteman.ipvs.scope import Scope
from pyminuteman.ipvs.service import Service, ServiceKey
from pyminuteman.ipvs.snapshot import Desired, Features, Snapshot

__all__ = [
    "AddDestination",
    "AddService",
    "ApplyReport",
    "EditDestination",
    "EditService",
    "Flush",
    "Operation",
    "Plan",
    "RemoveDestination",
    "RemoveService",
    "Zero",
    "check_features",
    "diff",
]


@dataclass(frozen=True, slots=True)
class AddService:
    """Add a virtual service, without destinations yet."""

    command: ClassVar = Command.ADD_SERVICE
    service: Service

    def __str__(self) -> str:
        """As an ipvsadm line."""
        return format_service(self.service, "-A")


@dataclass(frozen=True, slots=True)
class EditService:
    """Give a service these settings; its destinations and connections stay."""

    command: ClassVar = Command.EDIT_SERVICE
    service: Service

    def __str__(self) -> str:
        """As an ipvsadm line."""
        return format_service(self.service, "-E")


@dataclass(frozen=True, slots=True)
class RemoveService:
    """Remove a service and every destination behind it."""

    command: ClassVar = Command.REMOVE_SERVICE
    service: Service

    def __str__(self) -> str:
        """As an ipvsadm line."""
        return f"-D {format_key(self.service.key)}"


@dataclass(frozen=True, slots=True)
class AddDestination:
    """Add a destination to a service."""

    command: ClassVar = Command.ADD_DESTINATION
    service: Service
    destination: Destination

    def __str__(self) -> str:
        """As an ipvsadm line, thresholds included."""
        return format_destination(self.service.key, self.destination, "-a", thresholds=True)


@dataclass(frozen=True, slots=True)
class EditDestination:
    """Give a destination these settings; its connections stay."""

    command: ClassVar = Command.EDIT_DESTINATION
    service: Service
    destination: Destination

    def __str__(self) -> str:
        """As an ipvsadm line, thresholds included."""
        return format_destination(self.service.key, self.destination, "-e", thresholds=True)


@dataclass(frozen=True, slots=True)
class RemoveDestination:
    """Remove a destination from a service."""

    command: ClassVar = Command.REMOVE_DESTINATION
    service: Service
    destination: Destination

    def __str__(self) -> str:
        """As an ipvsadm line."""
        return f"-d {format_key(self.service.key)} -r {self.destination}"


@dataclass(frozen=True, slots=True)
class Zero:
    """Set the counters of one service and its destinations to zero; of all when None."""

    command: ClassVar = Command.ZERO
    service: Service | None

    def __str__(self) -> str:
        """As an ipvsadm line."""
        return f"-Z {format_key(self.service.key)}" if self.service else "-Z"


@dataclass(frozen=True, slots=True)
class Flush:
    """Remove every service there is, whoever's it is."""

    command: ClassVar = Command.FLUSH

    def __str__(self) -> str:
        """As an ipvsadm line."""
        return "-C"


Operation = AddService | EditService | RemoveService | AddDestination | EditDestination | RemoveDestination | Zero | Flush

_OF_DESTINATIONS: Final[dict[int, type[AddDestination | EditDestination | RemoveDestination]]] = {
    kind.command: kind for kind in (AddDestination, EditDestination, RemoveDestination)
}
_OF_SERVICES: Final[dict[int, type[AddService | EditService | RemoveService]]] = {
    kind.command: kind for kind in (AddService, EditService, RemoveService)
}
_WORDS: Final = {
    Command.ADD_SERVICE: "add {} service{}",
    Command.ADD_DESTINATION: "add {} destination{}",
    Command.EDIT_SERVICE: "edit {} service{}",
    Command.EDIT_DESTINATION: "edit {} destination{}",
    Command.REMOVE_DESTINATION: "remove {} destination{}",
    Command.REMOVE_SERVICE: "remove {} service{}",
    Command.ZERO: "zero {} time{}",
    Command.FLUSH: "flush {} time{}",
}


class Plan(Sequence[Operation]):
    """Operations in their order. Falsy when there is nothing to do; ``str()`` reads as ipvsadm lines.

    It is kept packed, as the kernel's side takes it; operations are built when looked at. Plans are equal when they ask for
    the same, in the same order.
    """

    __slots__ = ("operations", "services")

    def __init__(self, services: bytes = b"", operations: bytes = b"") -> None:
        """Take flat records (see :mod:`pyminuteman.ipvs.records`). :meth:`of` takes objects."""
        self.services: Final = services
        self.operations: Final = operations

    @classmethod
    def of(cls, operations: Iterable[Operation]) -> Plan:
        """Pack operations, in the order given."""
        index: dict[bytes, int] = {}
        packed: list[bytes] = []
        for operation in operations:
            service = None if isinstance(operation, Flush) else operation.service
            at = records.NO_SERVICE if service is None else index.setdefault(service.packed, len(index))
            destination = getattr(operation, "destination", None)
            packed.append(records.OPERATION.pack(operation.command, at, destination.packed if destination else b""))
        return cls(b"".join(service + bytes(records.SERVICE_COUNT.size) for service in index), b"".join(packed))

    def service(self, index: int) -> Service:
        """The service that operations call by this index."""
        size = records.SERVICE_SIZE + records.SERVICE_COUNT.size
        return Service.from_packed(self.services[index * size : index * size + records.SERVICE_SIZE])

    def part(self, start: int, stop: int) -> Plan:
        """The operations of these places, as a plan of their own, without building them."""
        size = records.OPERATION_SIZE
        return Plan(self.services, self.operations[start * size : stop * size])

    def _operation(self, index: int) -> Operation:
        command, service, destination = records.OPERATION.unpack_from(self.operations, index * records.OPERATION_SIZE)
        if command in _OF_DESTINATIONS:
            return _OF_DESTINATIONS[command](self.service(service), Destination.from_packed(destination))
        if command in _OF_SERVICES:
            return _OF_SERVICES[command](self.service(service))
        if command == Command.FLUSH:
            return Flush()
        return Zero(None if service == records.NO_SERVICE else self.service(service))

    @overload
    def __getitem__(self, index: int) -> Operation: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Operation]: ...
    def __getitem__(self, index: int | slice) -> Operation | Sequence[Operation]:
        """One operation, or a list of them."""
        places = range(len(self))[index]
        return self._operation(places) if isinstance(places, int) else [self._operation(place) for place in places]

    def __len__(self) -> int:
        """How many operations."""
        return len(self.operations) // records.OPERATION_SIZE

    def __eq__(self, other: object) -> bool:
        """The same operations in the same order, however the services are numbered."""
        if not isinstance(other, Plan):
            return NotImplemented
        return len(self) == len(other) and all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # compared by what it asks for, which is long

    def tally(self) -> dict[Command, int]:
        """How many operations of each command, in the order in which they are carried out."""
        commands = Counter(self.operations[:: records.OPERATION_SIZE])
        return {command: commands[command] for command in _WORDS if commands[command]}

    def summary(self) -> str:
        """``add 1 service, add 2 destinations``; ``nothing to do``."""
        parts = [_WORDS[command].format(n, "" if n == 1 else "s") for command, n in self.tally().items()]
        return ", ".join(parts) or "nothing to do"

    def __str__(self) -> str:
        """One ipvsadm line an operation."""
        return "\n".join(map(str, self))

    def __repr__(self) -> str:
        """Short."""
        return f"<Plan: {self.summary()}>"


@dataclass(frozen=True)
class ApplyReport:
    """What became of a plan."""

    plan: Plan
    elapsed_seconds: float
    errors: Mapping[int, tuple[int, str]] = field(default_factory=dict)
    """Positions in the plan that failed: error number (positive) and the kernel's words."""
    settled: frozenset[int] = frozenset()
    """Positions where another writer was there first and the outcome is the desired one all the same: an added row existed and
    was edited, a removed row was gone."""
    attempts: int = 1
    """How often the table was read and planned for."""
    draining: Sequence[tuple[ServiceKey, Destination, float]] = ()
    """Destinations no longer desired that still have connections, and the seconds left to them. Call again later."""

    @cached_property
    def applied(self) -> Sequence[Operation]:
        """The operations that were carried out."""
        if not self.errors:
            return self.plan
        return [operation for at, operation in enumerate(self.plan) if at not in self.errors]

    @cached_property
    def failed(self) -> Sequence[KernelError]:
        """What was refused, each with its operation."""
        failures = []
        for at, (errno, text) in sorted(self.errors.items()):
            operation = self.plan[at]
            service = getattr(operation, "service", None)
            names = [name for name in (service.scheduler, service.persistence_engine) if name] if service else []
            failures.append(kernel_error(errno, operation.command, str(operation), text, names=names))
        return failures


def differing(current: Snapshot, wanted: Snapshot, scope: Scope) -> list[bytes]:
    """Packed keys of the services that a diff must look at: all others are equal, or not ours.

    The cost grows with the services, at a dictionary's look-up each, and equal entries that are one object are not compared.
    """
    have, want = current.entries, wanted.entries
    changed = [key for key, entry in want.items() if have.get(key) != entry]
    changed += [key for key in have.keys() - want.keys() if ServiceKey.from_packed(key) in scope]
    return sorted(changed)


def check_features(plan: Plan, features: Features) -> None:
    """Refuse what the kernel would take without a word and not do.

    Raises:
        Unsupported: An operation needs what this kernel has not.
    """
    for operation in plan:
        if not isinstance(operation, AddDestination | EditDestination):
            continue
        destination, missing = operation.destination, ""
        if destination.family != operation.service.key.family and not features & Features.ADDRESS_FAMILY:
            missing = "destinations of another address family than their service's"
        tunnel = destination.tunnel
        if tunnel and tunnel.type != TunnelType.IPIP and not features & Features.TUNNEL:
            missing = "GUE and GRE tunnels"
        if tunnel and tunnel.flags != TunnelFlags.NONE and not features & Features.TUNNEL_FLAGS:
            missing = "tunnel checksums"
        if missing:
            msg = f"{operation}: this kernel's IPVS has no {missing}; a newer kernel has"
            raise Unsupported(msg)


def check_scope(wanted: Iterable[bytes], scope: Scope) -> None:
    """Refuse to plan for what we would not look after.

    Raises:
        OutsideScope: A packed key is not in scope.
    """
    if scope.is_everything:
        return
    for packed in wanted:
        key = ServiceKey.from_packed(packed)
        if key not in scope:
            msg = f"{key} is desired but outside the scope ({scope})"
            raise OutsideScope(msg)


def diff(current: Snapshot, desired: Desired, *, scope: Scope) -> Plan:
    """The plan that turns ``current`` into ``desired``, leaving alone what is not in scope. See the module for its order.

    Raises:
        OutsideScope: A desired service is not in scope.
        InvalidServiceError, InvalidDestinationError: As :meth:`Snapshot.of` says.
    """
    wanted = Snapshot.of(desired)
    check_scope(wanted.entries, scope)
    add_services: list[Operation] = []
    add: list[Operation] = []
    edit_services: list[Operation] = []
    raised: list[Operation] = []
    lowered: list[Operation] = []
    remove: list[Operation] = []
    remove_services: list[Operation] = []
    for key in map(ServiceKey.from_packed, differing(current, wanted, scope)):
        have, want = current.service(key), wanted.service(key)
        if want is None:
            remove_services += [RemoveService(have)] if have else []
            continue
        if have is None:
            add_services.append(AddService(want))
        elif have != want:
            edit_services.append(EditService(want))
        before = {destination.key: destination for destination in current.destinations(key)}
        after = {destination.key: destination for destination in wanted.destinations(key)}
        for place in sorted(before.keys() | after.keys()):
            old, new = before.get(place), after.get(place)
            if new is None and old is not None:
                remove.append(RemoveDestination(want, old))
            elif new is not None and old is None:
                add.append(AddDestination(want, new))
            elif new is not None and old is not None and new != old:
                (lowered if new.weight < old.weight else raised).append(EditDestination(want, new))
    return Plan.of([*add_services, *add, *edit_services, *raised, *lowered, *remove, *remove_services])


def select(plan: Plan, keep: Iterable[int]) -> Plan:
    """The operations at these places, as a plan of their own."""
    size = records.OPERATION_SIZE
    return Plan(plan.services, b"".join([plan.operations[at * size : at * size + size] for at in keep]))
