"""``minuteman watch``: what happens to the daemon, as it happens."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, Final

import click

from pyminuteman.cli import exit_codes
from pyminuteman.cli.application import Application, pass_application
from pyminuteman.cli.asking import ask, socket_option
from pyminuteman.cli.daemon_views import event_line
from pyminuteman.cli.options import output
from pyminuteman.cli.terminal import out, say
from pyminuteman.daemon.client import DaemonClient
from pyminuteman.daemon.client_errors import DaemonRefused, DaemonUnreachable

__all__ = ["watch_command"]

_PAUSE_SECONDS: Final = 0.5


@click.command("watch", epilog=exit_codes.HELP)
@click.option(
    "--since", type=click.IntRange(0), metavar="ID", help="First those after this number that are kept; 0: all of them."
)
@click.option("--kind", "kinds", multiple=True, metavar="KIND", help="Only events of this kind, as member_down; several times.")
@click.option("--count", type=click.IntRange(1), metavar="N", help="Stop after so many.")
@click.option(
    "--wait",
    type=click.FloatRange(0, 3600),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="When the daemon ends: how long to wait for it to be there again.",
)
@socket_option
@output("table", "json")
@pass_application
def watch_command(
    application: Application,
    *,
    since: int | None,
    kinds: tuple[str, ...],
    count: int | None,
    wait: float,
    path: Path,
    form: str,
) -> int:
    """Print what happens, a line an event, until Ctrl-C (exit code 0) or --count; -o json prints one JSON object a line.

    A daemon that is restarted is waited for, and its events are printed from its first on. Where it does not come back, or ends again
    before anything has happened, the exit code is 69.
    """
    events = (one for one in _events(application, path, since, wait) if not kinds or one["kind"] in {*kinds, "missed"})
    with suppress(KeyboardInterrupt):
        for event in islice(events, count):
            out(json.dumps(event) if form == "json" else event_line(event))
            sys.stdout.flush()
    return exit_codes.OK


def _events(application: Application, path: Path, since: int | None, wait: float) -> Iterator[dict[str, Any]]:
    """Events of the daemon, and of those after it; each has to bring one before the next is waited for."""
    with DaemonClient(path) as client:
        _see(client)
    life, heard = "", True  # the first has shown that it is there
    while True:
        with DaemonClient(path) as client:
            try:
                for event in client.events(since, life=life):
                    since = event.get("id", since)
                    if event["kind"] == "hello":
                        if life and life != event.get("life"):
                            say("the daemon has started anew: its events are counted from 1 again")
                        life = str(event.get("life", ""))
                        continue
                    heard = True
                    yield event
                why = "the daemon has ended"
            except DaemonUnreachable as error:
                why = str(error)
        if not heard or not wait:
            raise DaemonUnreachable(why)
        say(f"{why}; waiting up to {wait:g} s for it to be back")
        _wait_for(application, path, wait)
        heard = False


def _see(client: DaemonClient) -> None:
    """Whether it is a daemon that we understand."""
    ask(client, "/v1/status", lambda status: status["node"]["id"])


def _wait_for(application: Application, path: Path, wait: float) -> None:
    """Wait until it answers again.

    Raises:
        DaemonUnreachable: It does not, in that time.
    """
    end = application.clock() + wait
    while True:
        try:
            with DaemonClient(path, timeout_seconds=max(0.1, min(5.0, wait))) as client:
                _see(client)
                return
        except (DaemonUnreachable, DaemonRefused):  # refused: busy with its start
            if application.clock() >= end:
                raise
        application.sleep(_PAUSE_SECONDS)
