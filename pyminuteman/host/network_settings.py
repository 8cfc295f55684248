"""Settings of the network that set-up leaves alone, since others depend on them: only reported."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from pyminuteman.host.findings import Finding, Severity
from pyminuteman.host.links import Links
from pyminuteman.host.namespaces import in_namespace
from pyminuteman.host.sysctls import kernel_version, read_sysctl

__all__ = ["MTU_LEAST", "check_bridge", "check_connection_reuse", "check_reverse_path", "check_uplink_mtu"]

MTU_LEAST: Final = 1280
"""What IPv6 asks of any link (RFC 8200, section 5), and gossip's datagrams of 1,200 bytes with their headers."""
_REUSE_FIXED: Final = (5, 9)
_WHY_BRIDGE: Final = (
    "with it, what passes between containers of one bridge goes through iptables as well: connections to a VIP within one bridge are then "
    "translated once on each way, and may break; Kubernetes and Docker's isolation want it to be 1"
)
_WHY_REVERSE: Final = (
    "with forwarding by route or tunnel a packet for a VIP may come in by another interface than answers go out by: a strict filter (1) drops "
    "it in silence; masquerading does not mind"
)
_WHY_REUSE: Final = (
    "before Linux 5.9 conn_reuse_mode has no good value: with 1 a client that uses a port again waits for a second, with 0 it stays with a "
    "backend that is drained or gone"
)
_WHY_MTU: Final = "below 1,280 bytes IPv6 does not work, and gossip's largest datagrams do not pass"


def check_bridge() -> Finding:
    """``bridge-nf-call-iptables``."""
    identity = "network.bridge"
    value = read_sysctl("net.bridge.bridge-nf-call-iptables")
    if value in {None, "0"}:
        what = "bridged packets do not go through iptables" if value else "there is no bridge filter"
        return Finding(identity, Severity.OK, what, _WHY_BRIDGE)
    what = "bridged packets go through iptables (net.bridge.bridge-nf-call-iptables is 1)"
    fix = "if containers of one bridge cannot reach their own VIPs, and nothing else needs it: sysctl -w net.bridge.bridge-nf-call-iptables=0"
    return Finding(identity, Severity.INFO, what, _WHY_BRIDGE, fix)


def check_reverse_path(*, routed: bool, netns: str | None = None) -> Finding:
    """``rp_filter``; ``routed``: whether any VIP is forwarded by route or tunnel."""
    value = read_sysctl("net.ipv4.conf.all.rp_filter", netns)
    if value == "1":
        severity = Severity.WARNING if routed else Severity.INFO
        fix = "sysctl -w net.ipv4.conf.all.rp_filter=2"
        return Finding(
            "network.rp_filter",
            severity,
            "the reverse path filter is strict (net.ipv4.conf.all.rp_filter is 1)",
            _WHY_REVERSE,
            fix,
        )
    return Finding("network.rp_filter", Severity.OK, f"the reverse path filter is not strict ({value})", _WHY_REVERSE)


def check_connection_reuse(netns: str | None = None) -> Finding | None:
    """``conn_reuse_mode`` of old kernels; None for others, whose step of set-up it is."""
    if kernel_version() >= _REUSE_FIXED:
        return None
    value = read_sysctl("net.ipv4.vs.conn_reuse_mode", netns)
    fix = "a kernel from 5.9 on; until then set it to 0 where clients open many connections, and drain long"
    return Finding(
        "network.conn_reuse_mode",
        Severity.WARNING,
        f"net.ipv4.vs.conn_reuse_mode is {value}, on an old kernel",
        _WHY_REUSE,
        fix,
    )


def check_uplink_mtu(netns: str | None = None) -> Iterable[Finding]:
    """The MTU of the devices that have a default route."""
    names = sorted(_uplinks(netns))
    if not names:
        yield Finding("network.mtu", Severity.INFO, "there is no default route", _WHY_MTU)
        return
    with Links(netns) as links:
        for name in names:
            link = links.get(name)
            if link is None:
                continue
            severity = Severity.OK if link.mtu >= MTU_LEAST else Severity.ERROR
            fix = "" if severity is Severity.OK else f"ip link set {name} mtu 1500, or what the network carries"
            yield Finding("network.mtu", severity, f"{name} has an MTU of {link.mtu} bytes", _WHY_MTU, fix)


def _uplinks(netns: str | None) -> set[str]:
    def read() -> set[str]:
        try:
            with open("/proc/thread-self/net/route", encoding="ascii", errors="replace") as lines:  # noqa: PTH123 - a file of the kernel
                rows = [line.split() for line in lines]
        except OSError:
            return set()
        return {row[0] for row in rows[1:] if len(row) > 7 and row[1] == row[7] == "00000000"}  # noqa: PLR2004 - destination and mask

    return in_namespace(netns, read)
