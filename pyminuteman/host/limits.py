"""Tables of a size that was set when nobody thought of VIPs: ports, conntrack, neighbours, descriptors. The sums are pure functions."""

from __future__ import annotations

import resource
from collections.abc import Iterable
from typing import Final

from pyminuteman.host.errors import HostSetupError
from pyminuteman.host.findings import Finding, Severity
from pyminuteman.host.namespaces import in_namespace
from pyminuteman.host.sysctls import read_sysctl

__all__ = [
    "CONNTRACK_LEAST",
    "DESCRIPTORS_LEAST",
    "TIME_WAIT_SECONDS",
    "all_limits",
    "check_conntrack",
    "check_descriptors",
    "check_neighbours",
    "check_ports",
    "connection_rate",
]

TIME_WAIT_SECONDS: Final = 60
"""How long a socket that closed first keeps its port (TCP_TIMEWAIT_LEN in include/net/tcp.h)."""
_FORWARDED_TIME_WAIT_SECONDS: Final = 120
"""How long IPVS (tcp_timeouts in ip_vs_proto_tcp.c) and, unless told otherwise, conntrack remember a closed connection."""
CONNTRACK_LEAST: Final = 65536
"""With 8,192 entries, the kernel's choice for 1 GiB of memory, 68 new connections a second fill the table."""
DESCRIPTORS_LEAST: Final = 4096
"""Of a daemon with 1,000 health checks under way, streams and API clients; most systems' default is 1,024."""
_ALMOST_FULL: Final = 0.75
_FULL: Final = 0.95
_PORTS_USUAL: Final = 28232
_WHY_PORTS: Final = (
    "a connection to a VIP takes a port of the client's host until it is forgotten, so that ports / seconds is how many new ones a second one "
    f"host can make to one VIP port: with the {_PORTS_USUAL} ports of 32768-60999, {_PORTS_USUAL // TIME_WAIT_SECONDS} by the "
    f"{TIME_WAIT_SECONDS} s of the socket's own TIME_WAIT, and {_PORTS_USUAL // _FORWARDED_TIME_WAIT_SECONDS} by the "
    f"{_FORWARDED_TIME_WAIT_SECONDS} s that IPVS and conntrack remember it"
)
_WHY_CONNTRACK: Final = "each masqueraded connection takes an entry, for two minutes beyond its end; when the table is full, packets of new connections are dropped"
_WHY_NEIGHBOURS: Final = (
    "the table of neighbours is one for the whole kernel, all its namespaces and containers: beyond gc_thresh3 packets to new neighbours are "
    "dropped, and nodes are held for dead"
)
_WHY_DESCRIPTORS: Final = (
    "each health check, stream and API client takes a descriptor of the daemon; without one left, checks cannot be made"
)


def connection_rate(first_port: int, last_port: int, seconds: float) -> float:
    """How many connections a second one host can go on making to one address and port, when each takes a port for so long."""
    return (last_port - first_port + 1) / seconds


def check_ports(netns: str | None = None) -> Finding:
    """The local port range, and what it allows."""
    words = (read_sysctl("net.ipv4.ip_local_port_range", netns) or "").split()
    if len(words) != 2 or not all(word.isdigit() for word in words):  # noqa: PLR2004 - first and last
        return Finding("limits.ports", Severity.INFO, "the range of local ports could not be read", _WHY_PORTS)
    first, last = map(int, words)
    remembered = int(read_sysctl("net.netfilter.nf_conntrack_tcp_timeout_time_wait", netns) or _FORWARDED_TIME_WAIT_SECONDS)
    sure = connection_rate(first, last, max(remembered, _FORWARDED_TIME_WAIT_SECONDS))
    most = connection_rate(first, last, TIME_WAIT_SECONDS)
    what = (
        f"ports {first}-{last} allow {int(sure)} new connections a second to one VIP port for sure, and not more than {int(most)} "
        "where the client closes first"
    )
    if last - first + 1 < _PORTS_USUAL:
        fix = 'sysctl -w net.ipv4.ip_local_port_range="32768 60999"; or have clients keep their connections'
        return Finding("limits.ports", Severity.WARNING, what, _WHY_PORTS, fix)
    return Finding("limits.ports", Severity.OK, what, _WHY_PORTS)


