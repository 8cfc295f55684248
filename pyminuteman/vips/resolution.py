"""One VIP as the kernel should hold it: which backends take connections now, and why the others do not.

Pure. Invariants:

1. Every backend is a destination with the weight it should have, or there is an :class:`Exclusion` that says why not.
2. A service that has backends to which connections may go never ends up with none: where none of them is in reach, those that are
   likeliest to be are kept (*fail open*), and where none is healthy, all are. What its source or an operator has set to 0 stays at 0.
3. The same VIP under the same conditions gives the same destinations, in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from functools import lru_cache
from typing import Final

from pyminuteman.addresses import IPV4, IPV6
from pyminuteman.ipvs.destination import Destination, ForwardingMethod
from pyminuteman.ipvs.errors import InvalidDestinationError, InvalidServiceError
from pyminuteman.ipvs.service import Service, ServiceKey
from pyminuteman.vips.address_book import AddressBook
from pyminuteman.vips.model import VIP, WEIGHT_MAX, Backend, BackendKey, InvalidVIPError, VIPKey

__all__ = ["Adjustments", "Conditions", "Exclusion", "FailedOpen", "Reach", "Reason", "Resolution", "Target", "resolve"]

_ROWS_KEPT: Final = 1 << 15
"""Destinations that are not built anew: those in use are held by the desired state anyway, so that one costs some 200 bytes more."""
Target = tuple[VIPKey | None, BackendKey]
"""A backend behind one VIP; or, with None, behind every VIP that has it."""


class Reach(IntEnum):
    """How a host is in reach, from worst to best; ``bool`` of it is whether it is to be counted on at all."""

    DOWN = 0
    """It is not: its backends are taken away."""
    SUSPECT = 1
    """It has fallen silent, and may be back in a moment: its backends keep their connections, and get no new ones."""
    UP = 2


class Reason(StrEnum):
    """Why a backend is left out, or takes no new connections."""

    SOURCE = "its source gives it weight 0"
    OPERATOR = "an operator gives it weight 0"
    DRAINED = "an operator drains it"
    UNHEALTHY = "it fails its health check"
    SUSPECT = "its host has fallen silent"
    DOWN = "its host is out of reach"
    OTHER_FAMILY = "it is not of the VIP's address family"
    NO_ADDRESS = "the VIP's name has no address in its family"
    SETTINGS = "the kernel could not hold the VIP in its family with these settings"
    DUPLICATE = "another backend of the VIP is reached at the same place"
    INVALID = "the kernel takes no such destination"


@dataclass(frozen=True, slots=True)
class Exclusion:
    """A backend that takes no new connections.

    Attributes:
        vip: Of which VIP.
        backend: Which.
        held: Whether it is in the table, with weight 0, so that its connections go on; otherwise it is left out.
        reason: Why.
        detail: What is to be said besides: the host, the text of the error. May be empty.
    """

    vip: VIPKey
    backend: BackendKey
    held: bool
    reason: Reason
    detail: str = ""

    def __str__(self) -> str:
        """As a log has it."""
        verdict = "takes no new connections" if self.held else "is left out"
        return f"{self.vip}: {self.backend} {verdict}: {self.reason}" + (f" ({self.detail})" if self.detail else "")


@dataclass(frozen=True, slots=True)
class FailedOpen:
    """A service that would have lost all its backends, and keeps some against better knowledge.

    Attributes:
        vip: Of which VIP.
        service: Which service it is in the kernel.
        reason: DOWN or SUSPECT: no host is in reach, and those of this class are kept. UNHEALTHY: none in reach is healthy.
    """

    vip: VIPKey
    service: ServiceKey
    reason: Reason

    def __str__(self) -> str:
        """As a log has it."""
        return f"{self.vip} ({self.service}) fails open: of every backend it would have to be said that {self.reason}"


@dataclass(frozen=True, slots=True)
class Adjustments:
    """What bears on weights besides what sources say.

    Raises:
        InvalidVIPError: A weight out of its range.
    """

    unhealthy: frozenset[Target] = frozenset()
    """Backends that fail their health checks."""
    drained: frozenset[Target] = frozenset()
    """Backends that operators take out of service, keeping their connections."""
    drained_agents: frozenset[str] = frozenset()
    """Hosts whose backends are all drained, by address in canonical form."""
    weights: Mapping[Target, int] = field(default_factory=dict)
    """Operators' weights in place of the sources', 0 to 65535. For one VIP beats for every VIP."""

    def __post_init__(self) -> None:
        """Validate."""
        for (vip, backend), weight in self.weights.items():
            if isinstance(weight, bool) or not isinstance(weight, int) or not 0 <= weight <= WEIGHT_MAX:
                msg = f"{vip or 'every VIP'}: {backend}: {weight!r} is not a weight (0 to {WEIGHT_MAX})"
                raise InvalidVIPError(msg)

    @property
    def is_empty(self) -> bool:
        """Whether nothing does, as nearly always."""
        return not (self.unhealthy or self.drained or self.drained_agents or self.weights)

    def weigh(self, vip: VIPKey, backend: Backend) -> tuple[int, Reason]:
        """The weight of a backend that is in reach and healthy; and, if that is 0, why."""
        here, everywhere = (vip, backend.key), (None, backend.key)
        if here in self.drained or everywhere in self.drained or backend.agent in self.drained_agents:
            return 0, Reason.DRAINED
        weight = self.weights.get(here, self.weights.get(everywhere))
        return (backend.weight, Reason.SOURCE) if weight is None else (weight, Reason.OPERATOR)

    def fails(self, vip: VIPKey, backend: Backend) -> bool:
        """Whether it fails its health check."""
        return (vip, backend.key) in self.unhealthy or (None, backend.key) in self.unhealthy


_NO_ADJUSTMENTS = Adjustments()


@dataclass(frozen=True, slots=True)
class Conditions:
    """What VIPs are resolved under.

    Attributes:
        reach: How the host of that address is in reach.
        own_addresses: This host's, in canonical form: always in reach, and the addresses whose port mappings are passed by.
        adjustments: What bears on weights.
    """

    reach: Callable[[str], Reach]
    own_addresses: frozenset[str] = frozenset()
    adjustments: Adjustments = _NO_ADJUSTMENTS

    def reach_of(self, backend: Backend) -> Reach:
        """Of the host that it runs on; one that is on no member is held in reach."""
        if not backend.agent or backend.agent in self.own_addresses:
            return Reach.UP
        return self.reach(backend.agent)


@dataclass(frozen=True, slots=True)
class Resolution:
    """A VIP as the kernel should hold it: no service, one, or one of each family."""

    vip: VIP
    services: tuple[tuple[Service, tuple[Destination, ...]], ...] = ()
    exclusions: tuple[Exclusion, ...] = ()
    failed_open: tuple[FailedOpen, ...] = ()


@dataclass(slots=True)
class _Candidate:
    backend: Backend
    destination: Destination
    reach: Reach
    fails: bool
    reason: Reason
    """Why its weight is 0, if it is."""


def resolve(vip: VIP, book: AddressBook, conditions: Conditions) -> Resolution:
    """What the kernel should hold for a VIP. Settings and backends that it could not hold are left out with a reason."""
    of_family: dict[int, list[Backend]] = {IPV4: [], IPV6: []}
    for backend in vip.backends:
        of_family[_family(backend.address)].append(backend)
    services: list[tuple[Service, tuple[Destination, ...]]] = []
    exclusions: list[Exclusion] = []
    failures: list[FailedOpen] = []
    host = vip.key.host
    for family, backends in of_family.items():
        if isinstance(host, str):
            # Without backends, too: connections to the address are refused then, and do not reach the host's own port.
            address, reason = host if family == _family(host) else None, Reason.OTHER_FAMILY
        else:
            address, reason = book.address(host, family) if backends else None, Reason.NO_ADDRESS
        if address is None:
            detail = "" if isinstance(host, str) else book.reason(host, family)
            exclusions += _all_out(vip, backends, reason, detail)
            continue
        try:
            service = vip.settings.service(ServiceKey(vip.key.protocol, address, vip.key.port))
        except InvalidServiceError as error:
            exclusions += _all_out(vip, backends, Reason.SETTINGS, str(error))
            continue
        destinations, failed = _destinations(vip, backends, conditions, exclusions)
        services.append((service, destinations))
        failures += [FailedOpen(vip.key, service.key, why) for why in failed]
    exclusions.sort(key=lambda exclusion: exclusion.backend)
    return Resolution(vip, tuple(services), tuple(exclusions), tuple(failures))


def _destinations(
    vip: VIP, backends: Sequence[Backend], conditions: Conditions, exclusions: list[Exclusion]
) -> tuple[tuple[Destination, ...], list[Reason]]:
    """The destinations of one service, and as what it failed open."""
    candidates = _candidates(vip, backends, conditions, exclusions)
    eligible = [one for one in candidates if one.destination.weight]
    best = max((one.reach for one in eligible), default=Reach.UP)
    failed = [] if best is Reach.UP else [Reason.SUSPECT if best is Reach.SUSPECT else Reason.DOWN]
    standing = [one for one in eligible if one.reach is best]
    any_healthy = not all(one.fails for one in standing)
    if standing and not any_healthy:
        failed.append(Reason.UNHEALTHY)
    found: list[Destination] = []
    for one in candidates:
        backend, destination, reason, detail = one.backend, one.destination, one.reason, ""
        weight, held = destination.weight, True
        if one.reach < best:
            weight, detail, held = 0, backend.agent, one.reach is Reach.SUSPECT
            reason = Reason.SUSPECT if held else Reason.DOWN
        elif weight and one.fails and any_healthy:
            weight, reason = 0, Reason.UNHEALTHY
        if not weight:
            exclusions.append(Exclusion(vip.key, backend.key, held, reason, detail))
        if held:
            found.append(destination if weight == destination.weight else _destination(vip, destination, 0))
    return tuple(found), failed


def _candidates(vip: VIP, backends: Sequence[Backend], conditions: Conditions, exclusions: list[Exclusion]) -> list[_Candidate]:
    """The backends that the kernel can hold, with the weights that they have if all is well."""
    found: list[_Candidate] = []
    places: dict[tuple[str, int], BackendKey] = {}
    adjustments = conditions.adjustments
    are_adjusted = not adjustments.is_empty
    for backend in backends:
        weight, reason, fails = backend.weight, Reason.SOURCE, False
        if are_adjusted:
            weight, reason = adjustments.weigh(vip.key, backend)
            fails = adjustments.fails(vip.key, backend)
        place = _place(vip, backend, conditions.own_addresses)
        try:
            destination = _destination(vip, place, weight)
        except InvalidDestinationError as error:
            exclusions.append(Exclusion(vip.key, backend.key, held=False, reason=Reason.INVALID, detail=str(error)))
            continue
        first = places.setdefault((place.address, place.port), backend.key)
        if first != backend.key:
            exclusions.append(Exclusion(vip.key, backend.key, held=False, reason=Reason.DUPLICATE, detail=str(first)))
            continue
        found.append(_Candidate(backend, destination, conditions.reach_of(backend), fails, reason))
    return found


def _destination(vip: VIP, place: BackendKey | Destination, weight: int) -> Destination:
    return _row(place.address, place.port, weight, vip.settings.forward)


@lru_cache(maxsize=_ROWS_KEPT)
def _row(address: str, port: int, weight: int, forward: ForwardingMethod) -> Destination:
    """A VIP is resolved whenever one of its backends changes, and building the others' destinations anew was three quarters of that."""
    return Destination(address, port, weight, forward)


def _place(vip: VIP, backend: Backend, own_addresses: frozenset[str]) -> BackendKey:
    """Where this host reaches it. Only masquerading can lead to another port than the one that clients ask for."""
    local = backend.local
    if (
        local is not None
        and backend.agent in own_addresses
        and vip.settings.forward is ForwardingMethod.MASQUERADE
        and _family(local.address) == _family(backend.address)
    ):
        return local
    return backend.key


def _all_out(vip: VIP, backends: Sequence[Backend], reason: Reason, detail: str) -> list[Exclusion]:
    return [Exclusion(vip.key, backend.key, held=False, reason=reason, detail=detail) for backend in backends]


def _family(address: str) -> int:
    return IPV6 if ":" in address else IPV4
