"""What nodes' kernels hold, read by this library and by ipvsadm; and somebody else who changes it: ipvsadm.

/proc/net/ip_vs would need neither, but it leaves services out where several namespaces have more than a page of them: going on after a
page, Linux 6.1 counts the services of all namespaces, and at the beginning of one those of its own.
"""

from __future__ import annotations

import ipaddress
import re
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from pyminuteman.ipvs import IPVSTable
from pyminuteman.testing.daemon_cluster import DaemonCluster
from tests.soak.steps import Kind
from tests.soak.world import FOREIGN, Held

__all__ = ["Kernels", "local_addresses", "parse_rules"]

_SECONDS: Final = 60.0
_ROUTES: Final = Path("/proc/thread-self/net/fib_trie")
_VIRTUAL: Final = ipaddress.ip_network("11.0.0.0/8")
_LEAF: Final = re.compile(r"\|-- ([0-9.]+)")
_LOCAL: Final = "/32 host LOCAL"


class Kernels:
    """Those of all nodes. Close it."""

    def __init__(self, cluster: DaemonCluster) -> None:
        self._cluster = cluster
        self._names = {cluster.address(node): f"n{node}" for node in range(cluster.size)}
        self._tables: list[IPVSTable] = [cluster.table(node) for node in range(cluster.size)]

    def close(self) -> None:
        """A second call does nothing."""
        while self._tables:
            self._tables.pop().close()

    def read(self, node: int) -> dict[str, Held]:
        """Its table, by service."""
        snapshot = self._tables[node].snapshot()
        return {
            f"{one.key.address}:{one.key.port}": Held(
                one.scheduler,
                frozenset((name_of(row.address, row.port, self._names), row.weight) for row in snapshot.destinations(one.key)),
            )
            for one in snapshot
        }

    def read_by_ipvsadm(self, node: int) -> dict[str, Held]:
        """The same, by nothing of ours; a program's start is not cheap on a busy machine."""
        return parse_rules(self._run(node, "ipvsadm", "-Sn").splitlines(), self._names)

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


def parse_rules(lines: Iterable[str], names: dict[str, str]) -> dict[str, Held]:
    """What ``ipvsadm -Sn`` says: ``-A -t 11.0.0.1:80 -s wlc``, then ``-a -t 11.0.0.1:80 -r 10.61.0.2:8000 -m -w 1`` for each destination."""
    schedulers: dict[str, str] = {}
    rows: dict[str, set[tuple[str, int]]] = {}
    for words in map(str.split, lines):
        if words[0] == "-A":
            schedulers[words[2]], rows[words[2]] = words[4], set()
        else:
            address, _, port = words[4].partition(":")
            rows[words[2]].add((name_of(address, int(port), names), int(words[-1])))
    return {service: Held(scheduler, frozenset(rows[service])) for service, scheduler in schedulers.items()}


def name_of(address: str, port: int, names: dict[str, str]) -> str:
    """A backend, by its node where it is on one."""
    return f"{names.get(address, address)}:{port}"


def local_addresses(lines: Iterable[str]) -> Iterator[str]:
    """What /proc/net/fib_trie has as this host's: ``|-- 11.0.0.1`` with ``/32 host LOCAL`` below it."""
    address = ""
    for line in lines:
        if found := _LEAF.search(line):
            address = found[1]
        elif _LOCAL in line:
            yield address
