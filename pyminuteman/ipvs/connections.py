"""The kernel's connection table, ``/proc/net/ip_vs_conn``. Pure: lines in, objects out.

The file is text, with addresses and ports in hexadecimal, its columns unchanged since Linux 2.6 but for the persistence
engine's two at the end (ip_vs_conn_seq_show in net/netfilter/ipvs/ip_vs_conn.c).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pyminuteman.addresses import format_address, format_endpoint, parse_address
from pyminuteman.ipvs.destination import Destination
from pyminuteman.ipvs.service import ServiceKey

__all__ = ["Connection", "parse_connections"]

_COLUMNS = 9  # Pro FromIP FPrt ToIP TPrt DestIP DPrt State Expires


@dataclass(frozen=True, slots=True)
class Connection:
    """One connection, or persistence template, as the director sees it."""

    protocol: str
    """``TCP``, ``UDP``, ``SCTP``; ``IP`` for the template of a firewall mark."""
    client: str
    client_port: int
    """0 in a persistence template."""
    virtual: str
    virtual_port: int
    destination: str
    destination_port: int
    state: str
    """``ESTABLISHED``, ``TIME_WAIT`` and so on; ``NONE`` for a template."""
    expires_seconds: int
    engine: str = ""
    """Persistence engine, for its templates."""
    engine_data: str = ""

    @property
    def has_ended(self) -> bool:
        """Whether both ends are done with it, and the kernel keeps it only for packets that may still be on their way."""
        return self.state in {"TIME_WAIT", "CLOSE", "CLOSED"}

    def concerns(self, key: ServiceKey, destination: Destination) -> bool:
        """Whether it goes to this destination by way of this service; of a firewall mark, by way of any."""
        if self.client_port == 0 or (self.destination, self.destination_port) != (destination.address, destination.port):
            return False
        protocol = key.protocol.name if key.protocol else ""
        return key.mark > 0 or (
            self.protocol == protocol and self.virtual == key.address and key.port in {0, self.virtual_port}
        )

    def __str__(self) -> str:
        """``TCP 10.0.0.9:4711 > 11.0.0.1:80 > 10.0.0.5:8080 ESTABLISHED 900``."""
        ends = (
            (self.client, self.client_port),
            (self.virtual, self.virtual_port),
            (self.destination, self.destination_port),
        )
        path = " > ".join(format_endpoint(address, port) for address, port in ends)
        return f"{self.protocol} {path} {self.state} {self.expires_seconds}"


def _address(text: str) -> str:
    """``0A000001``; IPv6 comes in full, with or without brackets, by kernel."""
    if ":" in text:
        return format_address(parse_address(text.strip("[]"))[1])
    return format_address(bytes.fromhex(text.zfill(8)))


def parse_connections(lines: Iterable[str]) -> Iterator[Connection]:
    """Read the lines of ``/proc/net/ip_vs_conn``, its heading included or not.

    A line that cannot be read (cut off while the table changed) is passed over: the file is a moving picture, not a record.
    """
    for line in lines:
        columns = line.split()
        if len(columns) < _COLUMNS or columns[0] == "Pro":
            continue
        try:
            yield Connection(
                columns[0],
                _address(columns[1]),
                int(columns[2], 16),
                _address(columns[3]),
                int(columns[4], 16),
                _address(columns[5]),
                int(columns[6], 16),
                columns[7],
                int(columns[8]),
                *columns[9:11],
            )
        except ValueError:
            continue
