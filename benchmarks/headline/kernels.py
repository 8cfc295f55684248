"""What the kernels of a cluster hold, read from `/proc/net/ip_vs` of each namespace while all goes on.

Reading a table of 1,000 costs a millisecond, so only kernels are read that have not yet been seen as they should be; and by whoever has the
lowest priority, so that reading is not what is waited for. A time so found is when the table was read, and so *an upper bound*.
"""

from __future__ import annotations

import ipaddress
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from pyminuteman.host.namespaces import in_namespace

_ROW = re.compile(rb"\n  -> ([0-9A-F]{8}):([0-9A-F]{4}) +\w+ +(\d+)")
_READ_BYTES = 1 << 20
_PAUSE_SECONDS = 0.001


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


@contextmanager
def lowest_priority() -> Iterator[None]:
    """Whatever else wants the processor goes first; of the calling thread."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    os.setpriority(os.PRIO_PROCESS, 0, 19)
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, before)


def watch(tables: dict[int, KernelTable], look: Callable[[int, bytes], bool], seconds: float) -> list[int]:
    """Read each table again and again until it has been seen as it should be.

    Args:
        tables: By node.
        look: Given the node and the text of its table: whether that need not be read again.
        seconds: The most that it may take.

    Returns:
        The nodes whose tables did not come to be so.
    """
    end = time.perf_counter() + seconds
    left = dict(tables)
    while left and time.perf_counter() < end:
        for node in list(left):
            if look(node, left[node].text()):
                del left[node]
        time.sleep(_PAUSE_SECONDS)
    return sorted(left)
