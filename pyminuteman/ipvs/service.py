"""Virtual services: what clients connect to. Invalid ones cannot be built.

Pure, and knows nothing of netlink. Every object carries its packed record (:mod:`pyminuteman.ipvs.records`), made once
when it is validated: comparing, hashing and sorting are operations on those bytes, and so is handing it to the kernel.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from typing import Final, Self

from pyminuteman.addresses import IPV4, IPV6, format_address, format_endpoint, parse_address
from pyminuteman.ipvs import records
from pyminuteman.ipvs.errors import InvalidServiceError
from pyminuteman.ipvs.validation import PORT_MAX, U32_MAX, check_number

__all__ = ["Persistence", "Protocol", "Service", "ServiceFlags", "ServiceKey"]

_NAME_MAX: Final = 15  # IP_VS_SCHEDNAME_MAXLEN and IP_VS_PENAME_MAXLEN are 16, with the terminating zero
_PERSISTENT: Final = 1  # IP_VS_SVC_F_PERSISTENT
_HOST_MASK: Final = {IPV4: b"\xff\xff\xff\xff", IPV6: b"\0\0\0\x80"}


class Protocol(IntEnum):
    """Transport protocols that IPVS balances, by their IP protocol numbers."""

    TCP = 6
    UDP = 17
    SCTP = 132


class ServiceFlags(IntFlag):
    """What a service may carry besides persistence (``IP_VS_SVC_F_*``). Scheduler flags mean what the scheduler says."""

    NONE = 0
    ONE_PACKET = 4
    """Schedule each UDP datagram by itself (ipvsadm ``--ops``)."""
    SCHEDULER_1 = 8
    SCHEDULER_2 = 16
    SCHEDULER_3 = 32
    SH_FALLBACK = 8
    """sh, mh: go on to the next destination when the chosen one has weight 0."""
    SH_PORT = 16
    """sh, mh: hash the source port as well."""
    MH_FALLBACK = 8
    MH_PORT = 16


def _check_name(what: str, name: str) -> bytes:
    """The name as the kernel takes it, or ValueError."""
    if not (isinstance(name, str) and 0 < len(name) <= _NAME_MAX and name.isascii() and name.isprintable() and " " not in name):
        msg = f"{what} {name!r} is not a name of 1 to {_NAME_MAX} letters"
        raise ValueError(msg)
    return name.encode()


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ServiceKey(records.Packed):
    """What the kernel finds a virtual service by: protocol, address and port; or a firewall mark and a family.

    Build it with :meth:`tcp`, :meth:`udp`, :meth:`sctp` or :meth:`fwmark`. Orders as ``ipvsadm`` lists: IPv4 before IPv6,
    TCP, UDP, SCTP, then address and port; firewall marks last.

    Raises:
        InvalidServiceError: The address is none, or a number is out of its range.
    """

    protocol: Protocol | None
    """None for a firewall mark."""
    address: str
    """In canonical form; empty for a firewall mark."""
    port: int
    """0 to 65535; 0 stands for every port, and needs persistence."""
    mark: int = 0
    """Firewall mark, 1 to 2**32 - 1; 0 when the key is an address."""
    family: int = IPV4
    """``AF_INET`` or ``AF_INET6``. Follows from the address; to be given for a mark."""
    packed: bytes = field(init=False)
    """24 bytes that order and compare as the key does."""

    def __post_init__(self) -> None:
        """Validate, and pack."""
        try:
            if self.mark or self.protocol is None:
                check_number("firewall mark", self.mark, 1, U32_MAX)
                if self.protocol is not None or self.address or self.port or self.family not in _HOST_MASK:
                    msg = "a firewall mark takes no protocol, address or port, and a family of AF_INET or AF_INET6"
                    raise ValueError(msg)
                packed = records.SERVICE_KEY.pack(1, self.family, 0, self.mark.to_bytes(4, "big"), b"")
            else:
                protocol = Protocol(self.protocol)
                family, address = parse_address(self.address)
                check_number("port", self.port, 0, PORT_MAX)
                packed = records.SERVICE_KEY.pack(0, family, protocol, address, self.port.to_bytes(2, "big"))
                object.__setattr__(self, "protocol", protocol)
                object.__setattr__(self, "address", format_address(address))
                object.__setattr__(self, "family", family)
        except ValueError as error:
            raise InvalidServiceError(str(error)) from None
        object.__setattr__(self, "packed", packed)

    @classmethod
    def tcp(cls, address: str, port: int) -> Self:
        """The TCP service at an address and port."""
        return cls(Protocol.TCP, address, port)

    @classmethod
    def udp(cls, address: str, port: int) -> Self:
        """The UDP service at an address and port."""
        return cls(Protocol.UDP, address, port)

    @classmethod
    def sctp(cls, address: str, port: int) -> Self:
        """The SCTP service at an address and port."""
        return cls(Protocol.SCTP, address, port)

    @classmethod
    def fwmark(cls, mark: int, family: int = IPV4) -> Self:
        """All packets that the firewall marked so, of one family."""
        return cls(None, "", 0, mark, family)

    @classmethod
    def from_packed(cls, packed: bytes) -> Self:
        """The key that was packed into the first 24 bytes. For the kernel's own: nothing is validated."""
        by_mark, family, protocol, address, port = records.SERVICE_KEY.unpack_from(packed)
        self = cls.__new__(cls)
        known = Protocol(protocol) if protocol in Protocol._value2member_map_ else protocol
        object.__setattr__(self, "protocol", None if by_mark else known)
        object.__setattr__(self, "address", "" if by_mark else format_address(address[: 4 if family == IPV4 else 16]))
        object.__setattr__(self, "port", int.from_bytes(port, "big"))
        object.__setattr__(self, "mark", int.from_bytes(address[:4], "big") if by_mark else 0)
        object.__setattr__(self, "family", family)
        object.__setattr__(self, "packed", bytes(packed[: records.SERVICE_KEY_SIZE]))
        return self

    def __str__(self) -> str:
        """``tcp 11.0.0.1:80``, ``fwmark 7``, ``fwmark 8 (ipv6)``."""
        if self.mark:
            return f"fwmark {self.mark}" + (" (ipv6)" if self.family == IPV6 else "")
        name = self.protocol.name.lower() if isinstance(self.protocol, Protocol) else f"protocol {self.protocol}"
        return f"{name} {format_endpoint(self.address, self.port)}"

    def __repr__(self) -> str:
        """Short."""
        return f"<ServiceKey {self}>"


