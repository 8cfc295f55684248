"""``minuteman members``: one node of a cluster, on the command line."""

from __future__ import annotations

import signal
import socket
from pathlib import Path
from typing import Any, Final

import click

from pyminuteman.addresses import Endpoint
from pyminuteman.cli.members_list import list_command
from pyminuteman.cli.options import output

__all__ = ["group", "run_command"]

_DEFAULT_PORT: Final = 61420  # of pyminuteman.membership.transport, which --help need not load
_HELP: Final = f"""\b
With -o json, a line an event:
  {{"time_ns": 1700000000000000000, "event": "suspect", "node": "32 hexadecimal digits",
   "name": "web1", "address": "10.0.0.1:{_DEFAULT_PORT}"}}
event is up, suspect, down, left, updated or conflict; the first line is this node's own up.
\b
Signals, once the node runs; before that, HUP and USR1 wait or are ignored:
  TERM, INT   leave the cluster, and end; the second time, end at once
  HUP         read the key file again; one that is no good changes nothing
  USR1        print the state, as a line of JSON
\b
Exit codes:
  0   it left
  1   something failed, such as a port that is taken
  2   wrong usage
  78  a key file, state directory or address that cannot be used
  130 told twice to end, so it may not have said goodbye; or interrupted before it was a node
  141 nobody reads the output any more; it left
"""


class EndpointType(click.ParamType[Endpoint]):
    """ADDRESS:PORT, or an address with the usual port."""

    name = "ADDRESS:PORT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Endpoint:
        """Parse it, or say what is accepted."""
        if isinstance(value, Endpoint):
            return value
        try:
            return Endpoint.parse(value, default_port=_DEFAULT_PORT)
        except ValueError as error:
            self.fail(
                f"{error}; accepted are 10.0.0.1:{_DEFAULT_PORT}, [fd00::1]:{_DEFAULT_PORT}, and either without port",
                param,
                ctx,
            )


class TagType(click.ParamType[tuple[str, str]]):
    """NAME=VALUE."""

    name = "NAME=VALUE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Split it, or say what is accepted."""
        if isinstance(value, tuple):
            return value
        name, equals, text = str(value).partition("=")
        if not name or not equals:
            self.fail(f"{value!r} is not NAME=VALUE, as in zone=east", param, ctx)
        return name, text


@click.group()
def group() -> None:
    """Membership: who is alive, known everywhere in under half a second."""


group.add_command(list_command)


@group.command("run", epilog=_HELP)
@click.option(
    "--name", default=socket.gethostname, show_default="the host's", help="What people call this node: 1 to 64 bytes."
)
@click.option(
    "--bind",
    type=EndpointType(),
    required=True,
    help=f"Where to listen, for UDP and TCP. Without port: {_DEFAULT_PORT}; port 0: a free one.",
)
@click.option("--advertise", type=EndpointType(), help="Where others reach this node, if not there.")
@click.option("--dual-stack", is_flag=True, help="With --bind [::]: IPv4 as well.")
@click.option(
    "--contact", "contacts", type=EndpointType(), multiple=True, help="A member to ask to be let in; several are better."
)
@click.option(
    "--key-file", type=click.Path(path_type=Path), metavar="FILE", help="The keys that seal what is said, a line each."
)
@click.option(
    "--cluster", default="minuteman", show_default=True, metavar="NAME", help="Nodes of another cluster are not heard."
)
@click.option("--insecure", is_flag=True, help="Do without a key although others can reach this node.")
@click.option(
    "--state-dir", type=click.Path(path_type=Path), metavar="DIRECTORY", help="Remembers who this node is and whom it knew."
)
@click.option(
    "--profile",
    type=click.Choice(["lan", "wan", "local"]),
    default="lan",
    show_default=True,
    help="The constants of the protocol.",
)
@click.option("--tag", "tags", type=TagType(), multiple=True, help="Something the others shall know of this node.")
@click.option("--address", "addresses", multiple=True, metavar="ADDRESS", help="Another address of this host.")
@click.option(
    "--priority",
    type=click.Choice(["normal", "realtime"]),
    default="normal",
    show_default=True,
    help="realtime: be on time on a busy machine. Takes CAP_SYS_NICE; without it the node runs all the same.",
)
@output("text", "json")
def run_command(*, form: str, tags: tuple[tuple[str, str], ...], priority: str, **options: Any) -> int:
    """Be a node of a cluster, and print what becomes of the others."""
    # Until the node obeys these, and again once it is no more: asking for the state, as monitoring does, must not end it.
    for number in (signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)

    import trio  # noqa: PLC0415 - slow to import, and --help needs it not

    from pyminuteman.cli.members_run import NodeProgram  # noqa: PLC0415

    program = NodeProgram(as_json=form == "json", realtime=priority == "realtime", tags=dict(tags), **options)
    return trio.run(program.run)
