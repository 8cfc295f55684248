"""Keeping the kernel equal to what sources say, until told to end: ``minuteman vips apply --watch``.

1. Nothing is done before every source has had a complete state; one that fails later keeps its last good one.
2. What would take away more than the set share of the destinations that work is held back as a whole, until somebody confirms just
   that, or the sources say otherwise.
3. Without a scope, ours are the services that the sources have named since the start. Nothing else is ever touched.
4. The end leaves the kernel as it is. A start that finds it as desired writes nothing.
5. With a check, a backend that fails it gets weight 0, and its weight back when it passes; when all of a VIP fail, none does.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from math import inf
from random import Random
from typing import Final

import trio

from pyminuteman.cli import exit_codes
from pyminuteman.cli.application import Application
from pyminuteman.cli.terminal import clean, out, say
from pyminuteman.cli.vips_sources import Feeds, bare_errors
from pyminuteman.cli.vips_views import remarks
from pyminuteman.health.backends import MakeCheck, failing, targets
from pyminuteman.health.hysteresis import CheckPolicy
from pyminuteman.health.monitor import Monitor, open_monitor
from pyminuteman.ipvs import (
    ApplyError,
    ApplyReport,
    Destination,
    DrainPolicy,
    IPVSError,
    IPVSTable,
    NotConverged,
    Scope,
    Service,
    ServiceKey,
)
from pyminuteman.ipvs.shrinkage import Shrinkage, shrinkage
from pyminuteman.sources.backoff import Backoff
from pyminuteman.vips.desired import DesiredState, DesiredTable
from pyminuteman.vips.model import BackendKey
from pyminuteman.vips.resolution import Adjustments, Reach

__all__ = ["Keeper", "Services", "everywhere_up", "held_back", "in_scope"]

Services = Mapping[Service, tuple[Destination, ...]]

_RETRY: Final = Backoff(first_seconds=1.0, most_seconds=60.0)
_DRAIN_LOOK_SECONDS: Final = 1.0
_DRAIN_LOOK_LEAST_SECONDS: Final = 0.05


def everywhere_up(_agent: str) -> Reach:
    """Without a cluster nobody knows better: every host is held in reach."""
    return Reach.UP


def in_scope(state: DesiredState, scope: Scope | None) -> tuple[Services, list[str]]:
    """The desired services that are in scope (None: all are), and a line for each that is not."""
    if scope is None:
        return state.services, []
    outside = [service.key for service in state.services if service.key not in scope]
    inside = {service: rows for service, rows in state.services.items() if service.key in scope} if outside else state.services
    return inside, [f"left out: {key} is not in scope ({scope})" for key in outside]


def held_back(loss: Shrinkage, most_percent: float) -> list[str]:
    """What is said of a loss that is too large."""
    lines = [f"  {key}: {count} fewer" for key, count in loss.losses[:20]]
    if len(loss.losses) > len(lines):
        lines.append(f"  and {len(loss.losses) - len(lines)} services more")
    return [f"held back: {loss} would be lost, more than {most_percent:g} %; nothing was changed", *lines]


@dataclass
class Keeper:
    """One run of it. Fields are the options of the command."""

    application: Application
    feeds: Feeds
    desired: DesiredTable
    scope: Scope | None = None
    """None: the services that the sources have named since the start."""
    most_loss_percent: float = 50.0
    yes: bool = False
    """Hold nothing back."""
    drain_seconds: float = 0.0
    """For services that no source named since the start, and that are in scope."""
    audit_seconds: float = 60.0
    """How often to read the kernel's table. In between, only what we did to it is known."""
    as_json: bool = False
    dice: Random = field(default_factory=Random)
    check: MakeCheck | None = None
    """How backends are asked whether they would serve; None: not at all."""
    check_policy: CheckPolicy = field(default_factory=CheckPolicy)
    drains: dict[ServiceKey, float] = field(default_factory=dict)
    """How long the destinations of the services that were named may finish."""
    said: set[str] = field(default_factory=set)
    held: Shrinkage | None = None
    """What is held back."""
    confirmed: Shrinkage | None = None
    """What was held back, and is not any more; anything else is asked about again."""
    audit_at: float = -inf
    """When to read the kernel's table next, by trio's clock."""
    failures: int = 0
    started: bool = False

    async def run(self) -> int:
        """Until a signal ends it.

        Returns:
            The exit code.

        Raises:
            MinutemanError: The table cannot be had; or a source cannot be opened at all.
        """
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
        with bare_errors(), trio.open_signal_receiver(*numbers) as signals, self.application.backend() as backend:
            table = IPVSTable(
                scope=self.scope or Scope(self.drains.__contains__, "the services that the sources name"),
                backend=backend,
                drain=DrainPolicy(timeout_of=lambda key: self.drains.get(key, self.drain_seconds)),
                clock=self.application.clock,
            )
            say(f"scope: {table.scope}; waiting for {', '.join(source.name for source in self.feeds.sources)}")
            await trio.to_thread.run_sync(table.snapshot)  # without the right to it there is nothing to wait for
            monitor: Monitor[BackendKey]
            async with open_monitor(dice=self.dice) as monitor, trio.open_nursery() as nursery:
                nursery.start_soon(self._obey, signals, nursery.cancel_scope)
                nursery.start_soon(self.feeds.run)
                nursery.start_soon(self._listen, monitor)
                await self._keep(table, monitor)
        say("ended; the kernel's table stays as it is")
        return exit_codes.OK

    async def _obey(self, signals: AsyncIterator[int], end: trio.CancelScope) -> None:
        async for number in signals:
            match number:
                case signal.SIGHUP:
                    say("looking at everything again")
                    self.said.clear()
                    self.audit_at = -inf
                    self.feeds.retry()
                case signal.SIGUSR1:
                    say("nothing is held back" if self.held is None else f"confirmed: {self.held} may be lost")
                    self.confirmed = self.held
                    self.feeds.wake()
                case _:
                    end.cancel()  # what is under way in the kernel is finished

    async def _listen(self, monitor: Monitor[BackendKey]) -> None:
        """Say who became unhealthy, or healthy again, and have that carried out."""
        known: set[BackendKey] = set()
        with monitor.changes() as changes:
            async for found in changes:
                known = {key for key in known if monitor.health(key) is not None}
                for key, health in found.items():
                    if not health.healthy:
                        known.add(key)
                        say(f"{key} is unhealthy: {health.reason}")
                        self.feeds.wake()
                    elif key in known:
                        known.discard(key)
                        say(f"{key} is healthy again")
                        self.feeds.wake()

    async def _keep(self, table: IPVSTable, monitor: Monitor[BackendKey]) -> None:
        while not self.feeds.is_complete:
            await self.feeds.news(self.audit_seconds)
        while True:
            claims = self.feeds.claims()
            self.desired.replace(claims)
            if self.check is not None:
                vips = [claim.vip for claim in claims]
                monitor.watch(targets(vips, self.check, self.check_policy))
                self.desired.adjust(Adjustments(unhealthy=failing(vips, monitor)))
            seconds = await self._converge(table)
            await self.feeds.news(seconds)

    async def _converge(self, table: IPVSTable) -> float:
        """Bring the kernel up to what is desired now, unless that is held back.

        Returns:
            When to come again if nothing happens before, in seconds.
        """
        state = self.desired.refresh(everywhere_up)
        services, outside = in_scope(state, self.scope)
        for resolution in state.resolutions.values():
            self.drains.update((service.key, resolution.vip.settings.drain_seconds) for service, _ in resolution.services)
        notes = [*outside, *remarks(state)]
        is_due = trio.current_time() >= self.audit_at
        if is_due:
            self.audit_at = trio.current_time() + self.audit_seconds
        try:
            done = await trio.to_thread.run_sync(partial(self._carry_out, table, services, audit=is_due))
            self.held = done if isinstance(done, Shrinkage) else None
            if isinstance(done, Shrinkage):
                how = f"to have it done all the same: kill -USR1 {os.getpid()}"
                self._say_once([*notes, "\n".join([*held_back(done, self.most_loss_percent), how])])
                return self._until_audit()
            self._say_once(notes)
            report = done
        except ApplyError as error:
            return self._failed([str(failure) for failure in error.report.failed], error.report)
        except NotConverged as error:
            return self._failed([str(error)], error.report)
        except IPVSError as error:
            return self._failed([str(error)], None)
        self.failures, self.confirmed = 0, None
        self._tell(report, [])
        if not self.started:
            self.started = True
            verdict = "was as desired" if not report.plan else "is as desired"
            say(f"the table {verdict}: {len(services)} service{'' if len(services) == 1 else 's'}")
        if report.draining:
            left = min(seconds for _, _, seconds in report.draining)
            return max(_DRAIN_LOOK_LEAST_SECONDS, min(_DRAIN_LOOK_SECONDS, left))
        # All that no source names any more is gone.
        named = {service.key for service in state.services}
        for key in [key for key in self.drains if key not in named]:
            del self.drains[key]
        return self._until_audit()

    def _carry_out(self, table: IPVSTable, services: Services, *, audit: bool) -> ApplyReport | Shrinkage:
        """In a thread: what was done, or what is not done because so much would be lost.

        Between two audits the table is known from memory, since reading it takes longer than a change. But nothing is held back by
        memory alone.
        """
        wanted = table.pack(services)
        for reading in (True,) if audit else (False, True):
            loss = shrinkage(table.snapshot(audit=reading), wanted, table.scope)
            if self.yes or loss == self.confirmed or not loss.exceeds(self.most_loss_percent):
                return table.converge(services, audit=False)
        return loss

    def _until_audit(self) -> float:
        return max(0.0, self.audit_at - trio.current_time())

    def _failed(self, lines: list[str], report: ApplyReport | None) -> float:
        """Say it, and come again later, by a table that is read anew."""
        self.failures += 1
        self.audit_at = -inf
        for line in lines:
            say(f"failed: {line}")
        if report is not None:
            self.held = None
            self._tell(report, lines)
        return min(self.audit_seconds, _RETRY.wait_seconds(self.failures, self.dice))

    def _tell(self, report: ApplyReport, failed: Iterable[str]) -> None:
        """What was done, to standard output."""
        if not report.plan:
            return
        lines = [str(operation) for operation in report.applied]
        if self.as_json:
            draining = [{"service": str(key), "destination": str(row)} for key, row, _ in report.draining]
            plain = {"version": 1, "elapsed_seconds": round(report.elapsed_seconds, 6), "done": lines}
            out(json.dumps(plain | {"failed": list(failed), "draining": draining}))
        else:
            out("".join(f"{clean(line)}\n" for line in lines))
        say(
            f"{report.plan.summary()}: {len(lines)} of {len(report.plan)} operations done in {report.elapsed_seconds * 1000:.1f} ms"
        )

    def _say_once(self, lines: Iterable[str]) -> None:
        """Say what was not so the last time."""
        now = list(dict.fromkeys(lines))
        say([line for text in now if text not in self.said for line in text.split("\n")])
        self.said = set(now)
