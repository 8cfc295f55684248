"""``minuteman vips apply``: the kernel's table of one machine, as sources say it, once or for good."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import click
import trio

from pyminuteman.cli import exit_codes, options, vips_options
from pyminuteman.cli.application import Application, pass_application
from pyminuteman.cli.changes import Progress, carry_out, doomed, narrowed, show_plan
from pyminuteman.cli.draining import wait_until_drained
from pyminuteman.cli.scopes import parse_scope
from pyminuteman.cli.terminal import say
from pyminuteman.cli.vips_keeper import Keeper, everywhere_up, held_back, in_scope
from pyminuteman.cli.vips_sources import Feeds, first_states
from pyminuteman.cli.vips_views import remarks
from pyminuteman.health.backends import MakeCheck
from pyminuteman.health.hysteresis import CheckPolicy
from pyminuteman.ipvs import ApplyReport, DrainPolicy, IPVSTable, Scope, Snapshot
from pyminuteman.ipvs.shrinkage import shrinkage
from pyminuteman.sources.base import Source
from pyminuteman.vips.desired import DesiredState, DesiredTable

__all__ = ["apply_command"]

_HELP: Final = f"""\b
Signals, with --watch:
  TERM, INT   end; the table stays as it is
  HUP         look at everything again: the table, and sources that fail
  USR1        do what is held back after all

{exit_codes.HELP}"""


@click.command("apply", epilog=_HELP)
@vips_options.source
@vips_options.timeout
@vips_options.own_addresses
@options.scope()
@click.option("--watch", is_flag=True, help="Keep the table equal to what the sources say, until SIGTERM or Ctrl-C.")
@click.option(
    "--audit",
    "audit_seconds",
    type=click.FloatRange(1),
    metavar="SECONDS",
    help="With --watch: how often to read the table, in case others change it. 60 by default.",
)
@click.option(
    "--max-loss",
    "most_loss_percent",
    type=click.FloatRange(0, 100),
    default=50.0,
    show_default=True,
    metavar="PERCENT",
    help="Hold back what would lose a larger share of the destinations that work, unless --yes.",
)
@click.option(
    "--drain",
    "drain_seconds",
    type=click.FloatRange(0, 86400),
    default=0.0,
    metavar="SECONDS",
    help="For services in scope that no source names: let their destinations finish for so long. Others drain as their VIPs say.",
)
@vips_options.check
@vips_options.check_interval
@options.dry_run
@options.yes
@options.output("ipvsadm", "json")
@pass_application
def apply_command(
    application: Application,
    *,
    factories: tuple[Callable[[], Source], ...],
    timeout: float,
    addresses: tuple[str, ...],
    scope_words: tuple[str, ...],
    watch: bool,
    audit_seconds: float | None,
    most_loss_percent: float,
    drain_seconds: float,
    check: MakeCheck | None,
    check_interval: float | None,
    dry_run: bool,
    yes: bool,
    form: str,
) -> int:
    """Make the table, in scope, equal to what sources say.

    Nothing is done before every source has said all of its VIPs; with --watch, one that fails later keeps its last good state.
    Every backend is held in reach.

    Without --scope only the services that the sources name are touched; with --watch, those that they have named since the start.
    """
    if watch and dry_run:
        msg = "--dry-run shows what would be done once: it does not go with --watch"
        raise click.UsageError(msg)
    for name, value in (("--audit", audit_seconds), ("--check", check)):
        if value is not None and not watch:
            msg = f"{name} goes with --watch"
            raise click.UsageError(msg)
    if check_interval is not None and check is None:
        msg = "--check-interval goes with --check"
        raise click.UsageError(msg)
    feeds, table = Feeds(factories), DesiredTable(own_addresses=addresses)
    scope = parse_scope(scope_words) if scope_words else None
    if watch:
        keeper = Keeper(
            application,
            feeds,
            table,
            scope,
            most_loss_percent,
            yes=yes,
            drain_seconds=drain_seconds,
            audit_seconds=audit_seconds or 60.0,
            as_json=form == "json",
            check=check,
            check_policy=_policy(check_interval),
        )
        return trio.run(keeper.run)
    trio.run(first_states, feeds, timeout)
    table.replace(feeds.claims())
    state = table.refresh(everywhere_up)
    say(remarks(state))
    return _once(application, state, scope, most_loss_percent, drain_seconds, dry_run=dry_run, yes=yes, form=form)


def _policy(interval_seconds: float | None) -> CheckPolicy:
    """The usual one, with that interval; and never less eager while something is undecided."""
    usual = CheckPolicy()
    if interval_seconds is None:
        return usual
    undecided = min(interval_seconds, usual.undecided_interval_seconds)
    return replace(usual, interval_seconds=interval_seconds, undecided_interval_seconds=undecided)


def _once(
    application: Application,
    state: DesiredState,
    given: Scope | None,
    most_loss_percent: float,
    drain_seconds: float,
    *,
    dry_run: bool,
    yes: bool,
    form: str,
) -> int:
    services, outside = in_scope(state, given)
    drains = {
        service.key: resolution.vip.settings.drain_seconds
        for resolution in state.resolutions.values()
        for service, _ in resolution.services
    }
    scope = given or Scope.services(drains)
    policy = DrainPolicy(timeout_of=lambda key: drains.get(key, drain_seconds))
    with application.backend() as backend:
        snapshot = IPVSTable(scope=scope, backend=backend).snapshot()
        gone = doomed(snapshot, services, scope)
        loss = shrinkage(snapshot, Snapshot.of(services), scope)
        table = IPVSTable(scope=narrowed(services, gone), backend=backend, drain=policy, clock=application.clock)
        plan = table.plan(services)
        say([*outside, f"scope: {given or 'just the services that the sources name: no other can be removed'}"])
        if form != "json" or dry_run:
            show_plan(plan, form, everything=False)
        say(plan.summary())
        code = exit_codes.PARTIAL if outside else exit_codes.OK
        if loss.exceeds(most_loss_percent):
            if dry_run:
                say(held_back(loss, most_loss_percent))
            else:
                lost = [f"{key}, with {count} fewer" for key, count in loss.losses]
                application.confirm(lost, f"lose {loss}", yes=yes)
        if dry_run:
            return code

        def action(progress: Progress) -> ApplyReport:
            return table.converge(services, progress=progress)

        done, report = carry_out(application, plan, action, form=form)
        if done == exit_codes.OK and report is not None and report.draining:
            done = wait_until_drained(application, table, services, report)
        return done or code
