"""The desired table: from claims, addresses and reach to what the kernel of this host should hold.

Pure. Invariants:

1. The table depends on the claims, the adjustments, and who is in reach, as they are now; not on the order in which they came.
2. What did not change is not looked at again: :meth:`DesiredTable.refresh` resolves the VIPs that a change bears on, and hands out the
   very tuples of before for the others, which :meth:`pyminuteman.ipvs.IPVSTable.converge` takes as packed already.
3. Nothing that is said makes it raise: what cannot be held is left out, with a reason.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TypeVar

from pyminuteman.ipvs.destination import Destination
from pyminuteman.ipvs.service import Protocol, Service
from pyminuteman.vips.address_book import AddressBook
from pyminuteman.vips.claims import Claim, Conflict, join
from pyminuteman.vips.model import VIP, Backend, BackendKey, VIPKey, VIPName
from pyminuteman.vips.resolution import Adjustments, Conditions, Exclusion, FailedOpen, Reach, Resolution, Target, resolve

__all__ = ["DesiredState", "DesiredTable", "NameRecord"]

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class NameRecord:
    """What DNS says of a named VIP.

    Attributes:
        addresses: Of the families in which it has a service, IPv4 first; none if it has no backends.
        ports: What is served there, in order.
    """

    addresses: tuple[str, ...] = ()
    ports: tuple[tuple[Protocol, int], ...] = ()


@dataclass(frozen=True, slots=True)
class DesiredState:
    """The desired table and all that is to be said of it, at one time. Not to be changed."""

    services: Mapping[Service, tuple[Destination, ...]] = field(default_factory=dict)
    """For ``converge``, in the order of the VIPs' keys."""
    resolutions: Mapping[VIPKey, Resolution] = field(default_factory=dict)
    """Each VIP, with its services and what was left out."""
    names: Mapping[str, NameRecord] = field(default_factory=dict)
    """DNS names, without their zone."""
    conflicts: tuple[Conflict, ...] = ()
    """Claims that disagree."""
    unaddressed: Mapping[VIPName, str] = field(default_factory=dict)
    """Names that have no address, in a family at least, and why."""

    @property
    def exclusions(self) -> Iterator[Exclusion]:
        """Backends that take no new connections."""
        return chain.from_iterable(resolution.exclusions for resolution in self.resolutions.values())

    @property
    def failed_open(self) -> Iterator[FailedOpen]:
        """Services that keep backends against better knowledge."""
        return chain.from_iterable(resolution.failed_open for resolution in self.resolutions.values())


