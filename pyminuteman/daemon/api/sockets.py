"""The sockets that the API listens on. The unix socket is ours from its first moment: nobody else could connect before its mode is set."""

from __future__ import annotations

import errno
import grp
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from pyminuteman.addresses import Endpoint
from pyminuteman.errors import ConfigurationError

__all__ = ["listening_tcp", "listening_unix"]

_BACKLOG: Final = 64
_MODE: Final = 0o660
_PROBE_SECONDS: Final = 1.0


@contextmanager
def listening_unix(path: Path, group: str = "") -> Iterator[socket.socket]:
    """A unix socket that listens at ``path``, for its owner and its group; removed at the end if it is still ours.

    A socket that a dead process has left there is removed first; one that somebody answers at is not, and neither is anything else.

    Raises:
        ConfigurationError: There is no such group, or the place is taken or not ours to take.
    """
    gid = _group_id(group)
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        try:
            _remove_stale(path)
            before = os.umask(0o177)  # nobody else gets in before its group and mode are set
            try:
                listener.bind(str(path))
            finally:
                os.umask(before)
            ours = path.stat()
            stack.callback(_remove_ours, path, ours)
            if gid is not None:
                os.chown(path, -1, gid)
            path.chmod(_MODE)
            listener.listen(_BACKLOG)
        except OSError as error:
            raise ConfigurationError(path, "api.socket", _what_to_do(error, path, group)) from None
        listener.setblocking(False)
        yield listener


def _group_id(group: str) -> int | None:
    if not group:
        return None
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise ConfigurationError(None, "api.group", f"there is no group {group!r}: groupadd --system {group}") from None


def _remove_stale(path: Path) -> None:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise ConfigurationError(path, "api.socket", "there is something that is no socket; it was left alone")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_SECONDS)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except OSError as error:
            reason = f"whether somebody listens there cannot be told: {error.strerror or error}"
            raise ConfigurationError(path, "api.socket", reason) from None
    raise ConfigurationError(path, "api.socket", "another process listens there already: stop it, or choose another path")


def _remove_ours(path: Path, ours: os.stat_result) -> None:
    """A successor may have put its own there by now."""
    with suppress(OSError):
        there = path.stat()
        if (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino):
            path.unlink()


def _what_to_do(error: OSError, path: Path, group: str) -> str:
    if error.errno == errno.ENOENT:
        return f"there is no directory for it: mkdir -p {path.parent}"
    if error.errno in {errno.EACCES, errno.EROFS}:
        return f"{path.parent} is not ours to write to"
    if error.errno == errno.EPERM and group:
        return f"this process may not give it to the group {group!r}, for it is no member of it"
    return f"cannot be made: {error.strerror or error}"


@contextmanager
def listening_tcp(endpoint: Endpoint) -> Iterator[socket.socket]:
    """A TCP socket that listens there. Port 0 takes a free one.

    Raises:
        ConfigurationError: The place is taken, or no address of this host.
    """
    family = socket.AF_INET6 if ":" in endpoint.address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            listener.bind((endpoint.address, endpoint.port))
            listener.listen(_BACKLOG)
        except OSError as error:
            raise ConfigurationError(None, "api.tcp", f"cannot listen at {endpoint}: {error.strerror or error}") from None
        listener.setblocking(False)
        yield listener
