"""``minuteman status``: how the daemon of this host is."""

from __future__ import annotations

import json
from pathlib import Path

import click

from pyminuteman.cli import exit_codes
from pyminuteman.cli.asking import ask, socket_option
from pyminuteman.cli.daemon_views import status_lines
from pyminuteman.cli.options import output
from pyminuteman.cli.terminal import clean, out
from pyminuteman.daemon.client import DaemonClient

__all__ = ["status_command"]


@click.command("status", epilog=exit_codes.HELP)
@socket_option
@output("table", "json")
def status_command(*, path: Path, form: str) -> None:
    """Show how the daemon is: its state and problems, sources, members, each kernel table, and what is held back.

    The state is waiting, running, degraded (there are problems) or held (something is held back until 'minuteman confirm').
    """
    with DaemonClient(path) as client:
        answer, lines = ask(client, "/v1/status", status_lines)
    out(json.dumps(answer, indent=2) if form == "json" else "\n".join(map(clean, lines)))
