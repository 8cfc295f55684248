"""What a reading of the kernel's connection table costs, by the number of connections. Needs root and IPVS; in the guest kernel::

    python -m pyminuteman.testing.kernel_guest -- .venv/bin/python benchmarks/connection_outcomes.py

Connections are made of single SYNs that nobody answers, from many addresses, by a raw socket: the table is real, the clients are not.
"""

from __future__ import annotations

import argparse
import gc
import socket
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for what is shared with the tests

from pyminuteman.daemon.outcomes import Outcomes
from pyminuteman.ipvs import Destination, ForwardingMethod, IPVSTable, NetlinkBackend, Scope, Service
from pyminuteman.ipvs.connections import parse_connections
from pyminuteman.testing.network_namespace import fresh_network_namespace
from tests.support.kernel import ip

VIP = "11.0.0.1"
PORTS_A_CLIENT = 50_000
T = TypeVar("T")


def checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def syn(number: int) -> bytes:
    """The packet that opens connection ``number``."""
    client, vip = bytes([10, 9, 1 + number // PORTS_A_CLIENT, 7]), socket.inet_aton(VIP)
    tcp = struct.pack("!HHIIBBHHH", 1024 + number % PORTS_A_CLIENT, 80, 1, 0, 5 << 4, 2, 1000, 0, 0)
    tcp = tcp[:16] + struct.pack("!H", checksum(client + vip + struct.pack("!BBH", 0, 6, len(tcp)) + tcp)) + tcp[18:]
    return struct.pack("!BBHHHBBH4s4s", 0x45, 0, 40, 1, 0, 64, 6, 0, client, vip) + tcp


def timed(call: Callable[[], T]) -> tuple[float, T]:
    began = time.process_time()
    result = call()
    return time.process_time() - began, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, nargs="+", default=[10_000, 20_000, 50_000, 100_000])
    options = parser.parse_args()
    fresh_network_namespace()
    ip(
        "link add away type dummy",
        "address add 10.9.0.1/16 dev away",
        "link set away up arp off",
        f"address add {VIP}/32 dev lo",
    )
    rows = [Destination(f"10.9.0.{host}", 80, 1, ForwardingMethod.MASQUERADE) for host in range(2, 42)]
    with IPVSTable(scope=Scope.everything()) as table:
        table.converge({Service.tcp(VIP, 80, scheduler="rr"): rows})
    made = 0
    print("connections  seconds of a core: reading  counting all new  all known")
    with NetlinkBackend() as reader, socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        for wanted in sorted(options.connections):
            for number in range(made, wanted):
                raw.sendto(syn(number), (VIP, 0))
            made = wanted
            outcomes = Outcomes(connections_max=wanted)
            gc.collect()
            reading, lines = min((timed(lambda: list(reader.connection_lines())) for _ in range(3)), key=lambda pair: pair[0])
            new, first = timed(lambda lines=lines, outcomes=outcomes: outcomes.observe(parse_connections(lines), {}, 0.0))
            known, _ = timed(lambda lines=lines, outcomes=outcomes: outcomes.observe(parse_connections(lines), {}, 20.0))
            assert first.metrics["connections"] == wanted, first.metrics
            print(f"{wanted:11} {reading:27.3f} {new:17.3f} {known:10.3f}", flush=True)


if __name__ == "__main__":
    main()
