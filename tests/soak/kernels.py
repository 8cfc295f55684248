"""What nodes' kernels hold, read in two ways, and somebody else who changes it: ipvsadm."""

from __future__ import annotations

import re
import subprocess
from typing import Final

from pyminuteman.ipvs import IPVSTable
from pyminuteman.testing.daemon_cluster import DaemonCluster
from tests.soak.steps import Kind
from tests.soak.world import FOREIGN, Held

__all__ = ["Kernels"]

_SECONDS: Final = 20.0
_DEVICE: Final = "minuteman"
_ADDRESS: Final = re.compile(r" inet ([0-9.]+)")


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

    # Reading

    def read(self, node: int) -> dict[str, Held]:
        """Its table, by service."""
        snapshot = self._tables[node].snapshot()
        return {
            f"{one.key.address}:{one.key.port}": Held(
                one.scheduler,
                frozenset((self._name(f"{row.address}:{row.port}"), row.weight) for row in snapshot.destinations(one.key)),
            )
            for one in snapshot
        }

    def read_by_ipvsadm(self, node: int) -> dict[str, Held]:
        """The same, without any code of ours that speaks with the kernel.

        Raises:
            RuntimeError: ipvsadm failed.
        """
        schedulers: dict[str, str] = {}
        rows: dict[str, set[tuple[str, int]]] = {}
        for line in self._run(node, "ipvsadm", "-Sn").splitlines():
            words = line.split()  # -A -t 11.0.0.1:80 -s wlc, and -a -t 11.0.0.1:80 -r 10.61.0.2:8000 -m -w 1
            if words[0] == "-A":
                schedulers[words[2]] = words[4]
                rows[words[2]] = set()
            else:
                rows[words[2]].add((self._name(words[4]), int(words[-1])))
        return {vip: Held(scheduler, frozenset(rows[vip])) for vip, scheduler in schedulers.items()}

    def announced(self, node: int) -> set[str]:
        """The addresses of VIPs that its host has.

        Raises:
            RuntimeError: ip failed.
        """
        return set(_ADDRESS.findall(self._run(node, "ip", "-o", "-4", "address", "show", "dev", _DEVICE)))

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

    def _name(self, endpoint: str) -> str:
        address, _, port = endpoint.rpartition(":")
        return f"{self._names.get(address, address)}:{port}"

    def _run(self, node: int, *words: str) -> str:
        with self._cluster.namespaces.inside(
            node
        ):  # `ip netns exec` would mount a /sys of its own, which takes a second to go again
            done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=_SECONDS)
        if done.returncode:
            raise RuntimeError(f"n{node}: {' '.join(words)}: {done.stderr.strip()}")
        return done.stdout
