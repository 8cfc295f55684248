"""``minuteman confirm`` and ``reload``: what the daemon is told to do at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from pyminuteman.cli import exit_codes
from pyminuteman.cli.application import Application, pass_application
from pyminuteman.cli.asking import ask, socket_option
from pyminuteman.cli.daemon_views import held_back
from pyminuteman.cli.exit_codes import Stopped
from pyminuteman.cli.options import dry_run, output, yes
from pyminuteman.cli.terminal import clean, out, say
from pyminuteman.daemon.client import DaemonClient

__all__ = ["confirm_command", "reload_command"]


@click.command("confirm", epilog=exit_codes.HELP)
@click.option("--namespace", metavar="NAME", help="Only that of this network namespace; '' is the host's own.")
@dry_run
@yes
@socket_option
@output("table", "json")
@pass_application
def confirm_command(application: Application, *, namespace: str | None, dry_run: bool, yes: bool, path: Path, form: str) -> int:
    """Have the daemon carry out what it holds back because it would take away too much. Shows it, and asks first.

    Just what was shown is confirmed: if the daemon holds back something else by then, it says so, and nothing is done.
    """

    def view(status: Any) -> tuple[list[dict[str, Any]], set[str]]:
        return held_back(status), {one["namespace"] for one in status["kernel"]}

    with DaemonClient(path) as client:
        _, (held, known) = ask(client, "/v1/status", view)
        if namespace is not None and namespace not in known:
            msg = f"the daemon has no network namespace {namespace!r}; it has {', '.join(map(repr, sorted(known))) or 'none'}"
            raise Stopped(msg)
        held = [one for one in held if namespace in {None, one["namespace"]}]
        lines = [line for one in held for line in _told(one)]
        if not held:
            say("nothing is held back")
        elif not dry_run:
            application.confirm(lines, "have this carried out", yes=yes)
            for one in held:
                client.post("/v1/confirm", {"namespace": one["namespace"], "id": one["id"]})
    if form == "json":
        out(json.dumps({"version": 1, "dry_run": dry_run, "confirmed": [] if dry_run else held, "held_back": held}, indent=2))
    else:
        out("".join(f"{'held back' if dry_run else 'confirmed'}: {clean(line)}\n" for line in lines))
    return exit_codes.OK


def _told(held: dict[str, Any]) -> list[str]:
    where = held["namespace"] or "this host"
    return [f"{where}: it takes away {held['text']}", *(f"{where}: {service}" for service in held["services"])]


@click.command("reload", epilog=exit_codes.HELP)
@socket_option
@output("table", "json")
def reload_command(*, path: Path, form: str) -> int:
    """Have the daemon read its configuration again, and say what counts now, and what takes a restart. One that is no good changes nothing.

    'minuteman check-config' tells beforehand whether it is good.
    """
    with DaemonClient(path) as client:
        answer = client.post("/v1/reload")
    if form == "json":
        out(json.dumps(answer, indent=2))
        return exit_codes.OK
    changes, restart, remarks = (
        [clean(str(line)) for line in (answer.get(name, ()) if isinstance(answer, dict) else ())]
        for name in ("changes", "restart", "remarks")
    )
    out("".join(f"{line}\n" for line in (*changes, *(f"{line} (takes a restart)" for line in restart))))
    say(remarks)
    if not (changes or restart):
        say("nothing has changed")
    return exit_codes.OK
