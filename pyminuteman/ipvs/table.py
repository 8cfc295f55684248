"""IPVSTable: from a desired table to the kernel's."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from errno import ECANCELED
from types import TracebackType
from typing import Final, Self

from pyminuteman.ipvs import ipvsadm, records
from pyminuteman.ipvs.backend import TableBackend
from pyminuteman.ipvs.connections import Connection, parse_connections
from pyminuteman.ipvs.control import KernelInformation, SyncDaemon, SyncRole, Timeouts
from pyminuteman.ipvs.destination import Destination
from pyminuteman.ipvs.drain import Drain, DrainPolicy
from pyminuteman.ipvs.errors import (
    ApplyError,
    InvalidServiceError,
    NoSuchService,
    NotConverged,
    TableBusy,
    Unsupported,
    kernel_error,
)
from pyminuteman.ipvs.netlink import NetlinkBackend
from pyminuteman.ipvs.plan import (
    ApplyReport,
    Flush,
    Plan,
    Zero,
    check_features,
    check_scope,
    differing,
    select,
)
from pyminuteman.ipvs.records import Command
from pyminuteman.ipvs.scope import Scope
from pyminuteman.ipvs.service import Service, ServiceKey
from pyminuteman.ipvs.settling import is_race, settle
from pyminuteman.ipvs.snapshot import Desired, Features, Snapshot, pack_service
from pyminuteman.ipvs.statistics import ServiceStatistics

__all__ = ["IPVSTable"]

_PROGRESS_STEP: Final = 2000
"""Operations between two reports of progress: some 5 ms of the kernel's time."""

Waiting = tuple[ServiceKey, Destination, float]


@dataclass(frozen=True, slots=True)
class _Step:
    """A plan, and what it is about."""

    plan: Plan
    changed: Sequence[bytes]
    """Packed keys of the services concerned."""
    target: Snapshot
    """What the table will hold of these."""
    waiting: Sequence[Waiting]

    def amend(self, current: Snapshot) -> Snapshot:
        """The table after the plan went through; what others did to it meanwhile shows at the next audit."""
        entries = dict(current.entries)
        for key in self.changed:
            if key in self.target.entries:
                entries[key] = self.target.entries[key]
            else:
                del entries[key]
        return Snapshot(entries, current.features)


class _Alone:
    """Holds the table for one call. Not a generator: of a small plan's own Python that would be a third."""

    __slots__ = ("_backend", "_lock")

    def __init__(self, lock: threading.Lock, backend: TableBackend) -> None:
        self._lock = lock
        self._backend = backend

    def __enter__(self) -> TableBackend:
        if not self._lock.acquire(blocking=False):
            msg = "another thread is using this IPVSTable; give each thread its own"
            raise TableBusy(msg)
        return self._backend

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._lock.release()


