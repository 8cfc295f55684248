"""The store in the simulation: it rides on the simulated nodes, writes while faults happen, and has to come right after each act.

A node's core is the membership's with a replica of the store on it, put together as the driver does. What it says goes through the
store's codec, then through the membership's. The disk of the store is one of three: as it was a moment ago, as it was some time
before, or lost, whatever became of the node's identity.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from pyminuteman.addresses import Endpoint, NodeId
from pyminuteman.kv.codec import decode, encode
from pyminuteman.kv.crdt import State
from pyminuteman.kv.entries import Log
from pyminuteman.kv.lives import Presence
from pyminuteman.kv.messages import BUCKETS
from pyminuteman.kv.operations import Add, AddElement, Enable, Operation, Remove, RemoveElement, SharedKey
from pyminuteman.kv.replica import Replica
from pyminuteman.kv.replication import Cast, Output
from pyminuteman.kv.store import StoreLimits
from pyminuteman.kv.versions import Actor
from pyminuteman.membership.config import MembershipConfig
from pyminuteman.membership.effects import (
    Delivered,
    Effect,
    EpochTaken,
    MemberDown,
    MemberLeft,
    MemberSuspect,
    MemberUp,
    MemberUpdated,
    Notification,
    Notify,
    Received,
    ViewChanged,
)
from pyminuteman.membership.messages import Peer
from pyminuteman.membership.node import MembershipNode
from pyminuteman.membership.records import Record
from pyminuteman.testing.simulation.seeds import seeded
from pyminuteman.testing.simulation.world import Simulation

__all__ = ["COUNTER", "FLAG", "LIMITS", "TOKENS", "StoreCore", "StoreCores", "Write", "writes"]

LIMITS: Final = StoreLimits(lease_seconds=3.0)
TOKENS: Final = SharedKey.set("tokens")
"""Every element is added once, so one that is gone must not come back."""
COUNTER: Final = SharedKey.counter("n")
FLAG: Final = SharedKey.flag("f")
_TOPIC: Final = "kv"
_KEYS: Final = 6


@dataclass(slots=True)
class _Disk:
    """What the database of one node holds."""

    logs: list[tuple[NodeId, int, int, int, dict[str, tuple[int, bytes]]]]
    states: list[tuple[SharedKey, State]]


class StoreCore(MembershipNode):
    """A node with a replica of the store on it.

    Args:
        me, config, rng, wall_offset: As :class:`~pyminuteman.membership.node.MembershipNode` has them.
        cores: Where its disk is, and who wants to know what changes.
    """

    def __init__(self, me: Record, *, config: MembershipConfig, rng: Random, wall_offset: float, cores: StoreCores) -> None:
        super().__init__(me, config=config, rng=rng, wall_offset=wall_offset)
        self._cores = cores
        self._has_left = False
        self.replica = Replica(Actor(me.id, me.epoch), limits=LIMITS, random=rng, wall_offset=wall_offset)

    @property
    def next_wake(self) -> float:
        """When either wants to be woken."""
        mine = super().next_wake
        return mine if self._has_left else min(mine, self.replica.next_wake)

    def start(self, now: float, *, contacts: Sequence[Endpoint] = (), known: Sequence[Peer] = ()) -> list[Effect]:
        """Begin, with what is on the disk."""
        disk = self._cores.disks.get(self.me.id)
        entries: dict[str, bytes] = {}
        if disk is not None:
            logs = [Log.restored(*stored) for stored in disk.logs]
            entries = self.replica.restore(logs, disk.states, now)
        effects = super().start(now, contacts=contacts, known=known)
        return self._ride(effects, self.replica.start(now, entries), now)

    def handle(self, event: Received, now: float) -> list[Effect]:
        """Take what arrived."""
        return self._ride(super().handle(event, now), (), now)

    def wake(self, now: float) -> list[Effect]:
        """Do what is due."""
        effects = super().wake(now)
        return effects if self._has_left else self._ride(effects, self.replica.wake(now), now)

    def leave(self, now: float) -> list[Effect]:
        """Say goodbye."""
        self._has_left = True
        return super().leave(now)

    def write(self, change: Mapping[str, bytes | None] | tuple[SharedKey, Operation], now: float) -> list[Effect]:
        """What a user does."""
        if isinstance(change, tuple):
            return self._ride([], self.replica.update(change[0], [change[1]], now), now)
        return self._ride([], self.replica.change_own(change), now)

    def save(self) -> None:
        """Have the disk as all is now."""
        owners, shared = self.replica.owners, self.replica.shared
        logs = [log for owner, _ in owners.shown() if (log := owners.log(owner)) is not None and log.consistent]
        self._cores.disks[self.me.id] = _Disk(
            [(log.owner, log.epoch, log.base, log.version, dict(log.entries)) for log in logs],
            [(key, state) for row in shared.named(one.key for one in shared.rows(range(BUCKETS))) for key, state in [row]],
        )

    def _ride(self, effects: Iterable[Effect], outputs: Iterable[Output], now: float) -> list[Effect]:
        """Give the replica what concerns it, and send what it says."""
        waiting = [*effects, *self._sent(outputs, now)]
        done: list[Effect] = []
        while waiting:
            effect = waiting.pop(0)
            done.append(effect)
            if isinstance(effect, Notify) and not self._has_left:
                waiting += self._sent(self._tell(effect.notification, now), now)
        if self.replica.owners.changed or self.replica.shared.changed:
            for listener in self._cores.listeners:
                listener(self)
            self.replica.owners.changed.clear()
            self.replica.shared.changed.clear()
        return done

    def _sent(self, outputs: Iterable[Output], now: float) -> list[Effect]:
        effects: list[Effect] = []
        for output in outputs:
            if isinstance(output, Cast):
                effects += self.multicast(_TOPIC, encode(output.message, origin=self.replica.me), now)
            else:
                effects += self.unicast(output.to, _TOPIC, encode(output.message))
        return effects

    def _tell(self, notification: Notification, now: float) -> list[Output]:
        replica = self.replica
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
            case Delivered(id_, topic, payload) if topic == _TOPIC:
                origin = Actor(id_.origin, id_.epoch) if id_.number else None
                message = decode(payload, origin=origin)
                return [] if message is None else replica.handle(message, id_.origin, now)
            case _:
                pass
        return []


class StoreCores:
    """Makes the cores of one world.

    Attributes:
        disks: What each node's database holds, by id.
        listeners: Called with a core whose replica has changed, before anything else happens.
    """

    def __init__(self, seed: int) -> None:
        self._random = seeded("store disks", seed)
        self.disks: dict[NodeId, _Disk] = {}
        self.listeners: list[Callable[[StoreCore], None]] = []
        self._last: dict[NodeId, StoreCore] = {}

    def __call__(self, me: Record, *, config: MembershipConfig, rng: Random, wall_offset: float) -> StoreCore:
        """A node that has not started; its disk as it is now, as it was when it was saved last, or lost."""
        fate = self._random.choice(("now", "then", "lost"))
        last = self._last.get(me.id)
        if fate == "now" and last is not None:
            last.save()
        elif fate == "lost":
            self.disks.pop(me.id, None)
        core = self._last[me.id] = StoreCore(me, config=config, rng=rng, wall_offset=wall_offset, cores=self)
        return core


@dataclass(frozen=True, slots=True)
class Write:
    """What a user of the store does on a host: see :meth:`StoreCore.write`; None saves what there is to the disk."""

    time: float
    host: int
    change: Mapping[str, bytes | None] | tuple[SharedKey, Operation] | None

    def __str__(self) -> str:
        return f"n{self.host + 1:02d} writes {self.change}" if self.change else f"n{self.host + 1:02d} saves its store"

    def apply(self, world: Simulation) -> None:
        """Do it."""
        process = world.hosts[self.host].process
        if process is None or not isinstance(process.node, StoreCore):
            return
        core, change = process.node, self.change
        if change is None:
            core.save()
        else:
            world.ask(world.hosts[self.host], lambda _, now: core.write(change, now))


def writes(random: Random, hosts: int, seconds: float, count: int) -> list[Write]:
    """So many writes, at random times within so many seconds, on random hosts; in the order of their times."""
    made = []
    for at in sorted(round(random.uniform(0.0, seconds), 3) for _ in range(count)):
        host = random.randrange(hosts)
        token = b"%08x" % random.getrandbits(32)
        keys = random.sample(range(_KEYS), random.choice((1, 1, 3)))
        change: Mapping[str, bytes | None] | tuple[SharedKey, Operation] | None = random.choice(
            (
                {f"k{key}": token for key in keys},
                {f"k{key}": token for key in keys},
                {f"k{key}": None for key in keys},
                {f"k{key}": None if key % 2 else token for key in keys},
                (TOKENS, AddElement(token)),
                (COUNTER, Add(random.randint(-3, 3))),
                (FLAG, random.choice((Enable(), Remove()))),
                (TOKENS, RemoveElement(b"")),
                None,
            )
        )
        made.append(Write(at, host, change))
    return made
