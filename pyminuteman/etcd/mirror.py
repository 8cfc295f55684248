"""A copy of what is under a prefix, kept up to date by a watch.

1. The copy is whole or it is none: a first reading fills it at once, and afterwards it only moves along the etcd's history, never
   back and never over a gap. Where the history is gone (compacted), or is another's (an etcd that was set up anew), all of it is
   read again, and what differs is told as if it had been watched.
2. A watch that says nothing for ``idle_seconds`` is opened anew from where it stood: so a connection that died without a word costs
   that long, not for ever.
3. Every ``audit_seconds`` all of it is read again all the same: an etcd set up anew at the same URLs has the same cluster id, and once it
   has seen more changes than the old one there is nothing to tell them apart by.

What fails is for the caller: it is told, waits, and follows again; the copy stands meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final, NoReturn

import trio

from pyminuteman.etcd.client import EtcdClient
from pyminuteman.etcd.contents import PrefixContents
from pyminuteman.etcd.errors import EtcdAnswerInvalid, EtcdCompacted
from pyminuteman.etcd.messages import Header

__all__ = ["BYTES_MAX", "KEYS_MAX", "PrefixMirror"]

KEYS_MAX: Final = 1_000_000
"""Keys under one prefix."""
BYTES_MAX: Final = 512 << 20
"""Bytes of keys and values under one prefix."""


class PrefixMirror:
    """What is under a prefix of an etcd.

    Attributes:
        contents: The copy.
        readings: How often all of it was read.
        watches: How often a watch was begun.
        compactions: How often the history we went by was gone.
    """

    def __init__(
        self,
        client: EtcdClient,
        prefix: bytes,
        random: Random,
        *,
        most_keys: int = KEYS_MAX,
        most_bytes: int = BYTES_MAX,
        idle_seconds: float = 60.0,
        audit_seconds: float = 1800.0,
    ) -> None:
        """Copy nothing yet; ``random`` spreads the audits of many nodes."""
        self.contents = PrefixContents()
        self.readings = self.watches = self.compactions = 0
        self._client = client
        self._prefix = prefix
        self._random = random
        self._most_keys = most_keys
        self._most_bytes = most_bytes
        self._idle_seconds = idle_seconds
        self._audit_seconds = audit_seconds
        self._audit_at = 0.0
        """When all is to be read again, on trio's clock."""

    async def follow(self, tell: Callable[[set[bytes]], object]) -> NoReturn:
        """Keep the copy up to date; ``tell`` is called at once with the keys of each change, and with none whenever all is well again.

        Raises:
            EtcdError: It cannot be done now, and why.
        """
        while True:
            is_fresh = self.contents.revision == 0 or trio.current_time() >= self._audit_at
            if is_fresh:
                await self._read(tell)
            try:
                await self._watch(tell, is_fresh=is_fresh)
            except EtcdCompacted:
                self.compactions += 1
                self._audit_at = 0.0
            except EtcdAnswerInvalid:  # such as a message that is too long: it would come again
                self._audit_at = 0.0
                raise

    async def _read(self, tell: Callable[[set[bytes]], object]) -> None:
        items, revision, cluster_id = await self._client.read_prefix(
            self._prefix, most_keys=self._most_keys, most_bytes=self._most_bytes
        )
        self.readings += 1
        self._audit_at = trio.current_time() + self._audit_seconds * self._random.uniform(0.75, 1.25)
        tell(self.contents.replace(items, revision, cluster_id))

    async def _watch(self, tell: Callable[[set[bytes]], object], *, is_fresh: bool) -> None:
        """Until it is quiet for too long, or an audit is due, or all must be read again."""
        async with self._client.watch(self._prefix, self.contents.revision + 1) as (watch, begun):
            self.watches += 1
            if not is_fresh and self._is_other_history(begun.header):
                self._audit_at = 0.0
                return
            tell(set())
            message = begun
            while trio.current_time() < self._audit_at:
                if message.events:
                    # The header may be ahead of the events of a watcher that is catching up.
                    tell(self.contents.follow(message.events, message.events[-1].revision))
                with trio.move_on_after(self._idle_seconds) as waiting:
                    message = await watch.receive()
                if waiting.cancelled_caught:
                    return

    def _is_other_history(self, header: Header) -> bool:
        """A member that is behind us looks the same: then all is read again in vain, once."""
        return header.cluster_id != self.contents.cluster_id or header.revision < self.contents.revision