class IPVSTable:
    """The IPVS table of one network namespace, as far as ``scope`` makes it ours.

    A context manager. One thread at a time; a second one is told so (:class:`TableBusy`). Calls block for as long as the kernel
    takes, without the GIL: under trio, ``await trio.to_thread.run_sync(table.converge, desired)``.

    Args:
        scope: Services we may change. What is in scope and not desired is removed, so there is no default.
        netns: Path of a network namespace; None for this thread's. See :class:`NetlinkBackend`.
        drain: How removed destinations finish their connections; None removes them at once.
        backend: Whoever holds the table, instead of the kernel.
        clock: For drain deadlines and elapsed times.

    Raises:
        IPVSUnavailableError: There is no IPVS to be had; the text says what to do.
    """

    def __init__(
        self,
        *,
        scope: Scope,
        netns: str | os.PathLike[str] | None = None,
        drain: DrainPolicy | None = None,
        backend: TableBackend | None = None,
        clock: Callable[[], float] = time.monotonic,  # noqa: TID251 - this is the driver
    ) -> None:
        """Open the table."""
        self.scope: Final = scope
        self._backend: TableBackend = backend if backend is not None else NetlinkBackend(netns=netns)
        self._drain: Final = Drain(drain) if drain else None
        self._clock: Final = clock
        self._lock: Final = threading.Lock()
        self._mirror: Snapshot | None = None
        self._packed: dict[bytes, tuple[object, records.Entry]] = {}

    def __enter__(self) -> Self:
        """Nothing more to do: the table is open."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Close the socket. The kernel's table stays as it is."""
        self._backend.close()

    def _alone(self) -> _Alone:
        return _Alone(self._lock, self._backend)

    # What is there

    def snapshot(self, *, audit: bool = True) -> Snapshot:
        """Read the whole table, whatever is in scope.

        Args:
            audit: False goes by our memory of it, where there is one: see :meth:`converge`.

        Raises:
            SnapshotUnstable: It changed during five reads running.
            NotPermitted, KernelError: The kernel refused, or did not answer in time.
        """
        with self._alone() as backend:
            return self._mirror if not audit and self._mirror is not None else self._read(backend)

    def _read(self, backend: TableBackend) -> Snapshot:
        self._mirror = backend.read(self._mirror)
        return self._mirror

    def statistics(self, key: ServiceKey | None = None) -> Mapping[ServiceKey, ServiceStatistics]:
        """Counters, rates and present connections of every service, or of one, in the order of listing.

        Raises:
            NoSuchService: The one asked for is not there.
        """
        with self._alone() as backend:
            return backend.statistics(key)

    def connections(self) -> list[Connection]:
        """The kernel's connection table, templates included. Its cost grows with the connections, not with the services."""
        with self._alone() as backend:
            return list(parse_connections(backend.connection_lines()))

    def export(self, *, thresholds: bool = False) -> str:
        """The whole table as ``ipvsadm -Sn`` prints it, byte for byte.

        Args:
            thresholds: Add connection thresholds, which ipvsadm itself loses; ``ipvsadm -R`` reads them.
        """
        with self._alone() as backend:
            return ipvsadm.format_table(backend.read(kernel_order=True), thresholds=thresholds)

    def information(self) -> KernelInformation:
        """Versions and sizes of the kernel's IPVS."""
        with self._alone() as backend:
            return backend.information()

    # What should be there

    def pack(self, desired: Desired) -> Snapshot:
        """What :meth:`converge` would make the table hold, in scope and without what drains. What it packed last time is not packed again.

        Raises:
            OutsideScope, InvalidServiceError, InvalidDestinationError: As :meth:`plan`.
        """
        with self._alone():
            return self._pack(desired)

    def plan(self, desired: Desired) -> Plan:
        """Read the table, and say what ``converge`` would do. Falsy when that is nothing.

        Raises:
            OutsideScope: A desired service is not in scope.
            InvalidServiceError, InvalidDestinationError: Something is described twice, or needs a tunnel.
            Unsupported: The plan needs what this kernel was seen not to have.
            SnapshotUnstable, KernelError: Reading failed.
        """
        with self._alone() as backend:
            wanted = self._pack(desired)
            return self._plan(backend, self._read(backend), wanted).plan

    def apply(
        self, plan: Plan, *, stop_on_error: bool = False, progress: Callable[[int, int], object] | None = None
    ) -> ApplyReport:
        """Carry out a plan. Past an operation that fails, the others are carried out all the same.

        When somebody else was first and the outcome is the desired one, that is no failure: a row to be added that exists is
        edited instead, a row to be removed that is gone counts as removed. The report tells (``settled``).

        Args:
            plan: From :meth:`plan`, or made of operations (:meth:`Plan.of`). The scope is not asked again.
            stop_on_error: Stop at the first failure; slower, as each operation waits for its answer.
            progress: Called with the operations done and their number, now and then.

        Raises:
            ApplyError: At least one operation failed; ``report`` tells which, and that the others were done.
        """
        with self._alone() as backend:
            report = self._apply(backend, plan, stop_on_error=stop_on_error, progress=progress)
        if report.errors:
            raise ApplyError(report)
        return report

    def converge(
        self,
        desired: Desired,
        *,
        audit: bool = True,
        attempts: int = 3,
        progress: Callable[[int, int], object] | None = None,
    ) -> ApplyReport:
        """Make the table, in scope, equal to ``desired``. Reads and plans again when somebody raced us.

        Args:
            desired: Services to their destinations. Keep unchanged tuples of destinations from call to call: the cost then grows
                with what changed.
            audit: Read the kernel's table. False goes by our memory of it, kept from the last call: changes cost no reading,
                but what others did meanwhile is not seen. Audit now and then.
            attempts: How often to read and plan before giving up, at least 1.
            progress: As in :meth:`apply`.

        Returns:
            The last attempt's report, its plan empty when nothing was to do. With a drain policy, ``draining`` is what still
            has connections: call again in a while.

        Raises:
            ApplyError: Something failed that trying again cannot mend (rights, an unknown scheduler, an invalid address).
            NotConverged: It still differs after every attempt.
            OutsideScope, InvalidServiceError, InvalidDestinationError, Unsupported, SnapshotUnstable: As :meth:`plan`.
        """
        if attempts < 1:
            msg = f"attempts is {attempts}; it takes at least 1"
            raise ValueError(msg)
        with self._alone() as backend:
            wanted = self._pack(desired)
            report = ApplyReport(Plan(), 0.0)
            for attempt in range(1, attempts + 1):
                trusted = self._mirror if not audit and attempt == 1 else None
                current = trusted if trusted is not None else self._read(backend)
                step = self._plan(backend, current, wanted)
                if report.settled and not report.errors and not step.plan:
                    # What was settled with the other writer is seen to be all there was.
                    return replace(report, draining=step.waiting, attempts=attempt)
                report = self._apply(backend, step.plan, progress=progress)
                report = replace(report, draining=step.waiting, attempts=attempt)
                if not report.errors and not report.settled:
                    self._mirror = step.amend(current)
                    return report
                if not all(is_race(report.plan, at, errno) for at, (errno, _) in report.errors.items()):
                    raise ApplyError(report)
            if not report.errors:
                return report
            raise NotConverged(attempts, select(report.plan, sorted(report.errors)), report)

    def add_services(self, services: Iterable[Service]) -> ApplyReport:
        """Add services that nobody has yet, without destinations. One that is there already is left as it is, whoever's it is.

        For those who keep a ledger of what is theirs: the kernel itself says whether a service is new, and no reading of before.

        Returns:
            The report. Nothing is raised for what failed: ``errors`` has it, with EEXIST for what was there.

        Raises:
            OutsideScope: One is not in scope. Nothing was added.
        """
        wanted = Snapshot({service.key.packed: (service.packed, b"") for service in services})
        check_scope(wanted.entries, self.scope)
        with self._alone() as backend:
            before = self._mirror
            report = self._apply(backend, backend.diff(Snapshot(), wanted), exclusive=True)
            if before is not None and not report.errors:
                self._mirror = Snapshot({**before.entries, **wanted.entries}, before.features)
        return report

    def flush(self) -> ApplyReport:
        """Remove every service in scope, at once and without draining.

        Raises:
            ApplyError: As :meth:`apply`.
        """
        with self._alone() as backend:
            current = self._read(backend)
            if self.scope.is_everything:
                plan = Plan.of([Flush()] if current else [])
            else:
                gone = differing(current, Snapshot(), self.scope)
                plan = backend.diff(current.restricted(gone), Snapshot())
            report = self._apply(backend, plan)
        if report.errors:
            raise ApplyError(report)
        return report

    def zero(self, key: ServiceKey | None = None) -> None:
        """Set counters to zero: of one service and its destinations, or of the whole table, other people's included.

        Raises:
            NoSuchService: The one asked for is not there.
            KernelError: The kernel refused.
        """
        operation = Zero(_anything(key))
        with self._alone() as backend:
            failed = backend.execute(Plan.of([operation]))
        for errno, text in failed.values():
            raise kernel_error(errno, Command.ZERO, str(operation), text)

    # What goes with it

    def timeouts(self) -> Timeouts:
        """Connection timeouts of this network namespace."""
        with self._alone() as backend:
            return backend.timeouts()

    def set_timeouts(self, timeouts: Timeouts) -> None:
        """Change the timeouts that are not 0, for packets from now on.

        Raises:
            KernelError: The kernel refused.
        """
        with self._alone() as backend:
            backend.set_timeouts(timeouts)

    def sync_daemons(self) -> tuple[SyncDaemon, ...]:
        """The connection synchronisation daemons that run, master first."""
        with self._alone() as backend:
            return backend.sync_daemons()

    def start_sync_daemon(self, daemon: SyncDaemon) -> None:
        """Start a synchronisation daemon.

        Raises:
            KernelError: EEXIST: one of this role runs. ENODEV: no such interface. EINVAL: the interface has no multicast.
            Unsupported: It runs, but this kernel ignored the group, port, ttl or payload asked for.
        """
        with self._alone() as backend:
            backend.start_sync_daemon(daemon)
            running = next((other for other in backend.sync_daemons() if other.role == daemon.role), daemon)
        for name in ("payload_bytes", "group", "port", "ttl"):
            wanted, got = getattr(daemon, name), getattr(running, name)
            # A payload that is too small or large is brought within its bounds; no other setting is changed by who knows it.
            if wanted and (not got or (got != wanted and name != "payload_bytes")):
                msg = f"this kernel started the daemon with {name} {got or 'its default'} in place of {wanted}"
                raise Unsupported(msg)

    def stop_sync_daemon(self, role: SyncRole) -> None:
        """Stop a synchronisation daemon.

        Raises:
            KernelError: ESRCH: none of this role runs.
        """
        with self._alone() as backend:
            backend.stop_sync_daemon(role)

    # How

    def _pack(self, desired: Desired) -> Snapshot:
        """Pack, but for what was packed last time and is the same immutable object now."""
        if isinstance(desired, Snapshot):
            check_scope(desired.entries, self.scope)
            return desired
        before, in_scope = self._packed, self.scope.__contains__
        entries: dict[bytes, records.Entry] = {}
        packed: dict[bytes, tuple[object, records.Entry]] = {}
        for service, destinations in desired.items():
            known = before.get(service.packed) if isinstance(service, Service) else None
            if known is not None and known[0] is destinations:
                packed[service.packed] = known
            else:
                known = (destinations, pack_service(service, destinations))
                if not in_scope(service.key):
                    check_scope([service.key.packed], self.scope)
                if isinstance(destinations, tuple | frozenset):
                    packed[service.packed] = known
            key = service.key.packed
            if key in entries:
                msg = f"{service.key} is described twice, with different settings"
                raise InvalidServiceError(msg)
            entries[key] = known[1]
        self._packed = packed
        return Snapshot(entries)

    def _plan(self, backend: TableBackend, current: Snapshot, wanted: Snapshot) -> _Step:
        changed = differing(current, wanted, self.scope)
        if not changed:
            return _Step(Plan(), changed, Snapshot(), ())
        waiting: Sequence[Waiting] = ()
        if self._drain:
            target, waiting = self._drain.hold_back(current, wanted, changed, self._clock(), self._counts)
        else:
            target = wanted.restricted(changed)
        plan = backend.diff(current.restricted(changed), target)
        if Features.ALL & ~current.features:
            check_features(plan, current.features)
        return _Step(plan, changed, target, waiting)

    def _counts(self, key: ServiceKey) -> dict[bytes, int]:
        """Connections to each destination of a service that have yet to end, for :class:`Drain`."""
        try:
            found = self._backend.statistics(key)[key].destinations
        except NoSuchService:
            return {}
        counts = {row.key: one.connections.active + one.connections.inactive for row, one in found.items()}
        # The kernel counts a connection as inactive for two minutes after it ended. Which of them have is only in its list of
        # connections, which is long: so that is read when nothing else holds a destination back.
        idle = [
            row for row, one in found.items() if row.weight == 0 and one.connections.inactive and not one.connections.active
        ]
        if idle:
            open_now = [one for one in parse_connections(self._backend.connection_lines()) if not one.has_ended]
            for row in idle:
                counts[row.key] = sum(1 for one in open_now if one.concerns(key, row))
        return counts

    def _apply(
        self,
        backend: TableBackend,
        plan: Plan,
        *,
        stop_on_error: bool = False,
        exclusive: bool = False,
        progress: Callable[[int, int], object] | None = None,
    ) -> ApplyReport:
        if not plan:
            return ApplyReport(plan, 0.0)
        began = self._clock()
        self._mirror = None
        errors: dict[int, tuple[int, str]] = {}
        step = _PROGRESS_STEP if progress else len(plan)
        for start in range(0, len(plan), step):
            part = plan if step == len(plan) else plan.part(start, start + step)
            if failed := backend.execute(part, stop_on_error=stop_on_error):
                errors.update({start + at: failure for at, failure in failed.items()})
                if stop_on_error:
                    errors.update(dict.fromkeys(range(start + len(part), len(plan)), (ECANCELED, "")))
                    break
            if progress:
                progress(start + len(part), len(plan))
        settled = settle(backend, plan, errors) if errors and not (stop_on_error or exclusive) else frozenset()
        return ApplyReport(plan, self._clock() - began, errors, settled)


def _anything(key: ServiceKey | None) -> Service | None:
    """A service of this key, its settings of no account."""
    return None if key is None else Service.from_packed(key.packed + bytes(records.SERVICE_SIZE - records.SERVICE_KEY_SIZE))
