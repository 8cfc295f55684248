"""What the kernels of a cluster hold, and since when.

When a kernel is as it should be is said by its daemon's log: a line comes when the kernel has acknowledged the change, with the time. Then
its table is read, and only what was seen there counts. Such a time is *an upper bound*: the kernel was so a little before. Reading the
tables all the time instead would take more of a shared processor than all the daemons do, and reading them at the lowest priority finds the change
when the daemons leave time for it, seconds late.
"""

from __future__ import annotations

import ipaddress
import os
import re
import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from benchmarks.headline.logs import Line, lines_of
from pyminuteman.host.namespaces import in_namespace

K = TypeVar("K", bound=Hashable)

_ROW = re.compile(rb"\n  -> ([0-9A-F]{8}):([0-9A-F]{4}) +\w+ +(\d+)")
_READ_BYTES = 1 << 20
_PAUSE_SECONDS = 0.025
_LOOK_SECONDS = 0.5
"""A kernel whose log does not say that it is as it should be is looked at so often all the same."""


def count_of(text: bytes) -> int:
    """How many destinations all services have together, by the text of `/proc/net/ip_vs`."""
    return len(_ROW.findall(text))


def hexadecimal(address: str) -> bytes:
    """As the kernel shows an IPv4 address there."""
    return b"%08X" % int(ipaddress.IPv4Address(address))


class KernelTable:
    """One namespace's, held open: it can be read from anywhere, also when nobody runs there any more."""

    def __init__(self, netns: str) -> None:
        self._file = in_namespace(netns, lambda: os.open("/proc/thread-self/net/ip_vs", os.O_RDONLY | os.O_CLOEXEC))

    def text(self) -> bytes:
        """All of it."""
        os.lseek(self._file, 0, os.SEEK_SET)
        parts = []
        while part := os.read(self._file, _READ_BYTES):
            parts.append(part)
        return b"".join(parts)

    def close(self) -> None:
        """Once."""
        os.close(self._file)


class Casualties:
    """Counts, in a table's text, what is left of the dead, and who else is out.

    Args:
        dead: Their addresses.
        alive: How many destinations are elsewhere.
    """

    def __init__(self, dead: Iterable[str], alive: int) -> None:
        self._dead = frozenset(map(hexadecimal, dead))
        self._alive = alive

    def __call__(self, text: bytes) -> tuple[int, int, int]:
        """How many rows of the dead have a weight, how many there are, and how many of the others have none or are not there."""
        found = _ROW.findall(text)
        dead = [weight for address, _, weight in found if address in self._dead]
        working = sum(1 for address, _, weight in found if address not in self._dead and weight != b"0")
        return sum(1 for weight in dead if weight != b"0"), len(dead), self._alive - working


class Tail:
    """What a daemon logs from now on."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._file.seek(0, os.SEEK_END)
        self._rest = b""
        self.lines: list[Line] = []

    def read(self) -> None:
        """Take in what is new."""
        *whole, self._rest = (self._rest + self._file.read()).split(b"\n")
        self.lines += lines_of(b"\n".join(whole).decode(errors="replace"))

    def close(self) -> None:
        """Once."""
        self._file.close()


@dataclass(frozen=True, slots=True)
class Condition:
    """What is waited for in one kernel.

    Attributes:
        said: When its log says so, in seconds of the epoch; None: it does not.
        is_so: Whether a table is so, by its text.
    """

    node: int
    said: Callable[[list[Line]], float | None]
    is_so: Callable[[bytes], bool]


def watch(
    conditions: Mapping[K, Condition], tables: Mapping[int, KernelTable], tails: Mapping[int, Tail], seconds: float
) -> dict[K, float]:
    """Since when each was seen to be so, in seconds of the epoch; what did not come about in time is not in it."""
    end = time.perf_counter() + seconds
    look_at = time.perf_counter() + _LOOK_SECONDS
    left = dict(conditions)
    found: dict[K, float] = {}
    while left and time.perf_counter() < end:
        time.sleep(_PAUSE_SECONDS)
        for tail in tails.values():
            tail.read()
        is_time = time.perf_counter() >= look_at
        if is_time:
            look_at = time.perf_counter() + _LOOK_SECONDS
        for key, condition in list(left.items()):
            said = condition.said(tails[condition.node].lines)
            if (said is not None or is_time) and condition.is_so(tables[condition.node].text()):
                found[key] = time.time_ns() / 1e9 if said is None else said
                del left[key]
    return found
