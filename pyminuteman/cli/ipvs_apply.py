"""``minuteman ipvs plan``, ``apply`` and ``flush``: from a desired table to the kernel's."""

from __future__ import annotations

import click

from pyminuteman.cli import exit_codes, options
from pyminuteman.cli.application import Application, pass_application
from pyminuteman.cli.changes import Progress, carry_out, doomed, in_words, narrowed, refuse_empty, show_plan
from pyminuteman.cli.draining import wait_until_drained
from pyminuteman.cli.files import read_source
from pyminuteman.cli.scopes import parse_scope
from pyminuteman.cli.terminal import say
from pyminuteman.ipvs import ApplyReport, DrainPolicy, IPVSTable, Plan, RemoveService

__all__ = ["apply_command", "flush_command", "plan_command"]

_allow_empty = click.option("--allow-empty", is_flag=True, help="Let a file without services empty the scope.")


@click.command("plan", epilog=exit_codes.HELP)
@options.file_argument
@options.file_format
@options.scope()
@_allow_empty
@options.output("ipvsadm", "json")
@pass_application
def plan_command(
    application: Application, *, path: str, kind: str | None, scope_words: tuple[str, ...], allow_empty: bool, form: str
) -> int:
    """Show what apply would do: ipvsadm lines, in their order. Exits with 3 when there is something to do.

    Without --scope, and with no scope in the file, only the services that the file names are looked at.
    """
    source = read_source(path, kind)
    refuse_empty(source, allowed=allow_empty)
    scope, why = source.scope(scope_words)
    with application.backend() as backend:
        plan = IPVSTable(scope=scope, backend=backend).plan(source.table.services)
    say(f"scope: {why}")
    show_plan(plan, form, everything=True)
    say(plan.summary())
    return exit_codes.CHANGES if plan else exit_codes.OK


@click.command("apply", epilog=exit_codes.HELP)
@options.file_argument
@options.file_format
@options.scope()
@_allow_empty
@click.option(
    "--drain",
    "drain_seconds",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="Let destinations that go finish their connections for so long; wait until nothing drains any more.",
)
@click.option("--drain-udp", is_flag=True, help="With --drain: UDP too, which has no end of a connection to wait for.")
@click.option("--stop-on-error", is_flag=True, help="Stop at the first failure, instead of doing all that can be done.")
@options.dry_run
@options.yes
@options.output("ipvsadm", "json")
@pass_application
def apply_command(
    application: Application,
    *,
    path: str,
    kind: str | None,
    scope_words: tuple[str, ...],
    allow_empty: bool,
    drain_seconds: float | None,
    drain_udp: bool,
    stop_on_error: bool,
    dry_run: bool,
    yes: bool,
    form: str,
) -> int:
    """Make the table, in scope, equal to a file.

    Shows the plan, asks before it removes services, and carries it out. Additions come first and removals last: no service has
    fewer destinations on the way than before or after.

    Without --scope, and with no scope in the file, only the services that the file names are touched.
    """
    if drain_seconds is None and drain_udp:
        msg = "--drain-udp goes with --drain"
        raise click.UsageError(msg)
    if drain_seconds is not None and stop_on_error:
        msg = "--drain keeps trying, so --stop-on-error does not go with it"
        raise click.UsageError(msg)
    source = read_source(path, kind)
    refuse_empty(source, allowed=allow_empty)
    desired = source.table.services
    scope, why = source.scope(scope_words)
    policy = DrainPolicy(drain_seconds, drain_udp) if drain_seconds else None
    with application.backend() as backend:
        snapshot = IPVSTable(scope=scope, backend=backend).snapshot()
        gone = doomed(snapshot, desired, scope)
        table = IPVSTable(scope=narrowed(desired, gone), backend=backend, drain=policy, clock=application.clock)
        plan = table.plan(desired)
        say(f"scope: {why}")
        if form != "json" or dry_run:
            show_plan(plan, form, everything=False)
        say(plan.summary())
        if dry_run:
            return exit_codes.OK
        application.confirm(in_words(gone, snapshot), f"remove {_services(len(gone))}", yes=yes)

        def action(progress: Progress) -> ApplyReport:
            if stop_on_error:
                return table.apply(plan, stop_on_error=True, progress=progress)
            return table.converge(desired, progress=progress)

        if not plan and not policy:
            if form == "json":
                carry_out(application, plan, lambda _progress: ApplyReport(plan, 0.0), form=form)
            return exit_codes.OK
        code, report = carry_out(application, plan, action, form=form, source=source)
        if code == exit_codes.OK and report is not None and report.draining:
            code = wait_until_drained(application, table, desired, report)
        return code


def _services(count: int) -> str:
    return f"{count} service{'' if count == 1 else 's'}"


@click.command("flush")
@options.scope(required=True)
@options.dry_run
@options.yes
@options.output("ipvsadm", "json")
@pass_application
def flush_command(application: Application, *, scope_words: tuple[str, ...], dry_run: bool, yes: bool, form: str) -> int:
    """Remove every service in scope, at once and without draining. Everything: --scope everything."""
    scope = parse_scope(scope_words)
    with application.backend() as backend:
        snapshot = IPVSTable(scope=scope, backend=backend).snapshot()
        gone = doomed(snapshot, {}, scope)
        plan = Plan.of(RemoveService(service) for service in snapshot if service.key in scope)
        table = IPVSTable(scope=narrowed({}, gone), backend=backend)
        if form != "json" or dry_run:
            show_plan(plan, form, everything=False)
        say(plan.summary())
        if dry_run:
            return exit_codes.OK
        application.confirm(in_words(gone, snapshot), f"remove {_services(len(gone))}", yes=yes)
        code, _ = carry_out(application, plan, lambda progress: table.apply(plan, progress=progress), form=form)
        return code
