"""What is done when, from a seed alone. Pure.

Rounds follow each other; each begins when all kernels are as they should be. In a round a few scenarios run beside each other, each on
nodes of its own, so that the order in which their steps come does not matter. They come from a shuffled deck: none comes again before all
were there. What a scenario leaves (a node that is down, a drain) a later round takes back.

Node 0 is never disturbed: there the steady client is. Those that are out of reach at a time are never more than a minority.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from random import Random
from typing import Final

from tests.soak.steps import Document, Kind, Step

__all__ = ["PORTS", "SCENARIOS", "STEADY_VIP", "Planner", "first_document"]

STEADY_VIP: Final = "11.0.0.1:80"
PORTS: Final = (8000, 8001)
"""Every node has backends at these, also where its source does not say so."""
SCENARIOS_PER_ROUND: Final = 3
_WINDOW_SECONDS: Final = 8.0
_SHARED_VIPS: Final = tuple(f"11.0.200.{number}:80" for number in range(1, 9))
_REPAIRS_MOST: Final = 3
_REPAIRS_ROUNDS: Final = 60
"""A daemon that has repaired five times in ten minutes looks less often (docs/daemon.md); a round takes more than ten seconds."""
_LOST_ROUNDS: Final = 4
"""For so long a node that has lost its state says nothing new: see :mod:`tests.soak.world`."""


def first_document(node: int) -> Document:
    """What a node's source says at the beginning: a part of the steady VIP, and a VIP of its own."""
    return {STEADY_VIP: {PORTS[0]: 1}, f"11.0.{node + 1}.1:80": {PORTS[0]: 1, PORTS[1]: 2}}


class Planner:
    """Rounds for a cluster of `size` nodes, one after the other.

    Args:
        seed: The same seed plans the same.
        size: 5 nodes or more.
    """

    def __init__(self, seed: int, size: int) -> None:
        self._dice = Random(seed)  # noqa: S311 - a schedule, no secret
        self._documents = [first_document(node) for node in range(size)]
        self._minority = (size - 1) // 2
        self._gone: set[int] = set()
        self._kept: dict[int, int] = {}  # node: the round from which on it is free again
        self._later: dict[int, list[Step]] = {}
        self._repairs: dict[int, deque[int]] = {node: deque(maxlen=_REPAIRS_MOST) for node in range(size)}
        self._deck: list[str] = []
        self._foreign_number = 0
        self._round = 0
        self._free: list[int] = []
        self._out = 0

    def rounds(self) -> Iterator[list[Step]]:
        """Steps of a round each, in the order of their times; without end."""
        while True:
            yield self._plan()

    def last(self) -> list[Step]:
        """A round that takes back all that is still to be taken back."""
        steps = [step for later in self._later.values() for step in later]
        self._later.clear()
        return sorted(steps, key=lambda step: step.at)

    def _plan(self) -> list[Step]:
        self._round += 1
        steps = self._later.pop(self._round, [])
        coming = {node for step in steps if step.kind in {Kind.JOIN, Kind.REVIVE} for node in step.nodes}
        self._out = len(self._gone)  # who comes back in this round is still out at its beginning
        self._gone -= coming
        self._free = [node for node in range(1, len(self._documents)) if self._kept.get(node, 0) <= self._round]
        self._dice.shuffle(self._free)
        for _ in range(SCENARIOS_PER_ROUND):
            if not self._deck:
                self._deck = list(SCENARIOS)
                self._dice.shuffle(self._deck)
            for name in list(self._deck):  # the first for which there are nodes
                found = SCENARIOS[name](self, self.seconds(0, _WINDOW_SECONDS / 2))
                if found:
                    self._deck.remove(name)
                    steps += found
                    break
        return sorted(steps, key=lambda step: step.at)

    # What scenarios are made of

    def take(self, count: int = 1, *, rounds: int = 1, out: bool = False, repaired: bool = False) -> tuple[int, ...]:
        """Nodes for a scenario alone, for so many rounds; fewer than wanted where there are no more, none where none may be.

        Args:
            count: How many.
            rounds: For how many rounds, this one included.
            out: Whether they will be out of reach.
            repaired: Whether their kernels will have to be repaired.
        """
        if out:
            count = min(count, self._minority - self._out)
        fit = [node for node in self._free if not repaired or self._may_be_repaired(node)][: max(0, count)]
        for node in fit:
            self._free.remove(node)
            self._kept[node] = self._round + rounds
            if repaired:
                self._repairs[node].append(self._round)
        self._out += len(fit) if out else 0
        return tuple(sorted(fit))

    def some(self, low: int, high: int) -> int:
        """A number from low to high."""
        return self._dice.randint(low, high)

    def seconds(self, low: float, high: float) -> float:
        """A time from low to high."""
        return round(self._dice.uniform(low, high), 2)

    def later(self, rounds: int, *steps: Step) -> None:
        """So many rounds from now these are to be done."""
        self._later.setdefault(self._round + rounds, []).extend(steps)

    def gone(self, nodes: tuple[int, ...]) -> None:
        """These stay away beyond this round."""
        self._gone.update(nodes)

    def vip_of(self, node: int) -> str:
        """One of a node's VIPs, whichever."""
        return self._dice.choice(sorted(self._documents[node]))

    def port_of(self, node: int, vip: str) -> int:
        """One of a node's ports behind a VIP."""
        return self._dice.choice(sorted(self._documents[node][vip]))

    def document(self, node: int) -> Document:
        """What it says."""
        return self._documents[node]

    def edited(self, node: int) -> Document:
        """What it may say next: another weight, VIPs that come and go; the steady one stays."""
        said = {STEADY_VIP: {PORTS[0]: self.some(1, 3)}}
        for number in range(1, 4):
            if self._dice.randint(0, 2):
                said[f"11.0.{node + 1}.{number}:80"] = {port: self.some(1, 5) for port in PORTS[: self.some(1, 2)]}
        for vip in self._dice.sample(_SHARED_VIPS, self.some(0, 2)):
            said[vip] = {PORTS[0]: self.some(1, 5)}
        return said

    def say(self, at: float, node: int, document: Document, *, for_good: bool = True) -> Step:
        """Its source says this."""
        if for_good:
            self._documents[node] = document
        return Step(at, Kind.SAY, (node,), document)

    def foreign_vip(self, *, managed: bool) -> str:
        """Where nobody of ours has a service yet."""
        self._foreign_number += 1
        return f"{'11' if managed else '12'}.9.{self._foreign_number >> 8}.{self._foreign_number & 255}:80"

    def _may_be_repaired(self, node: int) -> bool:
        before = self._repairs[node]
        return len(before) < _REPAIRS_MOST or before[0] < self._round - _REPAIRS_ROUNDS


