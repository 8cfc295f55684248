"""The store on disk: whole batches or nothing, whatever happens to the process; a later release's file is not touched."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pyminuteman.kv.crdt import State, change
from pyminuteman.kv.entries import Log
from pyminuteman.kv.errors import StoreDatabaseError
from pyminuteman.kv.operations import Add, AddElement, SharedKey
from pyminuteman.kv.owners import OwnerTable, StoredLog
from pyminuteman.kv.persistence import SCHEMA_VERSION, Batch, StoreDatabase
from pyminuteman.kv.state_codec import pack_state
from tests.kv.support import EPOCH, actor, node

SET = SharedKey.set("hosts")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


def a_state() -> State:
    return change(State(), [AddElement(b"x")], actor=actor(1), floor=0, now=1000.0)


def stored(number: int, version: int, *, whole: bool = False, deletes: tuple[str, ...] = (), **puts: bytes) -> StoredLog:
    return StoredLog(
        node(number), EPOCH, 1, version, whole, tuple((key, version, value) for key, value in puts.items()), deletes
    )


def content(path: Path) -> dict[tuple[int, str], tuple[int, bytes]]:
    with StoreDatabase(path) as database:
        logs = database.load().logs
    return {(int.from_bytes(log.owner[1:], "big"), key): entry for log in logs for key, entry in log.entries.items()}


def test_what_is_written_is_loaded(path: Path) -> None:
    with StoreDatabase(path) as database:
        assert database.load() == ([], [])
        database.write(Batch([stored(1, 2, a=b"1", b=b"1"), stored(2, 2, a=b"2")], [(SET, pack_state(a_state()))]))
        database.write(Batch([stored(1, 4, a=b"3", deletes=("b",))], []))
    with StoreDatabase(path) as database:
        logs, states = database.load()
    assert states == [(SET, a_state())]
    assert {(log.owner, log.epoch, log.version) for log in logs} == {(node(1), EPOCH, 4), (node(2), EPOCH, 2)}
    assert content(path) == {(1, "a"): (4, b"3"), (2, "a"): (2, b"2")}
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_is_gone_is_gone_from_the_disk(path: Path) -> None:
    with StoreDatabase(path) as database:
        database.write(Batch([stored(1, 2, a=b"1"), stored(2, 2, a=b"2")], [(SET, pack_state(a_state()))]))
        database.write(Batch([stored(1, 5, whole=True, c=b"1"), StoredLog(node(2), 0, 0, 0, True, (), ())], [(SET, None)]))
        assert database.load().states == []
        assert [log.owner for log in database.load().logs] == [node(1)]
    assert content(path) == {(1, "c"): (5, b"1")}


def test_a_file_of_a_later_release_is_refused_and_not_touched(path: Path) -> None:
    with StoreDatabase(path) as database:
        database.write(Batch([stored(1, 2, a=b"1")], []))
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreDatabaseError, match=r"written by a later release \(schema 2; this one reads up to 1\)"):
        StoreDatabase(path)
    assert path.read_bytes() == before


def test_a_database_of_something_else_is_refused(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    with pytest.raises(StoreDatabaseError, match="a database of something else"):
        StoreDatabase(path)


def test_a_place_that_cannot_be_used_is_an_error(tmp_path: Path) -> None:
    for path in (tmp_path / "missing" / "store.db", tmp_path):
        with pytest.raises(StoreDatabaseError, match="cannot be used"):
            StoreDatabase(path)


def test_a_disk_that_refuses_leaves_what_was_there(path: Path) -> None:
    with StoreDatabase(path) as database:
        database.write(Batch([stored(1, 2, a=b"1")], []))
        with pytest.raises(StoreDatabaseError, match="NOT NULL"):
            database.write(Batch([stored(1, 3, a=b"2", b=None)], []))  # type: ignore[arg-type]
    assert content(path) == {(1, "a"): (2, b"1")}


def test_a_file_that_is_no_database_is_set_aside(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.write_bytes(b"no database at all " * 1000)
    with StoreDatabase(path) as database:
        assert database.load() == ([], [])
        database.write(Batch([stored(1, 2, a=b"1")], []))
    assert "is damaged" in caplog.text
    assert path.with_name("store.db.damaged").read_bytes().startswith(b"no database")
    assert content(path) == {(1, "a"): (2, b"1")}


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE shared SET state = x'93'",
        "UPDATE shared SET kind = 77",
        "UPDATE shared SET name = ''",
        "UPDATE owners SET owner = x'00'",
    ],
)
def test_a_database_whose_content_is_damaged_is_set_aside(path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    with StoreDatabase(path) as database:
        database.write(Batch([stored(1, 2, a=b"1")], [(SET, pack_state(a_state()))]))
    with sqlite3.connect(path) as connection:
        connection.execute(damage)
    connection.close()
    with StoreDatabase(path) as database:
        assert database.load() == ([], [])
        database.write(Batch([stored(1, 2, a=b"2")], []))
    assert "is damaged" in caplog.text
    assert content(path) == {(1, "a"): (2, b"2")}


def test_damage_that_cannot_be_set_aside_is_an_error(path: Path) -> None:
    path.write_bytes(b"no database at all " * 1000)
    path.with_name("store.db.damaged").mkdir()
    with pytest.raises(StoreDatabaseError, match="damaged, and cannot be set aside"):
        StoreDatabase(path)


# -- killed ------------------------------------------------------------------------------------------------------------

WRITER = """
import sys
from pathlib import Path
from pyminuteman.kv.owners import StoredLog
from pyminuteman.kv.persistence import Batch, StoreDatabase
from tests.kv.support import node
database = StoreDatabase(Path(sys.argv[1]))
version = int(sys.argv[2])
while True:
    version += 1
    value = b"%d" % version
    puts = tuple((f"k{number}", version, value) for number in range(200))
    database.write(Batch([StoredLog(node(owner), 1, 1, version, version % 3 == 0, puts, ()) for owner in (1, 2)], []))
    print(version, flush=True)
