"""The layout of the records that cross into C: the Python side of ``csrc/pmm_ipvs.h``.

Pure. A test holds each size and offset here against the compiled module. Keys are in network order, so that records
sort and compare as plain ``bytes``; that one property carries the snapshot, the diff and the cache of what is desired.
"""

from __future__ import annotations

from enum import IntEnum
from functools import total_ordering
from struct import Struct
from typing import Final, Self

__all__ = [
    "COUNTERS",
    "DESTINATION",
    "DESTINATION_KEY_SIZE",
    "DESTINATION_SIZE",
    "NO_SERVICE",
    "OPERATION",
    "OPERATION_SIZE",
    "SERVICE",
    "SERVICE_COUNT",
    "SERVICE_KEY",
    "SERVICE_KEY_SIZE",
    "SERVICE_SIZE",
    "Command",
    "Entry",
    "Packed",
    "destination_keys",
    "destination_rows",
    "flatten",
]

SERVICE_KEY: Final = Struct("=BBBx16s2s2x")
"""by_mark, family, protocol, address, port."""
SERVICE: Final = Struct("=24s16s16sII4s")
"""key, scheduler, engine, flags, timeout, netmask; its count of destinations follows (:data:`SERVICE_COUNT`)."""
SERVICE_COUNT: Final = Struct("=I")
DESTINATION: Final = Struct("=Bx16s2sIIIBBHH2x")
"""family, address, port, weight, upper, lower threshold, forwarding, tunnel type, port, flags."""
OPERATION: Final = Struct("=B3xI40s")
"""command, index of the service, destination."""
COUNTERS: Final = Struct("=10Q3I4x")

SERVICE_KEY_SIZE: Final = SERVICE_KEY.size
SERVICE_SIZE: Final = SERVICE.size
DESTINATION_SIZE: Final = DESTINATION.size
DESTINATION_KEY_SIZE: Final = 20
OPERATION_SIZE: Final = OPERATION.size
NO_SERVICE: Final = 0xFFFFFFFF
"""The service index of an operation on the whole table."""

Entry = tuple[bytes, bytes]
"""One service as packed: its record (:data:`SERVICE`), and its destinations' records, sorted."""


@total_ordering
class Packed:
    """Something that is known by its record: equal, ordered and hashed as those bytes are."""

    __slots__ = ()
    packed: bytes

    def __eq__(self, other: object) -> bool:
        """All of the record, not only its key."""
        return self.packed == other.packed if isinstance(other, type(self)) else NotImplemented

    def __lt__(self, other: Self) -> bool:
        """By key first, in the order of ``ipvsadm``'s listing."""
        return self.packed < other.packed if isinstance(other, type(self)) else NotImplemented

    def __hash__(self) -> int:
        """Of the record."""
        return hash(self.packed)


class Command(IntEnum):
    """The commands of IPVS's generic netlink family that change the table (``IPVS_CMD_*`` in linux/ip_vs.h)."""

    ADD_SERVICE = 1
    EDIT_SERVICE = 2
    REMOVE_SERVICE = 3
    ADD_DESTINATION = 5
    EDIT_DESTINATION = 6
    REMOVE_DESTINATION = 7
    ZERO = 16
    FLUSH = 17


def destination_rows(destinations: bytes) -> list[bytes]:
    """Cut flat destinations into their records."""
    return [destinations[at : at + DESTINATION_SIZE] for at in range(0, len(destinations), DESTINATION_SIZE)]


def destination_keys(destinations: bytes) -> list[bytes]:
    """The keys of flat destinations, in their order."""
    size = DESTINATION_KEY_SIZE
    return [destinations[at : at + size] for at in range(0, len(destinations), DESTINATION_SIZE)]


def flatten(entries: list[Entry]) -> tuple[bytes, bytes]:
    """Join entries into the two flat arrays that C takes: services with their counts, and destinations."""
    pack = SERVICE_COUNT.pack
    services = b"".join([service + pack(len(rows) // DESTINATION_SIZE) for service, rows in entries])
    return services, b"".join([rows for _, rows in entries])
