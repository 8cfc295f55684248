"""What a scenario does to the world, as data: each says when, can be printed, and knows how to be done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from pyminuteman.testing.simulation.world import Simulation

__all__ = [
    "Cut",
    "Heal",
    "Kill",
    "Leave",
    "Multicast",
    "Operation",
    "Partition",
    "Pause",
    "Restart",
    "SetKeys",
    "SetTags",
    "Start",
    "Upgrade",
]


def _names(hosts: tuple[int, ...]) -> str:
    return " ".join(f"n{host + 1:02d}" for host in hosts)


@dataclass(frozen=True, slots=True)
class Start:
    """Start a process on a host that has none; ``time`` is in seconds, as in all of these, and hosts are numbers from 0."""

    time: float
    host: int

    def __str__(self) -> str:
        return f"start {_names((self.host,))}"

    def apply(self, world: Simulation) -> None:
        """Do it."""
        world.start(world.hosts[self.host])


@dataclass(frozen=True, slots=True)
class Kill:
    """End processes at once, with no word to anybody."""

    time: float
    hosts: tuple[int, ...]

    def __str__(self) -> str:
        return f"kill {_names(self.hosts)}"

    def apply(self, world: Simulation) -> None:
        """Do it."""
        for host in self.hosts:
            world.kill(world.hosts[host])


@dataclass(frozen=True, slots=True)
class Restart:
    """End the process if one runs, and start another: the same node with its disk, somebody new without."""

    time: float
    host: int
    disk: bool

    def __str__(self) -> str:
        return f"restart {_names((self.host,))} {'with its disk' if self.disk else 'without its disk'}"

    def apply(self, world: Simulation) -> None:
        """Do it."""
        host = world.hosts[self.host]
        world.kill(host)
        if not self.disk:
            world.lose_disk(host)
        world.start(host)


@dataclass(frozen=True, slots=True)
class Upgrade:
    """Restart with the disk, in a release that speaks these protocol versions (lowest, highest)."""

    time: float
    host: int
    protocol: tuple[int, int]

    def __str__(self) -> str:
        return f"upgrade {_names((self.host,))} to protocol versions {self.protocol[0]} to {self.protocol[1]}"

    def apply(self, world: Simulation) -> None:
        """Do it."""
        host = world.hosts[self.host]
        world.kill(host)
        host.protocol = self.protocol
        world.start(host)


@dataclass(frozen=True, slots=True)
class Pause:
    """Freeze processes for so many seconds."""

    time: float
    hosts: tuple[int, ...]
    seconds: float

    def __str__(self) -> str:
        return f"pause {_names(self.hosts)} for {self.seconds:.3f} s"

    def apply(self, world: Simulation) -> None:
        """Do it."""
        for host in self.hosts:
            world.pause(world.hosts[host], self.seconds)


@dataclass(frozen=True, slots=True)
class Partition:
    """Cut groups of hosts off from each other."""

    time: float
    groups: tuple[tuple[int, ...], ...]

    def __str__(self) -> str:
        return f"partition {' | '.join(map(_names, self.groups))}"

    def apply(self, world: Simulation) -> None:
        """Do it."""
        world.partition(*([world.hosts[host] for host in group] for group in self.groups))


@dataclass(frozen=True, slots=True)
class Cut:
    """Lose whatever goes from these hosts to those; the other way stays open."""

    time: float
    sources: tuple[int, ...]
    targets: tuple[int, ...]

    def __str__(self) -> str:
        return f"cut {_names(self.sources)} -> {_names(self.targets)}"

    def apply(self, world: Simulation) -> None:
        """Do it."""
        world.cut([world.hosts[host] for host in self.sources], [world.hosts[host] for host in self.targets])


@dataclass(frozen=True, slots=True)
class Heal:
    """Undo every partition and cut."""

    time: float

    def __str__(self) -> str:
        return "heal the network"

    def apply(self, world: Simulation) -> None:
        """Do it."""
        world.heal()


@dataclass(frozen=True, slots=True)
class Leave:
    """Say goodbye and end."""

    time: float
    host: int

    def __str__(self) -> str:
        return f"{_names((self.host,))} leaves"

    def apply(self, world: Simulation) -> None:
        """Do it."""
        world.leave(world.hosts[self.host])


@dataclass(frozen=True, slots=True)
class Multicast:
    """Send a payload of so many bytes to everybody."""

    time: float
    host: int
    number: int
    size: int

    def __str__(self) -> str:
        return f"{_names((self.host,))} multicasts packet {self.number} of {self.size} bytes"

    def apply(self, world: Simulation) -> None:
        """Do it."""
        world.multicast(world.hosts[self.host], self.number, self.size)


@dataclass(frozen=True, slots=True)
class SetTags:
    """Change what a node says of itself."""

    time: float
    host: int
    value: str

    def __str__(self) -> str:
        return f"{_names((self.host,))} sets its tag to {self.value}"

    def apply(self, world: Simulation) -> None:
        """Do it."""
        tags = {"value": self.value}
        world.ask(world.hosts[self.host], lambda core, now: core.update(now, tags=tags))


@dataclass(frozen=True, slots=True)
class SetKeys:
    """One step of a change of keys on one node: from now on it holds the keys of these numbers, and seals with the first."""

    time: float
    host: int
    keys: tuple[int, ...]

    def __str__(self) -> str:
        return f"{_names((self.host,))} holds keys {' '.join(map(str, self.keys))} and seals with {self.keys[0]}"

    def apply(self, world: Simulation) -> None:
        """Do it."""
        world.change_keys(world.hosts[self.host], self.keys)


Operation: TypeAlias = Start | Kill | Restart | Upgrade | Pause | Partition | Cut | Heal | Leave | Multicast | SetTags | SetKeys
