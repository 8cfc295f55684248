"""What can go wrong with IPVS. Each docstring says who was wrong, whether the table changed, and what to do.

Pure.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from errno import EACCES, ECANCELED, EEXIST, EINVAL, ENODATA, ENOENT, EPERM, ESRCH
from typing import TYPE_CHECKING

from pyminuteman.errors import MinutemanError

if TYPE_CHECKING:
    from pyminuteman.ipvs.plan import ApplyReport, Plan

__all__ = [
    "ApplyError",
    "DestinationExists",
    "IPVSError",
    "IPVSUnavailableError",
    "InvalidDestinationError",
    "InvalidServiceError",
    "KernelError",
    "NoSuchDestination",
    "NoSuchScheduler",
    "NoSuchService",
    "NotConverged",
    "NotPermitted",
    "OutsideScope",
    "ServiceExists",
    "SnapshotUnstable",
    "TableBusy",
    "Unsupported",
]


class IPVSError(MinutemanError):
    """Anything that has to do with the IPVS table."""


class InvalidServiceError(IPVSError, ValueError):
    """You described a service that the kernel would refuse, or described one twice. Nothing was sent."""


class InvalidDestinationError(IPVSError, ValueError):
    """You described a destination that the kernel would refuse, or described one twice. Nothing was sent."""


class OutsideScope(InvalidServiceError):
    """You asked for a service that the table's scope does not cover. Nothing was sent; widen the scope, or leave it out.

    It would be added once and then never again be looked after.
    """


class IPVSUnavailableError(IPVSError):
    """This kernel has no IPVS, or not for us. Nothing was changed; the text names the module and what to do."""


class TableBusy(IPVSError):
    """Two threads used one table at once: your code. The second call did nothing. Give each thread a table of its own."""


class SnapshotUnstable(IPVSError):
    """The table changed under every one of our reads. Nothing was changed by us; try again when it is quieter."""


class Unsupported(IPVSError):
    """The plan needs what this kernel's IPVS was seen not to have. Nothing was changed; the text names the feature."""


class KernelError(IPVSError, OSError):
    """The kernel refused one operation; that operation changed nothing.

    Attributes:
        errno: The kernel's error number, positive, as in :mod:`errno`.
        operation: What was asked, as an ``ipvsadm`` line or a sentence.
        text: The kernel's own words (extended acknowledgement), empty when it gave none. IPVS itself gives none.
        hint: What it means and what to do, where we know.
    """

    def __init__(self, errno: int, operation: str, text: str = "", hint: str = "") -> None:
        """Keep the four; ``strerror`` follows from ``errno``."""
        super().__init__(errno, os.strerror(errno))
        self.operation = operation
        self.text = text
        self.hint = hint

    def __str__(self) -> str:
        """``OPERATION: REASON (ERRNO) HINT``."""
        said = f'; the kernel says "{self.text}"' if self.text else ""
        hint = f"; {self.hint}" if self.hint else ""
        return f"{self.operation}: {self.strerror}{said}{hint}"


class ServiceExists(KernelError):
    """EEXIST for a service: somebody added it after our read. :meth:`IPVSTable.converge` settles such races."""


class DestinationExists(KernelError):
    """EEXIST for a destination: somebody added it after our read. :meth:`IPVSTable.converge` settles such races."""


class NoSuchService(KernelError):
    """ESRCH: the service is not, or no longer, in the kernel's table."""


class NoSuchDestination(KernelError):
    """ENOENT for a destination: its service exists, the destination does not."""


class NoSuchScheduler(KernelError):
    """ENOENT for a service: the kernel has no such scheduler or persistence engine, and could not load it.

    Their modules are called ``ip_vs_NAME`` and ``ip_vs_pe_NAME``; loading one takes CAP_SYS_MODULE, or CAP_NET_ADMIN for
    the kernel to load it for you.
    """


class NotPermitted(KernelError):
    """EPERM: IPVS wants CAP_NET_ADMIN, in the user namespace that owns the network namespace, even for reading."""


_BAD_DESTINATION = (
    "its address is not unicast, or is of the other family without a tunnel, or this namespace's loopback device is down "
    "(ip link set lo up), or its upper threshold is above 2147483647, which newer kernels do not take"
)


def kernel_error(errno: int, command: int, operation: str, text: str = "", *, names: Sequence[str] = ()) -> KernelError:
    """Turn an error number into its class. ENOENT and EEXIST mean different things for services and destinations.

    Args:
        errno: Positive.
        command: The generic netlink command that was refused (``IPVS_CMD_*`` in linux/ip_vs.h), or 0.
        operation: What was asked.
        text: The kernel's words.
        names: Scheduler and persistence engine of the service, if it was about one.
    """
    of_destination, of_service, of_daemon = command in {5, 6, 7}, command in {1, 2}, command in {9, 10}
    if errno in {EPERM, EACCES}:
        return NotPermitted(errno, operation, text, "run as root, or give the process CAP_NET_ADMIN")
    if errno == ENOENT and of_service:
        modules = [f"ip_vs_{name}" if at == 0 else f"ip_vs_pe_{name}" for at, name in enumerate(names)]
        hint = f"the kernel has no {' or no '.join(names)}, nor could load it: modprobe {' '.join(modules)}"
        return NoSuchScheduler(errno, operation, text, hint)
    if errno == EEXIST and not of_daemon:
        return (DestinationExists if of_destination else ServiceExists)(errno, operation, text)
    if errno == ENOENT and of_destination:
        return NoSuchDestination(errno, operation, text)
    if errno == ESRCH and not of_daemon:
        return NoSuchService(errno, operation, text, "there is no such service")
    hints = {
        ENODATA: "the kernel's answer was lost, so it may have been done",
        ECANCELED: "not tried, after an earlier failure",
        EEXIST: "one of this role runs already",
        ESRCH: "none of this role runs",
    }
    hint = _BAD_DESTINATION if errno == EINVAL and of_destination else hints.get(errno, "")
    return KernelError(errno, operation, text, hint)


class ApplyError(IPVSError):
    """Part of a plan was refused; the rest of it was carried out. ``report`` tells which is which."""

    def __init__(self, report: ApplyReport) -> None:
        """Keep the report."""
        super().__init__(report)
        self.report = report

    def __str__(self) -> str:
        """How many failed, and the first few of them."""
        failed = self.report.failed
        lines = [f"{len(failed)} of {len(self.report.plan)} operations failed"]
        lines += [f"  {failure}" for failure in failed[:5]]
        if len(failed) > 5:  # noqa: PLR2004 - a screenful is enough; the report has all
            lines.append(f"  and {len(failed) - 5} more")
        return "\n".join(lines)


class NotConverged(IPVSError):
    """After every attempt the table still differs from what is desired: another writer, or a kernel that ignores a setting.

    What could be done was done. ``remaining`` is the plan that was still left, ``report`` the last attempt's.
    """

    def __init__(self, attempts: int, remaining: Plan, report: ApplyReport | None) -> None:
        """Keep the three."""
        super().__init__(attempts, remaining, report)
        self.attempts = attempts
        self.remaining = remaining
        self.report = report

    def __str__(self) -> str:
        """What is left to do, in short, and why we think so."""
        first = "\n".join(f"  {operation}" for operation in self.remaining[:5])
        why = "\n" + "\n".join(f"  {failure}" for failure in self.report.failed[:5]) if self.report else ""
        return (
            f"after {self.attempts} attempts {len(self.remaining)} operations are still needed "
            f"(another writer, or a kernel that ignores a setting):\n{first}{why}"
        )
