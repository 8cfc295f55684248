"""What the kernel remembers of TCP connections of this host, address by address (``ip tcp_metrics``). Pure: records in, objects out.

The kernel writes a row when a socket of this host ends (tcp_update_metrics in net/ipv4/tcp_metrics.c), under the address that the
socket was connected to. Its round trip is the smoothed one of TCP, kept in eighths of a microsecond; its deviation is the mean
deviation, and no variance, kept in quarters (``srtt_us`` and ``mdev_us`` in linux/tcp.h).
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import Final

from pyminuteman.addresses import IPV4, format_address

__all__ = ["METRIC", "TCPMetric", "read_metrics"]

METRIC: Final = Struct("=B3x16sIII")
"""family, address, age, round trip, deviation: ``struct pmm_metric``."""
_EIGHTHS: Final = 8e6
_QUARTERS: Final = 4e6


@dataclass(frozen=True, slots=True)
class TCPMetric:
    """Of connections to one address. Seconds."""

    rtt_seconds: float
    """The smoothed round trip."""
    deviation_seconds: float
    """How far round trips are from it, on average."""
    age_seconds: float
    """How long ago it was learned."""

    @property
    def estimate_seconds(self) -> float:
        """What few round trips exceed: the smoothed one and three deviations."""
        return self.rtt_seconds + 3 * self.deviation_seconds


def read_metrics(packed: bytes) -> dict[str, TCPMetric]:
    """Addresses to what is known of them, from records.

    Rows without a round trip or without a deviation tell nothing and are left out. The kernel keeps one row for each pair of source
    and destination: of those to one address, the newest counts.
    """
    found: dict[bytes, tuple[int, int, int]] = {}
    for family, address, age, rtt, deviation in METRIC.iter_unpack(packed):
        if not rtt or not deviation:
            continue
        key = address[:4] if family == IPV4 else address
        known = found.get(key)
        if known is None or age < known[0]:
            found[key] = (age, rtt, deviation)
    return {
        format_address(key): TCPMetric(rtt / _EIGHTHS, deviation / _QUARTERS, age / 1000)
        for key, (age, rtt, deviation) in found.items()
    }
