"""A cluster of network namespaces on one bridge, for tests and benchmarks that need real sockets and nodes that can fall silent.

One namespace a node, each joined by a veth pair to a bridge inside a namespace of its own, the hub: nothing appears in the
namespace of the caller. The segment is made so that *a node whose link is down is silent, and nothing answers for it*: ARP (and
neighbour discovery) entries and the bridge's forwarding table are static, so no resolution fails early and no ICMP error comes
back. That is what a kernel panic or a pulled cable looks like to the others.

    with ClusterNamespaces(40) as cluster:
        node = cluster.start(0, ["serf", "agent", f"-bind={cluster.address(0)}"])
        since_ns = cluster.take_down([3, 7, 9])  # all three at once
        cluster.bring_up([3, 7, 9])

Namespaces are named after the process that owns them, so that whoever comes next can sweep away what a killed owner left behind.
Needs root and the `ip` and `bridge` commands of iproute2.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import pathlib
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from pyminuteman.testing import owned_namespaces
from pyminuteman.testing.owned_namespaces import CommandFailedError, run_command, run_lines, sweep, thread_inside

__all__ = ["ClusterNamespaces", "ClusterUnavailableError", "LinkCounters", "sweep", "why_no_cluster_namespaces"]

_BRIDGE = "bridge0"
_INTERFACE = "eth0"  # of every node
_IPV4 = ipaddress.IPv4Network("10.61.0.0/16")
_IPV6 = ipaddress.IPv6Network("fd61::/64")
_MTU = 1500
_MOST_NODES = 1000  # a bridge of Linux has at most 1023 ports
_LINK_TIMEOUT_SECONDS = 10.0
_END_TIMEOUT_SECONDS = 10.0


class ClusterUnavailableError(Exception):
    """This machine cannot have such a cluster, or refused it; nothing is left behind. The text says what is missing."""


@dataclass(frozen=True, slots=True)
class LinkCounters:
    """What a node's link has carried since the cluster was made; bytes are whole Ethernet frames, without preamble and CRC."""

    sent_packets: int
    sent_bytes: int
    received_packets: int
    received_bytes: int

    def __sub__(self, earlier: LinkCounters) -> LinkCounters:
        return LinkCounters(
            self.sent_packets - earlier.sent_packets,
            self.sent_bytes - earlier.sent_bytes,
            self.received_packets - earlier.received_packets,
            self.received_bytes - earlier.received_bytes,
        )


