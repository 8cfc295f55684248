"""The whole cluster in one process, on a virtual clock, from one seed.

A heap holds what happens next, as (time, counter, action, subject); the counter keeps the order of what happens at the same time.
Nothing here looks at a clock, at the hash of anything, or at randomness that the seed did not give, so a seed is a run.

1. A node is called when a datagram reaches it and when what it asked for is due, and its effects are carried out at once. Time
   passes only on the network, in timers that fire late, and where a process is paused.
2. A node has one valid wake in the heap. When it wants an earlier one, that is added and the old one goes stale; when it wants a
   later one, the old one comes up, finds nothing due, and is put back.
3. A paused process gets nothing. Datagrams wait in a bounded buffer, as in the kernel; at the thaw they come in before or after
   the timers that are late, as the seed decides.
4. Datagrams go to whoever has the address when they arrive, streams to the process that they were opened to.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeAlias
from zlib import crc32

from pyminuteman.addresses import Endpoint
from pyminuteman.membership.effects import Effect, EpochTaken, Notification, Received, Send
from pyminuteman.testing.simulation.faults import Faults, Network
from pyminuteman.testing.simulation.process import Host, Parcel, Process
from pyminuteman.testing.simulation.seeds import seeded

__all__ = ["Engine", "Observer", "SimulationFailed", "Wire"]

_MASK = 0xFFFF_FFFF
_ROUNDING_SECONDS = 1e-9
"""A due time turned into the world's and back may be off by so much."""

_STORM_EVENTS = 5000
"""Events a host within a second, above which nodes keep each other busy for nothing: without this such a seed would never end."""


class Observer(Protocol):
    """Is told what every node tells its user."""

    def notified(self, time: float, process: Process, notification: Notification) -> None:
        """A node told its user something, at ``time`` seconds."""


class Wire(Observer, Protocol):
    """Turns messages into what is sent, and back. It hears what nodes report, to know who speaks which protocol version."""

    def pack(self, process: Process, send: Send, target: Process | None) -> Iterable[Parcel]:
        """What a process sends for one effect, when ``target`` runs where it is sent to."""

    def unpack(self, process: Process, parcel: Parcel) -> Received | None:
        """What a process gets; None when it drops the parcel."""


class SimulationFailed(Exception):
    """A node raised where it must not, then the cause is chained; or there is a storm. The world stopped where it was."""


_Entry: TypeAlias = tuple[float, int, Callable[[Any, Any], None], Any, Any]


