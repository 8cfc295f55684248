"""A network in memory, for tests of what runs above :class:`pyminuteman.membership.transport.Transport`.

    network = MemoryNetwork()
    one, two = network.transport("10.0.0.1:1"), network.transport("10.0.0.2:1")
    network.cut(one.advertised, two.advertised)

It is believed because the contract suite of the real transport passes on it. Datagrams are bytes, as large as the MTU allows, counted,
and lost, delayed or cut off as the test says; all within trio's clock, so under an autojumping one nothing takes time.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import trio
import trio.testing

from pyminuteman.addresses import Endpoint
from pyminuteman.membership.transport import TransportCounters, is_loopback

__all__ = ["MemoryNetwork", "MemoryTransport"]

_MTU_BYTES = 65507
"""Of UDP over IPv4 on loopback."""
_WAITING_MAX = 4096
_FIRST_FREE_PORT = 49152
_StreamPair: TypeAlias = tuple[trio.abc.Stream, str]


@dataclass(frozen=True, slots=True)
class _Arrival:
    """A datagram on its way, ordered as the heap wants it."""

    due: float
    number: int
    datagram: bytes

    def __lt__(self, other: _Arrival) -> bool:
        return (self.due, self.number) < (other.due, other.number)


class MemoryNetwork:
    """What lies between transports.

    Args:
        seed: Of losses and delays.
        loss: Share of the datagrams that vanish (0 to 1).
        delay_seconds: Least and most time a datagram or the opening of a stream takes. With a span, datagrams overtake each other.
        mtu_bytes: Larger datagrams are refused.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        loss: float = 0.0,
        delay_seconds: tuple[float, float] = (0.0, 0.0),
        mtu_bytes: int = _MTU_BYTES,
    ) -> None:
        self.loss = loss
        self.delay_seconds = delay_seconds
        self.mtu_bytes = mtu_bytes
        self.datagrams_lost = 0
        self._rng = random.Random(seed)  # noqa: S311 - reproducible
        self._transports: dict[Endpoint, MemoryTransport] = {}
        self._cuts: set[tuple[Endpoint, Endpoint]] = set()
        self._numbers = itertools.count()
        self._ports = itertools.count(_FIRST_FREE_PORT)

    def transport(self, endpoint: Endpoint | str) -> MemoryTransport:
        """Bind one. Port 0 takes a free one.

        Raises:
            OSError: The endpoint is taken.
        """
        where = Endpoint.parse(endpoint) if isinstance(endpoint, str) else endpoint
        if not where.port:
            where = Endpoint(where.address, next(self._ports))
        if where in self._transports:
            raise OSError(98, f"cannot listen on {where}: taken")
        made = self._transports[where] = MemoryTransport(self, where)
        return made

    def cut(self, sender: Endpoint, receiver: Endpoint, *, both_ways: bool = True) -> None:
        """Lose everything between two endpoints, from now on. Open streams stay: it is their data that real ones would lose."""
        self._cuts.add((sender, receiver))
        if both_ways:
            self._cuts.add((receiver, sender))

    def isolate(self, endpoint: Endpoint) -> None:
        """Lose everything from and to it, as when its cable is pulled."""
        for other in list(self._transports):
            if other != endpoint:
                self.cut(endpoint, other)

    def mend(self) -> None:
        """Undo every cut."""
        self._cuts.clear()

    def carry(self, datagram: bytes, sender: Endpoint, receiver: Endpoint) -> None:
        """For transports: bring it there, or lose it."""
        target = self._transports.get(receiver)
        if target is None or (sender, receiver) in self._cuts or (self.loss and self._rng.random() < self.loss):
            self.datagrams_lost += 1
            return
        target.arrive(_Arrival(trio.current_time() + self._delay(), next(self._numbers), datagram))

    async def open_stream(self, sender: Endpoint, receiver: Endpoint) -> trio.abc.Stream:
        """For transports: connect, as :meth:`Transport.connect` does; over a cut, wait for ever."""
        await trio.sleep(self._delay())
        if (sender, receiver) in self._cuts or (receiver, sender) in self._cuts:
            await trio.sleep_forever()
        target = self._transports.get(receiver)
        if target is None:
            raise ConnectionRefusedError(111, f"nobody listens on {receiver}")
        ours, theirs = trio.testing.memory_stream_pair()
        target.opened((theirs, sender.address))
        return ours

    def forget(self, endpoint: Endpoint) -> None:
        """For transports: it is closed."""
        self._transports.pop(endpoint, None)

    def _delay(self) -> float:
        return self._rng.uniform(*self.delay_seconds)