def check_conntrack(netns: str | None = None) -> Finding:
    """The connection tracking table's size, and how much of it is in use."""
    most, count = (read_sysctl(f"net.netfilter.nf_conntrack_{name}", netns) for name in ("max", "count"))
    if most is None or count is None or not (most.isdigit() and count.isdigit()):
        return Finding("limits.conntrack", Severity.INFO, "connections are not tracked here (yet)", _WHY_CONNTRACK)
    used = int(count) / int(most) if int(most) else 0.0  # 0: without a limit
    what = f"{count} of {most} tracked connections ({used:.0%}); the table lasts for {int(most) / 120:.0f} new ones a second"
    wanted = max(CONNTRACK_LEAST * 4, int(most) * 2)
    fix = f"sysctl -w net.netfilter.nf_conntrack_max={wanted} (an entry takes about 320 bytes)"
    if used > _FULL:
        return Finding("limits.conntrack", Severity.ERROR, what, _WHY_CONNTRACK, fix)
    if used > _ALMOST_FULL or 0 < int(most) < CONNTRACK_LEAST:
        return Finding("limits.conntrack", Severity.WARNING, what, _WHY_CONNTRACK, fix)
    return Finding("limits.conntrack", Severity.OK, what, _WHY_CONNTRACK)


def check_neighbours(nodes: int, netns: str | None = None) -> Finding:
    """Whether the neighbour table holds the neighbours that there are, and a cluster of so many nodes (0: not known)."""
    limit = read_sysctl("net.ipv4.neigh.default.gc_thresh3", netns)
    if limit is None or not limit.isdigit():
        what = "the size of the neighbour table is shown in the host's own namespace only"
        return Finding("limits.neighbours", Severity.INFO, what, _WHY_NEIGHBOURS)
    used = in_namespace(netns, _neighbours)
    needed = max(used, nodes)
    what = f"{used} neighbours, and room for {limit} of the whole machine"
    if needed > _ALMOST_FULL * int(limit):
        large = max(4096, 1 << (4 * needed).bit_length())
        fix = "sysctl -w " + " ".join(f"net.ipv4.neigh.default.gc_thresh{n}={large * n // 3}" for n in (3, 2, 1))
        cluster = f"; the cluster has {nodes} nodes" if nodes > used else ""
        return Finding("limits.neighbours", Severity.WARNING, what + cluster, _WHY_NEIGHBOURS, fix)
    return Finding("limits.neighbours", Severity.OK, what, _WHY_NEIGHBOURS)


def _neighbours() -> int:
    try:
        with open("/proc/thread-self/net/arp", encoding="ascii", errors="replace") as lines:  # noqa: PTH123 - a file of the kernel
            return max(0, sum(1 for _ in lines) - 1)
    except OSError as error:
        raise HostSetupError("neighbours", f"the table of neighbours cannot be read: {error.strerror}") from error


def check_descriptors(pid: int | None = None) -> Finding:
    """How many files this process (or the daemon, by its pid) may open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE) if pid is None else resource.prlimit(pid, resource.RLIMIT_NOFILE)
    shown = "without limit" if soft == resource.RLIM_INFINITY else f"up to {soft}"
    what = f"{'this process' if pid is None else f'process {pid}'} may open files {shown}"
    if soft != resource.RLIM_INFINITY and soft < DESCRIPTORS_LEAST:
        fix = f"LimitNOFILE={max(DESCRIPTORS_LEAST, 65536)} in the service's unit; or ulimit -n {min(hard, 65536) if hard > 0 else 65536}"
        return Finding("limits.descriptors", Severity.WARNING, what, _WHY_DESCRIPTORS, fix)
    return Finding("limits.descriptors", Severity.OK, what, _WHY_DESCRIPTORS)


def all_limits(nodes: int, netns: str | None = None) -> Iterable[Finding]:
    """All of them; what cannot be looked at is a finding, too."""
    yield check_ports(netns)
    yield check_conntrack(netns)
    try:
        yield check_neighbours(nodes, netns)
    except HostSetupError as error:
        yield Finding("limits.neighbours", Severity.INFO, error.reason, _WHY_NEIGHBOURS)
    yield check_descriptors()
