"""``minuteman ipvs export`` and ``import``: the whole table as text, and back."""

from __future__ import annotations

from collections.abc import Mapping

import click

from pyminuteman.cli import exit_codes, options
from pyminuteman.cli.application import Application, pass_application
from pyminuteman.cli.changes import carry_out, doomed, in_words, narrowed, refuse_empty, show_plan
from pyminuteman.cli.desired import to_plain
from pyminuteman.cli.files import read_source
from pyminuteman.cli.terminal import out, out_json, say
from pyminuteman.cli.toml_writer import format_toml
from pyminuteman.ipvs import Destination, IPVSTable, Plan, RemoveDestination, RemoveService, Scope, Service, Snapshot

__all__ = ["export_command", "import_command"]


@click.command("export")
@options.output("ipvsadm", "json", "toml")
@click.option("--with-thresholds", is_flag=True, help="Add -x and -y, which ipvsadm -S leaves out and ipvsadm -R reads.")
@pass_application
def export_command(application: Application, *, form: str, with_thresholds: bool) -> None:
    """Print the whole table, byte for byte as ipvsadm -Sn does; or as JSON or TOML, which have thresholds in any case."""
    with application.table() as table:
        if form == "ipvsadm":
            out(table.export(thresholds=with_thresholds))
            return
        snapshot = table.snapshot()
    plain = to_plain(snapshot.items())
    if form == "json":
        out_json({"version": 1}, "service", plain)
    else:
        out(format_toml(plain))


@click.command("import", epilog=exit_codes.HELP)
@options.file_argument
@options.file_format
@click.option("--replace", is_flag=True, help="Make the whole table equal to the file: other services are removed.")
@click.option("--allow-empty", is_flag=True, help="With --replace: let a file without services empty the table.")
@options.dry_run
@options.yes
@options.output("ipvsadm", "json")
@pass_application
def import_command(
    application: Application,
    *,
    path: str,
    kind: str | None,
    replace: bool,
    allow_empty: bool,
    dry_run: bool,
    yes: bool,
    form: str,
) -> int:
    """Add what a file says, in place of ipvsadm -R.

    It takes what ipvsadm -S, -Sn and ipvsadm-save write, and the other formats. A line that cannot be carried out is reported
    with its number, and nothing is touched. What is there already is edited and not refused; nothing is removed, unless by
    --replace, which asks first.
    """
    source = read_source(path, kind)
    desired = source.table.services
    refuse_empty(source, allowed=allow_empty or not replace)
    with application.backend() as backend:
        snapshot = IPVSTable(scope=Scope.everything(), backend=backend).snapshot()
        gone = doomed(snapshot, desired, Scope.everything()) if replace else []
        table = IPVSTable(scope=narrowed(desired, gone), backend=backend)
        plan = table.plan(desired) if replace else _without_removals(table.plan(_merged(snapshot, desired)))
        say(plan.summary())
        if dry_run:
            show_plan(plan, form, everything=True)
            return exit_codes.OK
        application.confirm(in_words(gone, snapshot), "remove the services that the file does not have", yes=yes)
        code, _ = carry_out(application, plan, lambda progress: table.apply(plan, progress=progress), form=form, source=source)
        return code


def _merged(snapshot: Snapshot, desired: Mapping[Service, tuple[Destination, ...]]) -> dict[Service, tuple[Destination, ...]]:
    """The file's services with the file's destinations, and those that are there beside them."""
    merged: dict[Service, tuple[Destination, ...]] = {}
    for service, destinations in desired.items():
        named = {destination.key for destination in destinations}
        kept = [destination for destination in snapshot.destinations(service.key) if destination.key not in named]
        merged[service] = (*destinations, *kept)
    return merged


def _without_removals(plan: Plan) -> Plan:
    """What somebody added between our two reads is not ours to remove."""
    if not any(isinstance(operation, RemoveDestination | RemoveService) for operation in plan):
        return plan
    return Plan.of(operation for operation in plan if not isinstance(operation, RemoveDestination | RemoveService))
