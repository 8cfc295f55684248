"""One look at the IPVS table of a network namespace, and all that is done about it: the part of a reconciler that blocks, without its loop.

1. A service is ours when it is in the managed networks, and in the ledger or adopted. Others are never touched; one that stands where we
   want ours is told of (*foreign*), and left alone. Whether one stands there the kernel itself says, when ours is added: what was read
   before may be older than it.
2. What would take away more than the set share of the destinations that work is held back as a whole, until it is confirmed or the
   desire changes; nothing of it is written down as ours either. Nothing is held back by memory alone: the kernel's table is read first.
3. The order on a host: addresses that go are withdrawn, IPVS is changed, addresses that come are announced (names follow, by whoever
   called). So no connection to a VIP ever ends at a port of the host itself.
4. When nothing differs nothing is written, after a restart too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from errno import EEXIST, ENODATA
from typing import Any, Protocol

from pyminuteman.daemon.ledger import Ledger, LedgerError
from pyminuteman.daemon.reconciler_options import ReconcilerOptions
from pyminuteman.host.errors import HostSetupError
from pyminuteman.ipvs import ApplyError, ApplyReport, DrainPolicy, IPVSError, IPVSTable, Scope, Service, ServiceKey, Snapshot
from pyminuteman.ipvs.plan import AddService, Plan
from pyminuteman.ipvs.shrinkage import Shrinkage, shrinkage
from pyminuteman.vips.desired import DesiredState

__all__ = ["Done", "HostChanges", "Programmer"]


class HostChanges(Protocol):
    """What of the host goes with the table; :class:`pyminuteman.host.setup.HostSetup` is one. Calls block."""

    def before_ipvs(self, addresses: Iterable[str], services: Iterable[ServiceKey]) -> None:
        """Withdraw addresses that are gone."""

    def after_ipvs(self, addresses: Iterable[str], services: Iterable[ServiceKey]) -> None:
        """Announce addresses that are new."""

    def audit(self, addresses: Iterable[str], services: Iterable[ServiceKey]) -> bool:
        """Put right what somebody else has changed."""


@dataclass(frozen=True, slots=True)
class Done:
    """What one look came to.

    Attributes:
        made: Of services that are new.
        report: Of all else.
        services: In the kernel, of ours.
        destinations: Behind these.
        foreign: Services in our networks that are not ours, and left alone.
        host_errors: What could not be done to the host.
        failure: Why not all was done; None when it was.
    """

    made: ApplyReport
    report: ApplyReport
    services: int
    destinations: int
    foreign: tuple[ServiceKey, ...]
    host_errors: tuple[str, ...]
    failure: IPVSError | LedgerError | None


class Programmer:
    """Programs one table. Calls of :meth:`carry_out` and :meth:`empty` block, and are not to overlap.

    Args:
        ledger: Which services are ours.
        options: How the table is kept; to be changed between two calls.
        host: What of the host goes with it; None: nothing.
    """

    def __init__(self, ledger: Ledger, options: ReconcilerOptions, host: HostChanges | None = None) -> None:
        self.options = options
        self.scope = Scope(self.is_ours, "what the ledger has, or is adopted")
        """What a table may remove services from."""
        self.drain_policy = DrainPolicy(timeout_of=self._drain_seconds)
        """How long a table is to let destinations finish their connections."""
        self._ledger = ledger
        self._host = host
        self._fresh: frozenset[ServiceKey] = frozenset()
        self._drains: dict[ServiceKey, float] = {}

    @property
    def ledger_problem(self) -> str:
        """Why what the ledger says does not count; empty when it does."""
        return self._ledger.problem

    def is_ours(self, key: ServiceKey) -> bool:
        """Whether a service is ours."""
        if key not in self.options.managed:
            return False
        return self.options.adopt == "everything" or key in self._ledger or key in self._fresh

    def _drain_seconds(self, key: ServiceKey) -> float:
        return self._drains.get(key, self.options.drain_seconds)

    def expect(self, state: DesiredState) -> None:
        """This is to be carried out next: how long its services drain is known from now on, for when they go."""
        for resolution in state.resolutions.values():
            drain = resolution.vip.settings.drain_seconds or self.options.drain_seconds
            self._drains.update((service.key, drain) for service, _ in resolution.services)

    def forget_others(self, state: DesiredState) -> None:
        """Nothing drains any more: how long services do that this does not have is of no use."""
        named = {service.key for service in state.services}
        for key in [key for key in self._drains if key not in named]:
            del self._drains[key]

    def carry_out(
        self, table: IPVSTable, state: DesiredState, *, audit: bool, confirmed: Shrinkage | None = None
    ) -> Done | Shrinkage:
        """Bring the table up to what is desired.

        Args:
            table: With our scope and drain policy.
            state: What is desired.
            audit: Whether to read the kernel's table, instead of taking it to be as we left it.
            confirmed: What may be lost after all.

        Returns:
            What was done; or what would be lost, when that is too much, and nothing was done.

        Raises:
            IPVSError: The table could not be read, or kept changing under our hands.
        """
        for reading in (True,) if audit else (False, True):
            current = table.snapshot(audit=reading)
            there = {key for key in (service.key for service in current) if key in self.options.managed}
            services, foreign, fresh = self._sort_out(state.services, there)
            loss = self._loss(table, current, services, fresh)
            if loss == confirmed or not loss.exceeds(self.options.max_loss_percent):
                break
        else:
            return loss
        failure: IPVSError | LedgerError | None = None
        try:
            self._ledger.add(fresh)
        except LedgerError as error:
            failure, fresh = error, []
            services = {service: rows for service, rows in services.items() if service.key in self._ledger}
        keys = {service.key for service in services}
        staying = {key for key in there - keys if self.is_ours(key) and self.drain_policy.timeout(key) > 0}
        host_errors = self._host_turn("before", keys | staying)
        made = ApplyReport(Plan(), 0.0)
        if fresh and self.options.adopt == "no":
            made, failure = self._make(table, services, frozenset(fresh))
            unmade = _unmade(made)
            services = {service: rows for service, rows in services.items() if service.key not in unmade}
            keys -= unmade.keys()
            foreign += tuple(key for key, errno in unmade.items() if errno == EEXIST)
            struck = self._strike(unmade)
            failure = failure or struck
        try:
            report = table.converge(services, audit=False)
        except ApplyError as error:  # the rest of it was done, and the host follows that
            report, failure = error.report, failure or error
        left = {service.key for service in table.snapshot(audit=False)}
        ours = {key for key in left if self.is_ours(key)}
        if audit and self._host is not None:
            host_errors += self._host_turn("audit", ours)
        host_errors += self._host_turn("after", ours)
        if staying - ours:
            host_errors += self._host_turn("before", ours)  # what has drained may go
        gone = [key for key in self._ledger.keys if key not in left and key not in keys]
        struck = self._strike(gone)
        rows = sum(len(destinations) for destinations in services.values())
        return Done(made, report, len(services), rows, foreign, host_errors, failure or struck)

    def _loss(
        self, table: IPVSTable, current: Snapshot, services: Mapping[Service, tuple[Any, ...]], fresh: Iterable[ServiceKey]
    ) -> Shrinkage:
        """What would be lost. What is fresh is in scope meanwhile; it is written down when nothing is held back."""
        self._fresh = frozenset(fresh)
        try:
            return shrinkage(current, table.pack(services), self.scope)
        finally:
            self._fresh = frozenset()

    def _make(
        self, table: IPVSTable, services: Iterable[Service], fresh: frozenset[ServiceKey]
    ) -> tuple[ApplyReport, ApplyError | None]:
        """Make services that are nobody's yet; and what is wrong besides that some of them are there."""
        report = table.add_services(service for service in services if service.key in fresh)
        wrong = {at: error for at, error in report.errors.items() if error[0] not in {EEXIST, ENODATA}}
        return report, ApplyError(replace(report, errors=wrong)) if wrong else None

    def _strike(self, keys: Iterable[ServiceKey]) -> LedgerError | None:
        try:
            self._ledger.strike(keys)
        except LedgerError as error:
            return error
        return None

    def _sort_out(
        self, desired: Mapping[Service, tuple[Any, ...]], there: set[ServiceKey]
    ) -> tuple[dict[Service, tuple[Any, ...]], tuple[ServiceKey, ...], list[ServiceKey]]:
        """What of the desired is to be ours, what is somebody else's, and what has yet to be written down."""
        services: dict[Service, tuple[Any, ...]] = {}
        foreign: list[ServiceKey] = []
        fresh: list[ServiceKey] = []
        for service, rows in desired.items():
            key = service.key
            if key not in self.options.managed:
                continue
            if key not in self._ledger:
                if self.options.adopt == "no" and key in there:
                    foreign.append(key)
                    continue
                fresh.append(key)
            services[service] = rows
        return services, tuple(foreign), fresh

    def _host_turn(self, when: str, keys: Iterable[ServiceKey]) -> tuple[str, ...]:
        """One call of the host's set-up; what it could not do does not keep IPVS from being changed."""
        if self._host is None:
            return ()
        services = sorted(keys, key=lambda key: key.packed)
        addresses = {key.address for key in services if not key.mark}
        try:
            match when:
                case "before":
                    self._host.before_ipvs(addresses, services)
                case "after":
                    self._host.after_ipvs(addresses, services)
                case _:
                    self._host.audit(addresses, services)
        except HostSetupError as error:
            return (str(error),)
        return ()

    def empty(self, table: IPVSTable) -> ApplyReport:
        """Take everything away that is ours, as ``on_exit`` has it: at once, or when it has drained, for which this is called again.

        Raises:
            IPVSError: It could not be done.
            LedgerError: The ledger has what is gone still.
        """
        if self.options.on_exit == "flush":
            self._drains = {}
            self._host_turn("before", ())
            report = table.flush()
        else:
            report = table.converge({})
            staying = {service.key for service in table.snapshot(audit=False) if self.is_ours(service.key)}
            self._host_turn("before", staying)
        self._ledger.strike(key for key in self._ledger.keys if not report.draining)
        return report


def _unmade(made: ApplyReport) -> dict[ServiceKey, int]:
    """The services that were not made, with the error number. One whose answer was lost (ENODATA) is held to be made, as it likely was."""
    failed = {at: errno for at, (errno, _) in made.errors.items() if errno != ENODATA}
    return {operation.service.key: failed[at] for at in failed if isinstance(operation := made.plan[at], AddService)}
