"""``minuteman drain``, ``undrain`` and ``weight``: operators' marks, which all nodes obey."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from pyminuteman.addresses import format_endpoint, parse_endpoint
from pyminuteman.cli import exit_codes
from pyminuteman.cli.application import Application, pass_application
from pyminuteman.cli.asking import ask, socket_option
from pyminuteman.cli.backends import names_of
from pyminuteman.cli.exit_codes import Stopped
from pyminuteman.cli.options import Verb, dry_run, output, yes
from pyminuteman.cli.terminal import clean, out, say
from pyminuteman.daemon.client import DaemonClient

__all__ = ["drain_command", "undrain_command", "weight_command"]

_WEIGHT_MAX: Final = 65535


@dataclass(frozen=True, slots=True)
class _Order:
    """One change: what is posted, in words, and the backends that it is about as ``/v1/backends`` has them."""

    route: str
    body: dict[str, Any]
    words: str
    backends: Sequence[tuple[dict[str, Any], dict[str, Any]]]


def _backend(_context: click.Context, _parameter: click.Parameter, text: str) -> str:
    try:
        address, port = parse_endpoint(text)
        if not port:
            msg = f"{text!r} has no port; accepted are 10.0.0.5:8080 and [fd00::5]:8080"
            raise ValueError(msg)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    return format_endpoint(address, port)


_reason = click.option("--reason", default="", metavar="TEXT", help="Why; shown to everybody beside the mark.")
_vip = click.option("--vip", metavar="VIP", help="Only behind this VIP (tcp://11.0.0.1:80); by default behind all of them.")
_place = click.argument("backend", metavar="ADDRESS:PORT", callback=_backend)


def _common(verb: Verb) -> Callable[..., int]:
    found: Callable[..., int] = verb
    for option in (pass_application, output("table", "json"), socket_option, yes, dry_run, _reason):
        found = option(found)
    return found


@click.group("drain", epilog=exit_codes.HELP)
def drain_command() -> None:
    """No new connections for a node's backends or for one backend, on all nodes, until 'minuteman undrain'.

    Connections that there are go on, for as long as their VIP says. The mark, who set it and why is in the store.
    """


@click.group("undrain", epilog=exit_codes.HELP)
def undrain_command() -> None:
    """Take the drain of a node or of a backend back."""


@drain_command.command("node", epilog=exit_codes.HELP)
@click.argument("node", metavar="NAME|ID")
@_common
def drain_node_command(application: Application, *, node: str, reason: str, **how: Any) -> int:
    """Drain all backends of a node. Shows which, and asks first."""
    body = {"node": node, "reason": reason}
    return _carry_out(application, lambda client: _node_order(client, "/v1/drain", body), taking=True, **how)


@undrain_command.command("node", epilog=exit_codes.HELP)
@click.argument("node", metavar="NAME|ID")
@_common
def undrain_node_command(application: Application, *, node: str, reason: str, **how: Any) -> int:
    """Take the drain of a node back. Backends of it that were drained by themselves stay so."""
    body = {"node": node, "reason": reason}
    return _carry_out(application, lambda client: _node_order(client, "/v1/undrain", body), taking=False, **how)


@drain_command.command("backend", epilog=exit_codes.HELP)
@_place
@_vip
@_common
def drain_backend_command(application: Application, *, backend: str, vip: str | None, reason: str, **how: Any) -> int:
    """Drain one backend. Asks first where it is the last one of a VIP."""
    body = {"backend": backend, "vip": vip, "reason": reason}
    return _carry_out(application, lambda client: _backend_order(client, "/v1/drain", body, "drain"), taking=True, **how)


@undrain_command.command("backend", epilog=exit_codes.HELP)
@_place
@_vip
@_common
def undrain_backend_command(application: Application, *, backend: str, vip: str | None, reason: str, **how: Any) -> int:
    """Take the drain of one backend back; with the --vip that it was given with."""
    body = {"backend": backend, "vip": vip, "reason": reason}
    return _carry_out(application, lambda client: _backend_order(client, "/v1/undrain", body, "undrain"), taking=False, **how)


@click.command("weight", epilog=exit_codes.HELP)
@_place
@click.argument("weight", required=False, type=click.IntRange(0, _WEIGHT_MAX))
@click.option("--clear", is_flag=True, help="Leave the weight to its source again.")
@_vip
@_common
def weight_command(
    application: Application, *, backend: str, weight: int | None, clear: bool, vip: str | None, reason: str, **how: Any
) -> int:
    """Give a backend this weight on all nodes, in place of its source's, until --clear. Asks before 0 for the last one of a VIP."""
    if (weight is None) != clear:
        raise click.UsageError("give either a weight or --clear")
    body = {"backend": backend, "vip": vip, "weight": weight, "reason": reason}
    verb = "leave to its source the weight of" if clear else f"give weight {weight} to"
    return _carry_out(application, lambda client: _backend_order(client, "/v1/weight", body, verb), taking=weight == 0, **how)


