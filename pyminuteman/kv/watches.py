"""Who waits for changes: each reader has one bounded set of what has changed since it read last.

For both engines. Nobody waits for a reader.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

import trio

from pyminuteman.kv.operations import SharedKey
from pyminuteman.kv.store import Changes

__all__ = ["Watch", "Watches"]


class Watch(AsyncIterator[Changes]):
    """One reader. Iterate over it, in one task."""

    def __init__(self, prefix: str, most: int) -> None:
        """Gather up to ``most`` keys that begin with ``prefix``."""
        self._prefix: Final = prefix
        self._most: Final = most
        self._own: set[str] = set()
        self._shared: set[SharedKey] = set()
        self._everything = True
        self._more = trio.Event()
        self._ended = False

    def put(self, own: Iterable[str], shared: Iterable[SharedKey]) -> bool:
        """These have changed. True when the reader is so far behind that they are no longer listed."""
        if self._everything:
            return False
        prefix = self._prefix
        self._own.update(key for key in own if key.startswith(prefix))
        self._shared.update(key for key in shared if key.name.startswith(prefix))
        overflow = len(self._own) + len(self._shared) > self._most
        if overflow:
            self.put_everything()
        elif self._own or self._shared:
            self._more.set()
        return overflow

    def put_everything(self) -> None:
        """Anything may have changed."""
        self._own, self._shared, self._everything = set(), set(), True
        self._more.set()

    def end(self) -> None:
        """Nothing will change any more."""
        self._ended = True
        self._more.set()

    async def __anext__(self) -> Changes:
        """What has changed, as soon as something has."""
        await trio.lowlevel.checkpoint()
        while not (self._everything or self._own or self._shared):
            if self._ended:
                raise StopAsyncIteration
            self._more = trio.Event()
            await self._more.wait()
        changes = Changes(frozenset(self._own), frozenset(self._shared), self._everything)
        self._own, self._shared, self._everything = set(), set(), False
        return changes


class Watches:
    """All readers of one store.

    Args:
        keys_max: Changed keys that wait for one reader before they become "everything".
    """

    def __init__(self, keys_max: int) -> None:
        self._keys_max = keys_max
        self._open: list[Watch] = []
        self._ended = False
        self.overflows = 0
        """How often keys became "everything"."""

    @contextmanager
    def watch(self, prefix: str) -> Iterator[Watch]:
        """Be one more reader for as long as the block lasts."""
        watch = Watch(prefix, self._keys_max)
        self._open.append(watch)
        if self._ended:
            watch.end()
        try:
            yield watch
        finally:
            self._open.remove(watch)

    def put(self, own: Iterable[str], shared: Iterable[SharedKey]) -> None:
        """Tell all that these have changed."""
        for watch in self._open:
            self.overflows += watch.put(own, shared)

    def put_everything(self) -> None:
        """Tell all that anything may have changed."""
        for watch in self._open:
            watch.put_everything()

    def end(self) -> None:
        """Nothing will change any more: readers are done when they have read what waits."""
        self._ended = True
        for watch in self._open:
            watch.end()
