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
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeAlias
from zlib import crc32

from pyminuteman.addresses import Endpoint, NodeId
from pyminuteman.membership.config import MembershipConfig
from pyminuteman.membership.effects import Effect, EpochTaken, Notification, Received, Send
from pyminuteman.membership.messages import Peer
from pyminuteman.membership.records import Record
from pyminuteman.testing.simulation.clock import Clock
from pyminuteman.testing.simulation.faults import CLEAN, Faults, Network
from pyminuteman.testing.simulation.process import Core, Disk, Host, Packet, Parcel, Process
from pyminuteman.testing.simulation.seeds import seeded
from pyminuteman.testing.simulation.story import Story
from pyminuteman.testing.simulation.truth import Truth

__all__ = ["CoreFactory", "Observer", "Simulation", "SimulationFailed", "Wire"]

PORT = 61420
"""Where every simulated node listens."""
CONTACTS = 3
"""How many of the first hosts the others are told of."""
GOODBYES = 3
GOODBYE_PAUSE_SECONDS = 0.04
"""A process says goodbye so often, with that pause after each, and ends."""
_MASK = 0xFFFF_FFFF
_ROUNDING_SECONDS = 1e-9
"""A due time turned into the world's and back may be off by so much."""


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


class CoreFactory(Protocol):
    """Makes the core of a node: :class:`~pyminuteman.membership.node.MembershipNode` itself, as a rule."""

    def __call__(self, me: Record, *, config: MembershipConfig, rng: random.Random, wall_offset: float) -> Core:
        """A node that has not started."""


class SimulationFailed(Exception):
    """A node raised where it must not. The cause is chained; the world stopped where it was."""


_Entry: TypeAlias = tuple[float, int, Callable[[Any, Any], None], Any, Any]


