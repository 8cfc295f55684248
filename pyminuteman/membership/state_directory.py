"""What a node must remember between its lives: its id, its epoch, and whom it knew.

Two small files of JSON, each replaced as a whole (written beside, synced, renamed), so a crash or a full disk leaves the old one.
A file that cannot be read is set aside under another name, and the node goes on: without its identity as a new node, without its
members by asking its contacts. Both are said in the log, neither stops a host from balancing.

    minuteman.lock   held for as long as a process uses the directory: two with one identity would fight over it
    identity.json    {"id": "32 hexadecimal digits", "epoch": 1700000000}
    members.json     {"members": [{"id": "...", "epoch": 1, "address": "10.0.0.1:61420"}, ...]}
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from pyminuteman.addresses import Endpoint, NodeId
from pyminuteman.errors import ConfigurationError
from pyminuteman.membership.messages import Peer

__all__ = ["Identity", "StateDirectory"]

_log = logging.getLogger("pyminuteman.membership")
_EPOCH_MAX: Final = 1 << 62
"""Larger ones are a sign of damage. (The wire allows 64 bits; wall seconds need 34 for the next centuries.)"""
_MEMBERS_MAX: Final = 1000
"""More known members than this do not help to find the cluster again."""
_FILE_MAX_BYTES: Final = 1 << 20


class Identity(NamedTuple):
    """Who a node is, and which life of it this is."""

    id: NodeId
    epoch: int


class StateDirectory:
    """A directory that one process at a time keeps its node's state in. Made, for its owner alone, when it is not there.

    Methods block on the disk: from trio, call them in a thread. None is called by two threads at once.

    Raises:
        ConfigurationError: It cannot be made or used, or another process uses it; nothing was changed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.write_failures = 0
        """Times that something could not be stored; the first of each row of them is logged."""
        self._failing = False
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(path / "minuteman.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise ConfigurationError(path, "", f"cannot be used as the state directory: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise ConfigurationError(path, "", "another process uses this state directory: every node needs its own") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let another process use it. A second call does nothing."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def take_identity(self, wall_seconds: float, *, new: NodeId) -> Identity:
        """Who we are in the life that begins now; stored before this returns, unless the disk refuses, which is logged.

        Args:
            wall_seconds: Since 1970. The epoch is above the last one, and not below this: so neither a clock that was set back nor
                a lost file gives an epoch that was used before.
            new: The id to take when none is stored.
        """
        stored = self._read("identity.json", _identity)
        node, epoch = (new, 0) if stored is None else stored
        identity = Identity(node, max(int(wall_seconds), epoch + 1))
        self.store_identity(identity)
        return identity

    def store_identity(self, identity: Identity) -> None:
        """Replace what is stored. A disk that refuses is logged and counted; the old file stays."""
        self._write("identity.json", {"id": str(identity.id), "epoch": identity.epoch})

    def known_members(self) -> tuple[Peer, ...]:
        """Whom we knew when this was stored last; nobody when it never was."""
        return self._read("members.json", _members) or ()

    def store_members(self, members: Iterable[Peer]) -> None:
        """Replace the known members by the first thousand of these. A disk that refuses is logged and counted."""
        rows = [
            {"id": str(peer.id), "epoch": peer.epoch, "address": str(peer.endpoint)}
            for peer, _ in zip(members, range(_MEMBERS_MAX), strict=False)
        ]
        self._write("members.json", {"members": rows})

    def _read(self, name: str, understand: Any) -> Any:
        path = self._path / name
        try:
            with path.open("rb") as file:
                text = file.read(_FILE_MAX_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            _log.warning("%s cannot be read (%s): going on without it", path, error.strerror)
            return None
        try:
            if len(text) > _FILE_MAX_BYTES:
                raise ValueError("too large")
            return understand(json.loads(text))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            aside = self._set_aside(path)
            _log.warning("%s is damaged (%s: %s); %s, and going on without it", path, type(error).__name__, error, aside)
            return None

    @staticmethod
    def _set_aside(path: Path) -> str:
        """Keep a damaged file for whoever wants to know what happened to it; only the latest."""
        aside = path.with_name(f"{path.name}.damaged")
        try:
            path.replace(aside)
        except OSError as error:
            return f"it cannot be set aside ({error.strerror})"
        return f"set aside as {aside.name}"

    def _write(self, name: str, content: dict[str, Any]) -> None:
        path, fresh = self._path / name, self._path / f"{name}.new"
        try:
            with os.fdopen(_private(fresh), "w", encoding="ascii") as file:
                json.dump(content, file)
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)
            self._sync()
        except OSError as error:
            with contextlib.suppress(OSError):
                fresh.unlink()
            self.write_failures += 1
            if not self._failing:
                _log.warning("%s cannot be stored (%s): the node goes on, and tries again", path, error.strerror)
            self._failing = True
            return
        self._failing = False

    def _sync(self) -> None:
        """Have the rename itself on the disk."""
        directory = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _private(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _epoch(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _EPOCH_MAX:
        raise ValueError(f"{value!r} is no epoch")
    return value


def _identity(content: Any) -> Identity:
    return Identity(NodeId.parse(content["id"]), _epoch(content["epoch"]))


def _members(content: Any) -> tuple[Peer, ...]:
    return tuple(
        Peer(NodeId.parse(row["id"]), _epoch(row["epoch"]), Endpoint.parse(row["address"]))
        for row in content["members"][:_MEMBERS_MAX]
    )
