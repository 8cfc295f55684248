"""The node in the world: sockets, clock and disk around :class:`pyminuteman.membership.node.MembershipNode`, with trio.

    async with open_membership(name="web1", bind=Endpoint.parse("10.0.0.1:61420"), contacts=seeds, keyring=keyring) as membership:
        async with membership.notifications() as notifications:
            async for notification in notifications:
                print(notification, len(membership.reachable))

Everything it starts lives and ends in the block of :func:`open_membership`: the loop that runs the core (:mod:`node_loop
<pyminuteman.membership.node_loop>`), the exchange of bulk over TCP, and the keeper of the state directory.
"""

from __future__ import annotations

import math
import os
import random
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import trio

from pyminuteman.addresses import Endpoint, NodeId
from pyminuteman.errors import ConfigurationError
from pyminuteman.membership.config import MembershipConfig
from pyminuteman.membership.effects import (
    Delivered,
    EpochTaken,
    MemberDown,
    MemberLeft,
    MemberStatus,
    MemberUp,
    MemberUpdated,
    Notification,
)
from pyminuteman.membership.errors import InsecureError, KeyringError, LocalProtocolError, NoContactAnswered
from pyminuteman.membership.keyring import Key, Keyring, PlainRing, Ring
from pyminuteman.membership.members import Member
from pyminuteman.membership.messages import Peer
from pyminuteman.membership.node import MembershipNode
from pyminuteman.membership.node_loop import NodeLoop
from pyminuteman.membership.own_record import checked_addresses, checked_tags, own_record
from pyminuteman.membership.records import Record
from pyminuteman.membership.state_directory import Identity, StateDirectory
from pyminuteman.membership.subscriptions import PACKETS_KEPT, Inbox, NotificationInbox, PacketInbox
from pyminuteman.membership.transport import NetworkTransport, Transport

__all__ = ["Membership", "open_membership"]

_GOODBYES: Final = 3
_GOODBYE_PAUSE_SECONDS: Final = 0.04
"""A goodbye is not acknowledged, so it is said thrice: where one datagram in ten is lost, seven neighbours all miss it never."""
_STORE_INTERVAL_SECONDS: Final = 30.0
"""Between two storings of the known members, if they changed."""


