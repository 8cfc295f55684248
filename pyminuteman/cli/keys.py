"""``minuteman keys``: make key files, and edit them for a rotation.

A key never is an argument: others on this machine can see those. It goes through files and standard input.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import click

from pyminuteman.cli.options import dry_run, output
from pyminuteman.cli.terminal import is_terminal, out, say
from pyminuteman.errors import ConfigurationError
from pyminuteman.membership.errors import KeyringError
from pyminuteman.membership.key_file import (
    KeyEntry,
    editing_key_file,
    format_key_file,
    load_key_entries,
    parse_key_file,
    save_key_file,
)
from pyminuteman.membership.keyring import KEYS_MAX
from pyminuteman.membership.keys import Key, parse_key_id

__all__ = ["group"]

_file = click.argument("path", metavar="FILE", type=click.Path())
_id = click.argument("key_id", metavar="ID", callback=lambda _context, _parameter, text: _parse_id(text))
_ROTATION: Final = """\b
To change the key of a cluster, each step on every node before the next; SIGHUP has a running node read its file again.
  minuteman keys add FILE        a new key, on one node; and from there to each other node:
  minuteman keys show FILE ID | ssh OTHER minuteman keys add FILE --stdin
  minuteman keys use FILE ID     seal with the new key
  minuteman keys remove FILE ID  forget the old key
"""


@click.group("keys", epilog=_ROTATION)
def group() -> None:
    """Keys that a cluster's nodes share: make them, show their ids, rotate them."""


@group.command("generate")
@click.option("--output", "path", metavar="FILE", type=click.Path(), help="Write it there, readable by its owner only (0600).")
@click.option("--force", is_flag=True, help="With --output: take the place of a file that is there.")
def generate(*, path: str | None, force: bool) -> None:
    """Make a key file with one new key, on standard output by default."""
    if force and path is None:
        msg = "--force goes with --output"
        raise click.UsageError(msg)
    entry = KeyEntry(Key.generate())
    if path is None:
        if is_terminal(sys.stdout):
            say("this is a secret: better use --output FILE")
        out(format_key_file([entry]))
        return
    with _configuration(path):
        save_key_file(path, [entry], overwrite=force)
    say(f"wrote the key {entry.key} to {path}")


@group.command("list")
@_file
@output("text", "json")
def list_(*, path: str, form: str) -> None:
    """Show the ids of a file's keys; no secret is shown. The first one seals."""
    with _configuration(path):
        entries = load_key_entries(path)
    if form == "json":
        rows = [{"id": str(entry.key), "seals": number == 0} for number, entry in enumerate(entries)]
        out(json.dumps({"version": 1, "key": rows}, indent=2))
        return
    for number, entry in enumerate(entries):
        out(f"{entry.key}  {'seals and opens' if number == 0 else 'opens'}")


@group.command("show")
@_file
@_id
def show(*, path: str, key_id: bytes) -> None:
    """Print one key as a key file: the secret, to be piped to another node's `keys add FILE --stdin`."""
    with _configuration(path):
        entry = _find(load_key_entries(path), key_id)
    out(format_key_file([entry]))


@group.command("add")
@_file
@click.option("--stdin", "from_stdin", is_flag=True, help="The key on standard input, instead of a new one.")
@dry_run
def add(*, path: str, from_stdin: bool, dry_run: bool) -> None:
    """Add a key to open with: a new one, or that on standard input. One that is there already is left alone."""
    with _configuration("standard input"):
        new = parse_key_file(_read_stdin()) if from_stdin else [KeyEntry(Key.generate())]

    def change(entries: list[KeyEntry]) -> list[KeyEntry]:
        held = {entry.key.id for entry in entries}
        changed = [*entries, *(entry for entry in new if entry.key.id not in held)]
        if len(changed) > KEYS_MAX:
            raise KeyringError(f"a keyring holds {KEYS_MAX} keys: remove one that nobody seals with")
        return changed

    names = " and ".join(str(entry.key) for entry in new)
    _edit(path, change, f"add {names}", f"{path} has {names}: `use` it once every node has it", dry_run=dry_run)


@group.command("use")
@_file
@_id
@dry_run
def use(*, path: str, key_id: bytes, dry_run: bool) -> None:
    """Seal with this key. Every node must have it by then."""

    def change(entries: list[KeyEntry]) -> list[KeyEntry]:
        chosen = _find(entries, key_id)
        return [chosen, *(entry for entry in entries if entry is not chosen)]

    _edit(path, change, f"seal with {key_id.hex()}", f"{path} seals with {key_id.hex()}", dry_run=dry_run)


@group.command("remove")
@_file
@_id
@dry_run
def remove(*, path: str, key_id: bytes, dry_run: bool) -> None:
    """Take a key out of the file. Every node must seal with another one by then."""

    def change(entries: list[KeyEntry]) -> list[KeyEntry]:
        chosen = _find(entries, key_id)
        if chosen is entries[0]:
            raise KeyringError(f"the key {chosen.key} seals: use another one first")
        return [entry for entry in entries if entry is not chosen]

    _edit(path, change, f"remove {key_id.hex()}", f"{path} has {key_id.hex()} no more", dry_run=dry_run)


def _edit(path: str, change: Callable[[list[KeyEntry]], list[KeyEntry]], plan: str, done: str, *, dry_run: bool) -> None:
    with _configuration(path), editing_key_file(path):
        entries = load_key_entries(path)
        changed = change(entries)
        if dry_run:
            say(f"would {plan} in {path}" if changed != entries else "nothing to do")
            return
        if changed != entries:
            save_key_file(path, changed)
    say(done)


def _find(entries: list[KeyEntry], key_id: bytes) -> KeyEntry:
    for entry in entries:
        if entry.key.id == key_id:
            return entry
    raise KeyringError(f"no key {key_id.hex()} in this file: `minuteman keys list` shows which there are")


def _parse_id(text: str) -> bytes:
    try:
        return parse_key_id(text)
    except KeyringError as error:
        raise click.BadParameter(str(error)) from error


def _read_stdin() -> str:
    return sys.stdin.buffer.read(64 * 1024).decode("utf-8", "replace")


@contextmanager
def _configuration(path: str) -> Iterator[None]:
    """What is wrong with a key file is a matter of configuration, and ends with the exit code of that."""
    try:
        yield
    except KeyringError as error:
        text = str(error)
        raise ConfigurationError(path, "", text.removeprefix(f"{path}: ").removeprefix("key file: ")) from error
