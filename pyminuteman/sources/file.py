"""VIPs in files, TOML or JSON: one file, or a directory of them.

Invariants:

1. A file counts only as its writer wanted it: after it was closed or moved into place, or once nothing has touched it for a moment.
2. What cannot be read changes nothing: of each file the last good content stands, and the status says which line is wrong. The first
   state comes when every file that is there could be read.
3. The same files give the same state, whatever happened before: files count in the order of their names.

Reading and parsing happen in a thread: 10,000 VIPs with five backends each take three seconds as TOML, half of it as JSON.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Final

import trio

from pyminuteman.errors import ConfigurationError
from pyminuteman.plain.fields import Invalid
from pyminuteman.plain.text import decode, key_with_line, lines_of, parse
from pyminuteman.sources.base import LatestState, SourceError, SourceProblem, SourceState, SourceStatus, feeding
from pyminuteman.sources.document import VIPS_MAX, keep_last_good, read_document
from pyminuteman.sources.inotify import Changes, DirectoryWatch
from pyminuteman.vips.model import VIP, VIPKey

__all__ = ["FILES_MAX", "FILE_MAX_BYTES", "FORMATS", "FileReading", "FileSource", "read_text_as"]

FORMATS: Final = ("toml", "json")
FILE_MAX_BYTES: Final = 64 << 20
"""Largest file: 100,000 VIPs with five backends each have about half of it."""
FILES_MAX: Final = 4096
"""Most files of a directory, of those that count."""
_SETTLE_SECONDS: Final = 0.25
"""A file that nobody has closed counts when it has not been touched for so long."""
_VANISH_SECONDS: Final = 1.0
"""A file that is gone for so long is gone: some editors move the old one away before they write the new one."""
_RESCAN_SECONDS: Final = 30.0
"""Changes that inotify does not tell of (targets of symbolic links, network file systems) are found so late."""
_UNWATCHED_SECONDS: Final = 2.0
"""How often to look when the kernel has no watch to give, or the directory is missing."""


@dataclass(frozen=True, slots=True)
class FileReading:
    """What one file says.

    Attributes:
        vips: What is right in it, in the order of their keys; no key twice.
        problems: What was left out of it, or what is odd about it.
        wrong: VIPs whose descriptions are wrong; None among them when that of some VIP is, and it cannot be told of which.
    """

    vips: tuple[VIP, ...]
    problems: tuple[SourceProblem, ...] = ()
    wrong: frozenset[VIPKey | None] = frozenset()


Interpret = Callable[[str, Path], FileReading]
"""From text and path to what it says; raises ConfigurationError when the text as a whole says nothing."""


def read_text_as(kind: str, text: str, path: Path) -> FileReading:
    """What a TOML or JSON text says; problems name its lines.

    Args:
        kind: One of :data:`FORMATS`; empty to go by the extension of the path, else by the looks of the text.
        text: The text.
        path: For errors.

    Raises:
        ConfigurationError: It is no such text, or no document as a whole.
    """
    kind = kind or {".toml": "toml", ".json": "json"}.get(path.suffix) or ("json" if text.lstrip()[:1] == "{" else "toml")
    data = parse(kind, text, str(path))
    try:
        reading = read_document(data)
    except Invalid as error:
        raise ConfigurationError(path, key_with_line(lines_of(kind, text), error.place), error.reason) from None
    if not reading.faults:
        return FileReading(reading.vips)
    lines = lines_of(kind, text)
    problems = [SourceProblem(f"{path}: {key_with_line(lines, fault.place)}", fault.reason) for fault in reading.faults]
    return FileReading(reading.vips, tuple(problems), frozenset(fault.key for fault in reading.faults))


@dataclass(frozen=True, slots=True)
class _Content:
    """What counts of one file."""

    stamp: tuple[int, ...] = ()
    """What tells one state of the file from another without reading it; empty to read it at the next look."""
    digest: bytes = b""
    vips: tuple[VIP, ...] = ()
    problems: tuple[SourceProblem, ...] = ()
    error: str = ""
    """Why the text that is there now does not count."""
    ever_good: bool = False
    missing_since: float | None = None


@dataclass(frozen=True, slots=True)
class _Look:
    contents: Mapping[str, _Content]
    again_seconds: float
    """When to look next, if nothing happens before."""
    unsettled: bool = False
    """A file that has never been read is still being written."""
    files_read: int = 0
    state: SourceState | None = None
    """All of it together; None when that is as it was before."""


class FileSource:
    """VIPs in a file, or in all ``*.toml`` and ``*.json`` of a directory; hidden files (``.x``) are passed over.

    Args:
        path: The file or directory. It need not be there yet, and may be replaced.
        kind: Format of a single file, one of :data:`FORMATS`; empty to go by its extension, else by its looks.
        name: What it is called; ``file:PATH`` unless said otherwise.
        interpret: From a text to what it says; for sources of other formats.
        suffixes: Which files of a directory count.

    Raises:
        ConfigurationError: The path is none.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        kind: str = "",
        name: str = "",
        interpret: Interpret | None = None,
        suffixes: Iterable[str] = (".toml", ".json"),
    ) -> None:
        if "\0" in str(path):
            raise ConfigurationError(None, "path", f"{str(path)!r} is no path: it has a zero byte")
        self.path = Path(path).absolute()
        self.name = name or f"file:{self.path}"
        self.status = SourceStatus(
            counters=dict.fromkeys(("looks", "states", "failures", "files_read", "overflows", "watched"), 0)
        )
        self._interpret = interpret or partial(read_text_as, kind)
        self._suffixes = frozenset(suffixes)

    def states(self) -> AbstractAsyncContextManager[AsyncIterator[SourceState]]:
        """See :class:`~pyminuteman.sources.base.Source`."""
        return feeding(self._run)

    async def _run(self, latest: LatestState) -> None:
        contents: Mapping[str, _Content] = {}
        changes = Changes(everything=True, names=set(), whole=set())
        told, counters = False, self.status.counters
        while True:
            directory = self._directory()
            overflows = 0
            with DirectoryWatch(directory) as watch:
                while directory == self._directory():
                    wait = _UNWATCHED_SECONDS
                    try:
                        watch.renew()
                        look = partial(self._look, directory, contents, changes, trio.current_time(), again=told)
                        found = await trio.to_thread.run_sync(look, abandon_on_cancel=True)
                    except SourceError as error:
                        self._failed(str(error))
                    else:
                        contents, wait = found.contents, found.again_seconds
                        told |= self._tell(latest, found, told=told)
                    counters["watched"] = int(not watch.unwatched)
                    if watch.unwatched:
                        wait = min(wait, _UNWATCHED_SECONDS)
                    changes = await watch.wait(wait)
                    counters["overflows"] += watch.overflows - overflows
                    overflows = watch.overflows
                changes.everything = True

    def _directory(self) -> Path:
        """What to watch: the path where it is a directory, else the directory that it is in."""
        return self.path if os.path.isdir(self.path) else self.path.parent  # noqa: PTH112 - Path.is_dir raises without the right to look

    def _failed(self, reason: str) -> None:
        self.status.counters["failures"] += 1
        self.status.failed(trio.current_time(), reason)

    def _tell(self, latest: LatestState, look: _Look, *, told: bool) -> bool:
        """Update the status, and offer the state if there is one."""
        self.status.counters["looks"] += 1
        self.status.counters["files_read"] += look.files_read
        errors = [f"{path}: {content.error}" for path, content in look.contents.items() if content.error]
        new = any(content.error and not content.ever_good for content in look.contents.values())
        if errors:
            more = f" (and {len(errors) - 1} more files)" if len(errors) > 1 else ""
            stands = "nothing counts until it can be read, or is gone" if new and not told else "what it said before stands"
            self._failed(f"{errors[0]}{more}; {stands}")
        elif not look.unsettled:
            self.status.good(trio.current_time())
        if not told and (new or look.unsettled):
            return False
        self.status.counters["states"] += look.state is not None and latest.put(look.state)
        return True

    # What follows runs in a thread, and changes nothing but what it returns.

    def _look(
        self, directory: Path, previous: Mapping[str, _Content], changes: Changes, now: float, *, again: bool = False
    ) -> _Look:
        contents: dict[str, _Content] = {}
        next_look, unsettled, files_read = _RESCAN_SECONDS, False, 0
        wall = time.time()  # noqa: TID251 - compared with times of files
        for path in self._paths(directory):
            old = previous.get(str(path), _Content())
            try:
                status = path.stat()
                fresh = 0 <= wall - status.st_ctime < _SETTLE_SECONDS and path.name not in changes.whole
                if _stamp(status) == old.stamp and path.name not in changes.names:
                    made = old
                elif fresh:
                    raise _UnsettledError
                else:
                    made = self._read(path, old)
                    files_read += 1
            except _UnsettledError:
                made, next_look = replace(old, stamp=()), min(next_look, _SETTLE_SECONDS)
                unsettled |= not old.ever_good
            except OSError as error:
                if isinstance(error, FileNotFoundError) and not path.is_symlink():
                    continue  # it went after it was listed
                made = replace(old, stamp=(), digest=b"", problems=(), error=f"cannot be read: {error.strerror}")
            contents[str(path)] = made if made.missing_since is None else replace(made, missing_since=None)
        for key in previous.keys() - contents.keys():
            since = previous[key].missing_since
            gone = 0.0 if since is None else now - since
            if gone < _VANISH_SECONDS:
                contents[key] = replace(previous[key], stamp=(), missing_since=now if since is None else since)
                next_look = min(next_look, _VANISH_SECONDS - gone)
        if (count := sum(len(content.vips) for content in contents.values())) > VIPS_MAX:
            raise SourceError(f"{self.path}: there are {count} VIPs; at most {VIPS_MAX} are taken")
        ordered = dict(sorted(contents.items()))
        same = again and list(map(id, ordered.values())) == list(map(id, previous.values()))
        return _Look(ordered, next_look, unsettled, files_read, None if same else _merge(ordered))

    def _paths(self, directory: Path) -> list[Path]:
        if directory != self.path:
            try:
                self.path.lstat()
            except FileNotFoundError:
                raise SourceError(f"{self.path}: there is no such file or directory") from None
            except OSError as error:
                raise SourceError(f"{self.path}: cannot be read: {error.strerror}") from None
            return [self.path]
        try:
            with os.scandir(directory) as entries:
                names = [entry.name for entry in entries if self._counts(entry.name)]
        except OSError as error:
            raise SourceError(f"{directory}: cannot be read: {error.strerror}") from None
        if len(names) > FILES_MAX:
            raise SourceError(f"{directory}: there are {len(names)} files; at most {FILES_MAX} are taken")
        return [directory / name for name in names]

    def _counts(self, name: str) -> bool:
        return not name.startswith(".") and Path(name).suffix in self._suffixes

    def _read(self, path: Path, old: _Content) -> _Content:
        stamp: tuple[int, ...] = ()
        digest = b""
        try:
            stamp, raw = _read_bytes(path)
            digest = blake2b(raw, digest_size=16).digest()
            if digest == old.digest:
                return replace(old, stamp=stamp)
            reading = self._interpret(decode(raw, str(path)), path)
        except ConfigurationError as error:
            said = ": ".join(filter(None, (error.key, error.reason)))
            return replace(old, stamp=stamp, digest=digest, problems=(), error=said)
        vips = keep_last_good(reading.vips, reading.wrong, old.vips)
        return _Content(stamp, digest, vips, reading.problems, ever_good=True)


class _UnsettledError(Exception):
    """The file is being written."""


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _read_bytes(path: Path) -> tuple[tuple[int, ...], bytes]:
    # Not blocking: a FIFO is refused below, and opening one must not wait for somebody to write.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ConfigurationError(path, "", "is not a file")
        if status.st_size > FILE_MAX_BYTES:
            raise ConfigurationError(path, "", f"it has {status.st_size} bytes; at most {FILE_MAX_BYTES} are read")
        raw = file.read(status.st_size + 1)
        if len(raw) != status.st_size or _stamp(os.fstat(descriptor)) != _stamp(status):
            raise _UnsettledError
    return _stamp(status), raw


def _merge(contents: Mapping[str, _Content]) -> SourceState:
    """All files together, the first in name order first."""
    owners: dict[VIPKey, str] = {}
    vips: list[VIP] = []
    problems: list[SourceProblem] = []
    for path, content in contents.items():
        if content.error:
            problems.append(SourceProblem(path, content.error))
        problems += content.problems
        for vip in content.vips:
            owner = owners.setdefault(vip.key, path)
            if owner == path:
                vips.append(vip)
            else:
                problems.append(SourceProblem(path, f"{vip.key} is described in {owner} too, and that counts"))
    return SourceState.of(vips, problems)
