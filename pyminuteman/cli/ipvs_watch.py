"""``minuteman ipvs watch``: rates as they are."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING

import click

from pyminuteman.cli import exit_codes, options
from pyminuteman.cli.application import Application, pass_application
from pyminuteman.cli.rates import TITLE, Table, format_sample, plain_sample
from pyminuteman.cli.terminal import clean, console, is_terminal, out
from pyminuteman.ipvs import IPVSTable, NoSuchService, ServiceKey

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["watch_command"]


@click.command("watch")
@click.option(
    "--interval",
    type=click.FloatRange(0.1),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="Between two readings. The kernel adds its counters up every 2 seconds, so shorter ones show steps.",
)
@click.option("--count", type=click.IntRange(1), metavar="N", help="Stop after so many samples.")
@click.option("--busiest", is_flag=True, help="Services with the most new connections first.")
@options.output("table", "json")
@options.with_service(required=False)
@pass_application
def watch_command(
    application: Application, *, interval: float, count: int | None, busiest: bool, form: str, service: ServiceKey | None
) -> int:
    """Show connections, packets and bytes a second of every service and destination, from differences of counters.

    On a terminal the table stays in place, cut to its height; elsewhere each sample is a block of lines. -o json prints one line
    a sample. Ends by Ctrl-C (exit code 0), or after --count samples.
    """
    with application.table() as table, _display(application, form) as show:
        samples = _samples(application, table, service, interval)
        with suppress(KeyboardInterrupt):
            for time, seconds, before, after in islice(samples, count):
                lines = [f"{time}, over {seconds:.1f} s", *TITLE.split("\n")]
                lines += format_sample(before, after, seconds, busiest_first=busiest)
                show(plain_sample(before, after, seconds, time), lines)
    return exit_codes.OK


def _samples(
    application: Application, table: IPVSTable, service: ServiceKey | None, interval: float
) -> Iterator[tuple[str, float, Table, Table]]:
    """When, the seconds since the reading before, that reading, and this one."""
    before, then = _read(table, service), application.clock()
    due = then
    while True:
        # Against the clock, so that what reading costs does not add up.
        due = max(due + interval, application.clock())
        application.sleep(due - application.clock())
        after, now = _read(table, service), application.clock()
        yield datetime.now(UTC).isoformat(timespec="milliseconds"), now - then, before, after
        before, then = after, now


def _read(table: IPVSTable, service: ServiceKey | None) -> Table:
    try:
        return table.statistics(service)
    except NoSuchService:
        return {}  # not yet there, or no more: it may come


@contextmanager
def _display(application: Application, form: str) -> Iterator[Callable[[dict[str, object], list[str]], None]]:
    """Shows a sample, whichever way."""
    if form == "json" or not is_terminal(sys.stdout):

        def write(plain: dict[str, object], lines: list[str]) -> None:
            out(json.dumps(plain) if form == "json" else "\n".join([*map(clean, lines), "\n"]))
            sys.stdout.flush()

        yield write
        return
    from rich.live import Live  # noqa: PLC0415 - slow to import, and only here
    from rich.text import Text  # noqa: PLC0415

    screen = console(sys.stdout, no_color=application.no_color)
    with Live(console=screen, auto_refresh=False) as live:

        def draw(_plain: dict[str, object], lines: list[str]) -> None:
            room = screen.size.height - 1
            shown = lines if len(lines) <= room else [*lines[: room - 1], f"and {len(lines) - room + 1} more lines"]
            live.update(Text("\n".join(map(clean, shown)), no_wrap=True, overflow="crop"), refresh=True)

        yield draw
