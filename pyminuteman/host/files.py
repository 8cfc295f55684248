"""Files and sockets of the daemon: that it can use them, and that nobody else can who should not."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from pyminuteman.host.findings import Finding, Severity

__all__ = ["check_api_socket", "check_key_file", "check_state_directory"]

_WHY_STATE: Final = "node id, known members, the store and what set-up changed are kept there: lost, this node is a new one at each start, and --undo knows nothing"
_WHY_KEY: Final = "whoever reads the key can speak as any member: join, claim VIPs, and drain what they like"
_WHY_API: Final = "status, drains and metrics go through it; whoever may write to it can drain nodes"


def check_state_directory(path: Path) -> Iterable[Finding]:
    """That it is there, ours to write, and nobody else's."""
    identity = "files.state_directory"
    try:
        status = path.stat()
    except OSError as error:
        fix = f"install -d -m 0700 {path} (for the daemon's user: -o USER)"
        what = f"the state directory {path} cannot be used: {error.strerror}"
        yield Finding(identity, Severity.ERROR, what, _WHY_STATE, fix, fixable=isinstance(error, FileNotFoundError))
        return
    if not stat.S_ISDIR(status.st_mode):
        yield Finding(identity, Severity.ERROR, f"{path} is no directory", _WHY_STATE, "name a directory")
    elif not os.access(path, os.W_OK | os.X_OK):
        what = f"the state directory {path} may not be written by this user"
        yield Finding(identity, Severity.ERROR, what, _WHY_STATE, f"chown to the daemon's user: {path}")
    elif status.st_mode & 0o022:
        what = f"others may write to the state directory {path} (mode {stat.S_IMODE(status.st_mode):04o})"
        yield Finding(identity, Severity.ERROR, what, _WHY_STATE, f"chmod go-w {path}", fixable=True)
    else:
        yield Finding(identity, Severity.OK, f"the state directory {path} can be used", _WHY_STATE)


def check_key_file(path: Path) -> Finding:
    """That it is there, readable to us, and to nobody else."""
    identity = "files.key"
    try:
        status = path.lstat()
    except OSError as error:
        fix = f"minuteman keys generate --output {path}, on one node; copy it to the others"
        return Finding(identity, Severity.ERROR, f"the key file {path} cannot be used: {error.strerror}", _WHY_KEY, fix)
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISREG(status.st_mode):
        what = f"the key file {path} is no ordinary file: whoever may change a link's target may change the key"
        return Finding(identity, Severity.ERROR, what, _WHY_KEY, "name the file itself")
    if mode & 0o077:
        what = f"others may read or change the key file {path} (mode {mode:04o})"
        return Finding(
            identity, Severity.ERROR, what, _WHY_KEY, f"chmod 600 {path}; and make a new key if others were there", fixable=True
        )
    if not os.access(path, os.R_OK):
        return Finding(
            identity,
            Severity.ERROR,
            f"the key file {path} may not be read by this user",
            _WHY_KEY,
            f"chown to the daemon's user: {path}",
        )
    return Finding(identity, Severity.OK, f"the key file {path} is ours alone (mode {mode:04o})", _WHY_KEY)


def check_api_socket(path: Path, timeout_seconds: float = 1.0) -> Finding:
    """Whether the daemon's API answers there, and who else may reach it."""
    identity = "files.api_socket"
    try:
        status = path.stat()
    except FileNotFoundError:
        return Finding(identity, Severity.INFO, f"there is no API socket {path}: the daemon does not run", _WHY_API)
    except OSError as error:
        return Finding(identity, Severity.WARNING, f"the API socket {path} cannot be looked at: {error.strerror}", _WHY_API)
    if not stat.S_ISSOCK(status.st_mode):
        return Finding(identity, Severity.ERROR, f"{path} is no socket", _WHY_API, "move it away, or name another place")
    if status.st_mode & stat.S_IWOTH:
        what = f"everybody may write to the API socket {path} (mode {stat.S_IMODE(status.st_mode):04o})"
        return Finding(identity, Severity.ERROR, what, _WHY_API, f"chmod o-rwx {path}", fixable=True)
    return _ask_api(path, timeout_seconds)


def _ask_api(path: Path, timeout_seconds: float) -> Finding:
    identity = "files.api_socket"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as ours:
            ours.settimeout(timeout_seconds)
            ours.connect(str(path))
    except PermissionError:
        fix = "join the group that [api] group names"
        return Finding(identity, Severity.INFO, f"this user may not use the API socket {path}", _WHY_API, fix)
    except OSError as error:
        what = f"nobody answers at the API socket {path}: {error.strerror or 'no answer'}"
        return Finding(
            identity, Severity.WARNING, what, _WHY_API, "start the daemon; it replaces a socket that was left behind"
        )
    return Finding(identity, Severity.OK, f"the daemon answers at {path}", _WHY_API)
