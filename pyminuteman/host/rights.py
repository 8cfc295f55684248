"""What this process may do, and what it misses."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from pyminuteman.capabilities import Capability, Privileges
from pyminuteman.host.findings import Finding, Severity

__all__ = ["check_rights", "first_free_port"]

_WHY_ADMIN: Final = "IPVS, addresses, routes, packet filter and net.* settings take CAP_NET_ADMIN, and nothing more; without it IPVS cannot even be read"
_WHY_RAW: Final = "iptables-legacy opens a raw socket, which takes CAP_NET_RAW; nft does not"
_WHY_BIND: Final = "a low port, as 53 is, takes CAP_NET_BIND_SERVICE (net.ipv4.ip_unprivileged_port_start)"
_WHY_SYS: Final = "entering another network namespace (containers', --netns) takes CAP_SYS_ADMIN; our own namespace does not"


def check_rights(*, iptables: bool = False, namespaces: bool = False, ports: Iterable[int] = ()) -> Iterable[Finding]:
    """By the capabilities in effect.

    Args:
        iptables: Whether rules go through iptables.
        namespaces: Whether other network namespaces are to be served.
        ports: Those that are to be listened on.
    """
    now = Privileges.now()
    if now.may(Capability.NET_ADMIN):
        yield Finding("rights.net_admin", Severity.OK, "CAP_NET_ADMIN is there", _WHY_ADMIN)
    else:
        fix = "run as root, or AmbientCapabilities=CAP_NET_ADMIN in the service's unit"
        yield Finding("rights.net_admin", Severity.ERROR, "CAP_NET_ADMIN is missing", _WHY_ADMIN, fix)
    if iptables:
        yield _right("rights.net_raw", Capability.NET_RAW, now, _WHY_RAW, Severity.ERROR)
    if any(0 < port < first_free_port() for port in ports):
        yield _right("rights.net_bind_service", Capability.NET_BIND_SERVICE, now, _WHY_BIND, Severity.ERROR)
    severity = Severity.ERROR if namespaces else Severity.INFO
    yield _right("rights.sys_admin", Capability.SYS_ADMIN, now, _WHY_SYS, severity)


def first_free_port() -> int:
    """From which on a port takes no right; 1024 unless the host says otherwise."""
    return int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text(encoding="ascii"))


def _right(identity: str, name: Capability, now: Privileges, why: str, severity: Severity) -> Finding:
    if now.may(name):
        return Finding(identity, Severity.OK, f"{name} is there", why)
    fix = "" if severity is Severity.INFO else f"run as root, or add {name} to AmbientCapabilities in the service's unit"
    if fix and name is Capability.SYS_ADMIN:
        fix += ": minuteman.service.d/namespaces.conf does"
    return Finding(identity, severity, f"{name} is missing", why, fix)
