"""Key files: private, whole, and plain about what is wrong with them."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pyminuteman.membership import key_file
from pyminuteman.membership.errors import KeyringError
from pyminuteman.membership.key_file import (
    KeyEntry,
    editing_key_file,
    load_key_entries,
    load_key_file,
    parse_key_file,
    save_key_file,
)
from pyminuteman.membership.keys import Key

A, B = Key(b"a" * 32), Key(b"b" * 32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def write(path: Path, text: str | bytes, mode: int = 0o600) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    path.chmod(mode)
    return path


def test_keys_survive_a_file(path: Path) -> None:
    save_key_file(path, [B, A])
    assert load_key_file(path) == [B, A]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_the_mode_is_0600_whatever_the_umask(path: Path) -> None:
    before = os.umask(0o777)
    try:
        save_key_file(path, [A])
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_says_what_it_is_and_names_its_keys(path: Path) -> None:
    save_key_file(path, [A, B])
    lines = path.read_text().splitlines()
    assert lines[0].startswith("# Keys of a pyminuteman cluster")
    assert lines[2:] == [f"# {A}", A.text, f"# {B}", B.text]


def test_comments_go_with_their_keys(path: Path) -> None:
    write(path, f"# the file's\n\n# of A\n#more\n{A.text}\n{B.text} \n")
    entries = load_key_entries(str(path))
    assert entries == [KeyEntry(A, ("# of A", "#more")), KeyEntry(B)]
    save_key_file(path, entries[::-1])
    assert load_key_entries(path) == [KeyEntry(B, (f"# {B}",)), KeyEntry(A, ("# of A", "#more"))]


def test_a_byte_order_mark_is_no_key(path: Path) -> None:
    assert load_key_file(write(path, f"\ufeff{A.text}\r\n")) == [A]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no key in it; `minuteman keys generate` makes one"),
        ("# nothing\n", "no key in it"),
        ("# one\nsecret words\n", "line 2: not a key: expected 32 bytes in base64"),
        (f"{A.text}\n{B.text}\n{A.text}\n", f"line 3: the key {A} is there twice"),
        (b"\xff\xfe", "is not text"),
        ("#" * 70_000, "too large for a key file"),
    ],
)
def test_what_is_no_key_file_is_refused_with_the_line(path: Path, text: str | bytes, reason: str) -> None:
    with pytest.raises(KeyringError, match=reason) as caught:
        load_key_file(write(path, text))
    assert str(caught.value).startswith(f"{path}: ")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666, 0o601])
def test_a_file_that_others_may_read_is_refused_with_the_remedy(path: Path, mode: int) -> None:
    write(path, A.text, mode)
    with pytest.raises(KeyringError, match=rf"others may read or change it \(mode 0{mode:o}\): chmod 600 {path}"):
        load_key_file(path)


def test_a_symbolic_link_is_refused(path: Path, tmp_path: Path) -> None:
    write(tmp_path / "real", A.text)
    path.symlink_to(tmp_path / "real")
    with pytest.raises(KeyringError, match="is a symbolic link, whose target others might change: name the file itself"):
        load_key_file(path)


def test_what_is_no_file_is_refused_without_waiting(path: Path, tmp_path: Path) -> None:
    os.mkfifo(path, 0o600)
    for place in (path, tmp_path):
        with pytest.raises(KeyringError, match="is not a file"):
            load_key_file(place)


def test_what_cannot_be_read_is_refused_with_the_reason(path: Path) -> None:
    with pytest.raises(KeyringError, match="cannot be read: No such file"):
        load_key_file(path)
    with pytest.raises(KeyringError, match="not a path"):
        load_key_file("a\0b")


def test_a_file_is_replaced_only_when_that_is_asked_for(path: Path) -> None:
    save_key_file(path, [A], overwrite=False)
    with pytest.raises(KeyringError, match=f"{path}: is there already, and was left as it is"):
        save_key_file(path, [B], overwrite=False)
    assert load_key_file(path) == [A]
    save_key_file(path, [B])
    assert load_key_file(path) == [B]
    assert list(path.parent.iterdir()) == [path]


def test_a_file_that_cannot_be_written_leaves_the_old_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_key_file(path, [A])

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(KeyringError, match=f"{path}: cannot be written: No space left on device"):
        save_key_file(path, [B])
    assert load_key_file(path) == [A]
    assert list(path.parent.iterdir()) == [path]


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(KeyringError, match="cannot be written: No such file or directory"):
        save_key_file(tmp_path / "nowhere" / "keys", [A])


def test_a_link_is_replaced_and_not_followed(path: Path, tmp_path: Path) -> None:
    write(tmp_path / "real", "theirs")
    path.symlink_to(tmp_path / "real")
    save_key_file(path, [A])
    assert (tmp_path / "real").read_text() == "theirs"
    assert load_key_file(path) == [A]


def test_the_owner_of_a_file_stays_its_owner(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_key_file(path, [A])
    asked = []
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    monkeypatch.setattr(os, "fchown", lambda _descriptor, user, group: asked.append((user, group)))
    save_key_file(path, [B])
    assert asked == [(path.stat().st_uid, path.stat().st_gid)]


def test_two_who_edit_at_once_lose_nothing(path: Path) -> None:
    save_key_file(path, [A])

    def add_ten(_number: int) -> None:
        for _ in range(10):
            with editing_key_file(path):
                save_key_file(path, [*load_key_entries(path), Key.generate()])

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(add_ten, range(4)))
    assert len(load_key_entries(path)) == 41


def test_an_edit_that_does_not_end_is_not_waited_for_longer_than_that(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_file, "_EDIT_TRIES", 3)
    with (
        editing_key_file(path),
        pytest.raises(KeyringError, match="somebody else is editing keys here"),
        editing_key_file(path),
    ):
        pytest.fail("two at once")
    with editing_key_file(path):
        pass


def test_a_directory_that_is_not_there_cannot_be_edited_in(tmp_path: Path) -> None:
    with pytest.raises(KeyringError, match="cannot be read: No such file"), editing_key_file(tmp_path / "nowhere" / "keys"):
        pytest.fail("there is nothing to edit")


def test_text_alone_is_read_too() -> None:
    assert parse_key_file(A.text) == [KeyEntry(A)]
    with pytest.raises(KeyringError, match="key file: line 1"):
        parse_key_file("x")
