"""The daemon's configuration from where it is said: a file, ``conf.d`` beside it, the environment, and options, each above those before it.

Every error names the file, line and key, or the variable or option, and says what is accepted.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from pyminuteman.daemon.config import DaemonConfig
from pyminuteman.daemon.config_checks import Remark, remarks
from pyminuteman.daemon.config_description import describe
from pyminuteman.daemon.config_document import KEYS, read_config, scalar_keys
from pyminuteman.daemon.config_readers import Reader
from pyminuteman.daemon.config_secrets import check_files, file_remarks
from pyminuteman.errors import ConfigurationError
from pyminuteman.plain.fields import Invalid, Place, closest, place_text, short
from pyminuteman.plain.text import decode, key_with_line, lines_of, parse

__all__ = ["DEFAULT_PATH", "all_remarks", "describe", "load_config", "variable_name"]

DEFAULT_PATH: Final = Path("/etc/minuteman/config.toml")
"""Where the daemon's configuration is, unless told otherwise."""

_PREFIX: Final = "MINUTEMAN_"
_FILES_MAX: Final = 1000
_FILE_MAX_BYTES: Final = 1 << 20
_DEPTH_MAX: Final = 16
"""More than any key has; what is deeper is no configuration."""
_LISTS: Final = frozenset({("source",), ("policy", "rule")})
"""Where elements of several files are joined."""
_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(slots=True)
class _File:
    """A file that was read."""

    shown: str
    text: str

    def key(self, place: Place) -> str:
        """The key with its line, which is looked for now that there is an error."""
        return key_with_line(lines_of("toml", self.text), place)

    def error(self, place: Place, reason: str) -> ConfigurationError:
        return ConfigurationError(self.shown, self.key(place), reason)


@dataclass(slots=True)
class _Said:
    """Something that was said outside of files."""

    where: str
    key: str

    def error(self, _place: Place, reason: str) -> ConfigurationError:
        return ConfigurationError(self.where, self.key, reason)


@dataclass(slots=True)
class _Merged:
    """All of it as one document, and who said what."""

    document: dict[str, Any] = field(default_factory=dict)
    origins: dict[Place, tuple[_File | _Said, Place]] = field(default_factory=dict)

    def add_file(self, file: _File, table: Mapping[str, Any]) -> None:
        """Add what a file says.

        Raises:
            ConfigurationError: Another file says it already.
        """
        self._merge(self.document, table, file, ())

    def _merge(self, into: dict[str, Any], table: Mapping[str, Any], file: _File, place: Place) -> None:
        for key, value in table.items():
            here = (*place, key)
            there = into.get(key)
            if isinstance(value, dict) and isinstance(there, dict | None):
                self.origins.setdefault(here, (file, here))
                self._merge(into.setdefault(key, {}), value, file, here)
            elif here in _LISTS and isinstance(value, list) and isinstance(there, list | None):
                self.origins.setdefault(here, (file, here))
                rows = into.setdefault(key, [])
                for index, row in enumerate(value):
                    self.origins[*here, len(rows)] = (file, (*here, index))
                    rows.append(row)
            elif there is None:
                self.origins[here] = (file, here)
                into[key] = value
            else:
                other, at = self.origins[here]
                first = f"{other.shown}, {other.key(at)}" if isinstance(other, _File) else other.key
                raise file.error(here, f"{short(key)} is said in {first}, too; one of the two has to go")

    def set_value(self, key: str, value: object, said: _Said) -> None:
        """Let a key have this value, whatever the files say."""
        *sections, last = key.split(".")
        table: Any = self.document
        for section in sections:
            table = table.setdefault(section, {})
            if not isinstance(table, dict):
                return  # which the file at fault is told
        table[last] = value
        place = (*sections, last)
        for old in [old for old in self.origins if old[: len(place)] == place]:
            del self.origins[old]
        self.origins[place] = (said, place)

    def error(self, place: Place, reason: str, path: str | None) -> ConfigurationError:
        """What is wrong there, with who said it; the main file's when nobody did."""
        for end in range(len(place), 0, -1):
            if place[:end] in self.origins:
                origin, local = self.origins[place[:end]]
                return origin.error((*local, *place[end:]), reason)
        return ConfigurationError(path, place_text(place), reason)


