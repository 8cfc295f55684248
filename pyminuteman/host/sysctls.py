"""Settings of the kernel that VIPs need, each with its reason. Looked at first, written only where they differ, and taken back."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from typing import Final

from pyminuteman.host.errors import HostSetupError
from pyminuteman.host.findings import Finding, Severity
from pyminuteman.host.journal import Journal, namespace_id
from pyminuteman.host.namespaces import in_namespace

__all__ = ["Setting", "SysctlStep", "kernel_version", "read_sysctl", "settings", "write_sysctl"]

_ROOT: Final = "/proc/sys/"
_VALUE_MAX: Final = 4096
_NAME: Final = re.compile(r"[a-z0-9_.-]+")
_REUSE_FIXED: Final = (5, 9)
"""Linux 5.9: conn_reuse_mode=1 no longer delays a SYN by a second, nor sends it to a destination of weight 0."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One that is wanted.

    Attributes:
        name: As sysctl(8) writes it.
        value: What it must be.
        why: What goes wrong otherwise.
        severity: How bad it is otherwise.
        is_written: Whether set-up writes it; otherwise it is only reported.
    """

    name: str
    value: str
    why: str
    severity: Severity = Severity.WARNING
    is_written: bool = True


_CONNTRACK = Setting(
    "net.ipv4.vs.conntrack",
    "1",
    "without it conntrack does not know the connections that IPVS forwards: they are not masqueraded, answers of backends never come back by "
    "this host or are dropped by a packet filter that knows no connection of theirs, and clients time out",
    Severity.ERROR,
)
_EXPIRE_NODEST = Setting(
    "net.ipv4.vs.expire_nodest_conn",
    "1",
    "without it the packets of a connection whose backend has been removed are dropped in silence: the client waits for minutes where it "
    "could be told at once, and UDP keeps going to nowhere",
)
_EXPIRE_TEMPLATE = Setting(
    "net.ipv4.vs.expire_quiescent_template",
    "1",
    "there are persistent VIPs: without it their clients keep coming back to a drained backend (weight 0) until their template times out",
)
_REUSE = Setting(
    "net.ipv4.vs.conn_reuse_mode",
    "1",
    "a client that uses a source port again would go on to the backend of its old connection, be it drained or gone; since Linux 5.9 the "
    "kernel's default, 1, is right",
)
_FORWARD: Final = "packets of other machines or containers to a VIP are forwarded only with it; connections from this host itself do not need it"


def settings(*, conntrack: bool = True, persistent: bool = True, forward: bool = False, ipv6: bool = False) -> list[Setting]:
    """Those that are wanted.

    Args:
        conntrack: Whether connections are masqueraded (and not only routed or tunnelled), or a packet filter looks at their state.
        persistent: Whether any VIP is persistent, or may become so.
        forward: Whether this host serves others, and set-up may make a router of it.
        ipv6: Whether there are IPv6 VIPs.
    """
    wanted = [*([_CONNTRACK] if conntrack else []), _EXPIRE_NODEST, *([_EXPIRE_TEMPLATE] if persistent else [])]
    if kernel_version() >= _REUSE_FIXED:
        wanted.append(_REUSE)
    severity = Severity.WARNING if forward else Severity.INFO
    wanted.append(Setting("net.ipv4.ip_forward", "1", _FORWARD, severity, is_written=forward))
    if ipv6:
        wanted.append(Setting("net.ipv6.conf.all.forwarding", "1", _FORWARD, severity, is_written=forward))
    return wanted


def kernel_version() -> tuple[int, int]:
    """Of the running kernel: ``(6, 1)``."""
    found = re.match(r"(\d+)\.(\d+)", platform.release())
    return (int(found[1]), int(found[2])) if found else (0, 0)


def read_sysctl(name: str, netns: str | None = None) -> str | None:
    """Its value, white space between words made one space; None when there is no such setting.

    Raises:
        HostSetupError: It cannot be read.
    """
    path = _path(name)

    def read() -> str | None:
        try:
            with open(path, encoding="ascii", errors="replace") as file:  # noqa: PTH123 - a file of the kernel
                return " ".join(file.read(_VALUE_MAX).split())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise HostSetupError("sysctls", f"{name} cannot be read: {error.strerror}") from error

    return in_namespace(netns, read)


def write_sysctl(name: str, value: str, netns: str | None = None) -> None:
    """Set it.

    Raises:
        HostSetupError: There is none of this name, or the kernel refused.
    """
    path = _path(name)

    def write() -> None:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)  # without O_CREAT
            try:
                os.write(descriptor, value.encode())
            finally:
                os.close(descriptor)
        except OSError as error:
            hint = "run as root, or with CAP_NET_ADMIN; in a container /proc/sys is often read-only: set it on the host"
            raise HostSetupError("sysctls", f"{name} cannot be set to {value}: {error.strerror}", hint) from error

    in_namespace(netns, write)


def _path(name: str) -> str:
    if not _NAME.fullmatch(name) or ".." in name:
        raise HostSetupError("sysctls", f"{name!r} is no setting's name")
    return _ROOT + name.replace(".", "/")


class SysctlStep:
    """One setting."""

    def __init__(self, journal: Journal, setting: Setting, netns: str | None = None) -> None:
        self._journal, self.setting, self._netns = journal, setting, netns

    @property
    def name(self) -> str:
        """``sysctl NAME``."""
        return f"sysctl {self.setting.name}"

    def check(self) -> Finding:
        """See :class:`~pyminuteman.host.steps.HostStep`."""
        setting = self.setting
        identity = f"sysctl.{setting.name}"
        value = read_sysctl(setting.name, self._netns)
        if value is None:
            what = f"{setting.name} is not there: its module is not loaded, or this kernel has none"
            return Finding(identity, max_info(setting.severity), what, setting.why, "load IPVS: modprobe ip_vs")
        if value == setting.value:
            return Finding(identity, Severity.OK, f"{setting.name} is {value}", setting.why)
        fix = f"sysctl -w {setting.name}={setting.value}, and for every boot: echo {setting.name}={setting.value} > /etc/sysctl.d/90-minuteman.conf"
        return Finding(identity, setting.severity, f"{setting.name} is {value}", setting.why, fix, fixable=setting.is_written)

    def apply(self) -> None:
        """See :class:`~pyminuteman.host.steps.HostStep`."""
        value = read_sysctl(self.setting.name, self._netns)
        if value is not None and value != self.setting.value and self.setting.is_written:
            self._journal.remember(namespace_id(self._netns), self.name, {"value": value})
            write_sysctl(self.setting.name, self.setting.value, self._netns)

    def undo(self) -> bool:
        """See :class:`~pyminuteman.host.steps.HostStep`. A value that somebody else has set since stays."""
        namespace = namespace_id(self._netns)
        before = self._journal.recall(namespace, self.name).get("value")
        if before is None:
            return False
        is_ours = read_sysctl(self.setting.name, self._netns) == self.setting.value
        if is_ours:
            write_sysctl(self.setting.name, before, self._netns)
        self._journal.forget(namespace, self.name)
        return is_ours


def max_info(severity: Severity) -> Severity:
    """For what is not there at all: that is another finding's error."""
    return Severity.INFO if severity is Severity.INFO else Severity.WARNING
