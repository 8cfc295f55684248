"""``minuteman backends``: the backends of VIPs, and why one is out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from pyminuteman.addresses import format_endpoint
from pyminuteman.cli import exit_codes
from pyminuteman.cli.asking import ask, socket_option
from pyminuteman.cli.daemon_views import backend_lines
from pyminuteman.cli.exit_codes import Stopped
from pyminuteman.cli.options import output
from pyminuteman.cli.terminal import clean, out
from pyminuteman.daemon.client import DaemonClient

__all__ = ["backends_command", "names_of", "narrowed"]


@click.command("backends", epilog=exit_codes.HELP)
@click.argument("vip", required=False)
@click.option("--out", "out_only", is_flag=True, help="Only those that take no new connections: held and out.")
@socket_option
@output("table", "json")
def backends_command(*, vip: str | None, out_only: bool, path: Path, form: str) -> None:
    """Show the backends of all VIPs, or of one (tcp://11.0.0.1:80, 11.0.0.1:80, or its name), and why one is held or out.

    in: takes connections. held: in the kernel with weight 0, for the connections that it has. out: not in the kernel. Connections are
    active+inactive ones of this host.
    """

    def view(answer: Any) -> tuple[dict[str, Any], list[str]]:
        chosen = narrowed(answer, vip, out_only=out_only)
        return chosen, list(backend_lines(chosen, out_only=out_only))

    with DaemonClient(path) as client:
        _, (chosen, lines) = ask(client, "/v1/backends", view)
    out(json.dumps(chosen, indent=2) if form == "json" else "".join(f"{clean(line)}\n" for line in lines))


def narrowed(answer: dict[str, Any], vip: str | None, *, out_only: bool) -> dict[str, Any]:
    """The answer with just that VIP and what concerns it, and just those backends that take nothing new.

    Raises:
        Stopped: There is no such VIP.
    """
    vips, refused = answer["vips"], answer["refused"]
    if vip is not None:
        vips = [one for one in vips if vip in names_of(one)]
        refused = [one for one in refused if vip == one["vip"] or any(one["vip"] == found["vip"] for found in vips)]
        if not vips and not refused:
            msg = f"there is no VIP {vip}; see 'minuteman vips list'"
            raise Stopped(msg)
    if out_only:
        vips = [one | {"backends": [row for row in one["backends"] if row["state"] != "in"]} for one in vips]
        vips = [one for one in vips if one["backends"]]
    return answer | {"vips": vips, "refused": refused, "conflicts": answer["conflicts"] if vip is None else []}


def names_of(vip: dict[str, Any]) -> set[str]:
    """All that people may call a VIP."""
    places = {format_endpoint(address, vip["port"]) for address in vip["addresses"]}
    names = {vip["vip"], *places, *(f"{vip['protocol']}://{place}" for place in places)}
    return names | ({vip["name"], f"{vip['name']}:{vip['port']}"} if vip["name"] else set())
