"""What is too large for datagrams goes over TCP: connections that are short, few, bounded in every way, and never waited for.

Outgoing payloads queue by receiver. A queue that is full, a peer that is slow or away costs the payload, which is counted; the
comparison of tables that led to it will lead to it again. Incoming connections are limited in number, by source, and in time, before
any of their bytes are looked at; whoever cannot prove to hold a key gets no byte back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import trio

from pyminuteman.addresses import Endpoint
from pyminuteman.membership.errors import MembershipError
from pyminuteman.membership.keyring import Ring
from pyminuteman.membership.stream_session import StreamSession
from pyminuteman.membership.transport import Transport

__all__ = ["BulkExchange", "TokenBuckets"]

_CONNECTIONS_MAX: Final = 128
"""Incoming ones at a time, as memberlist bounds its own."""
_GREETING_MAX: Final = 32
"""Of these, from one source that has not shown yet that it holds the key: a quarter, so that no single host can take them all."""
_CONNECTIONS_RATE: Final = 32.0
"""Connections a second from one source; twice as many at once. Forty nodes that start on one machine stay below."""
_HANDSHAKE_SECONDS: Final = 5.0
_IDLE_SECONDS: Final = 10.0
"""How long an incoming connection may say nothing."""
_OUTGOING_MAX: Final = 8
"""Outgoing connections at a time: they compete with heartbeats for the same link."""
_OUTGOING_IDLE_SECONDS: Final = 1.0
"""How long one is kept for more, unless others wait for its place."""
_SEND_SECONDS: Final = 30.0
"""What one payload may take; the largest, 16 MiB, needs 5 Mbit/s for that."""
_QUEUE_MAX: Final = 256
"""Payloads that wait for one receiver."""
_QUEUED_MAX_BYTES: Final = 64 * 1024 * 1024
"""That wait for all of them."""
_CHUNK_BYTES: Final = 65536
_SOURCES_MAX: Final = 4096


class TokenBuckets:
    """How often each source may do something: so many times a second, and twice that at once. Bounded in memory.

    Args:
        rate: Times a second.
        sources_max: Sources remembered; beyond, those that were quiet for longest are forgotten, and start with a full bucket.
    """

    def __init__(self, rate: float, *, sources_max: int = _SOURCES_MAX) -> None:
        self._rate = rate
        self._sources_max = sources_max
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, source: str, now: float) -> bool:
        """Whether ``source`` (an address) may, at ``now`` seconds; if so, that was one time."""
        if ":" in source:
            source = ":".join(source.split(":")[:4])  # a host has a whole /64 to choose from
        tokens, at = self._buckets.pop(source, (2 * self._rate, now))
        tokens = min(2 * self._rate, tokens + (now - at) * self._rate)
        allowed = tokens >= 1
        self._buckets[source] = (tokens - allowed, now)
        if len(self._buckets) > self._sources_max:
            del self._buckets[next(iter(self._buckets))]
        return allowed


@dataclass(slots=True)
class _Outbox:
    """What waits for one receiver."""

    payloads: deque[bytes] = field(default_factory=deque)
    more: trio.Event = field(default_factory=trio.Event)


class BulkExchange:
    """The streams of one node.

    Args:
        transport: Opens and accepts them.
        ring: Seals and opens what goes over them.
        take: Called with the boot id of the sending process and a payload.
    """

    def __init__(self, transport: Transport, ring: Ring, take: Callable[[bytes, bytes], object]) -> None:
        self._transport = transport
        self._ring = ring
        self._take = take
        self._nursery: trio.Nursery | None = None
        self._outboxes: dict[Endpoint, _Outbox] = {}
        self._queued_bytes = 0
        self._places = trio.Semaphore(_OUTGOING_MAX)
        self._incoming = 0
        self._greeting: dict[str, int] = {}
        self._buckets = TokenBuckets(_CONNECTIONS_RATE)
        self._counts = dict.fromkeys(
            ("sent", "sent_bytes", "received", "received_bytes", "dropped", "failed", "refused", "unauthenticated"), 0
        )

    def metrics(self) -> dict[str, int | float]:
        """Plain numbers by name: payloads, their bytes, payloads dropped, connections that failed, were refused, or had no key."""
        return {
            **{f"bulk_{name}_total": value for name, value in self._counts.items()},
            "bulk_queued_bytes": self._queued_bytes,
            "bulk_connections": self._incoming,
        }

    def send(self, to: Endpoint, payload: bytes) -> None:
        """Queue a payload, or drop and count it."""
        outbox = self._outboxes.get(to)
        if outbox is None:
            if self._nursery is None:
                self._counts["dropped"] += 1
                return
            outbox = self._outboxes[to] = _Outbox()
            self._nursery.start_soon(self._deliver, to, outbox)
        if len(outbox.payloads) >= _QUEUE_MAX or self._queued_bytes + len(payload) > _QUEUED_MAX_BYTES:
            self._counts["dropped"] += 1
            return
        outbox.payloads.append(payload)
        outbox.more.set()
        self._queued_bytes += len(payload)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Accept and deliver until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            while True:
                stream, source = await self._transport.accept()
                crowded = self._incoming >= _CONNECTIONS_MAX or self._greeting.get(source, 0) >= _GREETING_MAX
                if crowded or not self._buckets.take(source, trio.current_time()):
                    self._counts["refused"] += 1
                    await trio.aclose_forcefully(stream)
                    continue
                self._incoming += 1
                self._greeting[source] = self._greeting.get(source, 0) + 1
                nursery.start_soon(self._serve, stream, source)

    # Outgoing

    async def _deliver(self, to: Endpoint, outbox: _Outbox) -> None:
        try:
            async with self._places:
                await self._connect_and_deliver(to, outbox)
        except (OSError, trio.BrokenResourceError, trio.TooSlowError, MembershipError):
            self._counts["failed"] += 1
        finally:
            self._counts["dropped"] += len(outbox.payloads)
            self._queued_bytes -= sum(map(len, outbox.payloads))
            del self._outboxes[to]

    async def _connect_and_deliver(self, to: Endpoint, outbox: _Outbox) -> None:
        session = StreamSession(self._ring, server=False)
        with trio.fail_after(_HANDSHAKE_SECONDS):
            stream = await self._transport.connect(to)
        try:
            with trio.fail_after(_HANDSHAKE_SECONDS):
                await stream.send_all(session.client_hello())
                while not session.ready:
                    data = await stream.receive_some(_CHUNK_BYTES)
                    if not data:
                        raise trio.BrokenResourceError("closed before its hello")
                    session.feed(bytes(data))
            while outbox.payloads:
                payload = outbox.payloads[0]
                with trio.fail_after(_SEND_SECONDS):
                    await stream.send_all(session.seal_frame(payload))
                outbox.payloads.popleft()
                self._queued_bytes -= len(payload)
                self._counts["sent"] += 1
                self._counts["sent_bytes"] += len(payload)
                if not outbox.payloads and not self._places.statistics().tasks_waiting:
                    outbox.more = trio.Event()
                    with trio.move_on_after(_OUTGOING_IDLE_SECONDS):
                        await outbox.more.wait()
        finally:
            await trio.aclose_forcefully(stream)  # what was handed over is still delivered: the kernel sees to it

    # Incoming

    async def _serve(self, stream: trio.abc.Stream, source: str) -> None:
        session = StreamSession(self._ring, server=True)
        try:
            try:
                with trio.fail_after(_HANDSHAKE_SECONDS):
                    await self._greet(stream, session)
            finally:
                self._greeting[source] -= 1
                if not self._greeting[source]:
                    del self._greeting[source]
            while session.peer_boot is not None:
                with trio.fail_after(_IDLE_SECONDS):
                    data = await stream.receive_some(_CHUNK_BYTES)
                if not data:
                    return
                session.feed(bytes(data))
                while (payload := session.next()) is not None:
                    self._counts["received"] += 1
                    self._counts["received_bytes"] += len(payload)
                    self._take(session.peer_boot, payload)
        except (OSError, trio.BrokenResourceError, trio.TooSlowError, MembershipError):
            self._counts["failed" if session.ready else "unauthenticated"] += 1
        finally:
            self._incoming -= 1
            await trio.aclose_forcefully(stream)

    @staticmethod
    async def _greet(stream: trio.abc.Stream, session: StreamSession) -> None:
        while not session.ready:
            data = await stream.receive_some(_CHUNK_BYTES)
            if not data:
                raise trio.BrokenResourceError("closed before its hello")
            answer = session.feed(bytes(data))
            if answer:
                await stream.send_all(answer)
