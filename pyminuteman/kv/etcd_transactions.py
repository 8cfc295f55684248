"""The parts of which a node's writes into an etcd are made. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, TypeVar

from pyminuteman.etcd.messages import Delete, Event, KeyValue, Put

__all__ = ["Change", "Life", "as_event", "cut", "size_of"]

T = TypeVar("T")
Change = Put | Delete
"""What a write is made of."""

OPERATIONS_MAX: Final = 127
"""Of one transaction: etcd's ``--max-txn-ops`` is 128, of which the node's life takes one."""
BYTES_MAX: Final = 1 << 20
"""Of one transaction: etcd's ``--max-request-bytes`` is 1.5 MiB."""


@dataclass(slots=True)
class Life:
    """A node's life as it last wrote it; revision 0: it is not there."""

    name: str
    number: int = 0
    revision: int = 0

    def next(self) -> bytes:
        """For one more write. No two have one number, or one might be taken for the other."""
        self.number += 1
        return f"{self.name}:{self.number}".encode()

    def is_in(self, value: bytes) -> bool:
        """Whether this life wrote it."""
        return value.startswith(f"{self.name}:".encode())


def as_event(change: Change, revision: int) -> Event:
    """What a watch will say of a change that was made at a revision."""
    if isinstance(change, Put):
        return Event(change.key, revision, KeyValue(change.key, change.value, revision, change.lease))
    return Event(change.key, revision, None)


def size_of(change: Change) -> int:
    """Bytes of its key and value."""
    return len(change.key) + (len(change.value) if isinstance(change, Put) else 0)


def cut(items: Iterable[T], size: Callable[[T], int]) -> Iterator[list[T]]:
    """In order, in parts of which each fits into a transaction."""
    part: list[T] = []
    total = 0
    for item in items:
        more = size(item)
        if part and (len(part) == OPERATIONS_MAX or total + more > BYTES_MAX):
            yield part
            part, total = [], 0
        part.append(item)
        total += more
    if part:
        yield part