"""


def test_a_writer_that_is_killed_leaves_its_last_whole_batch(path: Path) -> None:
    rng, said = random.Random(7), 0  # noqa: S311 - reproducible
    for _ in range(5):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(said)], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            for _ in range(rng.randint(1, 20)):
                said = int(writer.stdout.readline())
            time.sleep(rng.uniform(0, 0.01))  # somewhere within a batch
            os.kill(writer.pid, signal.SIGKILL)
            rest = writer.stdout.read().split()
        said = int(rest[-1]) if rest and rest[-1].isdigit() else said
        found = content(path)
        assert len(found) == 400
        versions = {version for version, _ in found.values()}
        assert len(versions) == 1, "half a batch"
        (version,) = versions
        assert version in (said, said + 1), "a batch that was reported is lost"
        assert set(found.values()) == {(version, b"%d" % version)}
        said = version


# -- size --------------------------------------------------------------------------------------------------------------


def test_a_hundred_thousand_entries_are_loaded_in_two_seconds(path: Path) -> None:
    logs = []
    for number in range(500):
        puts = tuple(
            (f"vips/tcp:11.{number >> 8}.{number & 255}.{key}:80", key + 2, b"10.0.0.5:8080 w=1") for key in range(200)
        )
        logs.append(StoredLog(node(number), EPOCH, 201, 201, True, puts, ()))
    states = [
        (SharedKey.counter(f"c{number}"), pack_state(change(State(), [Add(1)], actor=actor(1), floor=0, now=1e9)))
        for number in range(1000)
    ]
    with StoreDatabase(path) as database:
        database.write(Batch(logs, states))
    began = time.process_time()
    table = OwnerTable(keys_max=1000, entries_max=1_000_000)
    with StoreDatabase(path) as database:
        loaded = database.load()
    for log in loaded.logs:
        assert isinstance(log, Log)
        table.restore(log)
    entries = table.entries("")
    took = time.process_time() - began
    print(f"{len(entries)} entries and {len(loaded.states)} values loaded in {took:.2f} s", file=sys.stderr)  # noqa: T201
    assert len(entries) == 100_000
    assert took < (2.0 if sys.gettrace() is None else 10.0)  # coverage takes its share