class Simulation:
    """A seeded world of hosts.

    Args:
        seed: All there is to know of the run, with the other arguments.
        nodes: How many hosts there are from the start. More come with :meth:`add_host`.
        start_within_seconds: They start one by one within this time, the first of them first; None: none is started.
        faults: How bad the network and the clocks are.
        config: The constants of every node.
        wire: How messages travel; the codec, unless told otherwise.
        core: What makes a node; the real one, unless told otherwise.
        story: Where what happens is told.
    """

    def __init__(
        self,
        seed: int,
        *,
        nodes: int = 0,
        start_within_seconds: float | None = 1.0,
        faults: Faults = CLEAN,
        config: MembershipConfig | None = None,
        wire: Wire | None = None,
        core: CoreFactory | None = None,
        story: Story | None = None,
    ) -> None:
        self.seed = seed
        self.faults = faults
        self.config = config or MembershipConfig.lan()
        self.now = 0.0
        self.hosts: list[Host] = []
        self.observers: list[Observer] = []
        self.rng = seeded("world", seed)
        self.network = Network(faults, seeded("network", seed))
        self.truth = Truth(self)
        self.story = story or Story()
        self.packets: list[Packet] = []
        """Every multicast packet that was sent."""
        self.is_mute = False
        """Whether nothing that is sent arrives, or counts: see :mod:`~pyminuteman.testing.simulation.warm_start`."""
        self.events = 0
        self.traffic_digest = 0
        """A checksum over all that arrived anywhere, in order."""
        self._streams: dict[tuple[Process, Process], float] = {}
        self._wire = wire or _codec_wire(self.config)
        self.observers.append(self._wire)
        self._core = core or _real_core()
        self._heap: list[_Entry] = []
        self._counter = 0
        self._by_endpoint: dict[Endpoint, Host] = {}
        self._names: dict[NodeId, str] = {}
        for _ in range(nodes):
            self.add_host()
        if start_within_seconds is not None:
            for host in self.hosts:
                at = start_within_seconds * host.index / max(1, nodes - 1)
                self.call_at(at, self.start, host)

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
            SimulationFailed: A node raised an exception.
        """
        self.run_until(self.now + seconds)

    def run_until(self, end: float) -> None:
        """Let time pass until ``end``.

        Raises:
            SimulationFailed: A node raised an exception.
        """
        heap, pop = self._heap, heapq.heappop
        subject: object = None
        try:
            while heap and heap[0][0] <= end:
                self.now, _, action, subject, other = pop(heap)
                self.events += 1
                action(subject, other)
        except Exception as error:
            who = subject.name if isinstance(subject, Host | Process) else "a node"
            raise SimulationFailed(f"at {self.now:.4f} s {who} raised {error!r}") from error
        self.now = max(self.now, end)

    # -- hosts and processes -------------------------------------------------------------------------------------------
    def add_host(self) -> Host:
        """One more machine, on which nothing runs yet."""
        index = len(self.hosts)
        address = f"10.{(index + 1) >> 16 & 255}.{(index + 1) >> 8 & 255}.{(index + 1) & 255}"
        clock = Clock.drawn(self.faults, seeded("clock", self.seed, index))
        host = Host(index, f"n{index + 1:02d}", Endpoint(address, PORT), clock)
        self.hosts.append(host)
        self._by_endpoint[host.endpoint] = host
        return host

    @property
    def processes(self) -> list[Process]:
        """Those that live, in the order of their hosts; paused ones too."""
        return [host.process for host in self.hosts if host.process is not None]

    def tell(self, who: str, what: str) -> None:
        """Add a line to the story."""
        self.story.tell(self.now, who, what)

    def name_of(self, node: NodeId) -> str:
        """What the story calls a node."""
        return self._names.get(node, node.short)

    def start(self, host: Host, *, contacts: Sequence[Endpoint] | None = None) -> None:
        """Start a process where none runs: with what is on the disk, or as somebody new.

        Contacts are the first hosts, unless given.
        """
        if host.process is not None:
            return
        life = len(host.lives)
        rng = seeded("node", self.seed, host.index, life)
        wall = int(host.clock.local(self.now) + host.clock.wall_offset)
        if host.disk is None:
            host.disk = Disk(NodeId(rng.randbytes(NodeId.SIZE)), wall)
        elif host.lives:
            host.disk.epoch = max(wall, host.disk.epoch + 1)
        disk = host.disk
        me = Record(
            id=disk.id, epoch=disk.epoch, version=1, name=host.name, endpoint=host.endpoint, protocol=host.protocol
        )  # fmt: skip
        node = self._core(me, config=self.config, rng=rng, wall_offset=host.clock.wall_offset)
        if disk.id not in self._names:
            self._names[disk.id] = host.name + "'" * len({life.id for life in host.lives})
        process = Process(host, self._names[disk.id], node, disk.id, disk.epoch, rng.randbytes(8), self.now)
        host.process = process
        host.lives.append(process)
        self.truth.changed("start", (host,))
        self.tell(process.name, f"starts as {disk.id.short}, epoch {disk.epoch}")
        if contacts is None:
            contacts = [other.endpoint for other in self.hosts[:CONTACTS] if other is not host]
        self._carry_out(process, node.start(process.local_time(self.now), contacts=contacts, known=disk.known))

    def kill(self, host: Host) -> None:
        """End the process at once; nobody is told. What it knew is on the disk."""
        process = host.process
        if process is None:
            return
        process.ended_at = self.now
        host.process = None
        if host.disk is not None:
            members = process.node.members()
            peers = (members[node].record for node in sorted(members) if node != process.id)
            host.disk.known = tuple(Peer(record.id, record.epoch, record.endpoint) for record in peers)
        self.truth.changed("kill", (host,))
        self.tell(process.name, "ends")

    def lose_disk(self, host: Host) -> None:
        """What starts there next is somebody new."""
        host.disk = None

    def leave(self, host: Host) -> None:
        """Say goodbye, and end a little later."""
        process = host.process
        if process is None or process.paused or process.left_at is not None:
            return
        process.left_at = self.now
        self.truth.changed("leave", (host,))
        for number in range(GOODBYES):
            self.call_at(self.now + number * GOODBYE_PAUSE_SECONDS, self._say_goodbye, process)
        self.call_at(self.now + GOODBYES * GOODBYE_PAUSE_SECONDS, self._end, process)

    def _say_goodbye(self, process: Process) -> None:
        if process.ended_at is None and not process.paused:
            self._carry_out(process, process.node.leave(process.local_time(self.now)))

    def _end(self, process: Process) -> None:
        if process.ended_at is None:
            self.kill(process.host)

    # -- faults --------------------------------------------------------------------------------------------------------
    def pause(self, host: Host, seconds: float) -> None:
        """Freeze the process for so long."""
        process = host.process
        if process is None or process.paused:
            return
        process.pauses.append((self.now, math.inf))
        self.truth.changed("pause", (host,))
        self.call_at(self.now + seconds, self._thaw, process)

    def _thaw(self, process: Process) -> None:
        began, _ = process.pauses.pop()
        process.pauses.append((began, self.now))
        if process.ended_at is not None:
            return
        self.truth.changed("thaw", (process.host,))
        self.tell(process.name, f"thaws, with {len(process.inbox)} datagrams waiting")
        process.wake_at = process.wake_for = math.inf
        if self.rng.random() < 0.5:  # noqa: PLR2004 - a coin: who comes first is up to the event loop
            self._wake_if_due(process)
        while process.inbox:
            self._hand_over(process, process.inbox.popleft())
        self._wake_if_due(process)

    def partition(self, *groups: Iterable[Host]) -> None:
        """Cut these groups off from each other, both ways."""
        numbers = [[host.index for host in group] for group in groups]
        for one in numbers:
            for other in numbers:
                if one is not other:
                    self.network.block(one, other)
        self.truth.changed("cut", ())

    def cut(self, sources: Iterable[Host], targets: Iterable[Host]) -> None:
        """Let nothing through from these to those; the other way stays open."""
        self.network.block([host.index for host in sources], [host.index for host in targets])
        self.truth.changed("cut", ())

    def heal(self) -> None:
        """Let everything through again."""
        self.network.heal()
        self.truth.changed("heal", ())

    # -- what users do -------------------------------------------------------------------------------------------------
    def multicast(self, host: Host, number: int, size: int) -> None:
        """Send a packet to everybody; its payload begins with its number, and has at least so many bytes."""
        payload = f"{number} ".encode().ljust(size, b".")
        process = host.process
        if process is not None:
            packet = Packet(self.now, process, payload)
            if self.ask(host, lambda core, now: core.multicast("simulation", payload, now)):
                self.packets.append(packet)

    def ask(self, host: Host, request: Callable[[Core, float], list[Effect]]) -> bool:
        """Call the core of a host's process as its user would; False when none runs, it is paused, or it has left."""
        process = host.process
        if process is None or process.paused or process.left_at is not None:
            return False
        self._carry_out(process, request(process.node, process.local_time(self.now)))
        return True

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


def _codec_wire(config: MembershipConfig) -> Wire:
    from pyminuteman.testing.simulation.wire import CodecWire  # noqa: PLC0415 - the stand-ins of tests need neither

    return CodecWire(config)


def _real_core() -> CoreFactory:
    from pyminuteman.membership.node import MembershipNode  # noqa: PLC0415 - likewise

    return MembershipNode
