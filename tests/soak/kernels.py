"""What nodes' kernels hold, by /proc and so by no code of ours that speaks with the kernel; and somebody else who changes it: ipvsadm."""

from __future__ import annotations

import ipaddress
import re
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from pyminuteman.testing.daemon_cluster import DaemonCluster
from tests.soak.steps import Kind
from tests.soak.world import FOREIGN, Held

__all__ = ["Kernels", "local_addresses", "parse_table"]

_SECONDS: Final = 60.0
_TABLE: Final = Path("/proc/thread-self/net/ip_vs")
_ROUTES: Final = Path("/proc/thread-self/net/fib_trie")
_VIRTUAL: Final = ipaddress.ip_network("11.0.0.0/8")
_LEAF: Final = re.compile(r"\|-- ([0-9.]+)")
_LOCAL: Final = "/32 host LOCAL"


class Kernels:
    """Those of all nodes."""

    def __init__(self, cluster: DaemonCluster) -> None:
        self._cluster = cluster
        self._names = {cluster.address(node): f"n{node}" for node in range(cluster.size)}

    def read(self, node: int) -> dict[str, Held]:
        """Its table, by service."""
        with self._cluster.namespaces.inside(node):
            text = _TABLE.read_text()
        return parse_table(text.splitlines(), self._names)

    def announced(self, node: int) -> set[str]:
        """The addresses of VIPs that its host has."""
        with self._cluster.namespaces.inside(node):
            text = _ROUTES.read_text()
        return {address for address in local_addresses(text.splitlines()) if ipaddress.ip_address(address) in _VIRTUAL}

    # Somebody else

    def interfere(self, node: int, kind: Kind, vip: str, port: int) -> None:
        """Change what is there.

        Raises:
            RuntimeError: It could not be.
        """
        row = f"{self._cluster.address(node)}:{port}"
        match kind:
            case Kind.DELETE_DESTINATION:
                words = ["-d", "-t", vip, "-r", row]
            case Kind.CHANGE_WEIGHT:
                words = ["-e", "-t", vip, "-r", row, "-m", "-w", "99"]
            case Kind.DELETE_SERVICE | Kind.REMOVE_FOREIGN:
                words = ["-D", "-t", vip]
            case _:
                ((backend, weight),) = FOREIGN.rows
                self._run(node, "ipvsadm", "-A", "-t", vip, "-s", FOREIGN.scheduler)
                words = ["-a", "-t", vip, "-r", backend, "-m", "-w", str(weight)]
        self._run(node, "ipvsadm", *words)

    def clear(self, node: int) -> None:
        """As after a start of its host.

        Raises:
            RuntimeError: It could not be.
        """
        self._run(node, "ipvsadm", "-C")

    def _run(self, node: int, *words: str) -> str:
        with self._cluster.namespaces.inside(
            node
        ):  # `ip netns exec` would mount a /sys of its own, which takes a second to go again
            done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=_SECONDS)
        if done.returncode:
            raise RuntimeError(f"n{node}: {' '.join(words)}: {done.stderr.strip()}")
        return done.stdout


def parse_table(lines: Iterable[str], names: dict[str, str]) -> dict[str, Held]:
    """What /proc/net/ip_vs says: ``TCP  0B000001:0050 wlc``, and for each destination ``  -> 0A3D0001:1F40  Masq  1  0  0``."""
    schedulers: dict[str, str] = {}
    rows: dict[str, set[tuple[str, int]]] = {}
    service = ""
    for words in map(str.split, lines):
        if words[0] == "TCP":
            service = ":".join(_endpoint(words[1]))
            schedulers[service], rows[service] = words[2], set()
        elif words[0] == "->" and service:  # the heading has one, too
            address, port = _endpoint(words[1])
            rows[service].add((f"{names.get(address, address)}:{port}", int(words[3])))
    return {service: Held(scheduler, frozenset(rows[service])) for service, scheduler in schedulers.items()}


def local_addresses(lines: Iterable[str]) -> Iterator[str]:
    """What /proc/net/fib_trie has as this host's: ``|-- 11.0.0.1`` with ``/32 host LOCAL`` below it."""
    address = ""
    for line in lines:
        if found := _LEAF.search(line):
            address = found[1]
        elif _LOCAL in line:
            yield address


def _endpoint(text: str) -> tuple[str, str]:
    address, _, port = text.partition(":")
    return str(ipaddress.IPv4Address(int(address, 16))), str(int(port, 16))
