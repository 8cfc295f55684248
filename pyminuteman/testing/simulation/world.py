"""The whole cluster in one process, on a virtual clock, from one seed: hosts, what runs on them, and what is done to them.

How time passes and how messages travel is in :mod:`pyminuteman.testing.simulation.engine`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from pyminuteman.addresses import Endpoint, NodeId
from pyminuteman.membership.config import MembershipConfig
from pyminuteman.membership.effects import Effect
from pyminuteman.membership.messages import Peer
from pyminuteman.membership.records import Record
from pyminuteman.membership.sealing import BOOT_BYTES
from pyminuteman.testing.simulation.clock import Clock
from pyminuteman.testing.simulation.engine import Engine, Wire
from pyminuteman.testing.simulation.engine import SimulationFailed as SimulationFailed
from pyminuteman.testing.simulation.faults import CLEAN, Faults
from pyminuteman.testing.simulation.process import Core, Disk, Host, Packet, Process
from pyminuteman.testing.simulation.sealed_wire import key_of, ring_of
from pyminuteman.testing.simulation.seeds import seeded
from pyminuteman.testing.simulation.story import Story
from pyminuteman.testing.simulation.truth import Truth

__all__ = ["CoreFactory", "Simulation", "SimulationFailed"]

PORT = 61420
"""Where every simulated node listens."""
CONTACTS = 3
"""How many of the first hosts the others are told of."""
TOPIC = "simulation"
"""Of the packets that the world itself has sent."""
GOODBYES = 3
GOODBYE_PAUSE_SECONDS = 0.04
"""A process says goodbye so often, with that pause after each, and ends."""


class CoreFactory(Protocol):
    """Makes the core of a node: :class:`~pyminuteman.membership.node.MembershipNode` itself, as a rule."""

    def __call__(self, me: Record, *, config: MembershipConfig, rng: random.Random, wall_offset: float) -> Core:
        """A node that has not started."""


class Simulation(Engine):
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
        self.config = config or MembershipConfig.lan()
        super().__init__(seed, faults, wire or _codec_wire(self.config))
        self.hosts: list[Host] = []
        self.truth = Truth(self)
        self.story = story or Story()
        self.packets: list[Packet] = []
        """Every multicast packet that was sent."""
        self.lives: dict[NodeId, list[Process]] = {}
        """Every process that ever ran, by id, in order."""
        self._core = core or _real_core()
        self._names: dict[NodeId, str] = {}
        for _ in range(nodes):
            self.add_host()
        if start_within_seconds is not None:
            for host in self.hosts:
                at = start_within_seconds * host.index / max(1, nodes - 1)
                self.call_at(at, self.start, host)

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
        boot = rng.randbytes(BOOT_BYTES)
        ring = ring_of(host.keys, boot) if host.keys else None
        me = Record(
            id=disk.id,
            epoch=disk.epoch,
            version=1,
            name=host.name,
            endpoint=host.endpoint,
            keys=ring.key_ids if ring else (),
            protocol=host.protocol,
        )
        node = self._core(me, config=self.config, rng=rng, wall_offset=host.clock.wall_offset)
        if disk.id not in self._names:
            self._names[disk.id] = host.name + "'" * len({life.id for life in host.lives})
        process = Process(host, self._names[disk.id], node, disk.id, disk.epoch, boot, ring, self.now)
        host.process = process
        host.lives.append(process)
        self.lives.setdefault(process.id, []).append(process)
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
            if self.ask(host, lambda core, now: core.multicast(TOPIC, payload, now)):
                self.packets.append(packet)

    def change_keys(self, host: Host, numbers: tuple[int, ...]) -> None:
        """Make these the keys of a host, the one to seal with first: on its disk, in its keyring, and in what it says of itself."""
        host.keys = numbers
        ring = host.process.ring if host.process else None
        if ring is None:
            return
        for number in numbers:
            ring.install(key_of(number))
        ring.use(key_of(numbers[0]).id)
        for key in set(ring.key_ids) - {key_of(number).id for number in numbers}:
            ring.remove(key)
        self.ask(host, lambda core, now: core.update(now, keys=ring.key_ids))

    def ask(self, host: Host, request: Callable[[Core, float], list[Effect]]) -> bool:
        """Call the core of a host's process as its user would; False when none runs, it is paused, or it has left."""
        process = host.process
        if process is None or process.paused or process.left_at is not None:
            return False
        self._carry_out(process, request(process.node, process.local_time(self.now)))
        return True


def _codec_wire(config: MembershipConfig) -> Wire:
    from pyminuteman.testing.simulation.wire import CodecWire  # noqa: PLC0415 - the stand-ins of tests need neither

    return CodecWire(config)


def _real_core() -> CoreFactory:
    from pyminuteman.membership.node import MembershipNode  # noqa: PLC0415 - likewise

    return MembershipNode
