"""Scenarios drawn from a seed: a cluster, a world, and acts, each a few faults after which everything has to come right.

A seed stands for one scenario. Its remainder by the number of families says of which family it is, so any range of seeds has some
of all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count

from pyminuteman.membership.config import MembershipConfig
from pyminuteman.testing.simulation.bounds import Bounds
from pyminuteman.testing.simulation.faults import CLEAN, Faults
from pyminuteman.testing.simulation.operations import (
    Cut,
    Heal,
    Kill,
    Leave,
    Multicast,
    Operation,
    Partition,
    Pause,
    Restart,
    SetKeys,
    SetTags,
    Start,
    Upgrade,
)
from pyminuteman.testing.simulation.seeds import seeded

__all__ = ["FAMILIES", "Scenario", "draw", "family_of"]

_LATER_PROTOCOL = (1, 2)


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is run.

    Attributes:
        seed: Of the scenario, and of the world in which it runs.
        family: What kind of trouble it is about.
        nodes: How many hosts there are.
        config: The constants of every node.
        faults: How bad network and clocks are throughout.
        acts: Operations, their times counted from the beginning of their act. The first act starts the cluster. After each act
            the world is left alone until everything is as it should be.
        sealed: Whether datagrams are sealed, all nodes holding key 1 from the start.
    """

    seed: int
    family: str
    nodes: int
    config: MembershipConfig
    faults: Faults
    acts: tuple[tuple[Operation, ...], ...]
    sealed: bool = False

    def __str__(self) -> str:
        return f"seed {self.seed} ({self.family}): {self.nodes} nodes, active view of {self.config.active_view_size}"


class _Draw:
    """A scenario in the making."""

    def __init__(self, seed: int) -> None:
        self.rng = seeded("scenario", seed)
        self.nodes = self.rng.choice((5, 5, 6, 6, 7, 7, 8, 8, 9, 10, 16))
        view = self.rng.choice((3, 4, 5, 7) if self.nodes <= 8 else (4, 5, 7))  # noqa: PLR2004 - log2(n): what keeps a graph whole
        self.config = replace(
            MembershipConfig.lan(),
            active_view_size=view,
            passive_view_size=6 * view,
            shuffle_active_size=min(3, view),
            shuffle_interval_seconds=self.rng.choice((2.0, 30.0)),
        )
        self.packets = count(1)

    @property
    def bounds(self) -> Bounds:
        """What the protocol is held to, in a clean world."""
        return Bounds(self.config, CLEAN, self.nodes)

    def hosts(self, most: int, least: int = 1) -> tuple[int, ...]:
        """So many hosts, in order."""
        number = self.rng.randint(min(least, self.nodes - 2), max(least, min(most, self.nodes - 2)))
        return tuple(sorted(self.rng.sample(range(self.nodes), number)))

    def host(self) -> int:
        """One host."""
        return self.rng.randrange(self.nodes)

    def at(self, seconds: float = 1.0) -> float:
        """Some time within so many seconds."""
        return round(self.rng.uniform(0.0, seconds), 3)

    def formation(self) -> tuple[Operation, ...]:
        """All start: at once, one after the other, or in between."""
        within = self.rng.choice((0.0, 0.2, 1.0))
        return tuple(Start(round(within * host / self.nodes, 3), host) for host in range(self.nodes))

    def use(self, seconds: float = 1.0) -> list[Operation]:
        """What users do meanwhile."""
        done: list[Operation] = [
            Multicast(self.at(seconds), self.host(), next(self.packets), self.rng.choice((10, 200, 1500, 20_000)))
            for _ in range(self.rng.randint(0, 3))
        ]
        done += [SetTags(self.at(seconds), self.host(), f"v{next(self.packets)}") for _ in range(self.rng.randint(0, 2))]
        return done

    def split(self) -> tuple[tuple[int, ...], ...]:
        """All hosts, in two or three groups."""
        order = self.rng.sample(range(self.nodes), self.nodes)
        groups = 3 if self.nodes >= 9 and self.rng.random() < 0.3 else 2  # noqa: PLR2004 - three of three, now and then
        cuts = sorted(self.rng.sample(range(1, self.nodes), groups - 1))
        return tuple(
            tuple(sorted(order[begin:end])) for begin, end in zip((0, *cuts), (*cuts, self.nodes), strict=True)
        )  # fmt: skip


