"""Which services of a kernel's table are this daemon's: written down before they are made, and struck out after they are gone.

1. A service is in the ledger before it is in the kernel: whoever finds it there after a crash knows whose it is.
2. A ledger of another boot of this host says nothing: the kernel it was about is no more.
3. A ledger that cannot be read counts as empty, and says so; what it was about is left alone then, as anybody's would be.
4. When it cannot be written (a full disk), no service is added. What is there already is looked after.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from pyminuteman.errors import MinutemanError
from pyminuteman.ipvs import ServiceKey

__all__ = ["Ledger", "LedgerError", "boot_id"]

_VERSION: Final = 1
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_MOST_BYTES: Final = 64 << 20


class LedgerError(MinutemanError):
    """The ledger cannot be written: no service is added until it can be. Make room, or see to the rights of the state directory."""


def boot_id() -> str:
    """What tells this boot of the kernel from others."""
    return _BOOT_ID.read_text().strip()


class Ledger:
    """The services of one network namespace that are ours. Calls block: make them in the thread that programs the table.

    Args:
        path: The file; None keeps it in memory, and forgets it with the process.
        boot: This boot; for tests.

    Attributes:
        problem: Why what the file says does not count; empty when it does.
    """

    def __init__(self, path: Path | None, *, boot: str | None = None) -> None:
        self.path = path
        self.problem = ""
        self._boot = boot_id() if boot is None else boot
        self._keys: frozenset[ServiceKey] = frozenset()
        self._is_written = True
        if path is not None:
            self._keys = self._read(path)

    def __contains__(self, key: ServiceKey) -> bool:
        return key in self._keys

    @property
    def keys(self) -> frozenset[ServiceKey]:
        """All of them."""
        return self._keys

    def add(self, keys: Iterable[ServiceKey]) -> None:
        """These are about to be made.

        Raises:
            LedgerError: It cannot be written; they are not in it.
        """
        self._write(self._keys | frozenset(keys))

    def strike(self, keys: Iterable[ServiceKey]) -> None:
        """These are gone, or were never made: they are not ours from now on.

        Raises:
            LedgerError: It cannot be written; the file has them still, until the next change of it.
        """
        keys = self._keys - frozenset(keys)
        try:
            self._write(keys)
        finally:
            self._keys = keys

    def _write(self, keys: frozenset[ServiceKey]) -> None:
        if keys == self._keys and self._is_written:
            return
        self._is_written = False
        if self.path is not None:
            self._write_file(self.path, keys)
        self._keys, self._is_written = keys, True

    def _read(self, path: Path) -> frozenset[ServiceKey]:
        try:
            with path.open("rb") as file:
                plain: Any = json.loads(file.read(_MOST_BYTES))
            if plain["version"] != _VERSION:
                raise ValueError(f"version {plain['version']!r:.20} is not {_VERSION}")
            keys = frozenset(ServiceKey.from_packed(bytes.fromhex(text)) for text in plain["services"])
        except FileNotFoundError:
            return frozenset()
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            self.problem = f"{path} cannot be read ({error}): services that were made before are left alone"
            return frozenset()
        return keys if plain.get("boot") == self._boot else frozenset()

    def _write_file(self, path: Path, keys: frozenset[ServiceKey]) -> None:
        plain = {"version": _VERSION, "boot": self._boot, "services": sorted(key.packed.hex() for key in keys)}
        draft = path.with_name(f".{path.name}.new")
        try:
            with draft.open("w", encoding="ascii") as file:
                json.dump(plain, file)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
            directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            raise LedgerError(f"{path} cannot be written: {error.strerror}; no service is added until it can be") from None
