"""What set-up changed on this host, remembered on disk before it is changed, so that it can be taken back.

1. The first value remembered stands: it is how things were before us, whatever we write later.
2. It is on disk before the host is changed. What it says was to be changed may therefore not have been: taking it back does no harm.
3. It is of one boot. What the kernel holds does not outlive it, and neither does this.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pyminuteman.host.errors import HostSetupError

__all__ = ["FILE_NAME", "Journal", "namespace_id"]

FILE_NAME: Final = "host-undo.json"
"""Its name in the state directory."""
_VERSION: Final = 1
_SIZE_MAX: Final = 16 << 20
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")

Changes = dict[str, dict[str, dict[str, str]]]
"""Namespace, step, what: how it was before."""


def namespace_id(netns: str | None) -> str:
    """What tells a network namespace from others while it lives, whatever its path.

    Raises:
        HostSetupError: There is none at this path.
    """
    try:
        return str(os.stat(netns or "/proc/thread-self/ns/net").st_ino)  # noqa: PTH116 - an inode
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise HostSetupError("namespace", f"network namespace {netns} cannot be opened: {reason}") from error


class Journal:
    """The memory of what was before us.

    Args:
        directory: The state directory; None to remember for the life of this object only.

    Raises:
        HostSetupError: There is a file, and it is none of ours or cannot be read: what it remembers would be lost.
    """

    def __init__(self, directory: Path | str | None = None) -> None:
        self.path = None if directory is None else Path(directory) / FILE_NAME
        self._boot = _boot_id()
        self._changes = self._read()

    def remember(self, namespace: str, step: str, before: Mapping[str, str]) -> None:
        """Remember how things were, unless that is remembered already; on disk when this returns.

        Raises:
            HostSetupError: It cannot be written. Then do not change the host.
        """
        known = self._changes.setdefault(namespace, {}).setdefault(step, {})
        new = {what: value for what, value in before.items() if what not in known}
        if new:
            known.update(new)
            try:
                self._write()
            except HostSetupError:
                for what in new:
                    del known[what]
                raise

    def recall(self, namespace: str, step: str) -> Mapping[str, str]:
        """How things were before this step."""
        return dict(self._changes.get(namespace, {}).get(step, {}))

    def steps(self, namespace: str) -> list[str]:
        """Steps of which something is remembered."""
        return sorted(step for step, known in self._changes.get(namespace, {}).items() if known)

    def forget(self, namespace: str, step: str) -> None:
        """It has been taken back."""
        if self._changes.get(namespace, {}).pop(step, None):
            if not self._changes[namespace]:
                del self._changes[namespace]
            self._write()

    def _read(self) -> Changes:
        if self.path is None:
            return {}
        try:
            with self.path.open("rb") as file:
                raw = file.read(_SIZE_MAX + 1)
            document = json.loads(raw)
            if document["version"] != _VERSION:
                raise ValueError(f"its version is {document['version']!r}, and {_VERSION} is known here")
            if document["boot"] != self._boot:
                return {}
            return {
                str(namespace): {
                    str(step): {str(what): str(value) for what, value in known.items()} for step, known in steps.items()
                }
                for namespace, steps in document["changes"].items()
            }
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise HostSetupError("journal", f"{self.path} cannot be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            hint = "move it away; what was changed on this host has then to be taken back by hand"
            raise HostSetupError("journal", f"{self.path} is not as it should be: {error}", hint) from error

    def _write(self) -> None:
        if self.path is None:
            return
        document = {
            "version": _VERSION,
            "boot": self._boot,
            "changes": {key: steps for key, steps in self._changes.items() if steps},
        }
        name = ""
        try:
            descriptor, name = tempfile.mkstemp(prefix=f".{FILE_NAME}.", dir=self.path.parent)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(document, file, indent=1, sort_keys=True)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self.path)
        except OSError as error:
            if name:
                with contextlib.suppress(OSError):
                    Path(name).unlink()
            hint = "make the state directory, and let this user write there"
            raise HostSetupError("journal", f"{self.path} cannot be written: {error.strerror}", hint) from error


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""