# What it is about


def _node_order(client: DaemonClient, route: str, body: dict[str, Any]) -> _Order:
    """As the daemon finds a node: an id beats a name or label. What is not found is left to it, for marks of the forgotten can be taken back."""
    asked = body["node"]

    def members(answer: Any) -> list[tuple[str, str, str]]:
        return [(one["id"], one["label"], one["name"]) for one in answer["members"]]

    def backends(answer: Any) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        return [(vip, row) for vip in answer["vips"] for row in vip["backends"]]

    _, known = ask(client, "/v1/members", members)
    chosen = [one for one in known if one[0] == asked.lower()] or [one for one in known if asked in one[1:]]
    if len(chosen) > 1:
        msg = f"{len(chosen)} nodes are called {asked}; say which by its id: {', '.join(one for one, *_ in chosen)}"
        raise Stopped(msg)
    if not chosen and route == "/v1/drain":
        msg = f"there is no node {asked}; see 'minuteman members list'"
        raise Stopped(msg)
    node, label = chosen[0][:2] if chosen else (asked, asked)
    _, rows = ask(client, "/v1/backends", backends)
    about = [(vip, row) for vip, row in rows if row["node"] == label]
    words = f"{'drain' if route == '/v1/drain' else 'undrain'} node {label} with {_count(about)}"
    return _Order(route, body | {"node": node}, words, about)


def _backend_order(client: DaemonClient, route: str, body: dict[str, Any], verb: str) -> _Order:
    def about(answer: Any) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        return [
            (vip, row)
            for vip in answer["vips"]
            for row in vip["backends"]
            if format_endpoint(row["address"], row["port"]) == body["backend"]
            and (body["vip"] is None or body["vip"] in names_of(vip))
        ]

    _, found = ask(client, "/v1/backends", about)
    where = "" if body["vip"] is None else f" behind {body['vip']}"
    # What went with its source may still have its mark, which can be taken back: the daemon knows.
    if not found and (route == "/v1/drain" or (route == "/v1/weight" and body["weight"] is not None)):
        msg = f"there is no backend {body['backend']}{where}; see 'minuteman backends'"
        raise Stopped(msg)
    if body["vip"] is not None and found:
        body = body | {"vip": found[0][0]["vip"]}
    return _Order(route, body, f"{verb} backend {body['backend']}{where}", found)


def _count(about: Sequence[object]) -> str:
    return f"{len(about)} backend{'' if len(about) == 1 else 's'}"


def _lines(order: _Order) -> list[str]:
    """Each backend that it is about, with a word where it is the last of its VIP that takes connections."""
    concerned = {(vip["vip"], row["address"], row["port"]) for vip, row in order.backends}
    lines = []
    for vip, row in order.backends:
        others = [
            one
            for one in vip["backends"]
            if one["state"] == "in" and (vip["vip"], one["address"], one["port"]) not in concerned
        ]
        last = "" if others or row["state"] != "in" else _LAST
        lines.append(f"{vip['vip']} -> {format_endpoint(row['address'], row['port'])} ({row['state']}){last}")
    return lines


_LAST: Final = ": no other takes connections"


def _carry_out(
    application: Application,
    find: Callable[[DaemonClient], _Order],
    *,
    taking: bool,
    dry_run: bool,
    yes: bool,
    path: Path,
    form: str,
) -> int:
    """Find what it is about, ask when it takes something away, and have it done."""
    with DaemonClient(path) as client:
        order = find(client)
        lines = _lines(order) if taking else []
        doubtful = lines if "node" in order.body else [line for line in lines if line.endswith(_LAST)]
        if not dry_run:
            application.confirm(doubtful, order.words, yes=yes or not taking)
            client.post(order.route, order.body)
    if form == "json":
        about = [{"vip": vip["vip"], "address": row["address"], "port": row["port"]} for vip, row in order.backends]
        out(json.dumps({"version": 1, "done": not dry_run, "request": order.body, "backends": about}, indent=2))
        return exit_codes.OK
    out(f"{'would ' if dry_run else 'done: '}{clean(order.words)}")
    if dry_run:
        say([f"  {line}" for line in lines])
    return exit_codes.OK
