"""The gossip engine: a replica on a membership, with trio.

    async with open_membership(...) as membership, open_store(membership, path=Path("/var/lib/minuteman/store.db")) as store:
        await store.put_own("vips/tcp:11.0.0.1:80", b"...")
        async with store.watch("vips/") as watch:
            async for changes in watch: ...

What is written goes to all by :meth:`Membership.multicast <pyminuteman.membership.Membership.multicast>`, and comparisons with a
neighbour by :meth:`Membership.unicast <pyminuteman.membership.Membership.unicast>`, both under one topic. Everything that is started
lives and ends in the block of :func:`open_store`.
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import trio

from pyminuteman.addresses import NodeId
from pyminuteman.kv.codec import decode, encode
from pyminuteman.kv.errors import RemoteStoreError, StoreClosed, StoreDatabaseError
from pyminuteman.kv.lives import Presence
from pyminuteman.kv.messages import LogPart
from pyminuteman.kv.operations import Operation, SharedKey, SharedValue
from pyminuteman.kv.persistence import Batch, StoreDatabase
from pyminuteman.kv.replica import ALONE_SECONDS, Replica
from pyminuteman.kv.replication import Cast, Output
from pyminuteman.kv.store import Changes, Entry, StoreLimits
from pyminuteman.kv.versions import Actor
from pyminuteman.kv.watches import Watches
from pyminuteman.membership import (
    Delivered,
    EpochTaken,
    LocalProtocolError,
    MemberDown,
    MemberLeft,
    Membership,
    MemberStatus,
    MemberSuspect,
    MemberUp,
    MemberUpdated,
    Notification,
    ViewChanged,
)

__all__ = ["TOPIC", "GossipStore", "open_store", "presence_of"]

TOPIC: Final = "kv"
_PACKETS_KEPT: Final = 4096
"""Packets that wait for the replica; beyond, the oldest are dropped, and found by comparing."""
_STORE_INTERVAL_SECONDS: Final = 0.2
"""Between two batches on their way to the disk."""
_FORGET_INTERVAL_SECONDS: Final = 60.0
_log = logging.getLogger("pyminuteman.kv")

_PRESENCES: Final = {
    MemberStatus.ALIVE: Presence.ALIVE,
    MemberStatus.SUSPECT: Presence.ALIVE,
    MemberStatus.DOWN: Presence.AWAY,
    MemberStatus.LEFT: Presence.LEFT,
}


def presence_of(status: MemberStatus) -> Presence:
    """What a member of that status is to the store. A suspect is there until it is down."""
    return _PRESENCES[status]


class GossipStore:
    """A :class:`~pyminuteman.kv.store.Store` that every node holds a replica of, as :func:`open_store` gives it."""

    def __init__(self, membership: Membership, replica: Replica, database: StoreDatabase | None) -> None:
        """For :func:`open_store`."""
        self._membership = membership
        self._replica = replica
        self._database = database
        self._watches = Watches(replica.limits.watch_keys_max)
        self._inbox = membership.subscribe(TOPIC, size=_PACKETS_KEPT)
        self._sooner = trio.Event()
        self._wake_at = math.inf
        self._ready = trio.Event()
        self._unstored = trio.Event()
        self._closed = False
        self._malformed = self._unknown = self._faults = self._write_failures = 0
        self._disk_problem = ""

    # What is known

    @property
    def me(self) -> NodeId:
        """This node."""
        return self._replica.me.node

    @property
    def limits(self) -> StoreLimits:
        """What it holds at most."""
        return self._replica.limits

    @property
    def problem(self) -> str:
        """Why what is read here may be old, or what is written may not arrive; empty when all is well."""
        if self._closed:
            return "the store has ended"
        if not self._replica.is_ready:
            return "not yet compared with a neighbour"
        if not self._membership.active_view and len(self._membership.members()) > 0:
            return "no neighbour is in reach"
        return self._disk_problem

    async def wait_ready(self) -> None:
        """Return when this was compared with a neighbour, or there was none for two seconds.

        Raises:
            StoreClosed: It has ended.
        """
        await self._ready.wait()
        self._must_be_open()

    def own(self) -> dict[str, bytes]:
        """What this node says, by key."""
        return self._replica.own()

    def get(self, owner: NodeId, key: str) -> bytes | None:
        """What a node says under a key; None when it does not."""
        return self._replica.owners.get(owner, key)

    def get_all(self, key: str) -> dict[NodeId, bytes]:
        """What all nodes say under a key, in the order of their ids."""
        return self._replica.owners.get_all(key)

    def entries(self, prefix: str = "") -> list[Entry]:
        """All own entries of all nodes whose keys begin so, in order."""
        return self._replica.owners.entries(prefix)

    def read(self, key: SharedKey) -> SharedValue | None:
        """A shared value; None when there is none."""
        return self._replica.read(key)

    def shared(self, prefix: str = "") -> dict[SharedKey, SharedValue]:
        """All shared values whose names begin so, in order."""
        return self._replica.shared.values(prefix)

    @asynccontextmanager
    async def watch(self, prefix: str = "") -> AsyncIterator[AsyncIterator[Changes]]:
        """What changes under a prefix, from now on; "everything" first."""
        with self._watches.watch(prefix) as watch:
            yield watch

    def metrics(self) -> dict[str, int | float]:
        """Plain numbers by name; counters end in ``_total``."""
        return {
            **self._replica.metrics(),
            "store_packets_dropped_total": self._inbox.dropped,
            "store_payloads_malformed_total": self._malformed,
            "store_messages_unknown_total": self._unknown,
            "store_internal_faults_total": self._faults,
            "store_write_failures_total": self._write_failures,
            "store_watch_overflows_total": self._watches.overflows,
        }

    # What is said

    async def put_own(self, key: str, value: bytes) -> None:
        """:meth:`change_own` of one key."""
        await self.change_own({key: value})

    async def delete_own(self, key: str) -> bool:
        """:meth:`change_own` of one key; False when it was not there."""
        present = self.get(self.me, key) is not None
        await self.change_own({key: None})
        return present

    async def change_own(self, changes: Mapping[str, bytes | None]) -> None:
        """Say, or no longer say (None), all of these, as :meth:`pyminuteman.kv.store.Store.change_own` has it."""
        self._must_be_open()
        await self._perform(self._replica.change_own(changes))

    async def update(self, key: SharedKey, *operations: Operation) -> SharedValue | None:
        """Change a shared value, as :meth:`pyminuteman.kv.store.Store.update` has it."""
        self._must_be_open()
        outputs = self._replica.update(key, operations, trio.current_time())
        value = self._replica.read(key)
        await self._perform(outputs)
        return value

    def _must_be_open(self) -> None:
        if self._closed:
            raise StoreClosed("the store has ended")

    # The work

    async def run(self, entries: Mapping[str, bytes], task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """For :func:`open_store`: work until cancelled."""
        membership, replica = self._membership, self._replica
        with membership.notifications() as notifications:
            now = trio.current_time()
            for node, member in membership.members().items():
                replica.notice(node, member.record.epoch, presence_of(member.status), now)
            replica.neighbours([peer.id for peer in membership.active_view], now)
            outputs = replica.start(now, entries)
            task_status.started()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._run_timers)
                nursery.start_soon(self._run_packets)
                nursery.start_soon(self._run_forgetting)
                if self._database is not None:
                    nursery.start_soon(self._run_disk, self._database)
                await self._perform(outputs)
                async for notification in notifications:
                    await self._perform(self._notice(notification, trio.current_time()))

    def end(self) -> None:
        """For :func:`open_store`: nothing will change any more."""
        self._closed = True
        self._inbox.close()
        self._ready.set()
        self._watches.end()

    async def store(self, database: StoreDatabase) -> None:
        """For :func:`open_store`: write what is not yet on the disk."""
        replica = self._replica
        batch = Batch(replica.owners.take_unstored(), replica.shared.take_unstored())
        if not any(batch):
            return
        try:
            await trio.to_thread.run_sync(database.write, batch)
        except StoreDatabaseError as error:
            self._write_failures += 1
            if not self._disk_problem:
                _log.warning("%s: the store goes on, and tries again", error)
            self._disk_problem = str(error)
            replica.owners.unstored.update((log.owner, None) for log in batch.logs)
            replica.shared.unstored.update(key for key, _ in batch.states)
        else:
            self._disk_problem = ""

    def _notice(self, notification: Notification, now: float) -> list[Output]:
        replica = self._replica
        match notification:
            case MemberUp(record) | MemberSuspect(record):
                replica.notice(record.id, record.epoch, Presence.ALIVE, now)
            case MemberUpdated(record):
                replica.notice(record.id, record.epoch, None, now)
            case MemberDown(record):
                replica.notice(record.id, record.epoch, Presence.AWAY, now)
            case MemberLeft(record):
                replica.notice(record.id, record.epoch, Presence.LEFT, now)
            case ViewChanged(active):
                replica.neighbours([peer.id for peer in active], now)
            case EpochTaken(epoch):
                return replica.reborn(epoch)
            case _:
                pass
        return []

    async def _run_packets(self) -> None:
        async for packet in self._inbox:
            try:
                outputs = self._take(packet)
            except RemoteStoreError as error:
                self._malformed += 1
                _log.debug("from %s: %s", packet.id.origin.short, error)
            except Exception:  # noqa: BLE001 - a fault of ours that a peer brought out: all nodes ending would be worse than going on
                self._faults += 1
                _log.exception("a fault in pyminuteman, please report it; this was dropped: %.1000r", packet)
            else:
                await self._perform(outputs)

    def _take(self, packet: Delivered) -> list[Output]:
        sender = packet.id.origin
        alone = packet.id.number == 0
        message = decode(packet.payload, origin=None if alone else Actor(sender, packet.id.epoch))
        if message is None:
            self._unknown += 1
            return []
        if not alone and isinstance(message, LogPart) and message.owner != sender:
            raise RemoteStoreError("to all, a node speaks for itself only")
        return self._replica.handle(message, sender, trio.current_time())

    async def _run_timers(self) -> None:
        while True:
            self._sooner = trio.Event()
            self._wake_at = self._replica.next_wake
            with trio.move_on_at(self._wake_at):
                await self._sooner.wait()
            await self._perform(self._replica.wake(trio.current_time()))

    async def _run_forgetting(self) -> None:
        while True:
            await trio.sleep(_FORGET_INTERVAL_SECONDS)
            self._replica.forget(self._membership.members().keys())

    async def _run_disk(self, database: StoreDatabase) -> None:
        while True:
            await self._unstored.wait()
            self._unstored = trio.Event()
            await self.store(database)
            await trio.sleep(_STORE_INTERVAL_SECONDS)
            if self._disk_problem:
                self._unstored.set()

    async def _perform(self, outputs: Iterable[Output]) -> None:
        """Tell whoever waits, here first, then send."""
        owners, shared = self._replica.owners, self._replica.shared
        if owners.changed or shared.changed:
            own, values = owners.changed, shared.changed
            owners.changed, shared.changed = set(), set()
            self._watches.put(own, values)
        if owners.unstored or shared.unstored:
            self._unstored.set()
        if self._replica.is_ready:
            self._ready.set()
        if self._replica.next_wake < self._wake_at:
            self._sooner.set()
        me = self._membership.me
        origin = Actor(me.id, me.epoch)
        try:
            for output in outputs:
                if isinstance(output, Cast):
                    await self._membership.multicast(TOPIC, encode(output.message, origin=origin))
                else:
                    await self._membership.unicast(output.to, TOPIC, encode(output.message))
        except LocalProtocolError:
            if not self._closed:
                _log.debug("this node has left: what it says now reaches nobody")
        await trio.lowlevel.checkpoint()


@asynccontextmanager
async def open_store(
    membership: Membership,
    *,
    limits: StoreLimits | None = None,
    path: Path | None = None,
    alone_seconds: float = ALONE_SECONDS,
    rng: random.Random | None = None,
) -> AsyncIterator[GossipStore]:
    """Hold a replica of the cluster's store for as long as the block lasts.

    What this node said in its last life, as far as it is on the disk, it says again at once: delete what is no longer so. The others
    drop this node's entries when it leaves, or a lease after it went down; the end of the block alone takes nothing back.

    Args:
        membership: Of this node. One store at a time, and in the membership's block.
        limits: The same on all nodes.
        path: The database; made when it is not there. None: nothing is stored, and the others are asked at the next start.
        alone_seconds: A node that has no neighbour for so long is ready without having compared: it is held to be the first of its
            cluster. Longer than joining takes, therefore; who has contacts waits for :meth:`Membership.wait_joined
            <pyminuteman.membership.Membership.wait_joined>` first.
        rng: For reproducible tests.

    Raises:
        StoreDatabaseError: The database is of a later release, or cannot be used.
    """
    me = membership.me
    wall_offset = time.time() - trio.current_time()  # noqa: TID251 - what the replica is handed
    replica = Replica(
        Actor(me.id, me.epoch),
        limits=limits or StoreLimits(),
        random=rng or random.Random(),  # noqa: S311 - when to compare, and with whom
        wall_offset=wall_offset,
        alone_seconds=alone_seconds,
    )
    database = None
    entries: dict[str, bytes] = {}
    if path is not None:
        database = await trio.to_thread.run_sync(StoreDatabase, path)
    try:
        if database is not None:
            stored = await trio.to_thread.run_sync(database.load)
            entries = replica.restore(stored.logs, stored.states, trio.current_time())
        store = GossipStore(membership, replica, database)
        error: Exception | None = None
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(store.run, entries)
                try:
                    yield store
                except Exception as raised:  # noqa: BLE001 - handed on below: it comes out as it is, and not in a group
                    error = raised
                nursery.cancel_scope.cancel()
        finally:
            store.end()
            if database is not None:
                with trio.CancelScope(shield=True):
                    await store.store(database)
        if error is not None:
            raise error
    finally:
        if database is not None:
            database.close()
