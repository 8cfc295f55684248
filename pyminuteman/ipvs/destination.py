"""Destinations (real servers): what stands behind a service. Invalid ones cannot be built.

Pure. As with services, each carries its packed record and is compared by it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from typing import Final, Self

from pyminuteman.addresses import IPV4, IPV6, format_address, format_endpoint, parse_address
from pyminuteman.ipvs import records
from pyminuteman.ipvs.errors import InvalidDestinationError
from pyminuteman.ipvs.validation import PORT_MAX, U32_MAX, check_number

__all__ = ["WEIGHT_MAX", "Destination", "ForwardingMethod", "Tunnel", "TunnelFlags", "TunnelType"]

WEIGHT_MAX: Final = 2**31 - 1
"""The kernel keeps weights as signed integers. ipvsadm itself accepts no more than 65535."""


class ForwardingMethod(IntEnum):
    """How packets reach the destination (``IP_VS_CONN_F_FWD_MASK`` in linux/ip_vs.h)."""

    MASQUERADE = 0
    """NAT: the destination may listen on another port; replies must come back through this host."""
    LOCAL = 1
    """This host itself. The kernel finds that out alone; seen only where somebody asked for it by number."""
    TUNNEL = 2
    """Encapsulated (see :class:`Tunnel`); replies go straight to the client."""
    ROUTE = 3
    """Direct routing, "gatewaying": only the link-layer address is changed; the destination must own the VIP."""
    BYPASS = 4
    """To the original address; the kernel's own use, for transparent caches."""


class TunnelType(IntEnum):
    """Encapsulations (``IP_VS_CONN_F_TUNNEL_TYPE_*``)."""

    IPIP = 0
    GUE = 1
    GRE = 2


class TunnelFlags(IntFlag):
    """Checksums of a GUE or GRE tunnel (``IP_VS_TUNNEL_ENCAP_FLAG_*``). None of them is ``--tun-nocsum``."""

    NONE = 0
    CHECKSUM = 1
    REMOTE_CHECKSUM = 2
    """Remote checksum offload; GUE only."""


