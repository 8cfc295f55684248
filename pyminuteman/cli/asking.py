"""Asking the daemon: where its socket is, and answers that can be relied upon."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from pyminuteman.daemon.client import DEFAULT_SOCKET, DaemonClient
from pyminuteman.daemon.client_errors import DaemonUnreachable

__all__ = ["ask", "socket_option"]

T = TypeVar("T")
_VERSION: Final = 1

socket_option: Final = click.option(
    "--socket",
    "path",
    type=click.Path(path_type=Path),
    default=DEFAULT_SOCKET,
    show_default=True,
    envvar="MINUTEMAN_SOCKET",
    show_envvar=True,
    metavar="PATH",
    help="The daemon's.",
)
"""``--socket``; the verb gets it as ``path``."""


def ask(client: DaemonClient, route: str, view: Callable[[Any], T]) -> tuple[Any, T]:
    """What a route of version 1 tells, and what ``view`` makes of it.

    Raises:
        DaemonError: As for :meth:`DaemonClient.get`; also when the answer is not of the shape that this command knows.
    """
    answer = client.get(route)
    version = answer.get("version") if isinstance(answer, dict) else None
    if version != _VERSION:
        msg = f"the daemon answers {route} in version {version!r}, and this command knows {_VERSION}: have both of one release"
        raise DaemonUnreachable(msg)
    try:
        return answer, view(answer)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        msg = f"the daemon's answer to {route} is not of a shape that this command knows ({error!r}): have both of one release"
        raise DaemonUnreachable(msg) from error