class MemoryTransport:
    """One node's end of a :class:`MemoryNetwork`."""

    def __init__(self, network: MemoryNetwork, endpoint: Endpoint) -> None:
        self.counters = TransportCounters()
        self._network = network
        self._endpoint = endpoint
        self._arrivals: list[_Arrival] = []
        self._wake = trio.Event()
        self._until = math.inf
        send, self._streams = trio.open_memory_channel[_StreamPair](math.inf)
        self._opened: Callable[[_StreamPair], None] = send.send_nowait
        self._send = send
        self._closed = False

    @property
    def advertised(self) -> Endpoint:
        """Where others reach it."""
        return self._endpoint

    @property
    def is_private(self) -> bool:
        """Whether its address is a loopback address."""
        return is_loopback(self._endpoint.address)

    async def wait(self, until: float) -> None:
        """Return when a datagram is there, or at that time."""
        self._until = until
        await trio.lowlevel.checkpoint()
        while not self._closed:
            now = trio.current_time()
            due = self._arrivals[0].due if self._arrivals else math.inf
            if min(due, self._until) <= now:
                return
            self._wake = trio.Event()
            with trio.move_on_at(min(due, self._until)):
                await self._wake.wait()
        raise trio.ClosedResourceError

    def hurry(self, until: float) -> None:
        """Have the wait end by then."""
        if until < self._until:
            self._until = until
            self._wake.set()

    def receive(self) -> bytes | None:
        """The next datagram, or None."""
        if self._closed or not self._arrivals or self._arrivals[0].due > trio.current_time():
            return None
        datagram = heapq.heappop(self._arrivals).datagram
        self.counters.datagrams_received += 1
        self.counters.bytes_received += len(datagram)
        return datagram

    def send(self, datagram: bytes, to: Endpoint) -> bool:
        """Send, or drop and count."""
        refusal = self._refusal(datagram, to)
        if refusal:
            self.counters.refuse(refusal)
            return False
        self.counters.datagrams_sent += 1
        self.counters.bytes_sent += len(datagram)
        self._network.carry(bytes(datagram), self._endpoint, to)
        return True

    def _refusal(self, datagram: bytes, to: Endpoint) -> str | None:
        if self._closed:
            return "EBADF"
        if len(datagram) > self._network.mtu_bytes:
            return "EMSGSIZE"
        if (":" in to.address) != (":" in self._endpoint.address):
            return "EAFNOSUPPORT"
        return None

    async def connect(self, to: Endpoint) -> trio.abc.Stream:
        """Open a stream."""
        await trio.lowlevel.checkpoint()
        if (":" in to.address) != (":" in self._endpoint.address):
            raise OSError(97, f"{to} cannot be reached from {self._endpoint}")
        return await self._network.open_stream(self._endpoint, to)

    async def accept(self) -> tuple[trio.abc.Stream, str]:
        """Wait for a stream."""
        return await self._streams.receive()

    def close(self) -> None:
        """Be no more: what is sent here is lost."""
        if not self._closed:
            self._closed = True
            self._network.forget(self._endpoint)
            self._arrivals.clear()
            self._streams.close()
            self._send.close()
            self._wake.set()

    def arrive(self, arrival: _Arrival) -> None:
        """For the network: a datagram is on its way. A full buffer loses it, as the kernel's does."""
        if len(self._arrivals) < _WAITING_MAX:
            heapq.heappush(self._arrivals, arrival)
            self._wake.set()

    def opened(self, stream: _StreamPair) -> None:
        """For the network: somebody has connected."""
        self._opened(stream)
