"""Keeps the IPVS table of one network namespace, and what of the host goes with it, equal to what is desired.

1. Nothing is done before something is desired for the first time.
2. A service is ours when it is in the managed networks, and in the ledger or adopted. Others are never touched; one that stands where we
   want ours is told of (*foreign*), and left alone. Whether one stands there the kernel itself says, when ours is added: what was read
   before may be older than it.
3. What would take away more than the set share of the destinations that work is held back as a whole, until it is confirmed or the
   desire changes; nothing of it is written down as ours either. Nothing is held back by memory alone: the kernel's table is read first.
4. The order on a host: addresses that go are withdrawn, IPVS is changed, addresses that come are announced, names follow. So no
   connection to a VIP ever ends at a port of the host itself.
5. Desires that come while the kernel is busy give way to the newest. A failure is tried again with back-off, by a table that is read
   anew; so is what somebody else keeps changing.
6. When nothing differs nothing is written, after a restart too.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from errno import EEXIST, ENODATA
from random import Random
from typing import Any, Final, Literal, Protocol

import trio

from pyminuteman.daemon.histogram import Histogram
from pyminuteman.daemon.ledger import Ledger, LedgerError
from pyminuteman.daemon.metrics import SYNC_BOUNDS
from pyminuteman.host.errors import HostSetupError
from pyminuteman.ipvs import (
    ApplyError,
    ApplyReport,
    DrainPolicy,
    IPVSError,
    IPVSTable,
    NotConverged,
    Scope,
    Service,
    ServiceKey,
    ServiceStatistics,
    Snapshot,
)
from pyminuteman.ipvs.plan import AddService, Plan
from pyminuteman.ipvs.shrinkage import Shrinkage, shrinkage
from pyminuteman.sources.backoff import Backoff
from pyminuteman.vips.desired import DesiredState

__all__ = ["Adopt", "HostChanges", "OnExit", "Reconciler", "ReconcilerOptions", "ReconcilerStatus"]

Adopt = Literal["no", "desired", "everything"]
OnExit = Literal["keep", "drain", "flush"]

_RETRY: Final = Backoff(first_seconds=0.5, most_seconds=60.0)
_DRAIN_LOOK_SECONDS: Final = 1.0
_DRAIN_LOOK_LEAST_SECONDS: Final = 0.05
_STATISTICS_FRESH_SECONDS: Final = 1.0
_FIGHT_TIMES: Final = 5
_FIGHT_SECONDS: Final = 600.0
_EXIT_SECONDS: Final = 60.0

_log = logging.getLogger("pyminuteman.daemon")


class HostChanges(Protocol):
    """What of the host goes with the table; :class:`pyminuteman.host.setup.HostSetup` is one. Calls block."""

    def before_ipvs(self, addresses: Iterable[str], services: Iterable[ServiceKey]) -> None:
        """Withdraw addresses that are gone."""

    def after_ipvs(self, addresses: Iterable[str], services: Iterable[ServiceKey]) -> None:
        """Announce addresses that are new."""

    def audit(self, addresses: Iterable[str], services: Iterable[ServiceKey]) -> bool:
        """Put right what somebody else has changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconcilerOptions:
    """How a table is kept.

    Attributes:
        managed: The networks whose services may be ours.
        adopt: ``no``; ``desired``: a service that stands where we want one becomes ours; ``everything``: all in the managed networks is.
        max_loss_percent: Hold back what would lose a larger share of the destinations that work.
        audit_seconds: How often to read the kernel's table. In between, only what we did to it is known.
        drain_seconds: How long destinations that are taken away keep their connections, where their VIP does not say; 0 for not at all.
        min_interval_seconds: Between two changes of the table.
        on_exit: What becomes of the table at the end: ``keep``, ``drain`` or ``flush`` what is ours.
    """

    managed: Scope
    adopt: Adopt = "no"
    max_loss_percent: float = 50.0
    audit_seconds: float = 60.0
    drain_seconds: float = 0.0
    min_interval_seconds: float = 0.0
    on_exit: OnExit = "keep"


@dataclass(kw_only=True)
class ReconcilerStatus:
    """What has been done, for who shows it. Times are seconds of the epoch."""

    services: int = 0
    destinations: int = 0
    last_sync_at: float | None = None
    last_sync_seconds: float | None = None
    last_queued_at: float | None = None
    syncs_total: int = 0
    errors: Counter[tuple[str, int]] = field(default_factory=Counter)
    draining: int = 0
    held: Shrinkage | None = None
    foreign: tuple[ServiceKey, ...] = ()
    error: str = ""
    sync: Histogram = field(default_factory=lambda: Histogram(SYNC_BOUNDS))
    programming: Histogram = field(default_factory=lambda: Histogram(SYNC_BOUNDS))


