"""The parts of a dump, and collecting them: each with its own deadline and its own limit, and none that keeps the others from being there."""

from __future__ import annotations

import errno
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from pyminuteman.errors import MinutemanError

__all__ = ["BYTES_MOST", "Absent", "Collected", "Part", "collect", "limited", "scrubbed"]

BYTES_MOST: Final = 16 << 20
"""Of one part; what is more is cut, and that is said."""
_USERINFO: Final = re.compile(r"://[^/\s@\"']+@")
_ABSENT_ERRNOS: Final = frozenset({errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP})


class Absent(Exception):
    """This host does not have what was looked for."""


@dataclass(frozen=True, slots=True)
class Part:
    """Something to collect.

    Attributes:
        name: Its file in the archive.
        read: Its text. Runs in a thread of its own, which is left alone when its time is up.
        deadline_seconds: How long it may take.
    """

    name: str
    read: Callable[[], str]
    deadline_seconds: float = 10.0


@dataclass(frozen=True, slots=True)
class Collected:
    """What became of a part.

    Attributes:
        name: Its file.
        state: ``ok``, ``absent`` (this host has no such thing) or ``failed``.
        reason: Why it is not ``ok``.
        seconds: How long it took.
        truncated: Whether its end was cut.
        content: The text.
    """

    name: str
    state: str
    reason: str = ""
    seconds: float = 0.0
    truncated: bool = False
    content: bytes = b""

    def plain(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "name": self.name,
            "state": self.state,
            "reason": self.reason,
            "seconds": round(self.seconds, 3),
            "bytes": len(self.content),
            "truncated": self.truncated,
        }


def scrubbed(text: str) -> str:
    """Without user names and passwords in URLs. The daemon tells no secrets; what others wrote into rules is not known."""
    return _USERINFO.sub("://***@", text)


def limited(lines: Iterable[str], most: int) -> Iterator[str]:
    """The first lines, and a last one that says so when there are more."""
    for number, line in enumerate(lines):
        if number == most:
            yield f"# cut after {most} lines\n"
            return
        yield line


def collect(part: Part, *, clock: Callable[[], float] = time.monotonic) -> Collected:  # noqa: TID251 - this is the driver
    """Read a part, for as long as its deadline allows."""
    began = clock()
    results: list[str] = []
    errors: list[BaseException] = []

    def read() -> None:
        try:
            results.append(part.read())
        except BaseException as error:  # noqa: BLE001 - a bug in one part is told in the manifest, and the others are there
            errors.append(error)

    thread = threading.Thread(target=read, name=f"dump-{part.name}", daemon=True)
    thread.start()
    thread.join(part.deadline_seconds)
    seconds = clock() - began
    if results:
        content = scrubbed(results[0]).encode("utf-8", "replace")
        return Collected(part.name, "ok", "", seconds, len(content) > BYTES_MOST, content[:BYTES_MOST])
    if not errors:
        return Collected(part.name, "failed", f"not done within {part.deadline_seconds:g} s", seconds)
    error = errors[0]
    absent = isinstance(error, Absent) or (isinstance(error, OSError) and error.errno in _ABSENT_ERRNOS)
    known = isinstance(error, MinutemanError | OSError | Absent)
    return Collected(part.name, "absent" if absent else "failed", str(error) if known else repr(error), seconds)
