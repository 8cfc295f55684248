"""Counters and rates of services and destinations; never part of a diff. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from pyminuteman.ipvs.destination import Destination
from pyminuteman.ipvs.records import COUNTERS
from pyminuteman.ipvs.service import Service

__all__ = ["Connections", "Counters", "DestinationStatistics", "Rates", "ServiceStatistics"]


@dataclass(frozen=True, slots=True)
class Counters:
    """Totals since the row was added, or zeroed. 64 bits, where the kernel has them (Features.STATS64).

    The kernel adds them up every two seconds, so they lag by that much.
    """

    connections: int = 0
    in_packets: int = 0
    """From clients to destinations."""
    out_packets: int = 0
    """From destinations to clients; only masquerading brings them through this host."""
    in_bytes: int = 0
    out_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Rates:
    """The kernel's own estimates, a second: it samples every two seconds and smooths (ip_vs_est.c)."""

    connections: int = 0
    in_packets: int = 0
    out_packets: int = 0
    in_bytes: int = 0
    out_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Connections:
    """Connections that the kernel holds to a destination just now."""

    active: int = 0
    """Established."""
    inactive: int = 0
    """Every other state; UDP counts here only."""
    persistent: int = 0
    """Persistence templates."""


@dataclass(frozen=True, slots=True)
class DestinationStatistics:
    """Of one destination."""

    counters: Counters
    rates: Rates
    connections: Connections

    @classmethod
    def from_packed(cls, packed: bytes) -> Self:
        """From a record of counters."""
        numbers = COUNTERS.unpack(packed)
        return cls(Counters(*numbers[:5]), Rates(*numbers[5:10]), Connections(*numbers[10:]))


@dataclass(frozen=True, slots=True)
class ServiceStatistics:
    """Of one service, and of each destination behind it."""

    service: Service
    counters: Counters
    rates: Rates
    destinations: Mapping[Destination, DestinationStatistics] = field(default_factory=dict)
    """In the order of listing."""
