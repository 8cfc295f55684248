"""Runs scenarios, holds every checker to them, and says how to replay those that failed."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from pyminuteman.membership.effects import MemberDown, MemberSuspect, MemberUp, Notification
from pyminuteman.testing.checkers import EVERY_CHECKER, Checker
from pyminuteman.testing.simulation.bounds import Bounds
from pyminuteman.testing.simulation.narrator import Narrator
from pyminuteman.testing.simulation.operations import Operation, Pause
from pyminuteman.testing.simulation.process import Process
from pyminuteman.testing.simulation.scenarios import Scenario, draw
from pyminuteman.testing.simulation.sealed_wire import SealedWire
from pyminuteman.testing.simulation.story import WORLD, Story
from pyminuteman.testing.simulation.wire import CodecWire
from pyminuteman.testing.simulation.world import CoreFactory, Simulation, SimulationFailed

__all__ = ["Outcome", "run", "run_many", "run_seed"]

POLL_SECONDS = 0.25
"""How often the world is asked, in virtual time, whether it has come right."""
HOLD_SECONDS = 0.6
"""How long it must then stay so, with no member changing."""
_FINDINGS_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run.

    Attributes:
        scenario: What was run.
        findings: What was wrong; empty when nothing was.
        story: The last lines of what happened.
        digest: A hash over the whole story and all traffic: equal runs have equal ones.
        judged: How often each checker had something to judge, by its name.
        events: How many events the world saw.
        virtual_seconds: How long it lasted in the world.
        cpu_seconds: And what it cost here.
    """

    scenario: Scenario
    findings: tuple[str, ...]
    story: tuple[str, ...]
    digest: str
    judged: dict[str, int]
    events: int
    virtual_seconds: float
    cpu_seconds: float

    @property
    def passed(self) -> bool:
        """Whether nothing was wrong."""
        return not self.findings

    def report(self) -> str:
        """The story, what was wrong, and how to see it again."""
        shown = list(self.findings[:_FINDINGS_SHOWN])
        if len(self.findings) > _FINDINGS_SHOWN:
            shown.append(f"... and {len(self.findings) - _FINDINGS_SHOWN} more")
        seed = self.scenario.seed
        return "\n".join(
            (
                f"== {self.scenario}",
                *self.story,
                f"== {self.scenario}: {len(self.findings)} findings",
                *(f"  {finding}" for finding in shown),
                f"replay:  make simulate SEEDS={seed}",
                f"     or  python -m pyminuteman.testing.simulation --seed {seed} --story story.txt",
            )
        )


def run(scenario: Scenario, *, story: Story | None = None, core: CoreFactory | None = None) -> Outcome:
    """Run one scenario to its end, or to the first act after which the world does not come right."""
    began = time.process_time()
    story = story or Story()
    wire = SealedWire(scenario.config) if scenario.sealed else CodecWire(scenario.config)
    world = Simulation(
        scenario.seed, faults=scenario.faults, config=scenario.config, wire=wire, core=core, story=story
    )  # fmt: skip
    for _ in range(scenario.nodes):
        world.add_host().keys = (1,) if scenario.sealed else ()
    bounds = Bounds(scenario.config, scenario.faults, scenario.nodes)
    checkers = [checker(world, bounds) for checker in EVERY_CHECKER]
    world.observers += [Narrator(world), *checkers]
    findings: list[str] = []
    try:
        for number, act in enumerate(scenario.acts):
            findings += _play(world, act, f"act {number}", bounds, checkers)
            if findings:
                break
    except SimulationFailed as error:
        findings.append(f"{error}: {_where(error)}")
    findings += (finding for checker in checkers for finding in checker.concluded())
    digest = f"{story.digest}{world.traffic_digest:08x}"
    judged = {type(checker).__name__: checker.judged for checker in checkers}
    spent = time.process_time() - began
    return Outcome(scenario, tuple(findings), tuple(story.last()), digest, judged, world.events, world.now, spent)


def _where(error: BaseException) -> str:
    """The line where the chain of exceptions began."""
    while error.__cause__ is not None:
        error = error.__cause__
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "nowhere" if trace is None else f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"


def _play(world: Simulation, act: Iterable[Operation], name: str, bounds: Bounds, checkers: list[Checker]) -> list[str]:
    world.tell(WORLD, name)
    began = end = world.now
    for operation in act:
        world.call_at(began + operation.time, _perform(world), operation)
        lasts = operation.seconds if isinstance(operation, Pause) else 0.0
        end = max(end, began + operation.time + lasts)
    world.run_until(end + POLL_SECONDS)
    deadline = end + bounds.settled
    while _is_unsettled(checkers):
        if world.now >= deadline:
            return [f"{world.now:.4f} after {bounds.settled:.1f} s without a fault: {what}" for what in _unsettled(checkers)]
        world.run(seconds=POLL_SECONDS)
    world.tell(WORLD, "everything is as it should be")
    world.truth.came_right()
    calm = _StatusChanges()
    world.observers.append(calm)
    world.run(seconds=HOLD_SECONDS)
    world.observers.remove(calm)
    if calm.seen:
        return [f"{world.now:.4f} was as it should be, but then {what}" for what in calm.seen]
    # Nodes with room may still have found links, of which the news is on its way.
    deadline = world.now + bounds.news + bounds.repair
    while _is_unsettled(checkers):
        if world.now >= deadline:
            return [f"{world.now:.4f} no longer as it was: {what}" for what in _unsettled(checkers)]
        world.run(seconds=POLL_SECONDS / 5)
    return []


class _StatusChanges:
    """Notes every member that changes for somebody."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def notified(self, time: float, process: Process, notification: Notification) -> None:
        """Note it."""
        if isinstance(notification, MemberUp | MemberSuspect | MemberDown):
            kind = type(notification).__name__
            self.seen.append(f"{process.name} said {kind} of {notification.record.name} at {time:.4f}")


def _perform(world: Simulation) -> Callable[[Operation], None]:
    def perform(operation: Operation) -> None:
        world.tell(WORLD, str(operation))
        operation.apply(world)

    return perform


def _unsettled(checkers: Iterable[Checker]) -> Iterator[str]:
    for checker in checkers:
        yield from checker.unsettled()


def _is_unsettled(checkers: Iterable[Checker]) -> bool:
    return next(_unsettled(checkers), None) is not None


def run_seed(seed: int) -> Outcome:
    """Draw the scenario of a seed, and run it."""
    return run(draw(seed))


def _collect_seldom() -> None:
    """What is there already stays, and what runs make is mostly freed without the collector: it takes a tenth of the time."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def run_many(seeds: Iterable[int], *, processes: int | None = None) -> Iterator[Outcome]:
    """Run these seeds on as many cores as there are, and hand out each outcome as it comes."""
    # Not forked: a fork would take along the threads' locks of whoever calls, and the tracer of a coverage run.
    with ProcessPoolExecutor(processes, get_context("spawn"), _collect_seldom) as pool:
        running = [pool.submit(run_seed, seed) for seed in seeds]
        for done in as_completed(running):
            yield done.result()
