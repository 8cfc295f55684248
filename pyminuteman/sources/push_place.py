"""Where pushed documents are taken: a socket in the file system, or a loopback port; and what may stand in the way of one."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import trio

from pyminuteman.addresses import parse_endpoint
from pyminuteman.errors import ConfigurationError
from pyminuteman.sources.base import SourceError

__all__ = ["SOCKET_MODE", "is_for_loopback", "listening", "parse_place"]

SOCKET_MODE: Final = 0o660
_PATH_MAX_BYTES: Final = 107
"""Of a socket's address, less the zero at its end."""


def parse_place(place: str, name: str) -> Path | tuple[str, int]:
    """``unix:/PATH``, or a loopback address and a port.

    Raises:
        ConfigurationError: It is neither; ``name`` says of what.
    """
    if place.startswith("unix:"):
        path = place.removeprefix("unix:")
        if not 0 < len(os.fsencode(path)) <= _PATH_MAX_BYTES:
            raise ConfigurationError(None, name, f"the path of a socket has 1 to {_PATH_MAX_BYTES} bytes")
        return Path(path)
    try:
        address, port = parse_endpoint(place)
    except ValueError as error:
        raise ConfigurationError(None, name, f"{error}; expected unix:/PATH, or as in 127.0.0.1:61422") from None
    if not port:
        raise ConfigurationError(None, name, "it has no port, as in 127.0.0.1:61422 or [::1]:61422")
    if not ip_address(address).is_loopback:
        reason = "only loopback addresses are listened on (127.0.0.1, [::1]), for what is sent is not encrypted"
        raise ConfigurationError(None, name, f"{reason}; put a TLS proxy before it for other hosts")
    return address, port


def is_for_loopback(host: str) -> bool:
    """Whether a ``Host`` is localhost or a loopback address: a page of others, by a name that leads here, says its own."""
    if host.lower().partition(":")[0] == "localhost":
        return True
    with suppress(ValueError):
        return ip_address(parse_endpoint(host)[0]).is_loopback
    return False


@contextmanager
def listening(place: Path | tuple[str, int], backlog: int) -> Iterator[trio.SocketListener]:
    """Listen there. A socket's file has mode 0660, and is gone afterwards.

    Raises:
        SourceError: It cannot be had; the text says why.
    """
    six = isinstance(place, tuple) and ":" in place[0]
    family = socket.AF_UNIX if isinstance(place, Path) else socket.AF_INET6 if six else socket.AF_INET
    mine: os.stat_result | None = None
    with socket.socket(family, socket.SOCK_STREAM) as bound:
        try:
            try:
                if isinstance(place, Path):
                    _make_way(place)
                    bound.bind(str(place))
                    mine = place.lstat()
                    place.chmod(SOCKET_MODE)  # before listen(): until then nobody can connect
                else:
                    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    bound.bind(place)
                bound.listen(backlog)
                bound.setblocking(False)
            except OSError as error:
                raise SourceError(f"it cannot listen: {error.strerror or error}") from None
            yield trio.SocketListener(trio.socket.from_stdlib_socket(bound))
        finally:
            if isinstance(place, Path) and mine:
                with suppress(OSError):
                    if os.path.samestat(place.lstat(), mine):
                        place.unlink()


def _make_way(path: Path) -> None:
    """Remove what an earlier process left behind: a socket that nobody answers on.

    Raises:
        SourceError: There is something else, or somebody answers.
        OSError: It cannot be looked at or removed.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise SourceError(f"{path} is there, and is no socket: it is left alone; move it away, or name another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
        trial.setblocking(False)
        try:
            trial.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except BlockingIOError:
            pass  # somebody listens, who has much to do
    raise SourceError(f"another process listens on {path}")
