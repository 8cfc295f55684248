"""What the host's packet filter has to know of VIPs, whichever tool carries it out. Pure.

Masquerade, guard and bypass are made of two sets: the VIP addresses, and which (address, protocol, port) are VIP services.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Self

from pyminuteman.addresses import IPV4, parse_address
from pyminuteman.ipvs.service import ServiceKey

__all__ = ["NOTHING", "Listed", "Parts", "Port", "family_of"]


class Port(NamedTuple):
    """One port of one VIP address."""

    address: str
    protocol: str
    """``tcp``, ``udp`` or ``sctp``."""
    port: int

    @classmethod
    def of(cls, key: ServiceKey) -> Self | None:
        """That of an IPVS service; None for one that goes by firewall mark."""
        if key.protocol is None:
            return None
        return cls(key.address, key.protocol.name.lower(), key.port)


@dataclass(frozen=True, slots=True)
class Parts:
    """Which rules are wanted.

    Attributes:
        masquerade: Backends see this host as the client of what IPVS masquerades, so that answers come back by it.
        guard: What is sent to a VIP address and is no VIP service is rejected, so that ports of the host, ssh say, are not
            reachable by VIP addresses.
        bypass: Destination NAT of others for every local address (host ports of Docker and of CNI portmap) passes VIP addresses over.
    """

    masquerade: bool = True
    guard: bool = True
    bypass: bool = True

    def __bool__(self) -> bool:
        return self.masquerade or self.guard or self.bypass


@dataclass(frozen=True, slots=True)
class Listed:
    """What the two sets hold."""

    addresses: frozenset[str] = frozenset()
    ports: frozenset[Port] = frozenset()

    @classmethod
    def of(cls, addresses: Iterable[str], services: Iterable[ServiceKey] = ()) -> Self:
        """The sets for these VIP addresses and IPVS services; the services' own addresses are taken in."""
        ports = frozenset(port for key in services if (port := Port.of(key)) is not None)
        return cls(frozenset(addresses) | {port.address for port in ports}, ports)

    def __or__(self, other: Listed) -> Listed:
        return Listed(self.addresses | other.addresses, self.ports | other.ports)

    def __sub__(self, other: Listed) -> Listed:
        return Listed(self.addresses - other.addresses, self.ports - other.ports)

    def __bool__(self) -> bool:
        return bool(self.addresses or self.ports)


NOTHING = Listed()


def family_of(address: str) -> int:
    """4 or 6."""
    return 4 if parse_address(address)[0] == IPV4 else 6