Scenario = Callable[[Planner, float], list[Step]]
"""From the planner and a beginning to steps; none where there is no node for it."""


def _leave_and_join(plan: Planner, at: float) -> list[Step]:
    nodes = plan.take(1, out=True)
    return [Step(at, Kind.LEAVE, nodes), Step(at + plan.seconds(1, 4), Kind.JOIN, nodes)] if nodes else []


def _leave(plan: Planner, at: float) -> list[Step]:
    nodes = plan.take(plan.some(1, 2), rounds=2, out=True)
    if not nodes:
        return []
    plan.gone(nodes)
    plan.later(1, Step(plan.seconds(0, 3), Kind.JOIN, nodes))
    return [Step(at, Kind.LEAVE, nodes)]


def _panic(plan: Planner, at: float) -> list[Step]:
    rounds = plan.some(1, 2)
    nodes = plan.take(plan.some(1, 4), rounds=rounds + 1, out=True)
    if not nodes:
        return []
    plan.gone(nodes)
    plan.later(rounds, Step(plan.seconds(0, 3), Kind.REVIVE, nodes))
    return [Step(at, Kind.PANIC, nodes)]


def _lose_state(plan: Planner, at: float) -> list[Step]:
    nodes = plan.take(1, rounds=_LOST_ROUNDS, out=True)
    back = at + plan.seconds(2, 5)
    steps = [Step(at, Kind.PANIC, nodes), Step(back, Kind.LOSE_STATE, nodes), Step(back + 0.1, Kind.REVIVE, nodes)]
    return steps if nodes else []


def _kill(plan: Planner, at: float) -> list[Step]:
    nodes = plan.take(plan.some(1, 3))
    return [Step(at + plan.seconds(0, 2), Kind.KILL, (node,)) for node in nodes]


def _flap(plan: Planner, at: float) -> list[Step]:
    nodes, steps = plan.take(1, out=True), []
    for _ in range(plan.some(1, 3) if nodes else 0):
        back = at + plan.seconds(0.3, 3)
        steps += [Step(at, Kind.CUT, nodes), Step(back, Kind.MEND, nodes)]
        at = back + plan.seconds(0.1, 1)
    return steps


def _partition(plan: Planner, at: float) -> list[Step]:
    nodes = plan.take(plan.some(2, 4), out=True)
    return [Step(at, Kind.CUT, nodes), Step(at + plan.seconds(3, 8), Kind.MEND, nodes)] if nodes else []


def _freeze(plan: Planner, at: float) -> list[Step]:
    nodes = plan.take(plan.some(1, 2), out=True)
    return [Step(at, Kind.FREEZE, nodes), Step(at + plan.seconds(0.3, 3), Kind.THAW, nodes)] if nodes else []


def _drain_node(plan: Planner, at: float) -> list[Step]:
    rounds = plan.some(0, 1)
    nodes = plan.take(1, rounds=rounds + 1)
    if not nodes:
        return []
    back = Step(plan.seconds(0, 4) + (0 if rounds else at + 1), Kind.UNDRAIN_NODE, nodes)
    if rounds:
        plan.later(rounds, back)
    return [Step(at, Kind.DRAIN_NODE, nodes), *([] if rounds else [back])]


