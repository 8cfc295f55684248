"""``minuteman ipvs drain``: one destination, out of service and back."""

from __future__ import annotations

from dataclasses import dataclass

import click

from pyminuteman.addresses import parse_endpoint
from pyminuteman.cli import exit_codes, options
from pyminuteman.cli.application import Application, pass_application
from pyminuteman.cli.draining import connections_of
from pyminuteman.cli.exit_codes import Stopped
from pyminuteman.cli.terminal import Update, say, status_line
from pyminuteman.ipvs import (
    WEIGHT_MAX,
    Connections,
    Destination,
    EditDestination,
    IPVSTable,
    Operation,
    Plan,
    Protocol,
    RemoveDestination,
    Service,
    ServiceKey,
)

__all__ = ["drain_command"]

_POLL_SECONDS = 0.5


@dataclass
class _Target:
    """The destination, as it was found."""

    service: Service
    destination: Destination

    def weighted(self, weight: int) -> EditDestination:
        """The operation that gives it a weight, and leaves all else as it is."""
        row = self.destination
        args = (row.upper_threshold, row.lower_threshold, row.tunnel)
        return EditDestination(self.service, Destination(row.address, row.port, weight, row.forward, *args))

    def __str__(self) -> str:
        return f"{self.service.key} -> {self.destination}"


@click.command("drain", epilog=exit_codes.HELP)
@options.with_service(required=True)
@click.option("-r", "--real-server", "real", required=True, metavar="ADDRESS[:PORT]", help="The destination.")
@click.option(
    "--timeout",
    type=click.FloatRange(0),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long connections may go on; then they are cut.",
)
@click.option("--keep", is_flag=True, help="Leave it there at weight 0: for maintenance.")
@click.option("--undo", is_flag=True, help="Give it its weight back (--weight), and nothing else.")
@click.option("--weight", type=click.IntRange(1, WEIGHT_MAX), help="With --undo: the weight; the kernel does not remember it.")
@options.dry_run
@pass_application
def drain_command(
    application: Application,
    *,
    service: ServiceKey,
    real: str,
    timeout: float,
    keep: bool,
    undo: bool,
    weight: int | None,
    dry_run: bool,
) -> int:
    """Take a destination out of service without cutting connections.

    Its weight is 0 at once, so it gets no new connections; when those that it has have ended, or the time is up, it is removed.
    Interrupted while it waits, it stays at weight 0. The exit code is 5 when connections were cut: active ones, or for UDP any.
    """
    if undo != (weight is not None) or (undo and keep):
        msg = "--undo and --weight go together, without --keep"
        raise click.UsageError(msg)
    with application.table() as table:
        target = _find(table, service, real)
        steps: list[Operation] = [target.weighted(weight if weight is not None else 0)]
        if dry_run:
            steps += [] if keep or undo else [RemoveDestination(target.service, target.destination)]
            say(str(Plan.of(steps)))
            return exit_codes.OK
        table.apply(Plan.of(steps))
        if undo:
            say(f"{target}: weight {weight}")
            return exit_codes.OK
        try:
            with status_line() as update:
                left = _wait(application, table, target, timeout, update)
        except KeyboardInterrupt:
            again = f"--undo --weight {target.destination.weight or 1}"
            say(f"interrupted; {target} stays at weight 0: drain it again to go on, or with {again} to put it back")
            return exit_codes.INTERRUPTED
        if left is None:
            say(f"{target} is gone: somebody else removed it")
            return exit_codes.OK
        if not keep:
            table.apply(Plan.of([RemoveDestination(target.service, target.destination)]))
    end = f"the time was up with {_in_words(left)}" if left.active + left.inactive else "no connections left"
    say(f"{target}: {end}; {'it stays at weight 0' if keep else 'removed'}")
    # Those that are inactive are closing (TCP stays in TIME_WAIT for two minutes); but UDP knows no others.
    cut = left.active or (service.protocol == Protocol.UDP and left.inactive)
    return exit_codes.TIME_UP if cut else exit_codes.OK


def _find(table: IPVSTable, key: ServiceKey, real: str) -> _Target:
    try:
        address, port = parse_endpoint(real)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    (found,) = table.statistics(key).values()
    port = key.port if port is None else port
    for row in found.destinations:
        if row.address == address and row.port == port:
            return _Target(found.service, row)
    there = ", ".join(map(str, list(found.destinations)[:10])) or "none"
    msg = f"{key} has no destination {real}; there are: {there}"
    raise Stopped(msg)


def _wait(application: Application, table: IPVSTable, target: _Target, timeout: float, update: Update) -> Connections | None:
    """Until its connections have ended or the time is up: what is left, or None when the destination has gone."""
    deadline = application.clock() + timeout
    before, told = -1, False
    while True:
        found = connections_of(table, target.service.key, target.destination)
        if found is None:
            return None
        row, now = found
        if row.weight:
            msg = f"somebody else gave {target} weight {row.weight} while it was draining: it was left so"
            raise Stopped(msg)
        left, seconds = now.active + now.inactive, deadline - application.clock()
        if not left or seconds <= 0:
            return now
        update(f"draining {target}: {_in_words(now)}, at most {seconds:.0f} s to go", left != before)
        if now.persistent and not told:
            told = True
            hint = "sysctl net.ipv4.vs.expire_quiescent_template=1 stops that"
            say(f"{now.persistent} persistence templates keep sending their clients there; {hint}")
        before = left
        application.sleep(max(0.05, min(_POLL_SECONDS, seconds)))


def _in_words(connections: Connections) -> str:
    return f"{connections.active} active and {connections.inactive} inactive connections left"
