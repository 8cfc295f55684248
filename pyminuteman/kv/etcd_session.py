"""How one node writes into an etcd: under a lease of its own, one transaction after another, each of them exactly once.

1. Whatever this node writes goes together with its *life* (``lives/OWNER``: a random name of this process, and the number of the write),
   and only if that is as this node left it. So nothing that was sent long ago is ever carried out late; a transaction that was sent
   twice is carried out once; and when the answer was lost, the number tells whether it was.
2. Of two processes of one node the later has the word. The earlier one's writes are refused, and it says so until it ends.
3. :attr:`EtcdSession.said` is what this node says. Whenever it is not certain that the etcd has just that (at the start, after a write
   whose end is not known, after the lease was lost), the two are compared, and made the same, before anything else is written: what
   was not confirmed is taken back. At the start, what the node said in its last life is taken over.
4. The lease outlives the process by its own time: a restart within it is seen by nobody. :meth:`leave` ends it at once.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from random import Random
from typing import Final, NoReturn

import trio

from pyminuteman.addresses import NodeId
from pyminuteman.etcd.client import EtcdClient
from pyminuteman.etcd.errors import EtcdError, EtcdUnavailable, LeaseGone
from pyminuteman.etcd.messages import Compare, Delete, Event, Get, KeyValue, Put, Range, prefix_end
from pyminuteman.etcd.mirror import BYTES_MAX
from pyminuteman.kv.errors import StoreUnavailable
from pyminuteman.kv.etcd_index import StoreKeys
from pyminuteman.kv.etcd_transactions import Change, Life, as_event, cut, size_of

__all__ = ["EtcdSession"]

_LIFE_BITS: Final = 64
_LEASE_MAX: Final = 2**63 - 1
_TRIES: Final = 3
_SWAPS_MAX: Final = 20
"""How often a change of a shared value is made anew because others were faster."""
_SWAP_PAUSE_MAX: Final = 0.25
_AGAIN: Final = "it is overtaken, or its lease lost, again and again"
_KEEPING: Final = 3
"""The lease is kept alive this often in its time, so that two attempts may fail."""


class _Overtaken(Exception):
    """Nothing was done: a write of ours whose end was not known came through before, or another process did while we began."""


class EtcdSession:
    """The writing side of a store.

    Attributes:
        said: What this node says, confirmed, by key. Not to be changed.
        problem: Why what is written may not arrive; empty when all is well.
        writes, failures, conflicts, losses: How many transactions were carried out; how many requests to write failed; how often a
            shared value was changed by somebody else first; how often the lease was lost.
    """

    def __init__(
        self,
        client: EtcdClient,
        keys: StoreKeys,
        owner: NodeId,
        random: Random,
        *,
        lease_seconds: float,
        entries_max: int,
        tell: Callable[[Sequence[Event]], object],
    ) -> None:
        """Write nothing yet; ``tell`` is told of each change that was carried out."""
        self.said: dict[str, bytes] = {}
        self.problem = "nothing was written to the etcd yet"
        self.writes = self.failures = self.conflicts = self.losses = 0
        self._client = client
        self._keys = keys
        self._owner = owner
        self._random = random
        self._lease_seconds = max(1, math.ceil(lease_seconds))
        self._entries_max = entries_max
        self._tell = tell
        self._life = Life(f"{random.getrandbits(_LIFE_BITS):016x}")
        self._life_key = keys.life(owner)
        self._lease = 0
        self._ttl = 1
        self._is_begun = False
        self._is_certain = False
        self._is_fenced = False
        self._lock = trio.Lock()
        self._look = trio.Event()

    # -- what users write --

    async def change_own(self, changes: Mapping[str, bytes | None]) -> None:
        """Say these, no longer say those (None).

        Raises:
            StoreUnavailable: It cannot be written, or is not known to be.
        """
        async with self._turn():
            different = [(key, value) for key, value in changes.items() if self.said.get(key) != value]
            for part in cut(different, lambda one: len(one[0].encode()) + len(one[1] or b"")):
                await self._commit(partial(self._own_changes, part))
                self._confirm(part)

    async def change_shared(
        self, key: bytes, look: Callable[[], KeyValue | None], make: Callable[[KeyValue | None], bytes | None]
    ) -> bool:
        """Set (or delete: None) a shared key to what ``make`` makes of what is there; anew when others were faster.

        Args:
            key: Which.
            look: What is there, as far as is known here.
            make: May be called several times; what it raises comes out, and nothing was changed.

        Returns:
            False when others were faster again and again: nothing was changed.

        Raises:
            StoreUnavailable: It cannot be written, or is not known to be.
        """
        async with self._turn():
            there = look()
            for tried in range(_SWAPS_MAX):
                value = make(there)
                changes: list[Change] = []
                if value is not None:
                    changes = [Put(key, value)]
                elif there is not None:
                    changes = [Delete(key)]
                compare = Compare(key, 0 if there is None else there.mod_revision)
                done, there = await self._commit(partial(list, changes), compare)
                if done:
                    return True
                self.conflicts += 1
                await trio.sleep(self._random.uniform(0, min(_SWAP_PAUSE_MAX, 0.001 * 2**tried)))
            return False

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """One write after another; those that waited for one that failed fail with it, or they would wait out each its own deadline."""
        failures = self.failures
        async with self._lock:
            if self.failures != failures:
                raise StoreUnavailable(f"nothing was changed: {self.problem}")
            await self._be_certain()
            yield

    async def leave(self) -> None:
        """Take back all that this node says, and end the lease; it writes no more.

        Raises:
            StoreUnavailable: It cannot be done now; it comes of itself when the lease ends.
        """
        async with self._lock:
            try:
                if self._is_begun and not self._is_fenced:
                    await self._be_certain()  # or a write whose end is not known would make our life look like another's
                    await self._take_back()
            except (EtcdError, StoreUnavailable) as error:
                raise StoreUnavailable(f"what this node says goes when its lease ends, not now: {error}") from None
            finally:
                self._is_fenced = True
                self.problem = "this node has left the store"
                self.said.clear()

    async def _take_back(self) -> None:
        """All of it at once, if it is still ours; then the lease."""
        mine = self._keys.of_owner(self._owner)
        ours = [Compare(self._life_key, self._life.revision)]
        taken = await self._client.transact(ours, [Delete(mine, prefix_end(mine)), Delete(self._life_key)])
        if taken.succeeded:
            with suppress(LeaseGone):
                await self._client.revoke(self._lease)

    # -- keeping the lease --

    async def run(self) -> NoReturn:
        """Keep the lease alive, and what was said there; try again, with jitter, for as long as it fails."""
        while True:
            self._look = trio.Event()
            pause = math.inf
            try:
                if not self._is_fenced:
                    await self._keep()
                    pause = self._ttl / _KEEPING
            except StoreUnavailable:
                pause = self._random.uniform(0.5, 1.0)
            with trio.move_on_after(pause):
                await self._look.wait()

    async def _keep(self) -> None:
        async with self._lock:
            await self._be_certain()
            try:
                self._ttl = await self._client.keep_alive(self._lease)
                if not self._ttl:
                    self._lose()
                elif _revision(await self._client.range(self._life_key)) != self._life.revision:
                    self._is_certain = False  # another process, or a write whose caller did not wait for its end
            except EtcdError as error:
                self._doubt(error)
            await self._be_certain()
            self.problem = ""

    def _lose(self) -> None:
        self.losses += 1
        self._lease, self._ttl, self._is_certain = 0, 1, False

    def _doubt(self, error: EtcdError) -> NoReturn:
        """It is not known what the etcd has: compare before anything else is written."""
        self.failures += 1
        self._is_certain = False
        self.problem = str(error)
        self._look.set()
        if isinstance(error, EtcdUnavailable):
            raise StoreUnavailable(
                f"the etcd cannot be reached, so the change may or may not have been made: {error}"
            ) from None
        raise StoreUnavailable(f"the etcd refuses it: {error}") from None

    # -- transactions --

    async def _commit(self, make: Callable[[], list[Change]], compare: Compare | None = None) -> tuple[bool, KeyValue | None]:
        """Write what ``make`` makes, for the lease that there is."""
        try:
            return await self._write(make(), compare)
        except LeaseGone:  # nothing was done; under a new lease it may be
            self._lose()
        except _Overtaken:  # likewise
            self._is_certain = False
        except EtcdError as error:
            self._doubt(error)
        await self._be_certain()
        try:
            return await self._write(make(), compare)
        except _Overtaken:
            self._doubt(EtcdUnavailable(_AGAIN))
        except EtcdError as error:
            self._doubt(error)

    async def _write(self, changes: Sequence[Change], compare: Compare | None) -> tuple[bool, KeyValue | None]:
        """Do all of it if the comparison holds. False, and what is there, if not.

        Raises:
            LeaseGone: Nothing was done.
            _Overtaken: Nothing was done.
            EtcdError: It may or may not have been done.
        """
        life, mine = self._life.next(), Compare(self._life_key, self._life.revision)
        compares, reads = [mine, *filter(None, [compare])], [Get(self._life_key), *([Get(compare.key)] if compare else [])]
        try:
            answer = await self._client.transact(compares, [Put(self._life_key, life, self._lease), *changes], reads)
        except trio.Cancelled:
            self._is_certain = False
            self._look.set()
            raise
        revision = answer.header.revision
        if not answer.succeeded:
            there = _only(answer.found[0])
            if there is None:
                raise LeaseGone("its lease has expired")
            if there.value == life:  # it was sent twice, and this is the answer to the second
                revision = there.mod_revision
            elif there.mod_revision == self._life.revision:
                return False, _only(answer.found[1])
            elif self._is_begun and not self._life.is_in(there.value):
                self._fence()
            else:
                raise _Overtaken
        self._life.revision = revision
        self.writes += 1
        self._tell([as_event(change, revision) for change in changes])
        return True, None

    def _fence(self) -> NoReturn:
        self._is_fenced = True
        self.problem = (
            f"another process writes as node {self._owner}: this one writes no more; give each a state directory of its own"
        )
        raise StoreUnavailable(f"nothing was changed: {self.problem}")

    # -- certainty --

    async def _be_certain(self) -> None:
        """Let the etcd have just what was said."""
        if self._is_fenced:
            raise StoreUnavailable(f"nothing was changed: {self.problem}")
        for _ in range(_TRIES):
            if self._is_certain:
                return
            try:
                await self._compare()
            except LeaseGone:
                self._lose()
            except _Overtaken:
                continue
            except EtcdError as error:
                self._doubt(error)
        if not self._is_certain:
            self._doubt(EtcdUnavailable(_AGAIN))

    async def _compare(self) -> None:
        there = _only(await self._client.range(self._life_key))
        if self._is_begun and there is not None and not self._life.is_in(there.value):
            self._fence()
        self._life.revision = 0 if there is None else there.mod_revision
        await self._take_lease(0 if there is None else there.lease)
        prefix = self._keys.of_owner(self._owner)
        items, _, _ = await self._client.read_prefix(prefix, most_keys=self._entries_max, most_bytes=BYTES_MAX)
        found = {item.key: item for item in items}
        said = self.said
        if not self._is_begun:
            said = {key[len(prefix) :].decode(errors="replace"): item.value for key, item in found.items()}
        wanted = {self._keys.own(self._owner, key): value for key, value in said.items()}
        changes: list[Change] = [Delete(key) for key in found.keys() - wanted.keys()]
        changes += [
            Put(key, value, self._lease) for key, value in wanted.items() if not _is_same(found.get(key), value, self._lease)
        ]
        for part in cut(changes, size_of) if changes else [[]]:
            await self._write(part, None)
        self.said, self._is_begun, self._is_certain, self.problem = said, True, True, ""

    async def _take_lease(self, last: int) -> None:
        """Go on with the lease of the last life, where it lives and has our time; else with a new one."""
        if not self._lease and last and await self._client.keep_alive(last) == self._lease_seconds:
            self._lease, self._ttl = last, self._lease_seconds
        if not self._lease:
            lease = self._random.randrange(1, _LEASE_MAX)
            self._ttl = await self._client.grant(lease, self._lease_seconds)
            self._lease = lease

    def _own_changes(self, changes: Sequence[tuple[str, bytes | None]]) -> list[Change]:
        raw = [(self._keys.own(self._owner, key), value) for key, value in changes]
        return [Delete(key) if value is None else Put(key, value, self._lease) for key, value in raw]

    def _confirm(self, changes: Sequence[tuple[str, bytes | None]]) -> None:
        for key, value in changes:
            if value is None:
                self.said.pop(key, None)
            else:
                self.said[key] = value


def _is_same(item: KeyValue | None, value: bytes, lease: int) -> bool:
    return item is not None and item.value == value and item.lease == lease


def _only(found: Range | None) -> KeyValue | None:
    return found.items[0] if found is not None and found.items else None


def _revision(found: Range) -> int:
    return found.items[0].mod_revision if found.items else 0
