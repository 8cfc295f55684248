"""What is not the table itself: timeouts, synchronisation daemons, the kernel's own version. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from pyminuteman.addresses import parse_address
from pyminuteman.ipvs.validation import PORT_MAX, check_number

__all__ = ["KernelInformation", "SyncDaemon", "SyncRole", "Timeouts"]


class SyncRole(IntEnum):
    """What a synchronisation daemon does (``IP_VS_STATE_*`` in linux/ip_vs.h)."""

    MASTER = 1
    """Tells others of this host's connections, by multicast."""
    BACKUP = 2
    """Takes in what a master tells."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds without a packet after which the kernel forgets a connection. 0 in a request leaves that one as it is.

    Raises:
        ValueError: Not whole numbers from 0 to 2147483 (where the kernel's clock ticks overflow).
    """

    tcp: int = 0
    """Established TCP connections; 900 by default."""
    tcp_fin: int = 0
    """TCP connections after a FIN; 120 by default."""
    udp: int = 0
    """300 by default; users of short exchanges set 5 to 30."""

    def __post_init__(self) -> None:
        """Validate."""
        for name in ("tcp", "tcp_fin", "udp"):
            check_number(f"{name} timeout", getattr(self, name), 0, 2147483)


@dataclass(frozen=True, slots=True)
class KernelInformation:
    """What the kernel says of itself."""

    version: tuple[int, int, int]
    """Of IPVS, not of Linux: (1, 2, 1) for many years."""
    connection_table_size: int
    """Buckets of the connection hash table (module parameter ``conn_tab_bits``)."""


@dataclass(frozen=True, slots=True)
class SyncDaemon:
    """A connection synchronisation daemon of the kernel. One master and one backup may run, each on one interface.

    Raises:
        ValueError: A number or the multicast group is out of its range.
    """

    role: SyncRole
    interface: str
    """It must be up and have multicast (a dummy device has none)."""
    sync_id: int = 0
    """0 to 255. Backups take in messages of their own id, or of any when theirs is 0."""
    payload_bytes: int = 0
    """Longest UDP payload of a message; 0 for what the interface's MTU allows."""
    group: str = ""
    """Multicast group, IPv4 or IPv6; empty for 224.0.0.81."""
    port: int = 0
    """First UDP port; 0 for 8848."""
    ttl: int = 0
    """0 for 1: the local link."""

    def __post_init__(self) -> None:
        """Validate."""
        object.__setattr__(self, "role", SyncRole(self.role))
        if not 0 < len(self.interface.encode("utf-8", "surrogateescape")) <= 15:  # noqa: PLR2004 - IFNAMSIZ, with the terminating zero, is 16
            msg = f"interface {self.interface!r} is not a name of 1 to 15 bytes"
            raise ValueError(msg)
        check_number("sync id", self.sync_id, 0, 255)
        check_number("payload", self.payload_bytes, 0, PORT_MAX)
        check_number("port", self.port, 0, PORT_MAX)
        check_number("ttl", self.ttl, 0, 255)
        if self.group:
            parse_address(self.group)
