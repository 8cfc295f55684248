"""A picture of the table, and packing what is desired into the same form.

Pure. Inside, a table is a dictionary from a service's packed key to its :data:`~pyminuteman.ipvs.records.Entry`; objects
are built only for what somebody looks at.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from enum import IntFlag
from itertools import pairwise
from typing import Final

from pyminuteman.addresses import IPV4
from pyminuteman.ipvs.destination import Destination, ForwardingMethod
from pyminuteman.ipvs.errors import InvalidDestinationError, InvalidServiceError
from pyminuteman.ipvs.records import (
    DESTINATION_KEY_SIZE,
    DESTINATION_SIZE,
    Entry,
    destination_rows,
)
from pyminuteman.ipvs.service import Service, ServiceKey

__all__ = ["Desired", "Features", "Snapshot", "pack_service"]

Desired = Mapping[Service, Collection[Destination]]
"""What the table should hold. A collection that is a tuple or a frozenset is read once: hand the same object over again
next time, and only what changed is packed anew."""


class Features(IntFlag):
    """What the kernel's answers were seen to carry. A feature that is absent with rows there to show it is not in the kernel."""

    NONE = 0
    STATS64 = 1
    """Counters of 64 bits."""
    ADDRESS_FAMILY = 2
    """Destinations of another family than their service's."""
    TUNNEL = 4
    """GUE and GRE tunnels."""
    TUNNEL_FLAGS = 8
    """Tunnel checksums."""
    ALL = 15


class Snapshot(Mapping[Service, tuple[Destination, ...]]):
    """An immutable picture of the table: services to their destinations, both in their order of listing.

    It is a valid :data:`Desired`: converging to a snapshot puts its table back. Two are equal when their tables are.
    """

    __slots__ = ("_by_key", "entries", "features")

    def __init__(self, entries: Mapping[bytes, Entry] | None = None, features: Features = Features.ALL) -> None:
        """Take packed entries by packed key. Users get theirs from :meth:`IPVSTable.snapshot` or :meth:`of`."""
        self.entries: Final = entries if entries is not None else {}
        self.features: Final = features
        self._by_key: dict[bytes, Service] = {}

    @classmethod
    def of(cls, desired: Desired) -> Snapshot:
        """Pack a table as one would hand it to ``converge``.

        Raises:
            InvalidServiceError: Two services have one key.
            InvalidDestinationError: See :func:`pack_service`.
        """
        if isinstance(desired, Snapshot):
            return desired
        entries: dict[bytes, Entry] = {}
        for service, destinations in desired.items():
            entry = pack_service(service, destinations)
            if service.key.packed in entries:
                msg = f"{service.key} is described twice, with different settings"
                raise InvalidServiceError(msg)
            entries[service.key.packed] = entry
        return cls(entries)

    def service(self, key: ServiceKey) -> Service | None:
        """The service with this key, or None."""
        entry = self.entries.get(key.packed)
        return Service.from_packed(entry[0]) if entry else None

    def destinations(self, key: ServiceKey) -> tuple[Destination, ...]:
        """The destinations behind this key; empty when there is no such service."""
        entry = self.entries.get(key.packed)
        return tuple(map(Destination.from_packed, destination_rows(entry[1]))) if entry else ()

    @property
    def destination_count(self) -> int:
        """How many destinations there are behind all services."""
        return sum(len(rows) for _, rows in self.entries.values()) // DESTINATION_SIZE

    def restricted(self, keys: Iterable[bytes]) -> Snapshot:
        """Only the services of these packed keys; those that are not there are passed over."""
        entries = self.entries
        return Snapshot({key: entries[key] for key in keys if key in entries}, self.features)

    def __getitem__(self, service: Service) -> tuple[Destination, ...]:
        """Destinations of an equal service (its settings too). KeyError otherwise; by key alone: :meth:`destinations`."""
        entry = self.entries.get(service.key.packed) if isinstance(service, Service) else None
        if entry is None or entry[0] != service.packed:
            raise KeyError(service)
        return tuple(map(Destination.from_packed, destination_rows(entry[1])))

    def __iter__(self) -> Iterator[Service]:
        """Services in the order of listing."""
        for key in sorted(self.entries):
            if key not in self._by_key:
                self._by_key[key] = Service.from_packed(self.entries[key][0])
            yield self._by_key[key]

    def __len__(self) -> int:
        """How many services there are."""
        return len(self.entries)

    def __eq__(self, other: object) -> bool:
        """Same services, settings, destinations."""
        if isinstance(other, Snapshot):
            return self.entries == other.entries
        return super().__eq__(other)

    __hash__ = None  # type: ignore[assignment]  # a mapping

    def __repr__(self) -> str:
        """Short."""
        return f"<Snapshot of {len(self)} services, {self.destination_count} destinations>"


def pack_service(service: Service, destinations: Collection[Destination]) -> Entry:
    """Pack a service with its destinations, sorted.

    Raises:
        InvalidServiceError: ``service`` is no :class:`Service` (a ServiceKey, perhaps).
        InvalidDestinationError: Something among ``destinations`` is none; two have one address and port; one is of the other
            family without a tunnel (the kernel can carry an IPv4 service to IPv6 destinations, and the reverse, only so).
    """
    _check_service(service)
    try:
        rows = sorted([destination.packed for destination in destinations])
        flat = b"".join(rows)
    except (AttributeError, TypeError):
        rows, flat = [], b"?"
    if len(flat) != len(rows) * DESTINATION_SIZE:
        msg = f"{service.key}: expected a collection of Destination, not {destinations!r:.80}"
        raise InvalidDestinationError(msg)
    if len({row[:DESTINATION_KEY_SIZE] for row in rows}) != len(rows):
        twice = next(a for a, b in pairwise(rows) if a[:DESTINATION_KEY_SIZE] == b[:DESTINATION_KEY_SIZE])
        msg = f"{service.key}: destination {Destination.from_packed(twice)} is there twice"
        raise InvalidDestinationError(msg)
    # Sorted by family first, so the ends tell whether there is more than one.
    if rows and not rows[0][0] == rows[-1][0] == service.key.family:
        for destination in map(Destination.from_packed, rows):
            if destination.family != service.key.family and destination.forward != ForwardingMethod.TUNNEL:
                families = ("IPv4", "IPv6") if service.key.family == IPV4 else ("IPv6", "IPv4")
                msg = f"{service.key}: an {families[0]} service reaches the {families[1]} destination {destination} only by a tunnel"
                raise InvalidDestinationError(msg)
    return service.packed, flat


def _check_service(service: object) -> None:
    if not isinstance(service, Service):
        msg = f"{service!r} is not a Service"
        raise InvalidServiceError(msg)
