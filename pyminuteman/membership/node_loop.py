"""The one task that runs a node: sleep until a datagram comes or the core wants to be woken, and do what the core says.

What a wake-up costs is what the failure detector costs, since at rest there are a hundred of them in a second: hence plain socket
calls, one at a time, and nothing logged or awaited between a datagram and the answer to it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Final

import trio

from pyminuteman.addresses import Endpoint
from pyminuteman.membership.bulk import BulkExchange
from pyminuteman.membership.codec import PROTOCOL_VERSIONS, agree, pack, unpack
from pyminuteman.membership.effects import Effect, MemberUp, MemberUpdated, Notification, Received, Send
from pyminuteman.membership.errors import LocalProtocolError, RemoteProtocolError
from pyminuteman.membership.keyring import REASONS, Ring
from pyminuteman.membership.messages import Peer
from pyminuteman.membership.node import MembershipNode
from pyminuteman.membership.records import Record
from pyminuteman.membership.sealing import Buffer
from pyminuteman.membership.transport import Transport

__all__ = ["NodeLoop"]

_log = logging.getLogger("pyminuteman.membership")
_DATAGRAMS_A_TURN: Final = 256
"""Datagrams taken before other tasks get their turn: some 20 ms of work."""
_TURNS_BEFORE_TIMERS: Final = 8
"""Turns in a row that may go by before timers fire although more waits: a flood must not stop our heartbeats."""
_EARLY_SECONDS: Final = 0.02
"""The core is asked so much before its time, whenever we are awake: what may be early (it knows what may) saves a wake-up."""
_FAULTS_LOGGED: Final = 10
_PROTOCOLS_MAX: Final = 65_536


class NodeLoop:
    """A core with its transport and keys.

    Args:
        node: The core; only this calls it.
        transport: How its words travel.
        ring: How they are sealed.
        datagram_max_bytes: Largest datagram, sealed.
        notify: Takes what the core has to tell.
    """

    def __init__(
        self,
        node: MembershipNode,
        *,
        transport: Transport,
        ring: Ring,
        datagram_max_bytes: int,
        notify: Callable[[Notification], object],
    ) -> None:
        self.node = node
        self._transport = transport
        self._ring = ring
        self._limit = datagram_max_bytes - ring.overhead
        self._notify = notify
        self._bulk = BulkExchange(transport, ring, self._take_bulk)
        self._due = node.next_wake
        self._me = node.me
        self._self_peer = Peer(node.me.id, node.me.epoch, node.me.endpoint)
        self._protocols: dict[Endpoint, tuple[int, int]] = {}
        self._unspoken = 0
        self._malformed = 0
        self._unknown = 0
        self._faults = 0

    async def run(self) -> None:
        """Work until cancelled."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._bulk.run)
            await self._run_datagrams()

    def perform(self, effects: Iterable[Effect]) -> None:
        """Do what the core said when it was called from outside of this loop."""
        self._perform(effects)
        # The core may want to be woken earlier now than the loop sleeps.
        self._due = self.node.next_wake
        self._transport.hurry(self._due)

    def metrics(self) -> dict[str, int | float]:
        """Plain numbers: of the core, of this loop, of the wire, of the exchange of bulk."""
        wire = self._transport.counters
        return {
            **self.node.metrics(),
            "datagrams_sent_total": wire.datagrams_sent,
            "datagram_bytes_sent_total": wire.bytes_sent,
            "datagrams_received_total": wire.datagrams_received,
            "datagram_bytes_received_total": wire.bytes_received,
            "datagrams_unsent_total": sum(wire.unsent.values()),
            **{f"datagrams_unsent_{reason.lower()}_total": count for reason, count in sorted(wire.unsent.items())},
            **{f"refused_{reason}_total": self._ring.counters[reason] for reason in REASONS},
            "datagrams_malformed_total": self._malformed,
            "messages_unknown_total": self._unknown,
            "messages_no_common_version_total": self._unspoken,
            "internal_faults_total": self._faults,
            **self._bulk.metrics(),
        }

    async def _run_datagrams(self) -> None:
        node, wait = self.node, self._transport.wait
        self._due = node.next_wake
        while True:
            await wait(self._due)
            # What has arrived comes before timers: after a stall of ours, many are heard that would else be judged.
            taken = self._drain()
            for _ in range(_TURNS_BEFORE_TIMERS):
                if taken < _DATAGRAMS_A_TURN:
                    break
                await trio.lowlevel.checkpoint()
                taken = self._drain()
            if taken:
                self._due = node.next_wake
            now = trio.current_time()
            if now + _EARLY_SECONDS >= self._due:
                self._perform(node.wake(now))
                self._due = node.next_wake

    def _drain(self) -> int:
        """Take what has arrived; as many as a turn allows mean that there may be more."""
        receive, take = self._transport.receive, self._take
        for taken in range(_DATAGRAMS_A_TURN):
            datagram = receive()
            if datagram is None:
                return taken
            take(datagram)
        return _DATAGRAMS_A_TURN

    def _take(self, datagram: Buffer) -> None:
        opened = self._ring.open(datagram)
        if opened is None:
            return  # the ring has counted why
        try:
            sender, messages, unknown = unpack(opened.plain)
        except RemoteProtocolError:
            self._malformed += 1
            return
        self._unknown += unknown
        self._handle(Received(opened.boot, sender, messages, len(datagram)))

    def _take_bulk(self, boot: bytes, plain: bytes) -> None:
        """A payload came over TCP."""
        try:
            sender, messages, unknown = unpack(plain, stream=True)
        except RemoteProtocolError:
            self._malformed += 1
            return
        self._unknown += unknown
        self._handle(Received(boot, sender, messages, len(plain)))
        self.perform(())

    def _handle(self, received: Received) -> None:
        try:
            effects = self.node.handle(received, trio.current_time())
        except Exception:  # noqa: BLE001 - logged below
            # A fault of ours that a peer's message has brought out. That message would reach every node: all of them ending
            # would be worse than going on without it.
            self._report_fault(received)
            return
        self._perform(effects)

    def _report_fault(self, dropped: object) -> None:
        self._faults += 1
        if self._faults <= _FAULTS_LOGGED:
            _log.exception("a fault in pyminuteman, please report it; this was dropped: %.1000r", dropped)

    def _perform(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                self._send(effect)
                continue
            if isinstance(effect.notification, MemberUp | MemberUpdated):
                self._learn(effect.notification.record)
            self._notify(effect.notification)

    def _learn(self, record: Record) -> None:
        """Note which protocol versions a member speaks."""
        if len(self._protocols) >= _PROTOCOLS_MAX:
            self._protocols.clear()  # to all whom we know nothing of the lowest is spoken, which is always right
        self._protocols[record.endpoint] = record.protocol

    def _send(self, effect: Send) -> None:
        me = self.node.me
        if me is not self._me:
            self._me, self._self_peer = me, Peer(me.id, me.epoch, me.endpoint)
        # The highest version that both speak; to one that we know nothing of, and there every node begins, our lowest.
        theirs = self._protocols.get(effect.to)
        version = PROTOCOL_VERSIONS[0] if theirs is None else agree(PROTOCOL_VERSIONS, theirs)
        if version is None:
            self._unspoken += 1
            return
        try:
            datagrams, payloads = pack(
                effect.messages, self._self_peer if effect.identify else None, limit=self._limit, version=version
            )
        except LocalProtocolError:
            self._report_fault(effect)
            return
        for plain in datagrams:
            self._transport.send(self._ring.seal(plain), effect.to)
        for plain in payloads:
            self._bulk.send(effect.to, plain)