def load_config(
    path: Path | str | None = DEFAULT_PATH,
    *,
    environment: Mapping[str, str] = _NOTHING,
    overrides: Mapping[str, str] = _NOTHING,
) -> DaemonConfig:
    """The configuration, whole and checked. Blocks on the disk. What is odd in it, and yet no error, tells :func:`all_remarks`.

    Files named ``*.toml`` in ``conf.d`` beside the file are read after it, in the order of their names: tables are joined, ``[[source]]`` and
    ``[[policy.rule]]`` are appended, and no key is said in two files. Then come variables of the environment, such as ``MINUTEMAN_NODE_BIND``; one
    that begins with a section's name and is no key of it is an error. Then come ``overrides``.

    Args:
        path: The file. None: there is none, nor ``conf.d``.
        environment: As :data:`os.environ`; only ``MINUTEMAN_SECTION_KEY`` is looked at.
        overrides: Texts by dotted key, as in ``{"node.bind": "10.0.0.1:61420"}``: options of a command line.

    Raises:
        ConfigurationError: Something does not say what it must, or cannot be read; or others can read a file of secrets.
    """
    merged = _Merged()
    for each in _files(path):
        file = _File(str(each), decode(_content(each), str(each)))
        table = parse("toml", file.text, file.shown)
        if _is_deeper(table, _DEPTH_MAX):
            raise ConfigurationError(file.shown, "", "it is nested too deeply")
        merged.add_file(file, table)
    readers = scalar_keys()
    for key, text, said in (*_from_environment(environment, readers), *_from_overrides(overrides, readers)):
        merged.set_value(key, readers[key].plain(text), said)
    try:
        config = read_config(merged.document)
        check_files(config)
    except Invalid as error:
        raise merged.error(error.place, error.reason, None if path is None else str(path)) from None
    return config


def all_remarks(config: DaemonConfig) -> tuple[Remark, ...]:
    """What is odd, and yet no error: to be logged at the start, and shown by who checks. Looks at files that are named; blocks on the disk."""
    return (*remarks(config), *file_remarks(config))


def variable_name(key: str) -> str:
    """The variable of the environment for a dotted key: ``MINUTEMAN_STORE_ETCD_PREFIX``."""
    return _PREFIX + key.replace(".", "_").upper()


def _files(path: Path | str | None) -> list[Path]:
    """The file, and those beside it."""
    if path is None:
        return []
    main = Path(path)
    directory = main.parent / "conf.d"
    try:
        names = [path.name for path in directory.iterdir() if path.suffix == ".toml" and not path.name.startswith(".")]
    except FileNotFoundError:
        return [main]
    except OSError as error:
        raise ConfigurationError(str(directory), "", error.strerror or str(error)) from error
    if len(names) > _FILES_MAX:
        raise ConfigurationError(str(directory), "", f"there are {len(names)} files; there can be {_FILES_MAX}")
    return [main, *(directory / name for name in sorted(names))]


def _content(path: Path) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe nobody writes to would hold us
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ConfigurationError(str(path), "", "it is no regular file")
            raw = file.read(_FILE_MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, ConfigurationError):
            raise
        reason = error.strerror if isinstance(error, OSError) else None
        raise ConfigurationError(str(path), "", f"it cannot be read: {reason or error}") from error
    if len(raw) > _FILE_MAX_BYTES:
        raise ConfigurationError(str(path), "", f"it is larger than {_FILE_MAX_BYTES} bytes")
    return raw


def _is_deeper(value: object, depth: int) -> bool:
    """Without recursion, for it may be deeper than Python's stack."""
    level = [value]
    for _ in range(depth):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return bool(level)


def _from_environment(environment: Mapping[str, str], readers: Mapping[str, Reader]) -> Iterator[tuple[str, str, _Said]]:
    names = {variable_name(key): key for key in readers}
    sections = {section.partition(".")[0].upper() for section in KEYS}
    for name in sorted(environment):
        if name in names:
            yield names[name], environment[name], _Said("environment", name)
        elif name.startswith(_PREFIX) and name.removeprefix(_PREFIX).partition("_")[0] in sections:
            close = closest(name, names)
            hint = f"did you mean {close}?" if close else "there is no such key; lists of tables are said in files only"
            raise ConfigurationError("environment", name, hint)


def _from_overrides(overrides: Mapping[str, str], readers: Mapping[str, Reader]) -> Iterator[tuple[str, str, _Said]]:
    for key, text in overrides.items():
        if key not in readers:
            close = closest(key, readers)
            raise ConfigurationError(
                "options", short(key), "there is no such key" + (f"; did you mean {close!r}?" if close else "")
            )
        yield key, text, _Said("options", key)
