"""``minuteman ipvs list``, ``connections`` and ``info``: reading only."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import click

from pyminuteman.cli.application import Application, pass_application
from pyminuteman.cli.desired import to_plain
from pyminuteman.cli.listing import View, format_connections, format_listing
from pyminuteman.cli.options import Verb, output, with_service
from pyminuteman.cli.terminal import clean, out, out_json, wants_color
from pyminuteman.ipvs import (
    Counters,
    DestinationStatistics,
    IPVSTable,
    KernelInformation,
    Protocol,
    Rates,
    ServiceKey,
    ServiceStatistics,
    format_table,
)

__all__ = ["connections_command", "info_command", "list_command", "plain_listing"]

_FIVE = tuple(field.name for field in dataclasses.fields(Counters))


def _view(view: View) -> Callable[[Verb], Verb]:
    helps = {
        View.STATISTICS: "Counters instead of weights.",
        View.RATES: "The kernel's estimates of rates, a second.",
        View.THRESHOLDS: "Connection thresholds.",
        View.PERSISTENT: "Persistent connections.",
    }
    return click.option(f"--{view.value}", "view", flag_value=view.value, help=helps[view])


@click.command("list")
@_view(View.STATISTICS)
@_view(View.RATES)
@_view(View.THRESHOLDS)
@_view(View.PERSISTENT)
@click.option("--exact", is_flag=True, help="Do not shorten large numbers.")
@click.option("-n", "--numeric", is_flag=True, help="As it always is; for fingers that are used to ipvsadm -Ln.")
@output("table", "json", "ipvsadm")
@with_service(required=False)
@pass_application
def list_command(
    application: Application, *, view: str | None, exact: bool, numeric: bool, form: str, service: ServiceKey | None
) -> None:
    """List the table in the words and columns of ipvsadm -Ln, or one service of it.

    Rows are in the order of their numbers. Destinations of weight 0 are dim on a terminal. The JSON form can be given to plan
    and apply, which pass over its counters.
    """
    del numeric
    with application.table() as table:
        if form == "ipvsadm":
            out(_rules(table, service))
            return
        statistics = table.statistics(service)
        information = table.information()
    if form == "json":
        head = {"version": 1, "kernel": _plain_information(information)}
        out_json(head, "service", plain_listing(statistics.values()))
        return
    color = wants_color(sys.stdout, no_color=application.no_color)
    lines = format_listing(
        statistics.values(),
        View(view or "plain"),
        information=None if service else information,
        exact=exact,
        quiesced=(lambda line: click.style(clean(line), dim=True)) if color else clean,
    )
    out("".join(f"{line}\n" for line in lines), color=color)


def _rules(table: IPVSTable, service: ServiceKey | None) -> str:
    if service is None:
        return table.export()
    (found,) = table.statistics(service).values()
    return format_table({found.service: tuple(found.destinations)})


def plain_listing(statistics: Iterable[ServiceStatistics]) -> Iterator[dict[str, Any]]:
    """The services of ``-o json``: the format of desired state, with ``statistics`` added, which input passes over."""
    for one in statistics:
        (plain,) = to_plain([(one.service, tuple(one.destinations))])
        plain["statistics"] = _five(one.counters) | {"rates": _five(one.rates)}
        for row, numbers in zip(plain["destination"], one.destinations.values(), strict=True):
            row["statistics"] = _plain_numbers(numbers)
        yield plain


def _five(row: Counters | Rates) -> dict[str, Any]:
    """As :func:`dataclasses.asdict`, whose deep copies a table of 100,000 destinations feels."""
    return {name: getattr(row, name) for name in _FIVE}


def _plain_numbers(numbers: DestinationStatistics) -> dict[str, Any]:
    now = numbers.connections
    return _five(numbers.counters) | {
        "rates": _five(numbers.rates),
        "active_connections": now.active,
        "inactive_connections": now.inactive,
        "persistent_connections": now.persistent,
    }


def _plain_information(information: KernelInformation) -> dict[str, Any]:
    version = ".".join(map(str, information.version))
    return {"ipvs_version": version, "connection_table_size": information.connection_table_size}


@click.command("connections")
@output("table", "json")
@with_service(required=False)
@pass_application
def connections_command(application: Application, *, form: str, service: ServiceKey | None) -> None:
    """List the kernel's connection table, or those of one service, as ipvsadm -Lnc does. With many connections this is slow."""
    with application.table() as table:
        connections = table.connections()
    if service:
        if service.mark:
            msg = "connections do not tell the firewall mark of their service"
            raise click.UsageError(msg)
        name = service.protocol.name if isinstance(service.protocol, Protocol) else ""
        wanted = (name, service.address, service.port)
        connections = [one for one in connections if (one.protocol, one.virtual, one.virtual_port) == wanted]
    if form == "json":
        out(json.dumps({"version": 1, "connection": [dataclasses.asdict(one) for one in connections]}, indent=2))
        return
    out("".join(f"{clean(line)}\n" for line in format_connections(connections)))


@click.command("info")
@output("text", "json")
@pass_application
def info_command(application: Application, *, form: str) -> None:
    """Version and sizes of the kernel's IPVS, timeouts, daemons, and how much there is in the table."""
    with application.table() as table:
        information, timeouts, daemons = table.information(), table.timeouts(), table.sync_daemons()
        snapshot = table.snapshot()
    plain = _plain_information(information) | {
        "services": len(snapshot),
        "destinations": snapshot.destination_count,
        "timeouts": dataclasses.asdict(timeouts),
        "daemons": [daemon.role.name.lower() for daemon in daemons],
    }
    if form == "json":
        out(json.dumps({"version": 1} | plain, indent=2))
        return
    out(f"IPVS version {plain['ipvs_version']}, connection table of {information.connection_table_size} buckets")
    out(f"{len(snapshot)} services, {snapshot.destination_count} destinations")
    out(f"Timeout (tcp tcpfin udp): {timeouts.tcp} {timeouts.tcp_fin} {timeouts.udp}")
    out(f"Synchronisation daemons: {', '.join(plain['daemons']) or 'none'}")
