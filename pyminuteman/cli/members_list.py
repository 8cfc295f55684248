"""``minuteman members list``: the members of the cluster that the daemon is in."""

from __future__ import annotations

import json
from pathlib import Path

import click

from pyminuteman.cli import exit_codes
from pyminuteman.cli.asking import ask, socket_option
from pyminuteman.cli.daemon_views import member_lines
from pyminuteman.cli.options import output
from pyminuteman.cli.terminal import out
from pyminuteman.daemon.client import DaemonClient

__all__ = ["list_command"]


@click.command("list", epilog=exit_codes.HELP)
@socket_option
@output("table", "json")
def list_command(*, path: Path, form: str) -> None:
    """Show the members of the cluster as the daemon of this host sees them, itself first and with a star."""
    with DaemonClient(path) as client:
        answer, lines = ask(client, "/v1/members", lambda plain: list(member_lines(plain)))
    out(json.dumps(answer, indent=2) if form == "json" else "\n".join(lines))
