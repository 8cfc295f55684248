"""Bounded queues between the node and those who listen to it: a slow reader costs a bounded amount of memory, and no news of weight.

The node never waits for a reader. Notifications that pile up are coalesced: of each member the latest state is kept, so whoever reads
late sees how things are and not how they came to be. Multicast packets cannot be coalesced: the oldest are dropped, and counted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Final, Self, TypeVar

import trio

from pyminuteman.membership.effects import (
    Conflict,
    Delivered,
    EpochTaken,
    LocalStall,
    MemberDown,
    MemberLeft,
    MemberSuspect,
    MemberUp,
    MemberUpdated,
    Notification,
    PartitionSuspected,
    ViewChanged,
)

__all__ = ["NOTIFICATIONS_KEPT", "PACKETS_KEPT", "Inbox", "NotificationInbox", "PacketInbox", "coalesce"]

NOTIFICATIONS_KEPT: Final = 1024
"""Notifications that wait for a reader before they are coalesced."""
PACKETS_KEPT: Final = 256
"""Multicast packets that wait for a reader before the oldest is dropped, unless said otherwise."""

T_co = TypeVar("T_co", covariant=True)


class Inbox(trio.abc.ReceiveChannel[T_co]):
    """What waits for one reader: ``async for`` over it, or :meth:`receive`. Close it, or use ``with``, to be told no more."""

    def __init__(self, forget: Callable[[Inbox[T_co]], object]) -> None:
        """Call ``forget`` once when the reader closes it."""
        self._items: deque[T_co] = deque()
        self._readers = trio.lowlevel.ParkingLot()
        self._forget = forget
        self._closed = False
        self._ended = False

    def __len__(self) -> int:
        """How many wait."""
        return len(self._items)

    def receive_nowait(self) -> T_co:
        """The next one.

        Raises:
            trio.WouldBlock: Nothing waits.
            trio.EndOfChannel: Nothing waits, and the membership has ended: nothing will come.
            trio.ClosedResourceError: You closed it.
        """
        if self._closed:
            raise trio.ClosedResourceError
        if self._items:
            return self._items.popleft()
        if self._ended:
            raise trio.EndOfChannel
        raise trio.WouldBlock

    async def receive(self) -> T_co:
        """The next one, when it comes.

        Raises:
            trio.EndOfChannel: The membership has ended, and all was read.
            trio.ClosedResourceError: You closed it.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        while True:
            try:
                item = self.receive_nowait()
            except trio.WouldBlock:
                await self._readers.park()
                continue
            await trio.lowlevel.cancel_shielded_checkpoint()
            return item

    def close(self) -> None:
        """Be told no more. A second call does nothing."""
        if not self._closed:
            self._closed = True
            self._items.clear()
            self._readers.unpark_all()
            self._forget(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def aclose(self) -> None:
        """:meth:`close`, as trio's channels have it."""
        self.close()
        await trio.lowlevel.checkpoint()

    def end(self) -> None:
        """For the driver: nothing will come any more."""
        self._ended = True
        self._readers.unpark_all()


class PacketInbox(Inbox[Delivered]):
    """Multicast packets of one topic.

    Attributes:
        dropped: How many were lost because they were not read in time.
    """

    def __init__(self, forget: Callable[[Inbox[Delivered]], object], size: int) -> None:
        """Keep up to ``size`` (1 or more) packets."""
        super().__init__(forget)
        self._size = size
        self.dropped = 0

    def put(self, packet: Delivered) -> bool:
        """For the driver: one more; False when the oldest had to go for it."""
        full = len(self._items) >= self._size
        if full:
            self._items.popleft()
            self.dropped += 1
        self._items.append(packet)
        self._readers.unpark()
        return not full


class NotificationInbox(Inbox[Notification]):
    """What has changed in the cluster.

    Attributes:
        coalesced: How many were folded into later ones because they were not read in time.
    """

    def __init__(self, forget: Callable[[Inbox[Notification]], object], kept: int = NOTIFICATIONS_KEPT) -> None:
        """Coalesce once ``kept`` (1 or more) wait."""
        super().__init__(forget)
        self._kept = self._limit = kept
        self.coalesced = 0

    def put(self, notification: Notification) -> None:
        """For the driver: one more."""
        self._items.append(notification)
        if len(self._items) > self._limit:
            before = len(self._items)
            self._items = coalesce(self._items)
            self.coalesced += before - len(self._items)
            # A cluster of more members than are kept: wait until as many again have piled up, or each one would cost a pass.
            self._limit = max(self._kept, 2 * len(self._items))
        self._readers.unpark()


def coalesce(notifications: deque[Notification]) -> deque[Notification]:
    """Of each member the latest state, and the latest of what concerns no member, in the order of the latest news."""
    latest: dict[Hashable, Notification] = {}
    for notification in notifications:
        key = _subject(notification)
        earlier = latest.pop(key, None)
        latest[key] = notification if earlier is None else _merge(earlier, notification)
    return deque(latest.values())


def _subject(notification: Notification) -> Hashable:
    match notification:
        case MemberUp() | MemberSuspect() | MemberDown() | MemberLeft() | MemberUpdated():
            return notification.record.id
        case Conflict():
            return Conflict, notification.record.id, notification.other.id
        case Delivered():
            return notification.id
        case ViewChanged() | PartitionSuspected() | LocalStall() | EpochTaken():
            return type(notification).__name__


def _merge(earlier: Notification, later: Notification) -> Notification:
    """One that says what both said."""
    match earlier, later:
        case LocalStall(), LocalStall():
            return LocalStall(earlier.seconds + later.seconds)
        case MemberUpdated(), MemberUpdated():
            return replace(later, previous=earlier.previous)
        case ((MemberUp() | MemberSuspect() | MemberDown() | MemberLeft()), MemberUpdated()):
            return replace(earlier, record=later.record)  # that it is up, say, has not been read yet: it must not be lost
    return later