@dataclass(frozen=True, slots=True)
class _Done:
    """What one sync came to; ``made`` is of services that are new, ``report`` of all else."""

    made: ApplyReport
    report: ApplyReport
    services: int
    destinations: int
    foreign: tuple[ServiceKey, ...]
    host_errors: tuple[str, ...]
    failure: IPVSError | LedgerError | None


class Reconciler:
    """One namespace's.

    Args:
        name: Of the namespace; empty for the host's own.
        open_table: Opens its table, with that scope and drain policy.
        ledger: Which services are ours.
        options: How it is kept.
        tell: Where events are told: kind, text, data.
        host: What of the host goes with it; None: nothing.
        synced: Called when the kernel is as that state desires: names may be published.
        limiter: Whose threads it blocks; None: trio's own.
        clock: Seconds of the epoch.
        dice: For the jitter.
    """

    def __init__(
        self,
        name: str,
        *,
        open_table: Callable[[Scope, DrainPolicy | None], IPVSTable],
        ledger: Ledger,
        options: ReconcilerOptions,
        tell: Callable[[str, str, Mapping[str, Any]], object],
        host: HostChanges | None = None,
        synced: Callable[[DesiredState], object] | None = None,
        limiter: trio.CapacityLimiter | None = None,
        clock: Callable[[], float] = time.time,  # noqa: TID251 - shown to people
        dice: Random | None = None,
    ) -> None:
        self.name = name
        self.status = ReconcilerStatus()
        self.settled = trio.Event()
        """Set when the first desire was carried out, held back, or found impossible."""
        self._options = self._next_options = options
        self._ledger = ledger
        self._tell = tell
        self._host = host
        self._synced = synced
        self._limiter = limiter
        self._is_let_go = False
        self._clock = clock
        self._dice = Random() if dice is None else dice  # noqa: S311 - jitter, no secret
        self._open_table = open_table
        self._scope = Scope(self._is_ours, "what the ledger has, or is adopted")
        self._fresh: frozenset[ServiceKey] = frozenset()
        self._drains: dict[ServiceKey, float] = {}
        self._wanted: DesiredState | None = None
        self._tried = trio.Event()
        self._since: float | None = None
        self._wake = trio.Event()
        self._audit_at = -math.inf
        self._audit_seconds = options.audit_seconds
        self._confirmed: Shrinkage | None = None
        self._failures = 0
        self._repairs: deque[float] = deque(maxlen=_FIGHT_TIMES)
        self._as_desired: DesiredState | None = None
        self._told: dict[str, object] = {}
        self._announced: frozenset[str] = frozenset()
        self._statistics: tuple[float, Mapping[ServiceKey, ServiceStatistics]] = (-math.inf, {})
        self._asking = trio.Lock()
        self._counting: IPVSTable | None = None

    def _is_ours(self, key: ServiceKey) -> bool:
        if key not in self._options.managed:
            return False
        return self._options.adopt == "everything" or key in self._ledger or key in self._fresh

    # What is wanted

    def want(self, state: DesiredState, *, since: float | None = None) -> None:
        """This is desired now. Does not wait.

        Args:
            state: What.
            since: When what led to it happened, in seconds of trio's clock.
        """
        if self._wanted is state:
            return
        self._wanted = state
        if self._tried.is_set():
            self._tried = trio.Event()
        self.status.last_queued_at = self._clock()
        if self._since is None:
            self._since = since
        self._wake.set()

    async def caught_up(self) -> None:
        """Wait until the newest desire was carried out, or was tried in vain."""
        await self._tried.wait()

    def wake(self, *, audit: bool = False) -> None:
        """Look again; with ``audit`` by reading the kernel's table."""
        if audit:
            self._audit_at = -math.inf
        self._wake.set()

    @property
    def options(self) -> ReconcilerOptions:
        """How the table is kept, from the next look on at the latest."""
        return self._next_options

    def set_options(self, options: ReconcilerOptions) -> None:
        """Keep the table like this from the next look on, which is now. A look that is under way ends as it began."""
        self._next_options = options
        self._wake.set()

    def confirm(self, identity: str) -> bool:
        """What is held back may be done after all; False when nothing is, or something else (:attr:`Shrinkage.identity`)."""
        held = self.status.held
        if held is None or held.identity != identity:
            return False
        self._confirmed = held
        self._wake.set()
        return True

    def let_go(self) -> None:
        """Its namespace is no longer to be served: at the end leave the table as it is, whatever ``on_exit`` says."""
        self._is_let_go = True

    async def statistics(self) -> Mapping[ServiceKey, ServiceStatistics]:
        """What the kernel counts, a second old at most. Empty when it cannot be had."""
        async with self._asking:
            at, found = self._statistics
            if trio.current_time() - at > _STATISTICS_FRESH_SECONDS:
                try:
                    found = await trio.to_thread.run_sync(self._count)
                except IPVSError as error:
                    _log.debug("no statistics of %s: %s", self.name or "the host", error)
                    found = {}
                self._statistics = trio.current_time(), found
            return found

    def _count(self) -> Mapping[ServiceKey, ServiceStatistics]:
        if self._counting is None:  # a table of its own: whoever programs the other one is not to wait
            self._counting = self._open_table(Scope.services(()), None)
        return {key: row for key, row in self._counting.statistics().items() if self._is_ours(key)}

    # The work

    async def run(self) -> None:
        """Until cancelled; then the end is as ``on_exit`` has it.

        Raises:
            IPVSError: The table cannot be had at all.
        """
        drain = DrainPolicy(timeout_of=lambda key: self._drains.get(key, self._options.drain_seconds))
        table = await trio.to_thread.run_sync(self._open_table, self._scope, drain, limiter=self._limiter)
        try:
            if self._ledger.problem:
                self._say("ledger", "sync_failed", self._ledger.problem)
            while True:
                self._wake = trio.Event()  # before the look: what is wanted during it is not missed
                self._take_options()
                seconds = math.inf
                if (wanted := self._wanted) is not None:
                    seconds = await self._sync(table, wanted)
                    self.settled.set()
                    if self._wanted is wanted:
                        self._tried.set()
                with trio.move_on_after(seconds):
                    await self._wake.wait()
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _EXIT_SECONDS):
                await self._finish(table)
            table.close()
            if self._counting is not None:
                self._counting.close()

    def _take_options(self) -> None:
        """Between two looks: no thread reads them then."""
        if self._options.audit_seconds != self._next_options.audit_seconds:
            self._audit_seconds, self._audit_at = self._next_options.audit_seconds, -math.inf
        self._options = self._next_options

    async def _sync(self, table: IPVSTable, state: DesiredState) -> float:
        """Bring the kernel up to what is desired, unless that is held back.

        Returns:
            When to come again if nothing happens before, in seconds.
        """
        began, since = trio.current_time(), self._since
        is_due = began >= self._audit_at
        if is_due:
            self._audit_at = began + self._audit_seconds * self._dice.uniform(0.9, 1.1)
        for resolution in state.resolutions.values():
            drain = resolution.vip.settings.drain_seconds or self._options.drain_seconds
            self._drains.update((service.key, drain) for service, _ in resolution.services)
        try:
            done = await trio.to_thread.run_sync(self._carry_out, table, state, is_due, limiter=self._limiter)
        except IPVSError as error:
            return self._failed(error)
        if isinstance(done, Shrinkage):
            return self._hold(done)
        took = trio.current_time() - began
        self._note(done, state, took=took, since=since, audited=is_due)
        if done.failure is not None:
            return self._failed(done.failure)
        if done.report.draining:
            left = min(seconds for _, _, seconds in done.report.draining)
            return max(_DRAIN_LOOK_LEAST_SECONDS, min(_DRAIN_LOOK_SECONDS, left))
        if self._options.min_interval_seconds and done.report.plan:
            await trio.sleep(self._options.min_interval_seconds)
        return max(0.0, self._audit_at - trio.current_time())

    def _carry_out(self, table: IPVSTable, state: DesiredState, audit: bool) -> _Done | Shrinkage:
        """In a thread."""
        for reading in (True,) if audit else (False, True):
            current = table.snapshot(audit=reading)
            there = {key for key in (service.key for service in current) if key in self._options.managed}
            services, foreign, fresh = self._sort_out(state.services, there)
            loss = self._loss(table, current, services, fresh)
            if loss == self._confirmed or not loss.exceeds(self._options.max_loss_percent):
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
        staying = {key for key in there - keys if self._is_ours(key) and table_drains(self._drains, key, self._options)}
        host_errors = self._host_turn("before", keys | staying)
        made = ApplyReport(Plan(), 0.0)
        if fresh and self._options.adopt == "no":
            made, failure = self._make(table, services, frozenset(fresh))
            unmade = _unmade(made)
            services = {service: rows for service, rows in services.items() if service.key not in unmade}
            keys -= unmade.keys()
            foreign += tuple(key for key, errno in unmade.items() if errno == EEXIST)
            try:
                self._ledger.strike(unmade)
            except LedgerError as error:
                failure = failure or error
        try:
            report = table.converge(services, audit=False)
        except ApplyError as error:  # the rest of it was done, and the host follows that
            report, failure = error.report, failure or error
        left = {service.key for service in table.snapshot(audit=False)}
        ours = {key for key in left if self._is_ours(key)}
        if audit and self._host is not None:
            host_errors += self._host_turn("audit", ours)
        host_errors += self._host_turn("after", ours)
        if staying - ours:
            host_errors += self._host_turn("before", ours)  # what has drained may go
        try:
            self._ledger.strike(key for key in self._ledger.keys if key not in left and key not in keys)
        except LedgerError as error:
            failure = failure or error
        rows = sum(len(destinations) for destinations in services.values())
        return _Done(made, report, len(services), rows, foreign, host_errors, failure)

    def _loss(
        self, table: IPVSTable, current: Snapshot, services: Mapping[Service, tuple[Any, ...]], fresh: Iterable[ServiceKey]
    ) -> Shrinkage:
        """What would be lost. What is fresh is in scope meanwhile; it is written down when nothing is held back."""
        self._fresh = frozenset(fresh)
        try:
            return shrinkage(current, table.pack(services), self._scope)
        finally:
            self._fresh = frozenset()

    def _make(
        self, table: IPVSTable, services: Iterable[Service], fresh: frozenset[ServiceKey]
    ) -> tuple[ApplyReport, ApplyError | None]:
        """Make services that are nobody's yet; and what is wrong besides that some of them are there."""
        report = table.add_services(service for service in services if service.key in fresh)
        wrong = {at: error for at, error in report.errors.items() if error[0] not in {EEXIST, ENODATA}}
        return report, ApplyError(replace(report, errors=wrong)) if wrong else None

    def _sort_out(
        self, desired: Mapping[Service, tuple[Any, ...]], there: set[ServiceKey]
    ) -> tuple[dict[Service, tuple[Any, ...]], tuple[ServiceKey, ...], list[ServiceKey]]:
        """What of the desired is to be ours, what is somebody else's, and what has yet to be written down."""
        services: dict[Service, tuple[Any, ...]] = {}
        foreign: list[ServiceKey] = []
        fresh: list[ServiceKey] = []
        for service, rows in desired.items():
            key = service.key
            if key not in self._options.managed:
                continue
            if key not in self._ledger:
                if self._options.adopt == "no" and key in there:
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

    # What is told

    def _note(self, done: _Done, state: DesiredState, *, took: float, since: float | None, audited: bool) -> None:
        status, now = self.status, trio.current_time()
        self._confirmed = None
        status.services, status.destinations = done.services, done.destinations
        status.draining, status.held, status.foreign = len(done.report.draining), None, done.foreign
        self._told.pop("held", None)
        if done.failure is None:
            self._failures, status.error = 0, ""
            status.last_sync_at, status.last_sync_seconds = self._clock(), took
            status.syncs_total += 1
            status.sync.add(took)
            if since is not None and self._since is since:
                status.programming.add(now - since)
            if self._wanted is state:
                self._since = None
            self._told.pop("failed", None)
            self._told.pop("ledger", None)
        self._say("foreign", "foreign", *_of_foreign(done.foreign))
        self._say("host", "host", "; ".join(dict.fromkeys(done.host_errors)))
        done_now = [report for report in (done.made, done.report) if len(report.plan) > len(report.errors)]
        if done_now:
            seconds = sum(report.elapsed_seconds for report in done_now)
            text = f"{'; '.join(report.plan.summary() for report in done_now)}, in {seconds * 1000:.1f} ms"
            operations = sum(len(report.plan) for report in done_now)
            self._tell("sync", self._named(text), {"namespace": self.name, "operations": operations})
            if audited and self._as_desired is state and not done.report.draining:
                self._note_repair(now)
        self._as_desired = state if done.failure is None else None
        if not done.report.draining:
            named = {service.key for service in state.services}
            for key in [key for key in self._drains if key not in named]:
                del self._drains[key]
        if self._synced is not None and self._wanted is state:
            self._synced(state)

    def _note_repair(self, now: float) -> None:
        """Somebody else has changed what is ours; who does so again and again is not fought at every audit."""
        self._repairs.append(now)
        if len(self._repairs) == _FIGHT_TIMES and now - self._repairs[0] < _FIGHT_SECONDS:
            self._audit_seconds = min(self._audit_seconds * 2, max(_FIGHT_SECONDS, self._options.audit_seconds))
            self._repairs.clear()
            text = f"somebody else keeps changing our services; it is looked at every {self._audit_seconds:.0f} s now"
            self._tell("foreign", self._named(text), {"namespace": self.name})

    def _hold(self, loss: Shrinkage) -> float:
        self.status.held = loss
        text = f"held back: {loss} would be lost, more than {self._options.max_loss_percent:g} %; nothing was changed"
        self._say("held", "held_back", text, {"id": loss.identity, "services": [str(key) for key, _ in loss.losses[:100]]})
        return max(0.0, self._audit_at - trio.current_time())

    def _failed(self, error: IPVSError | LedgerError) -> float:
        match error:
            case ApplyError() | NotConverged():
                for failure in () if error.report is None else error.report.failed:
                    self.status.errors[failure.operation.split(" ", 1)[0], failure.errno or 0] += 1
            case IPVSError():
                self.status.errors["read", getattr(error, "errno", 0) or 0] += 1
        text = str(error)
        self._failures += 1
        self._audit_at = -math.inf
        self.status.error = text
        self._say("failed", "sync_failed", text)
        return _RETRY.wait_seconds(self._failures, self._dice)

    def _say(self, about: str, kind: str, text: str, data: Mapping[str, Any] | None = None) -> None:
        """Tell it unless it was told last; nothing to tell is forgotten."""
        if self._told.get(about, "") != text and text:
            self._tell(kind, self._named(text), {"namespace": self.name, **(data or {})})
        self._told[about] = text

    def _named(self, text: str) -> str:
        return f"{self.name}: {text}" if self.name else text

    # The end

    async def _finish(self, table: IPVSTable) -> None:
        self._take_options()
        if self._options.on_exit == "keep" or self._is_let_go or self._wanted is None:
            return
        if self._options.on_exit == "flush":
            self._drains = {}
        end = trio.current_time() + _EXIT_SECONDS / 2
        while True:
            try:
                done = await trio.to_thread.run_sync(self._empty, table, limiter=self._limiter)
            except IPVSError as error:
                _log.warning("what is ours could not be removed: %s", error)
                return
            if not done.draining or trio.current_time() > end:
                return
            await trio.sleep(_DRAIN_LOOK_LEAST_SECONDS)

    def _empty(self, table: IPVSTable) -> ApplyReport:
        """Take everything away that is ours."""
        if self._options.on_exit == "flush":
            self._host_turn("before", ())
            report = table.flush()
        else:
            report = table.converge({})
            staying = {service.key for service in table.snapshot(audit=False) if self._is_ours(service.key)}
            self._host_turn("before", staying)
        self._ledger.strike(key for key in self._ledger.keys if not report.draining)
        return report


def _unmade(made: ApplyReport) -> dict[ServiceKey, int]:
    """The services that were not made, with the error number. One whose answer was lost (ENODATA) is held to be made, as it likely was."""
    failed = {at: errno for at, (errno, _) in made.errors.items() if errno != ENODATA}
    return {operation.service.key: failed[at] for at in failed if isinstance(operation := made.plan[at], AddService)}


def table_drains(drains: Mapping[ServiceKey, float], key: ServiceKey, options: ReconcilerOptions) -> bool:
    """Whether the destinations of a service that goes finish their connections first."""
    return DrainPolicy(timeout_of=lambda one: drains.get(one, options.drain_seconds)).timeout(key) > 0


def _of_foreign(foreign: tuple[ServiceKey, ...]) -> tuple[str, dict[str, Any]]:
    if not foreign:
        return "", {}
    shown = ", ".join(map(str, foreign[:5])) + (f" and {len(foreign) - 5} more" if len(foreign) > 5 else "")  # noqa: PLR2004
    return f"somebody else's, and left alone: {shown} (ipvs.adopt takes them over)", {
        "services": [str(key) for key in foreign[:100]]
    }