class Membership:
    """This node's membership of the cluster, as :func:`open_membership` gives it. For the tasks of one trio loop."""

    def __init__(
        self,
        node: MembershipNode,
        *,
        transport: Transport,
        ring: Ring,
        config: MembershipConfig,
        state: StateDirectory | None = None,
    ) -> None:
        """For :func:`open_membership`."""
        self._node = node
        self._config = config
        self._state = state
        self._ring = ring
        self._loop = NodeLoop(
            node, transport=transport, ring=ring, datagram_max_bytes=config.datagram_max_bytes, notify=self._notify
        )
        self._listeners: list[NotificationInbox] = []
        self._topics: dict[str, list[PacketInbox]] = {}
        self._epoch_taken = trio.Event()
        self._members_changed = False
        self._left = False
        self._ended = False
        self._packets_dropped = 0

    # What is known

    @property
    def me(self) -> Record:
        """This node's own record, as the others have it or soon will."""
        return self._node.me

    @property
    def reachable(self) -> frozenset[NodeId]:
        """The members that a path of links leads to, this node included."""
        return self._node.reachable

    @property
    def active_view(self) -> tuple[Peer, ...]:
        """The neighbours: with these it has links."""
        return self._node.active_view

    @property
    def passive_view(self) -> tuple[Peer, ...]:
        """Spare contacts."""
        return self._node.passive_view

    def members(self) -> dict[NodeId, Member]:
        """Every member that is known, by id; ``since`` is in seconds of :func:`trio.current_time`."""
        return self._node.members()

    def route_to(self, node: NodeId) -> tuple[NodeId, ...] | None:
        """The nodes on the shortest path to a member, or None when there is no path."""
        return self._node.route_to(node)

    def metrics(self) -> dict[str, int | float]:
        """Plain numbers by name; counters end in ``_total`` and begin at zero with this block."""
        return {
            **self._loop.metrics(),
            "multicast_unread_total": self._packets_dropped,
            "notifications_waiting": max(map(len, self._listeners), default=0),
            "state_write_failures_total": self._state.write_failures if self._state else 0,
        }

    # What is heard

    def notifications(self) -> NotificationInbox:
        """What changes from now on.

        Read it together with :meth:`members`, which says how things are now::

            async with membership.notifications() as notifications:
                known = membership.members()  # no await in between: nothing is missed, nothing comes twice

        A reader that falls behind gets the latest state of each member, and not what led to it.
        """
        inbox = NotificationInbox(self._listeners.remove)  # type: ignore[arg-type]
        self._listeners.append(inbox)
        if self._ended:
            inbox.end()
        return inbox

    def subscribe(self, topic: str, *, size: int = PACKETS_KEPT) -> PacketInbox:
        """The multicast packets of a topic from now on, but for those sent here; and what is sent to this node alone.

        Args:
            topic: As the senders call it.
            size: How many may wait (1 or more); beyond, the oldest are dropped and counted.
        """
        inboxes = self._topics.setdefault(topic, [])

        def forget(closed: Inbox[Delivered]) -> None:
            inboxes.remove(closed)  # type: ignore[arg-type]
            if not inboxes and self._topics.get(topic) is inboxes:
                del self._topics[topic]

        inbox = PacketInbox(forget, size)
        inboxes.append(inbox)
        if self._ended:
            inbox.end()
        return inbox

    async def wait_joined(self, seconds: float = math.inf) -> None:
        """Return as soon as another member is alive.

        Raises:
            NoContactAnswered: None is after so many seconds. The node goes on looking.
        """
        with self.notifications() as notifications, trio.move_on_after(seconds):
            while len(self.reachable) < 2:  # noqa: PLR2004 - it and another
                await notifications.receive()
            return
        raise NoContactAnswered(f"none of the contacts has answered within {seconds:g} s")

    # What is said

    async def multicast(self, topic: str, payload: bytes, *, record_route: bool = False) -> None:
        """Send a packet to every member. It is on its way when this returns; that it arrives is likely, not certain.

        Args:
            topic: 1 to 64 bytes of UTF-8; those who subscribed to it get the packet.
            payload: Up to ``payload_max_bytes`` of the config.
            record_route: Have it list who handed it on, for diagnosis.

        Raises:
            LocalProtocolError: Too large, or this node has left. Nothing was sent.
        """
        await trio.lowlevel.checkpoint()  # whoever sends many leaves time for the others, our own heartbeats among them
        self._must_be_here()
        self._loop.perform(self._node.multicast(topic, payload, trio.current_time(), record_route=record_route))

    async def unicast(self, to: NodeId, topic: str, payload: bytes) -> None:
        """Send to one member, who gets it as it gets packets of that topic; once, and whether it arrives is not known.

        What fits no datagram goes over TCP. To somebody who is not a known member nothing is sent.

        Args:
            to: The member.
            topic: As with :meth:`multicast`.
            payload: As with :meth:`multicast`.

        Raises:
            LocalProtocolError: Too large, or this node has left. Nothing was sent.
        """
        await trio.lowlevel.checkpoint()
        self._must_be_here()
        self._loop.perform(self._node.unicast(to, topic, payload))

    def update(
        self,
        *,
        tags: Mapping[str, str] | None = None,
        addresses: Iterable[str] | None = None,
        keys: Iterable[bytes] | None = None,
    ) -> None:
        """Change what this node says of itself; None leaves a thing as it is.

        Raises:
            ConfigurationError: Something is not allowed. Nothing was changed.
            LocalProtocolError: This node has left.
        """
        self._must_be_here()
        effects = self._node.update(
            trio.current_time(),
            tags=None if tags is None else dict(checked_tags(tags, self._config.tags_max_bytes)),
            addresses=None if addresses is None else checked_addresses(addresses),
            keys=None if keys is None else tuple(keys),
        )
        self._loop.perform(effects)

    def change_keys(self, keys: Sequence[Key]) -> tuple[bytes, ...]:
        """Hold these keys, the first of them sealing, and tell the others; for a key file that has changed.

        Returns:
            Ids of the keys that are held on because members that are alive still seal with them: call again when they do not.

        Raises:
            KeyringError: The node was opened without a keyring, or the keys do not make one. Nothing was changed.
            LocalProtocolError: This node has left.
        """
        self._must_be_here()
        if not isinstance(self._ring, Keyring):
            raise KeyringError("this node was started without keys, and has none to change")
        alive = (member.record for member in self.members().values() if member.status is MemberStatus.ALIVE)
        kept = self._ring.replace(keys, used_elsewhere={key for record in alive for key in record.keys[:1]})
        self.update(keys=self._ring.key_ids)
        return kept

    async def leave(self) -> None:
        """Say goodbye, so that nobody takes this node for failed. Returns after a tenth of a second, when that has gone round.

        The end of the block does this too. A second call only says it again.
        """
        self._left = True
        for _ in range(_GOODBYES):
            self._loop.perform(self._node.leave(trio.current_time()))
            await trio.sleep(_GOODBYE_PAUSE_SECONDS)

    def _must_be_here(self) -> None:
        if self._left or self._ended:
            raise LocalProtocolError("this node has left the cluster")

    # The work

    def start(self, nursery: trio.Nursery, contacts: Sequence[Endpoint], known: Sequence[Peer]) -> None:
        """For :func:`open_membership`: begin."""
        self._loop.perform(self._node.start(trio.current_time(), contacts=contacts, known=known))
        nursery.start_soon(self._loop.run)
        if self._state is not None:
            nursery.start_soon(self._keep_state)

    def end(self) -> None:
        """For :func:`open_membership`: nothing will happen any more."""
        self._ended = True
        for inbox in [*self._listeners, *(inbox for inboxes in self._topics.values() for inbox in inboxes)]:
            inbox.end()

    def _notify(self, notification: Notification) -> None:
        match notification:
            case Delivered():
                for inbox in self._topics.get(notification.topic, ()):
                    self._packets_dropped += not inbox.put(notification)
                return
            case EpochTaken():
                self._epoch_taken.set()
            case MemberUp() | MemberDown() | MemberLeft() | MemberUpdated():
                self._members_changed = True
            case _:
                pass
        for listener in self._listeners:
            listener.put(notification)

    # The state directory

    async def _keep_state(self) -> None:
        """Store what changes; in a thread, for a disk may take its time."""
        while True:
            with trio.move_on_after(_STORE_INTERVAL_SECONDS):
                await self._epoch_taken.wait()
            await self.store()

    async def store(self) -> None:
        """For :func:`open_membership`: store what has changed since the last time. Not interrupted by a cancellation."""
        state = self._state
        if state is None:
            return
        with trio.CancelScope(shield=True):
            if self._epoch_taken.is_set():
                self._epoch_taken = trio.Event()
                await trio.to_thread.run_sync(state.store_identity, Identity(self.me.id, self.me.epoch))
            if self._members_changed:
                self._members_changed = False
                await trio.to_thread.run_sync(state.store_members, self._worth_remembering())
        await trio.lowlevel.checkpoint()

    def _worth_remembering(self) -> list[Peer]:
        """Whom to try first in the next life: the neighbours, then those alive, then the others that have not left."""
        peers = dict.fromkeys(self.active_view)
        members = sorted(self.members().values(), key=lambda member: (member.status is not MemberStatus.ALIVE, -member.since))
        for member in members:
            record = member.record
            if member.status is not MemberStatus.LEFT and record.id != self.me.id:
                peers[Peer(record.id, record.epoch, record.endpoint)] = None
        return list(peers)


