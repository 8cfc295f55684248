"""``minuteman ipvs zero``, ``timeouts`` and ``daemons``: what is not the table itself."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import click

from pyminuteman.cli.application import Application, pass_application
from pyminuteman.cli.options import dry_run, output, with_service
from pyminuteman.cli.terminal import clean, out, say
from pyminuteman.ipvs import ServiceKey, SyncDaemon, SyncRole, Timeouts

__all__ = ["daemons_command", "timeouts_command", "zero_command"]

_SECONDS = click.IntRange(1, 2147483)


@click.command("zero")
@dry_run
@with_service(required=False)
@pass_application
def zero_command(application: Application, *, dry_run: bool, service: ServiceKey | None) -> None:
    """Set counters to zero: of one service and its destinations, or of the whole table, other people's included."""
    what = str(service) if service else "all services"
    if dry_run:
        say(f"would set the counters of {what} to zero")
        return
    with application.table() as table:
        table.zero(service)
    say(f"set the counters of {what} to zero")


@click.command("timeouts")
@click.option("--tcp", type=_SECONDS, metavar="SECONDS", help="Established TCP connections; the kernel's default is 900.")
@click.option("--tcp-fin", type=_SECONDS, metavar="SECONDS", help="TCP connections after a FIN; 120.")
@click.option("--udp", type=_SECONDS, metavar="SECONDS", help="UDP; 300. Short exchanges do well with 5 to 30.")
@dry_run
@output("text", "json")
@pass_application
def timeouts_command(
    application: Application, *, tcp: int | None, tcp_fin: int | None, udp: int | None, dry_run: bool, form: str
) -> None:
    """Show connection timeouts, or set those that are given and show what they are then."""
    wanted = Timeouts(tcp or 0, tcp_fin or 0, udp or 0)
    with application.table() as table:
        if wanted != Timeouts() and not dry_run:
            table.set_timeouts(wanted)
        timeouts = table.timeouts()
    if dry_run:
        given = {name: value for name, value in dataclasses.asdict(wanted).items() if value}
        say(f"would set {' '.join(f'{name} {value}' for name, value in given.items()) or 'nothing'}; they are now:")
    if form == "json":
        out(json.dumps({"version": 1} | dataclasses.asdict(timeouts)))
    else:
        out(f"Timeout (tcp tcpfin udp): {timeouts.tcp} {timeouts.tcp_fin} {timeouts.udp}")


@click.group("daemons", invoke_without_command=True)
@click.pass_context
def daemons_command(ctx: click.Context) -> None:
    """The connection synchronisation daemons: list (the default), start, stop."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(daemons_list)


@daemons_command.command("list")
@output("text", "json")
@pass_application
def daemons_list(application: Application, *, form: str = "text") -> None:
    """List those that run, as ipvsadm -L --daemon does."""
    with application.table() as table:
        daemons = table.sync_daemons()
    if form == "json":
        out(json.dumps({"version": 1, "daemon": [_plain(daemon) for daemon in daemons]}, indent=2))
        return
    for one in daemons:
        settings = f"mcast={one.interface}, syncid={one.sync_id}, maxlen={one.payload_bytes}"
        settings += f", group={one.group}, port={one.port}, ttl={one.ttl}"
        out(clean(f"{one.role.name.lower()} sync daemon ({settings})"))


def _plain(daemon: SyncDaemon) -> dict[str, Any]:
    return dataclasses.asdict(daemon) | {"role": daemon.role.name.lower()}


_ROLE = click.argument("role", type=click.Choice(["master", "backup"]))


@daemons_command.command("start")
@_ROLE
@click.option("--interface", required=True, metavar="NAME", help="It must be up and have multicast.")
@click.option("--sync-id", type=click.IntRange(0, 255), default=0, show_default=True, help="A backup's 0 takes any.")
@click.option(
    "--payload", type=click.IntRange(0, 65535), default=0, help="Longest message, in bytes; by default the MTU tells."
)
@click.option("--group", default="", metavar="ADDRESS", help="Multicast group; by default 224.0.0.81.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="By default 8848.")
@click.option("--ttl", type=click.IntRange(0, 255), default=0, help="By default 1: the local link.")
@dry_run
@pass_application
def daemons_start(
    application: Application,
    *,
    role: str,
    interface: str,
    sync_id: int,
    payload: int,
    group: str,
    port: int,
    ttl: int,
    dry_run: bool,
) -> None:
    """Start one. The master tells others of this host's connections, the backup takes in what a master tells."""
    try:
        daemon = SyncDaemon(SyncRole[role.upper()], interface, sync_id, payload, group, port, ttl)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if dry_run:
        say(f"would start the {role} synchronisation daemon on {interface}")
        return
    with application.table() as table:
        table.start_sync_daemon(daemon)
    say(f"started the {role} synchronisation daemon on {interface}")


@daemons_command.command("stop")
@_ROLE
@dry_run
@pass_application
def daemons_stop(application: Application, *, role: str, dry_run: bool) -> None:
    """Stop one."""
    if dry_run:
        say(f"would stop the {role} synchronisation daemon")
        return
    with application.table() as table:
        table.stop_sync_daemon(SyncRole[role.upper()])
    say(f"stopped the {role} synchronisation daemon")
