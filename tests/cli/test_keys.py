"""``minuteman keys``: a secret is made, shown where that is asked for, and rotated; nothing else gives it away."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from pyminuteman.membership.keyring import Key, Keyring, load_key_file, save_key_file
from tests.cli.conftest import Console

A, B = Key(b"a" * 32), Key(b"b" * 32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    save_key_file(path, [A, B])
    return path


def test_a_new_key_goes_to_standard_output(cli: Console, tmp_path: Path) -> None:
    result = cli("generate", group="keys")
    assert result.stderr == ""
    copy = tmp_path / "copy"
    copy.write_text(result.stdout)
    copy.chmod(0o600)
    (key,) = load_key_file(copy)
    assert f"# {key}\n{key.text}\n" in result.stdout
    assert cli("generate", group="keys").stdout != result.stdout


def test_a_new_key_goes_to_a_file_of_its_owner(cli: Console, tmp_path: Path) -> None:
    path = tmp_path / "new"
    result = cli("generate", "--output", str(path), group="keys")
    (key,) = load_key_file(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (result.stdout, result.stderr) == ("", f"wrote the key {key} to {path}\n")


def test_a_file_is_not_lost_by_accident(cli: Console, path: Path) -> None:
    result = cli("generate", "--output", str(path), group="keys", expect=78)
    assert result.stderr == f"minuteman: {path}: is there already, and was left as it is\n"
    assert load_key_file(path) == [A, B]
    cli("generate", "--output", str(path), "--force", group="keys")
    assert len(load_key_file(path)) == 1
    assert load_key_file(path) != [A]
    assert "--force goes with --output" in cli("generate", "--force", group="keys", expect=2).stderr


def test_ids_are_listed_and_no_secret(cli: Console, path: Path) -> None:
    text = cli("list", str(path), group="keys").stdout
    assert text == f"{A}  seals and opens\n{B}  opens\n"
    data = json.loads(cli("list", str(path), "-o", "json", group="keys").stdout)
    assert data == {"version": 1, "key": [{"id": str(A), "seals": True}, {"id": str(B), "seals": False}]}


def test_a_rotation_from_one_node_to_another(cli: Console, tmp_path: Path) -> None:
    nodes = [tmp_path / "one", tmp_path / "two"]
    for node in nodes:
        save_key_file(node, [A])
    assert cli("add", str(nodes[0]), group="keys").stdout == ""
    new = load_key_file(nodes[0])[1]
    shown = cli("show", str(nodes[0]), str(new), group="keys").stdout
    for _ in range(2):
        cli("add", str(nodes[1]), "--stdin", group="keys", stdin=shown)
        assert load_key_file(nodes[1]) == [A, new]
    for verb, expected in (("use", [new, A]), ("remove", [new])):
        old = [Keyring(load_key_file(node), cluster="test") for node in nodes]
        for node in nodes:
            cli(verb, str(node), str(new if verb == "use" else A), group="keys")
            assert load_key_file(node) == expected
        # Those that have made the step and those that have not understand each other.
        after = Keyring(expected, cluster="test")
        assert after.open(old[0].seal(b"x"))
        assert old[1].open(after.seal(b"x"))


def test_comments_stay_with_their_keys(cli: Console, path: Path) -> None:
    path.write_text(f"# of spring\n{A.text}\n# of autumn\n{B.text}\n")
    cli("use", str(path), str(B), group="keys")
    assert path.read_text().splitlines()[2:] == ["# of autumn", B.text, "# of spring", A.text]


def test_using_what_is_used_writes_nothing(cli: Console, path: Path) -> None:
    before = path.stat().st_ino
    cli("use", str(path), str(A), group="keys")
    assert path.stat().st_ino == before


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("use", "{path}", "00000000"), "no key 00000000 in this file: `minuteman keys list` shows which there are"),
        (("show", "{path}", "00000000"), "no key 00000000 in this file"),
        (("remove", "{path}", "00000000"), "no key 00000000 in this file"),
        (("remove", "{path}", str(A)), f"the key {A} seals: use another one first"),
    ],
)
def test_a_step_that_makes_no_sense_changes_nothing(cli: Console, path: Path, words: tuple[str, ...], reason: str) -> None:
    result = cli(*(word.format(path=path) for word in words), group="keys", expect=78)
    assert result.stderr.startswith(f"minuteman: {path}: {reason}")
    assert load_key_file(path) == [A, B]


@pytest.mark.parametrize("verb", ["use", "remove", "show"])
def test_what_is_no_id_is_wrong_usage(cli: Console, path: Path, verb: str) -> None:
    assert "'alice' is not a key id" in cli(verb, str(path), "alice", group="keys", expect=2).stderr


@pytest.mark.parametrize("words", [("add",), ("add", "--stdin"), ("use", str(B)), ("use", str(A)), ("remove", str(B))])
def test_a_dry_run_changes_nothing(cli: Console, path: Path, words: tuple[str, ...]) -> None:
    before = path.read_text()
    result = cli(words[0], str(path), *words[1:], "--dry-run", group="keys", stdin=f"{Key(b'c' * 32).text}\n")
    assert path.read_text() == before
    assert result.stderr.startswith(("would ", "nothing to do"))
    assert result.stderr.startswith("nothing") == (words == ("use", str(A)))


def test_a_file_others_may_read_is_refused_with_the_remedy(cli: Console, path: Path) -> None:
    path.chmod(0o644)
    for words in (("list",), ("add",), ("use", str(B))):
        result = cli(words[0], str(path), *words[1:], group="keys", expect=78)
        assert f"chmod 600 {path}" in result.stderr


def test_what_is_no_key_on_standard_input_is_not_repeated(cli: Console, path: Path) -> None:
    for stdin in (b"my password", b"\xff\xff"):
        result = cli("add", str(path), "--stdin", group="keys", stdin=stdin, expect=78)
        assert result.stderr.startswith("minuteman: standard input: line 1: not a key")
        assert "password" not in result.stderr
    assert cli("add", str(path), "--stdin", group="keys", expect=78).stderr.startswith(
        "minuteman: standard input: no key in it"
    )


def test_a_file_holds_no_more_keys_than_a_node_takes(cli: Console, path: Path) -> None:
    for _ in range(14):
        cli("add", str(path), group="keys")
    assert "a keyring holds 16 keys" in cli("add", str(path), group="keys", expect=78).stderr
    assert len(load_key_file(path)) == 16


def test_the_help_tells_how_to_rotate(cli: Console) -> None:
    text = cli("--help", group="keys").stdout
    assert "minuteman keys add FILE" in text
    assert "--stdin" in text


def test_a_terminal_is_told_that_it_is_a_secret(cli: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyminuteman.cli.keys.is_terminal", lambda _stream: True)
    assert "this is a secret" in cli("generate", group="keys").stderr