@asynccontextmanager
async def open_membership(
    *,
    name: str,
    bind: Endpoint | None = None,
    advertise: Endpoint | None = None,
    dual_stack: bool = False,
    contacts: Sequence[Endpoint] = (),
    config: MembershipConfig | None = None,
    keyring: Keyring | None = None,
    cluster: str = "minuteman",
    state_directory: Path | None = None,
    tags: Mapping[str, str] | None = None,
    addresses: Sequence[str] = (),
    insecure: bool = False,
    transport: Transport | None = None,
    rng: random.Random | None = None,
) -> AsyncIterator[Membership]:
    """Be a member of a cluster for as long as the block lasts. At its end the node leaves; a block that is cancelled just ends.

    The block is entered at once, before any contact has answered: see :meth:`Membership.wait_joined`.

    Args:
        name: A label for people, up to 64 bytes. No two nodes should share one.
        bind: Where to listen, for UDP and TCP. Port 0 takes a free one.
        advertise: Where others reach this node, if not there (see :class:`~pyminuteman.membership.transport.NetworkTransport`).
        dual_stack: With a bind address of ``[::]``: IPv4 as well.
        contacts: Members to ask to be let in; none for the first node of a cluster. Our own endpoint among them does no harm.
        config: The constants; the profile for one site by default.
        keyring: The keys, and the cluster's name with them. None: nothing is sealed, which takes a loopback address or ``insecure``.
        cluster: The cluster's name, when there is no keyring: others with another one are not heard.
        state_directory: Where id, epoch and known members are kept. None: a new id each time.
        tags: What the operator wants known of this node.
        addresses: Other addresses of this host.
        insecure: Do without a key although others can reach us. Anybody there can then speak as any member.
        transport: Instead of ``bind``, ``advertise`` and ``dual_stack``: one that is open already. It is closed at the end.
        rng: For reproducible tests.

    Raises:
        ConfigurationError: An argument that is not allowed, or a state directory that cannot be used.
        InsecureError: No keyring, and others can reach us.
        OSError: The port is taken, or not ours to take.
    """
    config = config or MembershipConfig.lan()
    if transport is None:
        if bind is None:
            raise ConfigurationError(None, "bind", "say where to listen, as in 10.0.0.1:61420")
        transport = NetworkTransport(bind, advertise=advertise, contacts=contacts, dual_stack=dual_stack)
    state = None
    try:
        if keyring is None and not (insecure or transport.is_private):
            raise InsecureError(
                f"{transport.advertised} can be reached by others: give a key, or say insecure=True and mean it"
            )
        if state_directory is not None:
            state = await trio.to_thread.run_sync(StateDirectory, state_directory)
        new = NodeId(rng.randbytes(NodeId.SIZE) if rng else os.urandom(NodeId.SIZE))
        wall = time.time()
        identity = Identity(new, int(wall))
        known: Sequence[Peer] = ()
        if state is not None:
            identity = await trio.to_thread.run_sync(partial(state.take_identity, wall, new=new))
            known = await trio.to_thread.run_sync(state.known_members)
        ring: Ring = keyring or PlainRing(cluster=cluster)
        me = own_record(
            *identity,
            name=name,
            endpoint=transport.advertised,
            tags=tags or {},
            tags_max_bytes=config.tags_max_bytes,
            addresses=addresses,
            keys=ring.key_ids,
        )
        node = MembershipNode(me, config=config, rng=rng or random.Random(), wall_offset=wall - trio.current_time())  # noqa: S311
        membership = Membership(node, transport=transport, ring=ring, config=config, state=state)
        others = [contact for contact in contacts if contact != me.endpoint]
        async with _running(membership, others, [peer for peer in known if peer.id != me.id]):
            yield membership
    finally:
        transport.close()
        if state is not None:
            state.close()


@asynccontextmanager
async def _running(membership: Membership, contacts: Sequence[Endpoint], known: Sequence[Peer]) -> AsyncIterator[None]:
    """Run it while the block runs, then leave. An error of the block comes out as it is, and not in a group of errors."""
    error: Exception | None = None
    try:
        async with trio.open_nursery() as nursery:
            membership.start(nursery, contacts, known)
            try:
                yield
            except Exception as raised:  # noqa: BLE001 - handed on below
                error = raised
            await membership.leave()
            nursery.cancel_scope.cancel()
    finally:
        membership.end()
        await membership.store()
    if error is not None:
        raise error
