"""The store on disk: SQLite, so that a node which starts where all others are down too knows what was said.

1. What is stored is as it was at one moment: each batch is one transaction, in write-ahead mode. A process that is killed at any
   moment leaves the last whole batch; a machine that loses its power may lose the last few (``synchronous`` is NORMAL: nobody waits
   for a disk here), and never finds half of one.
2. Nothing waits for the disk but the disk's own task. A disk that refuses is logged and counted, and tried again.
3. A database of a later release is refused and not touched; one that is damaged is set aside, and the node asks the others.

Methods block: from trio, call them in a thread, one at a time.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple, Self

import msgpack

from pyminuteman.addresses import NodeId
from pyminuteman.kv.crdt import State
from pyminuteman.kv.entries import Log
from pyminuteman.kv.errors import StoreDatabaseError
from pyminuteman.kv.operations import Kind, SharedKey, check_key
from pyminuteman.kv.owners import StoredLog
from pyminuteman.kv.state_codec import decode_state

__all__ = ["SCHEMA_VERSION", "Batch", "StoreDatabase", "Stored"]

SCHEMA_VERSION: Final = 1
"""Of the tables below, in ``user_version``. A release reads this and all before."""
_APPLICATION_ID: Final = 0x4D4D4B56
"""In the file's header, so that ``file`` and we know it for ours: "MMKV"."""
_BUSY_SECONDS: Final = 5.0
_SCHEMA: Final = """
CREATE TABLE owners (owner BLOB PRIMARY KEY, epoch INTEGER NOT NULL, base INTEGER NOT NULL, version INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE entries (
    owner BLOB NOT NULL, key TEXT NOT NULL, version INTEGER NOT NULL, value BLOB NOT NULL, PRIMARY KEY (owner, key)
) WITHOUT ROWID;
CREATE TABLE shared (kind INTEGER NOT NULL, name TEXT NOT NULL, state BLOB NOT NULL, PRIMARY KEY (kind, name)) WITHOUT ROWID;
"""
_log = logging.getLogger("pyminuteman.kv")


class Stored(NamedTuple):
    """What was on the disk."""

    logs: list[Log]
    states: list[tuple[SharedKey, State]]


class Batch(NamedTuple):
    """What is written at one time."""

    logs: list[StoredLog]
    states: list[tuple[SharedKey, bytes | None]]


class StoreDatabase:
    """A file, with its ``-wal`` and ``-shm`` beside it, for one process.

    Raises:
        StoreDatabaseError: A later release wrote it, it belongs to something else, or the disk refuses. It is as it was.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = self._open()
        try:
            self._prepare()
        except sqlite3.DatabaseError as error:
            self._connection.close()
            if isinstance(error, sqlite3.OperationalError):
                raise StoreDatabaseError(f"{path}: cannot be used as the store's database: {error}") from error
            self._set_aside(error)
        except StoreDatabaseError:
            self._connection.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Put everything into the one file. A second call does nothing."""
        self._connection.close()

    def load(self) -> Stored:
        """All that is stored; nothing, and the file set aside, when it is damaged."""
        try:
            return Stored(self._load_logs(), self._load_states())
        except (sqlite3.DatabaseError, ValueError, TypeError, msgpack.UnpackException) as error:
            self._connection.close()
            self._set_aside(error)
            return Stored([], [])

    def write(self, batch: Batch) -> None:
        """Write a batch, all of it or nothing.

        Raises:
            StoreDatabaseError: The disk refuses.
        """
        try:
            with self._connection as transaction:
                transaction.execute("BEGIN IMMEDIATE")
                self._write_logs(batch.logs)
                self._write_states(batch.states)
        except sqlite3.Error as error:
            raise StoreDatabaseError(f"{self._path}: {error}") from error

    # -- inside --------------------------------------------------------------------------------------------------------

    def _open(self) -> sqlite3.Connection:
        try:
            self._path.touch(mode=0o600)
            return sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise StoreDatabaseError(f"{self._path}: cannot be used as the store's database: {error}") from error

    def _prepare(self) -> None:
        connection = self._connection
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if tables and application != _APPLICATION_ID:
            raise StoreDatabaseError(f"{self._path}: a database of something else; name another file")
        if version > SCHEMA_VERSION:
            raise StoreDatabaseError(
                f"{self._path}: written by a later release (schema {version}; this one reads up to {SCHEMA_VERSION}): upgrade, or"
                " move it away and learn everything from the other nodes"
            )
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        if not tables:
            connection.executescript(
                f"BEGIN IMMEDIATE; PRAGMA application_id = {_APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION};{_SCHEMA}COMMIT;"
            )

    def _set_aside(self, error: Exception) -> None:
        """Keep a damaged file for whoever wants to know, and begin a new one."""
        aside = self._path.with_name(f"{self._path.name}.damaged")
        _log.warning("%s is damaged (%s): set aside as %s, and going on without it", self._path, error, aside.name)
        try:
            for suffix in ("-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    self._path.with_name(self._path.name + suffix).unlink()
            self._path.replace(aside)
        except OSError as refused:
            raise StoreDatabaseError(f"{self._path}: damaged, and cannot be set aside: {refused.strerror}") from refused
        self._connection = self._open()
        self._prepare()

    def _load_logs(self) -> list[Log]:
        entries: dict[bytes, dict[str, tuple[int, bytes]]] = {}
        for owner, key, version, value in self._connection.execute("SELECT owner, key, version, value FROM entries"):
            entries.setdefault(owner, {})[key] = (version, value)
        return [
            Log.restored(NodeId(owner), epoch, base, version, entries.get(owner, {}))
            for owner, epoch, base, version in self._connection.execute("SELECT owner, epoch, base, version FROM owners")
        ]

    def _load_states(self) -> list[tuple[SharedKey, State]]:
        states = []
        for kind, name, packed in self._connection.execute("SELECT kind, name, state FROM shared"):
            check_key(name)
            key = SharedKey(Kind(kind), name)
            states.append((key, decode_state(key.kind, msgpack.unpackb(packed))))
        return states

    def _write_logs(self, logs: Iterable[StoredLog]) -> None:
        execute, executemany = self._connection.execute, self._connection.executemany
        for log in logs:
            if log.whole:
                execute("DELETE FROM entries WHERE owner = ?", (log.owner,))
            if log.epoch:
                execute("REPLACE INTO owners VALUES (?, ?, ?, ?)", (log.owner, log.epoch, log.base, log.version))
            else:
                execute("DELETE FROM owners WHERE owner = ?", (log.owner,))
            executemany("REPLACE INTO entries VALUES (?, ?, ?, ?)", ((log.owner, *put) for put in log.puts))
            executemany("DELETE FROM entries WHERE owner = ? AND key = ?", ((log.owner, key) for key in log.deletes))

    def _write_states(self, states: Iterable[tuple[SharedKey, bytes | None]]) -> None:
        for key, packed in states:
            if packed is None:
                self._connection.execute("DELETE FROM shared WHERE kind = ? AND name = ?", (int(key.kind), key.name))
            else:
                self._connection.execute("REPLACE INTO shared VALUES (?, ?, ?)", (int(key.kind), key.name, packed))
