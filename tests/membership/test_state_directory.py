"""What a node remembers, on disks that lie, fill up and break."""

from __future__ import annotations

import errno
import json
import logging
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from pyminuteman.addresses import Endpoint, NodeId
from pyminuteman.errors import ConfigurationError
from pyminuteman.membership.messages import Peer
from pyminuteman.membership.state_directory import Identity, StateDirectory
from tests.support.tools import missing, needs, root

NEW = NodeId(bytes(range(16)))
OTHER = NodeId(bytes(16))
PEERS = (Peer(OTHER, 7, Endpoint("10.0.0.2", 61420)), Peer(NEW, 8, Endpoint("fd00::3", 1)))


def test_a_new_directory(tmp_path: Path) -> None:
    path = tmp_path / "some" / "where"
    with StateDirectory(path) as state:
        assert state.take_identity(1000.9, new=NEW) == Identity(NEW, 1000)
        assert state.known_members() == ()
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert stat.S_IMODE((path / "identity.json").stat().st_mode) == 0o600
    assert json.loads((path / "identity.json").read_text()) == {"id": str(NEW), "epoch": 1000}


def test_the_id_stays_and_the_epoch_rises_whatever_the_clock_says(tmp_path: Path) -> None:
    for wall, epoch in ((1000.0, 1000), (1000.5, 1001), (10.0, 1002), (5000.0, 5000), (-7.0, 5001)):
        with StateDirectory(tmp_path) as state:
            assert state.take_identity(wall, new=OTHER if epoch > 1000 else NEW) == Identity(NEW, epoch)
    with StateDirectory(tmp_path) as state:
        state.store_identity(Identity(NEW, 9000))
        assert state.take_identity(0, new=OTHER) == Identity(NEW, 9001)


def test_members(tmp_path: Path) -> None:
    with StateDirectory(tmp_path) as state:
        state.store_members(PEERS)
        assert state.known_members() == PEERS
        state.store_members(Peer(OTHER, number, Endpoint("10.0.0.1", 1)) for number in range(5000))
        assert len(state.known_members()) == 1000
        state.store_members(())
        assert state.known_members() == ()
        assert state.write_failures == 0


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with StateDirectory(tmp_path):
        with pytest.raises(ConfigurationError, match="another process uses this state directory"):
            StateDirectory(tmp_path)
        script = f"from pathlib import Path; from pyminuteman.membership.state_directory import *; StateDirectory(Path({str(tmp_path)!r}))"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert "another process" in done.stderr
    with StateDirectory(tmp_path) as state:
        state.close()


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"\0" * 100,
        b"{",
        b"[]",
        b"{}",
        b'{"id": 7, "epoch": 1, "members": 7}',
        b'{"id": "00", "epoch": 1, "members": [{}]}',
        b'{"id": "000102030405060708090a0b0c0d0e0f", "epoch": -1, "members": [{"id": "00"}]}',
        b'{"id": "000102030405060708090a0b0c0d0e0f", "epoch": 4611686018427387904, "members": [7]}',
        b'{"id": "000102030405060708090a0b0c0d0e0f", "epoch": true, "members": null}',
        b'{"id": "000102030405060708090a0b0c0d0e0f", "epoch": 1.5}',
        b"[" * 100_000,
        b" " * 2_000_000,
        "\ud7ff".encode() + b"\xff\xfe",
        b'{"id": "000102030405060708090a0b0c0d0e0f", "epoch": ' + b"9" * 5000 + b"}",
    ],
)
def test_damage_is_said_and_set_aside(tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("identity.json", "members.json"):
        (tmp_path / name).write_bytes(damage)
    with StateDirectory(tmp_path) as state:
        assert state.take_identity(1000, new=OTHER) == Identity(OTHER, 1000)
        assert state.known_members() == ()
    for name in ("identity.json", "members.json"):
        assert (tmp_path / f"{name}.damaged").read_bytes() == damage
        assert sum(f"{name} is damaged" in message and "set aside" in message for message in caplog.messages) == 1
    with StateDirectory(tmp_path) as state:
        assert state.take_identity(0, new=NEW) == Identity(OTHER, 1001)


def test_more_in_a_file_than_is_known_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "identity.json").write_text(json.dumps({"id": str(NEW), "epoch": 5, "later": "version"}))
    with StateDirectory(tmp_path) as state:
        assert state.take_identity(0, new=OTHER) == Identity(NEW, 6)


@pytest.mark.parametrize("broken", ["fsync", "replace", "open"])
def test_a_disk_that_refuses_is_no_end(
    tmp_path: Path, broken: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)

    def full(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with StateDirectory(tmp_path) as state:
        state.take_identity(1000, new=NEW)
        with monkeypatch.context() as patch:
            patch.setattr(
                *{"fsync": (os, "fsync", full), "replace": (Path, "replace", full), "open": (os, "open", full)}[broken]
            )
            state.store_identity(Identity(NEW, 2000))
            state.store_members(PEERS)
        assert state.write_failures == 2
        assert [message for message in caplog.messages if "No space left" in message] == [
            f"{tmp_path}/identity.json cannot be stored (No space left on device): the node goes on, and tries again"
        ]
        assert not list(tmp_path.glob("*.new"))
        assert json.loads((tmp_path / "identity.json").read_text())["epoch"] == 1000
        state.store_members(PEERS)
        assert state.known_members() == PEERS
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            state.store_members(PEERS)
        assert sum("No space left" in message for message in caplog.messages) == 2  # news again, after it had gone well


@needs(root())  # it takes a mount
def test_a_really_full_disk(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["unshare", "--mount", "sh", "-c"]
    script = (
        "import sys; from pathlib import Path; from pyminuteman.addresses import NodeId; "
        "from pyminuteman.membership.state_directory import StateDirectory; path = Path(sys.argv[1]); "
        "state = StateDirectory(path); print(state.take_identity(1000, new=NodeId(bytes(16))).epoch); "
        "(path / 'filler').write_bytes(bytes(12288)) if not (path / 'filler').exists() else None; state.close(); "
        "state = StateDirectory(path); print(state.take_identity(500, new=NodeId(bytes(16))).epoch, state.write_failures)"
    )
    done = subprocess.run(
        [*mount, 'mount -t tmpfs -o size=16k none "$1" && exec "$0" -c "$2" "$1"', sys.executable, str(disk), script],
        capture_output=True,
        text=True,
        check=False,
    )
    if "permi" in done.stderr and "mount" in done.stderr:
        missing(f"the right to mount: {done.stderr.strip()}")
    assert done.stdout == "1000\n1001 1\n", done.stderr
    assert "No space left" in done.stderr


def test_what_cannot_be_a_state_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / "minuteman.lock").symlink_to(tmp_path / "file")
    for path in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / "link"):
        with pytest.raises(ConfigurationError, match="cannot be used as the state directory") as caught:
            StateDirectory(path)
        assert caught.value.path == path


def test_a_file_that_cannot_be_read_is_left_where_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "members.json").mkdir()
    with StateDirectory(tmp_path) as state:
        assert state.known_members() == ()
        state.store_members(PEERS)
        assert state.write_failures == 1
    assert "cannot be read" in caplog.text


def test_one_that_cannot_be_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "members.json").write_text("{")
    (tmp_path / "members.json.damaged").mkdir()
    with StateDirectory(tmp_path) as state:
        assert state.known_members() == ()
    assert "cannot be set aside" in caplog.text
