"""``minuteman vips list``: the VIPs that the daemon balances."""

from __future__ import annotations

import json
from pathlib import Path

import click

from pyminuteman.cli import exit_codes
from pyminuteman.cli.application import Application, pass_application
from pyminuteman.cli.asking import ask, socket_option
from pyminuteman.cli.daemon_views import vip_lines
from pyminuteman.cli.options import output
from pyminuteman.cli.terminal import out
from pyminuteman.daemon.client import DaemonClient

__all__ = ["list_command"]


@click.command("list", epilog=exit_codes.HELP)
@socket_option
@output("table", "json")
@pass_application
def list_command(application: Application, *, path: Path, form: str) -> None:
    """Show the daemon's VIPs: how many backends are in, held and out, which sources want them, and which nodes say so.

    'minuteman backends' shows each backend, and why it is out. -o json is the answer of /v1/backends.
    """
    if application.netns is not None:
        raise click.UsageError("--netns is for show and apply: the daemon has the same VIPs in all network namespaces")
    with DaemonClient(path) as client:
        answer, lines = ask(client, "/v1/backends", lambda plain: list(vip_lines(plain)))
    out(json.dumps(answer, indent=2) if form == "json" else "\n".join(lines))
