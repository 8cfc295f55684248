"""``minuteman vips``: the table of its verbs."""

from __future__ import annotations

from typing import Final

import click

from pyminuteman.cli import exit_codes
from pyminuteman.cli.application import Application, pass_application
from pyminuteman.cli.root import LazyGroup

__all__ = ["VERBS", "group"]

VERBS: Final = {
    "list": ("pyminuteman.cli.vips_list", "The VIPs that the daemon balances."),
    "show": ("pyminuteman.cli.vips_show", "The VIPs that sources want, and what they come to."),
    "apply": ("pyminuteman.cli.vips_apply", "Make the kernel's table equal to them; with --watch, keep it so."),
}
"""Verb to its module, which has it as ``VERB_command``, and its line of help."""


@click.group(cls=LazyGroup, table=VERBS, epilog=exit_codes.HELP)
@click.option("--netns", metavar="PATH", help="The table of this network namespace (/run/netns/blue); takes CAP_SYS_ADMIN.")
@pass_application
def group(application: Application, *, netns: str | None) -> None:
    """VIPs: those that the daemon has, and those of one machine without it."""
    application.netns = netns