class ClusterNamespaces:
    """`size` namespaces, numbered from 0, each with one interface `eth0` on a common Ethernet segment. Close it, or use `with`.

    Nodes have addresses in 10.61.0.0/16 and, with `ipv6`, in fd61::/64; without it IPv6 is off, also on `lo`. Links are up, and
    carry frames, when the constructor returns.

    Raises:
        ClusterUnavailableError: not root, no iproute2, or a kernel without namespaces, veth or bridge.
        ValueError: a size that one bridge cannot have.
    """

    def __init__(self, size: int, *, ipv6: bool = False) -> None:
        if not 1 <= size <= _MOST_NODES:
            raise ValueError(f"a cluster has 1 to {_MOST_NODES} nodes, not {size}")
        if reason := why_no_cluster_namespaces():
            raise ClusterUnavailableError(reason)
        self.size = size
        self.ipv6 = ipv6
        sweep()
        self._stem = owned_namespaces.unused_stem()
        self._processes: list[subprocess.Popen[Any]] = []
        try:
            self._build()
        except BaseException as error:
            self.close()
            if isinstance(error, CommandFailedError | OSError):  # TimeoutError is one
                raise ClusterUnavailableError(str(error)) from error
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # What is where

    def namespace(self, node: int) -> str:
        """The name of a node's namespace, as `ip -n` and `ip netns exec` take it."""
        return f"{self._stem}-{self._checked(node)}"

    @property
    def hub(self) -> str:
        """The name of the namespace that has the bridge; a node's port there is called `n` and its number."""
        return f"{self._stem}-hub"

    def address(self, node: int) -> ipaddress.IPv4Address:
        """A node's IPv4 address."""
        return _IPV4[self._checked(node) + 1]

    def address6(self, node: int) -> ipaddress.IPv6Address:
        """A node's IPv6 address; it has one if the cluster was made with `ipv6`."""
        return _IPV6[self._checked(node) + 1]

    # Processes and sockets of nodes

    @contextlib.contextmanager
    def inside(self, node: int) -> Iterator[None]:
        """Have the calling thread in a node's namespace: sockets made and processes started here stay there.

        No `await` in this block: it is the thread that moves, with all its tasks.
        """
        with thread_inside(self.namespace(node)):
            yield

    def command_inside(self, node: int, command: Sequence[str]) -> list[str]:
        """A command line that runs `command` in a node's namespace, under the same process id, for launchers other than `start`."""
        return ["ip", "netns", "exec", self.namespace(node), *command]

    def start(self, node: int, command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a process in a node's namespace; `options` are those of `subprocess.Popen`. It is killed on `close`, at the latest.

        Its /sys still shows the interfaces of the caller's namespace; /proc/net and all system calls show the node's.
        """
        with self.inside(node):
            process = subprocess.Popen(command, **options)  # noqa: S603 - the caller's command
        self._processes = [running for running in self._processes if running.returncode is None]
        self._processes.append(process)
        return process

    # Links

    def take_down(self, nodes: Iterable[int]) -> int:
        """Take the links of these nodes down, together: not a frame leaves or reaches them. What runs there runs on.

        It is the bridge's end that goes down, so addresses and routes of the nodes stay.

        Returns:
            CLOCK_REALTIME just before, in nanoseconds. The first link follows within some 2 ms, all of a handful within 15.
        """
        return self._set_links(nodes, "down")

    def bring_up(self, nodes: Iterable[int]) -> int:
        """Bring the links of these nodes up, together, and wait until the bridge forwards their frames.

        Returns:
            CLOCK_REALTIME just before, in nanoseconds.

        Raises:
            TimeoutError: a port did not come to forward.
        """
        nodes = list(nodes)
        began_ns = self._set_links(nodes, "up")
        self._wait_until_forwarding(nodes)
        return began_ns

    def counters(self) -> list[LinkCounters]:
        """What each node's link has carried, by node, read at one moment on the bridge: what a node sends is what its port gets."""
        with thread_inside(self.hub):
            text = pathlib.Path("/proc/thread-self/net/dev").read_text()
        found: dict[str, LinkCounters] = {}
        for line in text.splitlines()[2:]:
            name, _, numbers = line.partition(":")
            columns = [int(number) for number in numbers.split()]  # 8 of receiving, 8 of sending
            found[name.strip()] = LinkCounters(columns[1], columns[0], columns[9], columns[8])
        return [found[_port(node)] for node in range(self.size)]

    # The end

    def close(self) -> None:
        """Kill whatever runs in the namespaces, and delete them. A second call does nothing.

        Raises:
            TimeoutError: a process did not end; the next `sweep` of anybody tries again once this process is gone.
        """
        for process in self._processes:
            if process.poll() is None:
                process.kill()
        for process in self._processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_END_TIMEOUT_SECONDS)
        self._processes = []
        owned_namespaces.delete(owned_namespaces.of_stem(self._stem))

    # How it is built

    def _build(self) -> None:
        nodes = range(self.size)
        run_lines(f"netns add {name}" for name in (self.hub, *map(self.namespace, nodes)))
        for name in (self.hub, *map(self.namespace, nodes)):
            with thread_inside(name):
                _switch_ipv6(on=self.ipv6 and name != self.hub)
        run_lines(self._hub_lines(), namespace=self.hub)
        static = (f"fdb add {_mac(node)} dev {_port(node)} master static" for node in nodes)
        run_lines(static, namespace=self.hub, command="bridge")
        for node in nodes:
            run_lines(self._node_lines(node), namespace=self.namespace(node))
        self._wait_until_forwarding(nodes)

    def _hub_lines(self) -> Iterator[str]:
        yield f"link add {_BRIDGE} mtu {_MTU} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"
        yield f"link set {_BRIDGE} up"
        for node in range(self.size):
            peer = f"peer name {_INTERFACE} address {_mac(node)} mtu {_MTU} netns {self.namespace(node)}"
            yield f"link add name {_port(node)} mtu {_MTU} type veth {peer}"
            yield f"link set {_port(node)} master {_BRIDGE} up"
            yield f"link set {_port(node)} type bridge_slave learning off flood off"

    def _node_lines(self, node: int) -> Iterator[str]:
        families = [(_IPV4, self.address)] + ([(_IPV6, self.address6)] if self.ipv6 else [])
        yield "link set lo up"
        for network, address in families:
            nodad = " nodad" if network.version == 6 else ""  # noqa: PLR2004 - there is nobody to ask
            yield f"address add {address(node)}/{network.prefixlen} dev {_INTERFACE}{nodad}"
        yield f"link set {_INTERFACE} up"
        for other in range(self.size):
            if other != node:
                for _, address in families:
                    yield f"neighbour replace {address(other)} dev {_INTERFACE} lladdr {_mac(other)} nud permanent"

    def _set_links(self, nodes: Iterable[int], state: str) -> int:
        lines = [f"link set {_port(self._checked(node))} {state}" for node in nodes]
        began_ns = time.time_ns()
        if lines:
            run_lines(lines, namespace=self.hub)
        return began_ns

    def _wait_until_forwarding(self, nodes: Iterable[int]) -> None:
        """The kernel may take a second to notice that a carrier is back: its link watch runs at most once in a second."""
        waiting = {_port(node) for node in nodes}
        deadline = time.perf_counter() + _LINK_TIMEOUT_SECONDS
        while waiting:
            ports = run_command(["bridge", "-n", self.hub, "link", "show"]).splitlines()
            for line in ports:  # as in "3: n0@if2: <UP,LOWER_UP> mtu 1500 master bridge0 state forwarding priority 32 cost 2"
                if " state forwarding " in line:
                    waiting.discard(line.split()[1].partition("@")[0])
            if waiting:
                if time.perf_counter() > deadline:
                    raise TimeoutError(f"these ports of the bridge do not forward: {', '.join(sorted(waiting))}")
                time.sleep(0.005)

    def _checked(self, node: int) -> int:
        if not 0 <= node < self.size:
            raise IndexError(f"no node {node}: they are numbered 0 to {self.size - 1}")
        return node


def why_no_cluster_namespaces() -> str | None:
    """Why there can be no :class:`ClusterNamespaces` here, or None."""
    if os.geteuid() != 0:
        return "not root: it takes CAP_SYS_ADMIN to make network namespaces"
    missing = [command for command in ("ip", "bridge") if shutil.which(command, path=owned_namespaces.PATH) is None]
    if missing:
        return f"no {' and no '.join(missing)} command: install iproute2"
    return None


def _port(node: int) -> str:
    return f"n{node}"


def _mac(node: int) -> str:
    return f"02:61:00:00:{node >> 8:02x}:{node & 0xFF:02x}"


def _switch_ipv6(*, on: bool) -> None:
    """For the calling thread's namespace, before it has interfaces; a kernel without IPv6 has it off already."""
    for scope in ("all", "default"):
        switch = pathlib.Path(f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6")
        if switch.exists():
            switch.write_text("0" if on else "1")
        elif on:
            raise ClusterUnavailableError("this kernel has no IPv6")