@dataclass(frozen=True, slots=True)
class Persistence:
    """Connections of one client go to one destination for a while (ipvsadm ``-p``, ``-M``)."""

    timeout_seconds: int = 360
    """How long the template outlives the last connection: 1 to 2678400 (31 days); ipvsadm's own default is 360."""
    netmask: str = ""
    """Clients that count as one. IPv4: a mask (``255.255.255.0``) or a prefix length; IPv6: a prefix length, 1 to 128.
    Empty: every address by itself. A service holds it in ipvsadm's form."""


_PERSISTENCE_MAX: Final = 31 * 86400
"""ipvsadm's MAX_TIMEOUT. Not far beyond it the kernel's own jiffies would overflow."""


def _pack_netmask(family: int, netmask: str) -> bytes:
    """As the kernel wants it: a mask for IPv4, a prefix length for IPv6."""
    if not netmask:
        return _HOST_MASK[family]
    text = netmask.removeprefix("/")
    bits = 32 if family == IPV4 else 128
    if text.isascii() and text.isdigit() and int(text) <= bits and (int(text) or family == IPV4):
        length = int(text)
        return ((0xFFFFFFFF << (32 - length)) & 0xFFFFFFFF if family == IPV4 else length).to_bytes(4, "big")
    if family == IPV4 and "." in text:
        return parse_address(text)[1]
    msg = f"persistence netmask {netmask!r}: expected " + (
        "a mask or 0 to 32" if family == IPV4 else "a prefix length, 1 to 128"
    )
    raise ValueError(msg)


