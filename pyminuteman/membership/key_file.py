"""Key files: one key in base64 a line, ``#`` before a comment; the first key seals.

The only part of the keyring that touches the world. A file that others may read is refused, and so is a symbolic link; a new file
takes the place of the old one whole, or not at all.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pyminuteman.membership.errors import KeyringError
from pyminuteman.membership.keys import Key

__all__ = [
    "KeyEntry",
    "editing_key_file",
    "format_key_file",
    "load_key_entries",
    "load_key_file",
    "parse_key_file",
    "save_key_file",
]

_SIZE_MAX: Final = 64 * 1024
_EDIT_TRIES: Final = 250  # five seconds
_EDIT_PAUSE_SECONDS: Final = 0.02
_HEADER: Final = (
    "# Keys of a pyminuteman cluster, one a line. The first seals, all of them open. Keep this file secret.",
    "",
)


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """A key, and the comment lines above it."""

    key: Key
    comments: tuple[str, ...] = ()


def parse_key_file(text: str, path: str = "key file") -> list[KeyEntry]:
    """Read the text of a key file; ``path`` is for errors. Comments before the first empty line belong to the file.

    Raises:
        KeyringError: A line is no key, a key is there twice, or there is none. No line is repeated in the error.
    """
    entries: list[KeyEntry] = []
    comments: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.strip()
        if not words:
            comments.clear()
        elif words.startswith("#"):
            comments.append(words)
        else:
            try:
                key = Key.parse(words)
            except KeyringError as error:
                raise KeyringError(f"{path}: line {number}: {error}") from None
            if any(entry.key.id == key.id for entry in entries):
                raise KeyringError(f"{path}: line {number}: the key {key} is there twice")
            entries.append(KeyEntry(key, tuple(comments)))
            comments.clear()
    if not entries:
        raise KeyringError(f"{path}: no key in it; `minuteman keys generate` makes one")
    return entries


def format_key_file(entries: Iterable[KeyEntry]) -> str:
    """The text of a key file."""
    lines = [*_HEADER]
    for entry in entries:
        lines += [*(entry.comments or (f"# {entry.key}",)), entry.key.text]
    return "\n".join(lines) + "\n"


def load_key_file(path: str | os.PathLike[str]) -> list[Key]:
    """The keys of a file, the one to seal with first.

    Raises:
        KeyringError: The file cannot be read, others may read it, it is a symbolic link, or not a key file. The text says what to do.
    """
    return [entry.key for entry in load_key_entries(path)]


def load_key_entries(path: str | os.PathLike[str]) -> list[KeyEntry]:
    """As :func:`load_key_file`, with the comments."""
    shown = os.fspath(path)
    try:
        # Not blocking: a FIFO is refused below, and opening one must not wait for somebody to write.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise KeyringError(f"{shown}: is a symbolic link, whose target others might change: name the file itself") from None
        raise KeyringError(f"{shown}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise KeyringError(f"{shown!r}: not a path: {error}") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise KeyringError(f"{shown}: is not a file")
        if status.st_mode & 0o077:
            mode = stat.S_IMODE(status.st_mode)
            raise KeyringError(f"{shown}: others may read or change it (mode {mode:04o}): chmod 600 {shown}, or make a new key")
        raw = os.read(descriptor, _SIZE_MAX + 1)
    finally:
        os.close(descriptor)
    if len(raw) > _SIZE_MAX:
        raise KeyringError(f"{shown}: too large for a key file")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise KeyringError(f"{shown}: is not text") from None
    return parse_key_file(text, shown)


def save_key_file(path: str | os.PathLike[str], keys: Sequence[Key | KeyEntry], *, overwrite: bool = True) -> None:
    """Write a key file that only its owner may read (mode 0600), whole or not at all, and onto the disk before this returns.

    The owner of a file that is replaced stays its owner, where we may see to that.

    Raises:
        KeyringError: It is there and ``overwrite`` is False, or it cannot be written. The old file is as it was.
    """
    target = Path(path)
    text = format_key_file([key if isinstance(key, KeyEntry) else KeyEntry(key) for key in keys])
    temporary = target.with_name(f".{target.name}.{os.urandom(4).hex()}.new")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                _keep_owner(target, descriptor)
                file.write(text.encode())
                file.flush()
                os.fsync(descriptor)
            if overwrite:
                temporary.replace(target)
            else:
                os.link(temporary, target)  # unlike a rename, this fails when the target is there
        finally:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
        directory = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except FileExistsError as error:
        raise KeyringError(f"{target}: is there already, and was left as it is") from error
    except OSError as error:
        raise KeyringError(f"{target}: cannot be written: {error.strerror}") from error


@contextlib.contextmanager
def editing_key_file(path: str | os.PathLike[str]) -> Iterator[None]:
    """Keep other editors away between reading the file and writing it: two that add a key at once would lose one.

    The directory is locked (``flock``), for the file is another one after each edit.

    Raises:
        KeyringError: There is no such directory, or another edit has not ended within 5 s.
    """
    directory = Path(path).parent
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise KeyringError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        for tries_left in reversed(range(_EDIT_TRIES)):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not tries_left:
                    raise KeyringError(f"{directory}: somebody else is editing keys here; try again") from None
                time.sleep(_EDIT_PAUSE_SECONDS)
        yield
    finally:
        os.close(descriptor)


def _keep_owner(target: Path, descriptor: int) -> None:
    os.fchmod(descriptor, 0o600)  # whatever the umask
    with contextlib.suppress(FileNotFoundError, PermissionError):
        status = os.lstat(target)
        if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
            os.fchown(descriptor, status.st_uid, status.st_gid)