class DesiredTable:
    """What was said, and what it comes to.

    Args:
        own_addresses: This host's, in canonical form.
        book: The addresses of names; the default has the predecessors' ranges.

    Attributes:
        resolved: How many VIPs were looked at since the start.
    """

    def __init__(self, *, own_addresses: Iterable[str] = (), book: AddressBook | None = None) -> None:
        self._own = frozenset(own_addresses)
        self._book = AddressBook() if book is None else book
        self._adjustments = Adjustments()
        self._vips: dict[VIPKey, VIP] = {}
        self._claims: dict[VIPKey, tuple[Claim, ...]] = {}
        self._conflicts: dict[VIPKey, tuple[Conflict, ...]] = {}
        self._by_agent: dict[str, set[VIPKey]] = {}
        self._by_backend: dict[BackendKey, set[VIPKey]] = {}
        self._by_name: dict[VIPName, set[VIPKey]] = {}
        self._reach: dict[str, Reach] = {}
        self._resolutions: dict[VIPKey, Resolution] = {}
        self._names: dict[str, NameRecord] = {}
        self._dns_names: dict[VIPName, str] = {}
        self._unaddressed: dict[VIPName, str] = {}
        self._dirty: set[VIPKey] = set()
        # Both are kept in order, so that a state is a copy. None, or not so: to be made, or put in order, first.
        self._services: dict[Service, tuple[Destination, ...]] | None = {}
        self._in_order = True
        self._names_in_order = True
        self._state = DesiredState()
        self.resolved = 0

    # What is said

    def put(self, key: VIPKey, claims: Sequence[Claim]) -> None:
        """These, and no others, are the claims on one VIP that count (:meth:`pyminuteman.vips.policy.Policy.judge`); none: it is gone.

        Raises:
            ValueError: One of them is on another VIP.
        """
        if any(claim.vip.key != key for claim in claims):
            msg = f"a claim on another VIP was put to {key}"
            raise ValueError(msg)
        stated = tuple(sorted(claims, key=lambda claim: claim.sort_key))
        if self._claims.get(key, ()) == stated:
            return
        if not stated:
            self._leave(key)
            return
        self._claims[key] = stated
        vip, conflicts = join(stated)
        before = self._vips.get(key)
        if before == vip and conflicts == self._conflicts.get(key, ()):
            return  # only who says so is different
        if before is None:
            self._enter(key)
            self._link(key, vip.backends)
        else:
            self._relink(before, vip)
        self._vips[key] = vip
        self._conflicts.pop(key, None)
        if conflicts:
            self._conflicts[key] = conflicts
        self._dirty.add(key)

    def replace(self, claims: Iterable[Claim]) -> None:
        """These are all the claims there are. VIPs whose claims are the same as before are not looked at again."""
        by_key: dict[VIPKey, list[Claim]] = {}
        for claim in claims:
            by_key.setdefault(claim.vip.key, []).append(claim)
        for key in [key for key in self._vips if key not in by_key]:
            self.put(key, ())
        for key, stated in by_key.items():
            self.put(key, stated)

    def adjust(self, adjustments: Adjustments) -> None:
        """This, and nothing else, bears on weights besides what sources say."""
        before, self._adjustments = self._adjustments, adjustments
        targets: set[Target] = set(before.unhealthy ^ adjustments.unhealthy) | (before.drained ^ adjustments.drained)
        targets |= {target for target, _ in before.weights.items() ^ adjustments.weights.items()}
        for vip, backend in targets:
            self._dirty |= self._by_backend.get(backend, set()) if vip is None else {vip} & self._vips.keys()
        for agent in before.drained_agents ^ adjustments.drained_agents:
            self._dirty |= self._by_agent.get(agent, set())

    def placed(self, backend: BackendKey) -> dict[VIPKey, str]:
        """The VIPs that have a backend at that place, with the host that it runs on; empty text where none is named."""
        keys = self._by_backend.get(backend, ())
        return {key: next(one.agent for one in self._vips[key].backends if one.key == backend) for key in keys}

    # What it comes to

    def refresh(self, reach: Callable[[str], Reach]) -> DesiredState:
        """The desired state now.

        Args:
            reach: How the host of that address (in canonical form) is in reach. Asked once of each host that has backends; not of
                this one. Say UP of all until the membership knows anybody: otherwise a node that starts has only its own backends.

        Returns:
            The very object of last time if nothing changed.
        """
        found = {agent: Reach.UP if agent in self._own else reach(agent) for agent in self._by_agent}
        for agent, one in found.items():
            if self._reach.get(agent) is not one:
                self._dirty |= self._by_agent[agent]
        self._reach = found
        names = self._book.take_changed()
        for name in names:
            self._dirty |= self._by_name.get(name, set())
        if not self._dirty and not names and self._services is not None:
            return self._state
        conditions = Conditions(found.__getitem__, self._own, self._adjustments)
        for key in self._dirty:
            before, resolution = self._resolutions.get(key), resolve(self._vips[key], self._book, conditions)
            if before is not None:
                resolution = _sparing(before, resolution)
            if before is None or not _same_services(before, resolution):
                self._services = None
            elif self._services is not None:
                self._services.update(resolution.services)
            self._resolutions[key] = resolution
        self.resolved += len(self._dirty)
        self._say_names(names | {key.host for key in self._dirty if isinstance(key.host, VIPName)})
        self._dirty.clear()
        self._state = self._compose()
        return self._state

    def _compose(self) -> DesiredState:
        if not self._in_order:
            self._resolutions = {key: self._resolutions[key] for key in sorted(self._resolutions, key=_sort_key)}
            self._in_order = True
        if self._services is None:
            self._services = dict(chain.from_iterable(resolution.services for resolution in self._resolutions.values()))
        if not self._names_in_order:
            self._names = {name: self._names[name] for name in sorted(self._names)}
            self._names_in_order = True
        return DesiredState(
            dict(self._services),
            dict(self._resolutions),
            dict(self._names),
            tuple(chain.from_iterable(self._conflicts[key] for key in sorted(self._conflicts, key=_sort_key))),
            {name: self._unaddressed[name] for name in sorted(self._unaddressed)},
        )

    def _say_names(self, names: Iterable[VIPName]) -> None:
        """Bring DNS names up to date: first those that names have lost, since what one loses another may have."""
        for name in names:
            before = self._dns_names.get(name)
            if before is not None and before != self._book.dns_name(name):
                del self._dns_names[name], self._names[before]
        for name in names:
            dns = self._book.dns_name(name)
            if dns is not None:
                self._names_in_order &= dns in self._names
                self._dns_names[name], self._names[dns] = dns, self._record(name)
            self._unaddressed.pop(name, None)
            if name in self._by_name:
                reasons = [reason for family in self._book.families if (reason := self._book.reason(name, family))]
                if reasons:
                    self._unaddressed[name] = reasons[0]

    def _record(self, name: VIPName) -> NameRecord:
        keys = self._by_name[name]
        services = {service.key for key in keys for service, _ in self._resolutions[key].services}
        places = sorted({(service.family, service.address) for service in services})
        ports = sorted({(key.protocol, key.port) for key in keys})
        return NameRecord(tuple(address for _, address in places), tuple(ports))

    # Who is where

    def _enter(self, key: VIPKey) -> None:
        self._in_order = False
        if isinstance(key.host, VIPName):
            self._book.add(key.host)
            self._by_name.setdefault(key.host, set()).add(key)
        else:
            self._book.reserve(key.host)

    def _leave(self, key: VIPKey) -> None:
        self._services = None
        self._unlink(key, self._vips.pop(key).backends)
        del self._claims[key]
        self._conflicts.pop(key, None)
        self._resolutions.pop(key, None)
        self._dirty.discard(key)
        if isinstance(key.host, VIPName):
            self._book.remove(key.host)
            _drop(self._by_name, key.host, key)
            self._dirty |= self._by_name.get(key.host, set())  # its record has a port fewer
        else:
            self._book.release(key.host)

    def _link(self, key: VIPKey, backends: Iterable[Backend]) -> None:
        for backend in backends:
            self._by_backend.setdefault(backend.key, set()).add(key)
            if backend.agent:
                self._by_agent.setdefault(backend.agent, set()).add(key)

    def _unlink(self, key: VIPKey, backends: Iterable[Backend]) -> None:
        for backend in backends:
            _drop(self._by_backend, backend.key, key)
            _drop(self._by_agent, backend.agent, key)

    def _relink(self, before: VIP, after: VIP) -> None:
        """Backends that are the same objects stay as they are, but for those of hosts that lose another one."""
        gone = {id(backend): backend for backend in before.backends}
        new = [backend for backend in after.backends if gone.pop(id(backend), None) is None]
        self._unlink(before.key, gone.values())
        agents = {backend.agent for backend in gone.values()}
        self._link(after.key, [*new, *(backend for backend in after.backends if backend.agent in agents)])


def _drop(index: dict[K, set[VIPKey]], at: K, key: VIPKey) -> None:
    keys = index.get(at)
    if keys is not None:
        keys.discard(key)
        if not keys:
            del index[at]


def _sort_key(key: VIPKey) -> tuple[int, bool, tuple[str, ...], int]:
    return key.sort_key


def _same_services(before: Resolution, after: Resolution) -> bool:
    return [service for service, _ in before.services] == [service for service, _ in after.services]


def _sparing(before: Resolution, after: Resolution) -> Resolution:
    """The later one, with the tuples of the earlier where they are equal."""
    known = dict(before.services)
    kept = tuple((service, known[service] if known.get(service) == rows else rows) for service, rows in after.services)
    return Resolution(after.vip, kept, after.exclusions, after.failed_open)
