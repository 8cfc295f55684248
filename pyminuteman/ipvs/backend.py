"""What a table needs of whoever holds it: the kernel, or a double that keeps the kernel's rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from pyminuteman.ipvs.control import KernelInformation, SyncDaemon, SyncRole, Timeouts
from pyminuteman.ipvs.plan import Plan
from pyminuteman.ipvs.service import ServiceKey
from pyminuteman.ipvs.snapshot import Snapshot
from pyminuteman.ipvs.statistics import ServiceStatistics

__all__ = ["TableBackend"]


class TableBackend(Protocol):
    """One IPVS table. Used by one thread at a time.

    :class:`pyminuteman.ipvs.netlink.NetlinkBackend` is the kernel's; :class:`pyminuteman.testing.fake_kernel.FakeKernel` is
    believed because it passes the same contract suite (``tests/contracts``).
    """

    def read(self, previous: Snapshot | None = None, *, kernel_order: bool = False) -> Snapshot:
        """The table now. Entries equal to those of ``previous`` are the very same objects.

        With ``kernel_order`` services and destinations stand as the kernel lists them, for ``export`` only: such a snapshot
        cannot be diffed.
        """
        ...

    def diff(self, current: Snapshot, wanted: Snapshot) -> Plan:
        """As :func:`pyminuteman.ipvs.plan.diff` with everything in scope, faster where the backend can."""
        ...

    def execute(self, plan: Plan, *, stop_on_error: bool = False) -> dict[int, tuple[int, str]]:
        """Carry out the operations in order.

        Returns:
            For each place in the plan that failed, the error number (positive) and the kernel's words. ENODATA: the answer was
            lost, the outcome is not known. ECANCELED: not tried, because of ``stop_on_error`` or a broken connection.
        """
        ...

    def statistics(self, key: ServiceKey | None = None) -> Mapping[ServiceKey, ServiceStatistics]:
        """Counters of all services, or of the one of this key (NoSuchService when it is not there)."""
        ...

    def information(self) -> KernelInformation:
        """Versions and sizes."""
        ...

    def timeouts(self) -> Timeouts:
        """Connection timeouts."""
        ...

    def set_timeouts(self, timeouts: Timeouts) -> None:
        """Change those that are not 0."""
        ...

    def sync_daemons(self) -> tuple[SyncDaemon, ...]:
        """Those that run, master first."""
        ...

    def start_sync_daemon(self, daemon: SyncDaemon) -> None:
        """Start one."""
        ...

    def stop_sync_daemon(self, role: SyncRole) -> None:
        """Stop one."""
        ...

    def connection_lines(self) -> Iterable[str]:
        """The lines of ``/proc/net/ip_vs_conn``."""
        ...

    def close(self) -> None:
        """Give back the socket. Further calls are an error."""
        ...
