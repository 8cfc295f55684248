"""Keeps the IPVS table of one network namespace, and what of the host goes with it, equal to what is desired.

What one look at it comes to is the business of :class:`~pyminuteman.daemon.programmer.Programmer`, which blocks, in a thread; here is
when to look, and what is made of it.

1. Nothing is done before something is desired for the first time.
2. Desires that come while the kernel is busy give way to the newest. A failure is tried again with back-off, by a table that is read
   anew; so is what somebody else keeps changing.
3. Names follow a look that has carried out the newest desire: none leads to an address that is not served.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from random import Random
from typing import Any, Final

import trio

from pyminuteman.daemon.ledger import Ledger, LedgerError
from pyminuteman.daemon.programmer import Done, HostChanges, Programmer
from pyminuteman.daemon.reconciler_options import ReconcilerOptions
from pyminuteman.daemon.reconciler_status import ReconcilerStatus, Teller
from pyminuteman.ipvs import DrainPolicy, IPVSError, IPVSTable, Scope, ServiceKey, ServiceStatistics
from pyminuteman.ipvs.shrinkage import Shrinkage
from pyminuteman.sources.backoff import Backoff
from pyminuteman.vips.desired import DesiredState

__all__ = ["Reconciler"]

_RETRY: Final = Backoff(first_seconds=0.5, most_seconds=60.0)
_DRAIN_LOOK_SECONDS: Final = 1.0
_DRAIN_LOOK_LEAST_SECONDS: Final = 0.05
_STATISTICS_FRESH_SECONDS: Final = 1.0
_FIGHT_TIMES: Final = 5
_FIGHT_SECONDS: Final = 600.0
_EXIT_SECONDS: Final = 60.0

_log = logging.getLogger("pyminuteman.daemon")


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
        self.settled = trio.Event()
        """Set when the first desire was carried out, held back, or found impossible."""
        self._programmer = Programmer(ledger, options, host)
        self._next_options = options
        self._teller = Teller(name, tell)
        self._synced = synced
        self._limiter = limiter
        self._is_let_go = False
        self._clock = clock
        self._dice = Random() if dice is None else dice  # noqa: S311 - jitter, no secret
        self._open_table = open_table
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
        self._statistics: tuple[float, Mapping[ServiceKey, ServiceStatistics]] = (-math.inf, {})
        self._asking = trio.Lock()
        self._counting: IPVSTable | None = None

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
    def status(self) -> ReconcilerStatus:
        """What has been done, for who shows it."""
        return self._teller.status

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
        return {key: row for key, row in self._counting.statistics().items() if self._programmer.is_ours(key)}

    # The work

    async def run(self) -> None:
        """Until cancelled; then the end is as ``on_exit`` has it.

        Raises:
            IPVSError: The table cannot be had at all.
        """
        programmer = self._programmer
        table = await trio.to_thread.run_sync(
            self._open_table, programmer.scope, programmer.drain_policy, limiter=self._limiter
        )
        try:
            self._teller.problem_of_ledger(programmer.ledger_problem)
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
        if self._programmer.options.audit_seconds != self._next_options.audit_seconds:
            self._audit_seconds, self._audit_at = self._next_options.audit_seconds, -math.inf
        self._programmer.options = self._next_options

    async def _sync(self, table: IPVSTable, state: DesiredState) -> float:
        """Bring the kernel up to what is desired, unless that is held back.

        Returns:
            When to come again if nothing happens before, in seconds.
        """
        began, since = trio.current_time(), self._since
        is_due = began >= self._audit_at
        if is_due:
            self._audit_at = began + self._audit_seconds * self._dice.uniform(0.9, 1.1)
        self._programmer.expect(state)
        carry_out = partial(self._programmer.carry_out, table, state, audit=is_due, confirmed=self._confirmed)
        try:
            done = await trio.to_thread.run_sync(carry_out, limiter=self._limiter)
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
        if self._programmer.options.min_interval_seconds and done.report.plan:
            await trio.sleep(self._programmer.options.min_interval_seconds)
        return max(0.0, self._audit_at - trio.current_time())

    # What is made of it

    def _note(self, done: Done, state: DesiredState, *, took: float, since: float | None, audited: bool) -> None:
        now = trio.current_time()
        self._confirmed = None
        programmed = now - since if since is not None and self._since is since else None
        changed = self._teller.done(done, at=self._clock(), took=took, programmed=programmed)
        if done.failure is None:
            self._failures = 0
            if self._wanted is state:
                self._since = None
        if changed and audited and self._as_desired is state and not done.report.draining:
            self._note_repair(now)
        self._as_desired = state if done.failure is None else None
        if not done.report.draining:
            self._programmer.forget_others(state)
        if self._synced is not None and self._wanted is state:
            self._synced(state)

    def _note_repair(self, now: float) -> None:
        """Somebody else has changed what is ours; who does so again and again is not fought at every audit."""
        self._repairs.append(now)
        if len(self._repairs) == _FIGHT_TIMES and now - self._repairs[0] < _FIGHT_SECONDS:
            self._audit_seconds = min(self._audit_seconds * 2, max(_FIGHT_SECONDS, self._programmer.options.audit_seconds))
            self._repairs.clear()
            self._teller.fought(self._audit_seconds)

    def _hold(self, loss: Shrinkage) -> float:
        self._teller.held(loss, self._programmer.options.max_loss_percent)
        return max(0.0, self._audit_at - trio.current_time())

    def _failed(self, error: IPVSError | LedgerError) -> float:
        self._failures += 1
        self._audit_at = -math.inf
        self._teller.failed(error)
        return _RETRY.wait_seconds(self._failures, self._dice)

    # The end

    async def _finish(self, table: IPVSTable) -> None:
        self._take_options()
        if self._programmer.options.on_exit == "keep" or self._is_let_go or self._wanted is None:
            return
        end = trio.current_time() + _EXIT_SECONDS / 2
        while True:
            try:
                done = await trio.to_thread.run_sync(self._programmer.empty, table, limiter=self._limiter)
            except (IPVSError, LedgerError) as error:
                _log.warning("at the end, not all that is ours was removed or struck out: %s", error)
                return
            if not done.draining or trio.current_time() > end:
                return
            await trio.sleep(_DRAIN_LOOK_LEAST_SECONDS)
