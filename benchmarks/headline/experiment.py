"""What one run of the experiment is: how many nodes and tasks, what happens when, and who dies."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

Form = Literal["daemons", "static"]
"""``daemons``: as it is. ``static``: the same tables, but every daemon is killed before the requests begin, and nobody repairs them."""

VIP = "11.0.0.1"
PORT = 80
FIRST_TASK_PORT = 8000
REALTIME_NODES_MOST = 15
"""On one processor, which they leave to the kernel's own threads and to whoever watches. 20 fell silent for each other, 40 did not come up."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """One run, in a kernel of its own.

    Attributes:
        nodes: That run tasks. There is one more, the testing node, which runs none.
        tasks: Behind the one VIP, spread evenly over the nodes.
        form: Whether anybody repairs the tables.
        seed: Of who dies, and of when each schedule begins.
        schedules: Independent clients; each begins a request at a fixed pace, whatever became of the last one.
        pace: Requests a second of each schedule.
        panic_seconds: When the nodes panic, after the first request.
        seconds: For which requests begin.
        patience_seconds: A request is given up so long after its begin.
        rest_seconds: For which the cluster at rest is measured.
        changes: How often a task, and how often a VIP, is added at a source before the panic.
        dead_share: How many of the nodes panic.
        scheduler: Of the VIP, in the kernel.
    """

    nodes: int = 40
    tasks: int = 1000
    form: Form = "daemons"
    seed: int = 0
    schedules: int = 10
    pace: float = 10.0
    panic_seconds: float = 5.0
    seconds: float = 20.0
    patience_seconds: float = 5.0
    rest_seconds: float = 15.0
    changes: int = 5
    dead_share: float = 0.125
    scheduler: str = "wlc"

    def __post_init__(self) -> None:
        """Raises ValueError: there are fewer than two nodes, or tasks that cannot be spread evenly."""
        if self.nodes < 2 or self.tasks < self.nodes or self.tasks % self.nodes:
            raise ValueError(f"{self.tasks} tasks cannot be spread evenly over {self.nodes} nodes")

    @property
    def tester(self) -> int:
        """The number of the testing node."""
        return self.nodes

    @property
    def tasks_per_node(self) -> int:
        """On each node but the testing one."""
        return self.tasks // self.nodes

    def has_realtime(self, processors: int) -> bool:
        """Whether daemons are to have real-time priority, as they take it by themselves: where so many leave others a share."""
        return self.nodes <= REALTIME_NODES_MOST * processors

    def dead(self) -> list[int]:
        """Who panics: any but the testing node, the contacts of the cluster among them."""
        count = max(1, round(self.nodes * self.dead_share))
        return sorted(random.Random(self.seed).sample(range(self.nodes), count))

    def begins(self) -> list[tuple[float, int]]:
        """When requests begin, in seconds after the first may, and of which schedule each is; in order."""
        chance = random.Random(self.seed + 1)
        found = []
        for schedule in range(self.schedules):
            phase = chance.uniform(0, 1 / self.pace)
            found += [(phase + number / self.pace, schedule) for number in range(round(self.seconds * self.pace))]
        return sorted(found)

    def as_data(self) -> dict[str, Any]:
        """For JSON; :meth:`of` is the way back."""
        return asdict(self)

    @classmethod
    def of(cls, data: dict[str, Any]) -> Self:
        """What :meth:`as_data` gave."""
        return cls(**data)
