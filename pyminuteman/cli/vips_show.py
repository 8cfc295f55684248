"""``minuteman vips show``: what sources want, and what the kernel would hold for it."""

from __future__ import annotations

import json
from collections.abc import Callable

import click
import trio

from pyminuteman.cli import exit_codes, options, vips_options
from pyminuteman.cli.terminal import clean, out, say
from pyminuteman.cli.vips_sources import Feeds, first_states
from pyminuteman.cli.vips_views import format_vips, plain_state, remarks
from pyminuteman.ipvs import format_table
from pyminuteman.sources.base import Source
from pyminuteman.vips.desired import DesiredTable
from pyminuteman.vips.resolution import Reach

__all__ = ["show_command"]


@click.command("show", epilog=exit_codes.HELP)
@vips_options.source
@vips_options.timeout
@vips_options.own_addresses
@options.output("table", "json", "ipvsadm")
def show_command(*, factories: tuple[Callable[[], Source], ...], timeout: float, addresses: tuple[str, ...], form: str) -> int:
    """Show the VIPs that sources want, as if every backend were in reach.

    Waits until every source has said all of its VIPs. What a source left out, and why, is said on standard error. -o ipvsadm prints
    the lines that the kernel's table would have; -o json the VIPs, the services, and all remarks.
    """
    feeds = Feeds(factories)
    trio.run(first_states, feeds, timeout)
    table = DesiredTable(own_addresses=addresses)
    table.replace(feeds.claims())
    state = table.refresh(lambda _agent: Reach.UP)
    if form == "json":
        problems = {
            source.name: found.problems for source, found in zip(feeds.sources, feeds.states, strict=True) if found is not None
        }
        out(json.dumps(plain_state(state, problems), indent=2))
        return exit_codes.OK
    if form == "ipvsadm":
        out(format_table(state.services))
    else:
        out("".join(f"{clean(line)}\n" for line in format_vips(state)))
    say(remarks(state))
    return exit_codes.OK