@dataclass(frozen=True, slots=True)
class Tunnel:
    """How a TUNNEL destination is encapsulated (ipvsadm ``--tun-type`` and what goes with it)."""

    type: TunnelType = TunnelType.IPIP
    port: int = 0
    """UDP port of the tunnel's far end, 1 to 65535: GUE, which needs it, and only GUE."""
    flags: TunnelFlags = TunnelFlags.NONE
    """GUE: any; GRE: CHECKSUM; IPIP: none."""

    def __post_init__(self) -> None:
        """Refuse combinations that mean nothing.

        Raises:
            InvalidDestinationError: As the fields' descriptions say.
        """
        try:
            kind, flags = TunnelType(self.type), TunnelFlags(self.flags)
            check_number("tunnel port", self.port, 0, PORT_MAX)
            if (kind == TunnelType.GUE) != (self.port > 0):
                msg = "a GUE tunnel needs a port, and no other tunnel has one"
                raise ValueError(msg)
            allowed = {TunnelType.IPIP: 0, TunnelType.GUE: 3, TunnelType.GRE: 1}[kind]
            if flags & ~allowed or flags == TunnelFlags.CHECKSUM | TunnelFlags.REMOTE_CHECKSUM:
                msg = f"{kind.name} tunnel: checksum flags {flags!r} are not to be had"
                raise ValueError(msg)
        except ValueError as error:
            raise InvalidDestinationError(str(error)) from None


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Destination(records.Packed):
    """A real server behind a service. Two are equal when all of it is; the first 20 bytes of ``packed`` are its key.

    Raises:
        InvalidDestinationError: An address that is not unicast, a number out of its range, an upper threshold below the
            lower one, a tunnel without the TUNNEL method.
    """

    address: str
    port: int
    """0 to 65535. Only MASQUERADE can reach another port than the service's."""
    weight: int = 1
    """Relative share, 0 to :data:`WEIGHT_MAX`; 0 means no new connections."""
    forward: ForwardingMethod = ForwardingMethod.MASQUERADE
    upper_threshold: int = 0
    """No new connections at this many; 0 for no limit. Newer kernels refuse what is above 2147483647 (Linux 6.1.192 does)."""
    lower_threshold: int = 0
    """New connections again below this many; 0 for three quarters of the upper threshold (the kernel's rule)."""
    tunnel: Tunnel | None = None
    """None is plain IPIP when ``forward`` is TUNNEL."""
    packed: bytes = field(init=False)
    """The record: 40 bytes."""

    def __post_init__(self) -> None:
        """Validate, and pack."""
        try:
            family, address = parse_address(self.address)
            if family == IPV6:
                object.__setattr__(self, "address", format_address(address))
            if not _is_unicast(address):
                msg = f"{self.address} is not a unicast address"
                raise ValueError(msg)
            check_number("port", self.port, 0, PORT_MAX)
            check_number("weight", self.weight, 0, WEIGHT_MAX)
            check_number("upper threshold", self.upper_threshold, 0, U32_MAX)
            check_number("lower threshold", self.lower_threshold, 0, U32_MAX)
            if self.lower_threshold > self.upper_threshold:
                msg = f"lower threshold {self.lower_threshold} is above the upper one, {self.upper_threshold}"
                raise ValueError(msg)
            forward = ForwardingMethod(self.forward)
            tunnel = self.tunnel
            if forward is ForwardingMethod.TUNNEL:
                tunnel = tunnel or Tunnel()
                encapsulation = (tunnel.type, tunnel.port, tunnel.flags)
            elif tunnel is not None:
                msg = f"a tunnel goes with the TUNNEL method, not {forward.name}"
                raise ValueError(msg)
            else:
                encapsulation = (TunnelType.IPIP, 0, TunnelFlags.NONE)
        except ValueError as error:
            msg = str(error) if self.address in str(error) else f"{self.address}: {error}"
            raise InvalidDestinationError(msg) from None
        object.__setattr__(self, "forward", forward)
        object.__setattr__(self, "tunnel", tunnel)
        packed = records.DESTINATION.pack(
            family,
            address,
            self.port.to_bytes(2, "big"),
            self.weight,
            self.upper_threshold,
            self.lower_threshold,
            forward,
            *encapsulation,
        )
        object.__setattr__(self, "packed", packed)

    @classmethod
    def from_packed(cls, packed: bytes) -> Self:
        """The destination packed into a record. For the kernel's own: nothing is validated."""
        family, address, port, weight, upper, lower, forward, kind, tunnel_port, flags = records.DESTINATION.unpack(packed)
        self = cls.__new__(cls)
        object.__setattr__(self, "address", format_address(address[: 4 if family == IPV4 else 16]))
        object.__setattr__(self, "port", int.from_bytes(port, "big"))
        object.__setattr__(self, "weight", weight)
        method = ForwardingMethod(forward) if forward in ForwardingMethod._value2member_map_ else forward
        object.__setattr__(self, "forward", method)
        object.__setattr__(self, "upper_threshold", upper)
        object.__setattr__(self, "lower_threshold", lower)
        tunnel = None
        if method == ForwardingMethod.TUNNEL:
            tunnel = Tunnel.__new__(Tunnel)
            object.__setattr__(tunnel, "type", TunnelType(kind) if kind in TunnelType._value2member_map_ else kind)
            object.__setattr__(tunnel, "port", tunnel_port)
            object.__setattr__(tunnel, "flags", TunnelFlags(flags))
        object.__setattr__(self, "tunnel", tunnel)
        object.__setattr__(self, "packed", packed)
        return self

    @property
    def family(self) -> int:
        """``AF_INET`` or ``AF_INET6``."""
        return self.packed[0]

    @property
    def key(self) -> bytes:
        """What the kernel tells destinations of one service apart by: family, address and port, packed."""
        return self.packed[: records.DESTINATION_KEY_SIZE]

    def __str__(self) -> str:
        """``10.0.0.5:8080``."""
        return format_endpoint(self.address, self.port)

    def __repr__(self) -> str:
        """Short."""
        method = self.forward.name.lower() if isinstance(self.forward, ForwardingMethod) else self.forward
        return f"<Destination {self} weight {self.weight} {method}>"


def _is_unicast(address: bytes) -> bool:
    """Whether IPVS takes it: measured, it refuses 0.0.0.0, 224/4, 255.255.255.255; ``::``, multicast and link-local IPv6."""
    if len(address) == 4:  # noqa: PLR2004 - the size of an IPv4 address
        return any(address) and not 224 <= address[0] < 240 and address != b"\xff" * 4  # noqa: PLR2004
    link_local = address[0] == 0xFE and address[1] & 0xC0 == 0x80  # noqa: PLR2004 - fe80::/10
    return any(address) and address[0] != 0xFF and not link_local  # noqa: PLR2004