class Engine:
    """Time, and what travels through it.

    Args:
        seed: Where every choice comes from.
        faults: How bad the network and the clocks are.
        wire: How messages travel.
    """

    def __init__(self, seed: int, faults: Faults, wire: Wire) -> None:
        self.seed = seed
        self.faults = faults
        self.now = 0.0
        self.rng = seeded("world", seed)
        self.network = Network(faults, seeded("network", seed))
        self.observers: list[Observer] = [wire]
        self.is_mute = False
        """Whether nothing that is sent arrives, or counts: see :mod:`~pyminuteman.testing.simulation.warm_start`."""
        self.events = 0
        self._storm_at = 0
        self._calm_at = 0.0
        self.traffic_digest = 0
        """A checksum over all that arrived anywhere, in order."""
        self._wire = wire
        self._streams: dict[tuple[Process, Process], float] = {}
        self._heap: list[_Entry] = []
        self._counter = 0
        self._by_endpoint: dict[Endpoint, Host] = {}

    # -- the clockwork -------------------------------------------------------------------------------------------------
    def call_at(self, time: float, action: Callable[[Any], None], subject: Any) -> None:
        """Do ``action(subject)`` at ``time``, in seconds since the world began."""
        self._push(time, _call, action, subject)

    def _push(self, time: float, action: Callable[[Any, Any], None], subject: Any, other: Any) -> None:
        self._counter += 1
        heapq.heappush(self._heap, (time, self._counter, action, subject, other))

    def run(self, *, seconds: float) -> None:
        """Let so much time pass.

        Raises:
            SimulationFailed: A node raised an exception, or there is a storm.
        """
        self.run_until(self.now + seconds)

    def run_until(self, end: float) -> None:
        """Let time pass until ``end``.

        Raises:
            SimulationFailed: A node raised an exception, or there is a storm.
        """
        heap, pop = self._heap, heapq.heappop
        subject: object = None
        try:
            while heap and heap[0][0] <= end:
                self.now, _, action, subject, other = pop(heap)
                self.events += 1
                if self.events > self._storm_at:
                    self._watch_for_storm()
                action(subject, other)
        except SimulationFailed:
            raise
        except Exception as error:
            who = subject.name if isinstance(subject, Host | Process) else "a node"
            raise SimulationFailed(f"at {self.now:.4f} s {who} raised {error!r}") from error
        self.now = max(self.now, end)

    def _watch_for_storm(self) -> None:
        most = _STORM_EVENTS * len(self._by_endpoint)
        passed = self.now - self._calm_at
        if passed < 1.0 and self._storm_at:
            raise SimulationFailed(f"at {self.now:.4f} s there is a storm: {most} events within {passed:.4f} s")
        self._storm_at, self._calm_at = self.events + most, self.now

    # -- the inner loop ------------------------------------------------------------------------------------------------
    def _carry_out(self, process: Process, effects: Sequence[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                self._send(process, effect)
            else:
                self._notice(process, effect.notification)
        wanted = process.wanted = process.node.next_wake
        if wanted < process.wake_for:
            process.wake_for = wanted
            due = process.host.clock.world(wanted)
            at = max(due, self.now) + self.rng.random() * self.faults.wake_late_max_seconds
            process.wake_at = at
            self._push(at, self._wake, process, None)

    def _notice(self, process: Process, notification: Notification) -> None:
        if isinstance(notification, EpochTaken) and process.host.disk is not None:
            process.host.disk.epoch = notification.epoch
        for observer in self.observers:
            observer.notified(self.now, process, notification)

    def _send(self, process: Process, send: Send) -> None:
        target = self._by_endpoint.get(send.to)
        if target is None or self.is_mute:
            return
        source = process.host.index
        for parcel in self._wire.pack(process, send, target.process):
            process.bytes_sent += parcel.size
            if parcel.stream is None:
                process.datagrams_sent += 1
                for delay in self.network.datagram(source, target.index):
                    self._push(self.now + delay, self._arrive, target, parcel)
            else:
                process.streams_sent += 1
                stream_delay = self.network.stream(source, target.index)
                if stream_delay is not None:
                    pair = (process, parcel.stream)
                    at = max(self.now + stream_delay, self._streams.get(pair, 0.0))
                    self._streams[pair] = at
                    self._push(at, self._arrive, target, parcel)

    def _arrive(self, target: Host, parcel: Parcel) -> None:
        if isinstance(parcel.payload, bytes):
            self.traffic_digest = crc32(parcel.payload, self.traffic_digest ^ (hash(self.now) & _MASK))
        process = target.process
        if process is None or (parcel.stream is not None and parcel.stream is not process):
            return
        if process.paused:
            if parcel.stream is not None or len(process.inbox) < self.faults.receive_buffer_datagrams:
                process.inbox.append(parcel)
            return
        self._hand_over(process, parcel)

    def wake(self, process: Process, *, ahead: float) -> None:
        """Let a process do what is due within so many seconds, now."""
        self._carry_out(process, process.node.wake(process.local_time(self.now + ahead)))

    def _hand_over(self, process: Process, parcel: Parcel) -> None:
        received = self._wire.unpack(process, parcel)
        if received is not None:
            self.give(process, received)

    def give(self, process: Process, received: Received) -> None:
        """Let a process have something as if it had arrived."""
        self._carry_out(process, process.node.handle(received, process.local_time(self.now)))

    def _wake(self, process: Process, _: None) -> None:
        if self.now != process.wake_at or process.ended_at is not None or process.paused:
            return
        process.wake_at = process.wake_for = math.inf
        self._wake_if_due(process)

    def _wake_if_due(self, process: Process) -> None:
        local, due = process.local_time(self.now), process.wanted
        if due - local > _ROUNDING_SECONDS:
            self._carry_out(process, ())
            return
        process.local = max(local, due) if due < math.inf else local
        self._carry_out(process, process.node.wake(process.local))


def _call(action: Callable[[Any], None], subject: Any) -> None:
    action(subject)