_Acts = list[list[Operation]]


def _deaths(draw: _Draw) -> tuple[Faults, _Acts]:
    """Nodes die, alone and together; some come back, as themselves or as somebody new. The network is clean."""
    third = max(1, draw.nodes // 3)
    victims = draw.hosts(third)
    acts: _Acts = [[Kill(draw.at(), victims), *draw.use()]]
    back: list[Operation] = [Start(draw.at(), host) for host in victims if draw.rng.random() < 0.8]  # noqa: PLR2004
    if back:
        acts.append(back + draw.use())
    acts.append([Kill(draw.at(0.2), draw.hosts(1)), *draw.use()])
    return replace(CLEAN, wall_skew_seconds=draw.rng.choice((0.0, 5.0))), acts


def _restarts(draw: _Draw) -> tuple[Faults, _Acts]:
    """Restarts so fast that nobody noticed the death, with and without the disk; goodbyes; rolling restarts."""
    acts: _Acts = []
    acts.append([Restart(draw.at(), host, draw.rng.random() < 0.6) for host in draw.hosts(4)] + draw.use())  # noqa: PLR2004
    pace = draw.rng.choice((0.3, 0.6))
    rolling: list[Operation] = [Restart(pace * number, host, True) for number, host in enumerate(draw.hosts(4, least=3))]
    acts.append(rolling + draw.use())
    acts.append([Leave(draw.at(), host) for host in draw.hosts(2)] + draw.use(0.1))
    return replace(CLEAN, wall_skew_seconds=draw.rng.choice((0.0, 30.0)), clock_drift=1e-4), acts


def _pauses(draw: _Draw) -> tuple[Faults, _Acts]:
    """Freezes, short and long, of one and of several."""
    bounds = draw.bounds
    acts: _Acts = []
    short = round(draw.rng.uniform(0.02, bounds.forgiven_pause), 3)
    acts.append([Pause(draw.at(), draw.hosts(1), short)])
    several: list[Operation] = [
        Pause(draw.at(), (host,), round(draw.rng.uniform(0.02, bounds.forgiven_pause), 3)) for host in draw.hosts(3)
    ]
    acts.append([*several, *draw.use()])
    acts.append([Pause(draw.at(), draw.hosts(2), round(draw.rng.uniform(1.0, 4.0), 3)), *draw.use()])
    return replace(CLEAN, clock_drift=draw.rng.choice((0.0, 1e-4))), acts


def _partitions(draw: _Draw) -> tuple[Faults, _Acts]:
    """The network falls apart, both ways or one way, for good or for a moment, and heals."""
    acts: _Acts = []
    groups = draw.split()
    acts.append([Partition(0.1, groups), *draw.use()])
    if draw.rng.random() < 0.5:  # noqa: PLR2004 - every other time somebody dies where half do not see it
        acts[-1].append(Kill(draw.at(), draw.hosts(1)))
    acts.append([Heal(0.0), *draw.use()])
    if draw.rng.random() < 0.5:  # noqa: PLR2004
        one, other = draw.split()[:2]
        acts.append([Cut(0.0, one, other), Heal(round(draw.rng.uniform(0.2, 4.0), 3))])
    else:
        source, target = draw.rng.sample(range(draw.nodes), 2)
        acts.append([Cut(0.0, (source,), (target,)), *draw.use(), Heal(round(draw.rng.uniform(1.0, 4.0), 3))])
    return CLEAN, acts


def _losses(draw: _Draw) -> tuple[Faults, _Acts]:
    """Datagrams are lost, doubled and overtaken, and nodes die and start meanwhile."""
    faults = replace(
        CLEAN,
        loss=draw.rng.choice((0.01, 0.02, 0.05)),
        duplication=draw.rng.choice((0.0, 0.05, 0.2)),
        reordering=draw.rng.choice((0.0, 0.1)),
        delay_mean_seconds=draw.rng.choice((0.0005, 0.003)),
    )
    acts: _Acts = [
        draw.use(),
        [Kill(draw.at(), draw.hosts(1)), *draw.use()],
        [Restart(draw.at(), draw.host(), True), *draw.use()],
    ]
    return faults, acts


def _upgrade(draw: _Draw) -> tuple[Faults, _Acts]:
    """A release with a later protocol version is rolled out to up to seven nodes, one at a time, and some are rolled back."""
    order = draw.rng.sample(range(draw.nodes), min(draw.nodes, 7))
    pace = draw.rng.choice((0.15, 0.4))
    acts: _Acts = [
        [Upgrade(round(pace * number, 3), host, _LATER_PROTOCOL) for number, host in enumerate(order)] + draw.use(2.0)
    ]
    half = order[:2]
    acts.append([Upgrade(round(pace * number, 3), host, (1, 1)) for number, host in enumerate(half)] + draw.use(2.0))
    return CLEAN, acts


def _keys(draw: _Draw) -> tuple[Faults, _Acts]:
    """The cluster's key is changed: the new one is held everywhere, then used everywhere, then the old one is held no more."""
    acts: _Acts = []
    for keys in ((1, 2), (2, 1), (2,)):
        step: list[Operation] = [SetKeys(draw.at(), host, keys) for host in range(draw.nodes)]
        acts.append(step + draw.use())
    if draw.rng.random() < 0.5:  # noqa: PLR2004 - every other time somebody is away when the new key is used
        away = draw.host()
        acts[1] += [Kill(0.0, (away,)), Start(1.2, away)]
    return replace(CLEAN, duplication=draw.rng.choice((0.0, 0.1)), loss=draw.rng.choice((0.0, 0.01))), acts


def _chaos(draw: _Draw) -> tuple[Faults, _Acts]:
    """Everything at once."""
    faults = replace(
        CLEAN,
        loss=draw.rng.choice((0.0, 0.02, 0.1)),
        duplication=draw.rng.choice((0.0, 0.1)),
        reordering=draw.rng.choice((0.0, 0.1)),
        wall_skew_seconds=draw.rng.choice((0.0, 10.0)),
        clock_drift=1e-4,
    )
    seconds = 4.0
    act: list[Operation] = draw.use(seconds)
    for _ in range(draw.rng.randint(4, 10)):
        time, host = draw.at(seconds), draw.host()
        act.append(
            draw.rng.choice(
                (
                    Kill(time, draw.hosts(2)),
                    Restart(time, host, True),
                    Restart(time, host, False),
                    Pause(time, draw.hosts(2), round(draw.rng.uniform(0.05, 2.0), 3)),
                    Partition(time, draw.split()),
                    Cut(time, (host,), draw.hosts(3)),
                    Heal(time),
                    Leave(time, host),
                )
            )
        )
    act.append(Heal(seconds))
    start: list[Operation] = [Start(draw.at(), host) for host in range(draw.nodes)]
    return faults, [act, start + draw.use()]


FAMILIES: dict[str, Callable[[_Draw], tuple[Faults, _Acts]]] = {
    "deaths": _deaths,
    "restarts": _restarts,
    "pauses": _pauses,
    "partitions": _partitions,
    "losses": _losses,
    "upgrade": _upgrade,
    "keys": _keys,
    "chaos": _chaos,
}
"""What kinds of trouble there are. A seed's remainder picks one, in this order."""


def family_of(seed: int) -> str:
    """The family of a seed."""
    return tuple(FAMILIES)[seed % len(FAMILIES)]


def draw(seed: int) -> Scenario:
    """The scenario of a seed."""
    drawn = _Draw(seed)
    family = family_of(seed)
    formation = drawn.formation()
    faults, acts = FAMILIES[family](drawn)
    ordered = [tuple(sorted(act, key=lambda operation: operation.time)) for act in acts]
    return Scenario(seed, family, drawn.nodes, drawn.config, faults, (formation, *ordered), sealed=family == "keys")
