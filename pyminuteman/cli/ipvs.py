"""``minuteman ipvs``: the table of its verbs."""

from __future__ import annotations

from typing import Final

import click

from pyminuteman.cli import exit_codes
from pyminuteman.cli.application import Application, pass_application
from pyminuteman.cli.root import LazyGroup

__all__ = ["VERBS", "group"]

VERBS: Final = {
    "list": ("pyminuteman.cli.ipvs_list", "Services and destinations, in ipvsadm's columns."),
    "plan": ("pyminuteman.cli.ipvs_apply", "What would make the table equal to a file."),
    "apply": ("pyminuteman.cli.ipvs_apply", "Make the table, in scope, equal to a file."),
    "export": ("pyminuteman.cli.ipvs_transfer", "The whole table, as ipvsadm -Sn prints it, or as JSON or TOML."),
    "import": ("pyminuteman.cli.ipvs_transfer", "Add and edit what a file says: ipvsadm -R, but all or nothing."),
    "watch": ("pyminuteman.cli.ipvs_watch", "A live table with rates."),
    "drain": ("pyminuteman.cli.ipvs_drain", "Take a destination out of service without cutting connections."),
    "flush": ("pyminuteman.cli.ipvs_apply", "Remove every service in scope."),
    "zero": ("pyminuteman.cli.ipvs_settings", "Set counters to zero."),
    "timeouts": ("pyminuteman.cli.ipvs_settings", "Show or set connection timeouts."),
    "daemons": ("pyminuteman.cli.ipvs_settings", "The connection synchronisation daemons: list, start, stop."),
    "connections": ("pyminuteman.cli.ipvs_list", "The kernel's connection table, in ipvsadm's columns."),
    "info": ("pyminuteman.cli.ipvs_list", "Version and sizes of the kernel's IPVS."),
}
"""Verb to its module, which has it as ``VERB_command``, and its line of help."""


@click.group(cls=LazyGroup, table=VERBS, epilog=exit_codes.HELP)
@click.option("--netns", metavar="PATH", help="The table of this network namespace (/run/netns/blue); takes CAP_SYS_ADMIN.")
@pass_application
def group(application: Application, *, netns: str | None) -> None:
    """The kernel's IPVS table."""
    application.netns = netns