def _drain_backend(plan: Planner, at: float) -> list[Step]:
    nodes = plan.take(1, rounds=2)
    if not nodes:
        return []
    vip = plan.vip_of(nodes[0])
    port = plan.port_of(nodes[0], vip)
    plan.later(1, Step(plan.seconds(0, 4), Kind.UNDRAIN_BACKEND, nodes, vip=vip, port=port))
    return [Step(at, Kind.DRAIN_BACKEND, nodes, vip=vip, port=port)]


def _weight(plan: Planner, at: float) -> list[Step]:
    nodes = plan.take(1, rounds=2)
    if not nodes:
        return []
    vip = plan.vip_of(nodes[0])
    port = plan.port_of(nodes[0], vip)
    plan.later(1, Step(plan.seconds(0, 4), Kind.CLEAR_WEIGHT, nodes, vip=vip, port=port))
    weights = [plan.some(0, 100) for _ in range(plan.some(1, 3))]
    return [Step(at + 0.2 * turn, Kind.WEIGHT, nodes, vip=vip, port=port, weight=one) for turn, one in enumerate(weights)]


def _broken_source(plan: Planner, at: float) -> list[Step]:
    nodes = plan.take(1)
    if not nodes:
        return []
    return [Step(at, Kind.BREAK_SOURCE, nodes), plan.say(at + plan.seconds(1, 7), nodes[0], plan.edited(nodes[0]))]


def _empty_source(plan: Planner, at: float) -> list[Step]:
    nodes = plan.take(1)
    if not nodes:
        return []
    return [plan.say(at, nodes[0], {}, for_good=False), plan.say(at + plan.seconds(0.1, 4), nodes[0], plan.document(nodes[0]))]


def _edits(plan: Planner, at: float) -> list[Step]:
    nodes = plan.take(1)
    pause = plan.seconds(0.01, 0.3)
    return [
        plan.say(round(at + turn * pause, 2), nodes[0], plan.edited(nodes[0]))
        for turn in range(plan.some(8, 24) if nodes else 0)
    ]


def _vips(plan: Planner, at: float) -> list[Step]:
    return [plan.say(at + plan.seconds(0, 1), node, plan.edited(node)) for node in plan.take(plan.some(2, 4))]


def _interference(plan: Planner, at: float) -> list[Step]:
    steps = []
    for kind in (Kind.DELETE_DESTINATION, Kind.CHANGE_WEIGHT, Kind.DELETE_SERVICE):
        for node in plan.take(1, repaired=True):
            vip = plan.vip_of(node)
            steps.append(Step(at + plan.seconds(0, 2), kind, (node,), vip=vip, port=plan.port_of(node, vip)))
    return steps


def _foreign(plan: Planner, at: float) -> list[Step]:
    steps = []
    for node in plan.take(plan.some(1, 2), rounds=3):
        vip = plan.foreign_vip(managed=bool(plan.some(0, 1)))
        plan.later(2, Step(plan.seconds(0, 4), Kind.REMOVE_FOREIGN, (node,), vip=vip))
        steps.append(Step(at, Kind.ADD_FOREIGN, (node,), vip=vip))
    return steps


def _foreign_in_the_way(plan: Planner, at: float) -> list[Step]:
    """Somebody else's service is there, is wanted as a VIP of ours by another node, and goes."""
    where, who = plan.take(1, rounds=3, repaired=True), plan.take(1, rounds=3)
    if not where or not who:
        return []
    vip = plan.foreign_vip(managed=True)
    plan.later(1, plan.say(plan.seconds(0, 3), who[0], {**plan.document(who[0]), vip: {PORTS[0]: 2}}))
    plan.later(2, Step(plan.seconds(0, 3), Kind.REMOVE_FOREIGN, where, vip=vip))
    return [Step(at, Kind.ADD_FOREIGN, where, vip=vip)]


def _reload(plan: Planner, at: float) -> list[Step]:
    steps = []
    for node in plan.take(2):
        steps += [Step(at, Kind.RELOAD, (node,)), Step(at + plan.seconds(0.2, 2), Kind.BREAK_CONFIG, (node,))]
    return steps


def _full_disk(plan: Planner, at: float) -> list[Step]:
    """Its own VIPs change, and another's, while a node can write nothing down."""
    nodes, others = plan.take(1, rounds=2), plan.take(1)
    if not nodes:
        return []
    steps = [Step(at, Kind.FILL_DISK, nodes), Step(at + plan.seconds(2, 5), Kind.FREE_DISK, nodes)]
    return steps + [plan.say(at + plan.seconds(0.5, 1.5), node, plan.edited(node)) for node in nodes + others]


SCENARIOS: Final[dict[str, Scenario]] = {
    "leave and join": _leave_and_join,
    "leave": _leave,
    "panic": _panic,
    "lose state": _lose_state,
    "kill": _kill,
    "flap": _flap,
    "partition": _partition,
    "freeze": _freeze,
    "drain node": _drain_node,
    "drain backend": _drain_backend,
    "weight": _weight,
    "broken source": _broken_source,
    "empty source": _empty_source,
    "edits": _edits,
    "VIPs": _vips,
    "interference": _interference,
    "foreign": _foreign,
    "foreign in the way": _foreign_in_the_way,
    "reload": _reload,
    "full disk": _full_disk,
}