def _format_netmask(family: int, packed: bytes) -> str:
    if packed == _HOST_MASK[family]:
        return ""
    return format_address(packed) if family == IPV4 else str(int.from_bytes(packed, "big"))


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Service(records.Packed):
    """A virtual service and its configuration. Two are equal when all of it is; the key alone is ``key``.

    Raises:
        InvalidServiceError: A name, number or combination that the kernel (or every ipvsadm) refuses: port 0 without
            persistence, one-packet scheduling of anything but UDP or a mark, an IPv6 netmask without a prefix length.
    """

    key: ServiceKey
    scheduler: str = "wlc"
    """Any that the kernel has: rr wrr lc wlc lblc lblcr dh sh sed nq fo ovf mh twos, or a module of your own."""
    flags: ServiceFlags = ServiceFlags.NONE
    persistence: Persistence | None = None
    persistence_engine: str = ""
    """``sip`` is the one the kernel ships; empty for none."""
    packed: bytes = field(init=False)
    """The record: 68 bytes, beginning with the key's 24."""

    def __post_init__(self) -> None:
        """Validate, and pack."""
        key, persistence = self.key, self.persistence
        try:
            scheduler = _check_name("scheduler", self.scheduler)
            engine = _check_name("persistence engine", self.persistence_engine) if self.persistence_engine else b""
            flags = int(self.flags)
            if flags & ~int(
                ServiceFlags.ONE_PACKET | ServiceFlags.SCHEDULER_1 | ServiceFlags.SCHEDULER_2 | ServiceFlags.SCHEDULER_3
            ):
                msg = f"flags {flags:#x} are not all known; persistence has a field of its own"
                raise ValueError(msg)
            timeout, netmask = 0, _HOST_MASK[key.family]
            if persistence is not None:
                check_number("persistence timeout", persistence.timeout_seconds, 1, _PERSISTENCE_MAX)
                timeout, netmask = persistence.timeout_seconds, _pack_netmask(key.family, persistence.netmask)
                canonical = Persistence(timeout, _format_netmask(key.family, netmask))
                object.__setattr__(self, "persistence", canonical)
                flags |= _PERSISTENT
            elif not key.mark and key.port == 0:
                msg = "port 0 (every port) needs persistence"
                raise ValueError(msg)
            if flags & ServiceFlags.ONE_PACKET and key.protocol not in {Protocol.UDP, None}:
                msg = "one-packet scheduling is for UDP services and firewall marks"
                raise ValueError(msg)
        except ValueError as error:
            msg = f"{key}: {error}"
            raise InvalidServiceError(msg) from None
        object.__setattr__(self, "flags", ServiceFlags(self.flags))
        object.__setattr__(self, "packed", records.SERVICE.pack(key.packed, scheduler, engine, flags, timeout, netmask))

    @classmethod
    def tcp(
        cls,
        address: str,
        port: int,
        *,
        scheduler: str = "wlc",
        flags: ServiceFlags = ServiceFlags.NONE,
        persistence: Persistence | None = None,
    ) -> Self:
        """A TCP service."""
        return cls(ServiceKey.tcp(address, port), scheduler, flags, persistence)

    @classmethod
    def udp(
        cls,
        address: str,
        port: int,
        *,
        scheduler: str = "wlc",
        flags: ServiceFlags = ServiceFlags.NONE,
        persistence: Persistence | None = None,
        persistence_engine: str = "",
    ) -> Self:
        """A UDP service."""
        return cls(ServiceKey.udp(address, port), scheduler, flags, persistence, persistence_engine)

    @classmethod
    def sctp(
        cls,
        address: str,
        port: int,
        *,
        scheduler: str = "wlc",
        flags: ServiceFlags = ServiceFlags.NONE,
        persistence: Persistence | None = None,
    ) -> Self:
        """An SCTP service."""
        return cls(ServiceKey.sctp(address, port), scheduler, flags, persistence)

    @classmethod
    def fwmark(
        cls,
        mark: int,
        *,
        family: int = IPV4,
        scheduler: str = "wlc",
        flags: ServiceFlags = ServiceFlags.NONE,
        persistence: Persistence | None = None,
    ) -> Self:
        """A service for packets that carry a firewall mark."""
        return cls(ServiceKey.fwmark(mark, family), scheduler, flags, persistence)

    @classmethod
    def from_packed(cls, packed: bytes) -> Self:
        """The service packed into a record. For the kernel's own: nothing is validated."""
        key, scheduler, engine, flags, timeout, netmask = records.SERVICE.unpack_from(packed)
        self = cls.__new__(cls)
        service_key = ServiceKey.from_packed(key)
        object.__setattr__(self, "key", service_key)
        object.__setattr__(self, "scheduler", scheduler.rstrip(b"\0").decode("ascii", "backslashreplace"))
        object.__setattr__(self, "flags", ServiceFlags(flags & ~_PERSISTENT))
        persistent = Persistence(timeout, _format_netmask(service_key.family, netmask)) if flags & _PERSISTENT else None
        object.__setattr__(self, "persistence", persistent)
        object.__setattr__(self, "persistence_engine", engine.rstrip(b"\0").decode("ascii", "backslashreplace"))
        object.__setattr__(self, "packed", bytes(packed[: records.SERVICE_SIZE]))
        return self

    def __repr__(self) -> str:
        """Short."""
        return f"<Service {self.key} {self.scheduler}>"
