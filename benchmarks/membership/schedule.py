"""What is measured in a run, in which order, and how often.

A run goes in blocks. Each block gives each peer a cluster of its own, from cold to the last scenario, so that the peers take turns on
whatever else this machine does meanwhile, and no figure rests on a single start of a cluster.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterator
from dataclasses import dataclass, field

import cost
import failure_detection
import false_alarms
from cluster import Cluster
from progress import Progress
from records import Record

PARTS = ("cold-start", "cost", "detection", "false-alarms")

_BUSY_LOOPS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How much of each; `share` of a block where there are several."""

    repetitions: int  # of detection, and of the shortest freeze
    victims: int  # at once
    blocks: int
    longer_freezes: int  # of 1 s and of 2 s each
    rest_seconds: float
    loss_seconds: float  # at each rate
    busy_seconds: float  # in one piece, in the first block
    successions: int  # rounds of kills in succession
    bereaved: int
    freeze_seconds: tuple[float, ...] = (0.3, 1.0, 2.0)
    loss_shares: tuple[float, ...] = (0.01, 0.05)
    parts: Collection[str] = field(default=PARTS)

    @classmethod
    def full(cls, repetitions: int, nodes: int, parts: Collection[str]) -> Effort:
        return cls(
            repetitions=repetitions,
            victims=max(1, nodes // 8),
            blocks=min(4, repetitions),
            longer_freezes=max(1, 2 * repetitions // 5),
            rest_seconds=60.0,
            loss_seconds=30.0,
            busy_seconds=60.0,
            successions=12,
            bereaved=8,
            parts=parts,
        )

    @classmethod
    def quick(cls, repetitions: int, nodes: int, parts: Collection[str]) -> Effort:
        return cls(
            repetitions=repetitions,
            victims=max(1, nodes // 8),
            blocks=1,
            longer_freezes=1,
            rest_seconds=5.0,
            loss_seconds=5.0,
            busy_seconds=10.0,
            successions=2,
            bereaved=1,
            parts=parts,
        )

    def share(self, total: int, block: int) -> int:
        """So many of a total fall to a block; the first blocks take the odd ones."""
        return total // self.blocks + (block < total % self.blocks)


def expected_lines(effort: Effort, peer_has_neighbours: bool) -> int:
    """How many lines of progress a peer will have written in all."""
    lines = effort.blocks  # every cluster has a cold start
    lines += effort.blocks * (("cost" in effort.parts) + ("cold-start" in effort.parts))
    lines += effort.repetitions * ("detection" in effort.parts)
    if "false-alarms" in effort.parts:
        lines += effort.repetitions + 2 * effort.longer_freezes + effort.successions
        lines += effort.bereaved * peer_has_neighbours + effort.blocks * len(effort.loss_shares) + 1
    return lines


def measure_block(
    make_cluster: Callable[[], Cluster], effort: Effort, block: int, progress: Progress
) -> Generator[tuple[str, list[Record]], None, None]:
    """Measure a block's share of everything; yields each scenario's name and records as soon as there are any."""
    if "cold-start" in effort.parts:
        with make_cluster() as cluster:
            yield "join_at_once", [cost.join_at_once(cluster, progress)]
    with make_cluster() as cluster:
        yield from _one_cluster(cluster, effort, block, progress)


def _one_cluster(cluster: Cluster, effort: Effort, block: int, progress: Progress) -> Iterator[tuple[str, list[Record]]]:
    yield "cold_start", [cost.cold_start(cluster, progress)]
    if "cost" in effort.parts:
        yield "at_rest", [cost.at_rest(cluster, effort.rest_seconds / effort.blocks, progress)]
    if "detection" in effort.parts:
        share = effort.share(effort.repetitions, block)
        yield "detection", failure_detection.measure(cluster, share, effort.victims, progress)
    if "false-alarms" in effort.parts:
        yield from _alarms(cluster, effort, block, progress)


def _alarms(cluster: Cluster, effort: Effort, block: int, progress: Progress) -> Iterator[tuple[str, list[Record]]]:
    for seconds in effort.freeze_seconds:
        total = effort.repetitions if seconds == min(effort.freeze_seconds) else effort.longer_freezes
        yield "frozen", false_alarms.frozen(cluster, seconds, effort.share(total, block), progress)
    if cluster.peer.has_neighbours:
        yield "bereaved", false_alarms.bereaved(cluster, effort.share(effort.bereaved, block), progress)
    if rounds := effort.share(effort.successions, block):
        yield "killed_in_succession", false_alarms.killed_in_succession(cluster, rounds, effort.victims, progress)
    for share in effort.loss_shares:
        yield "loss", false_alarms.under_loss(cluster, share, effort.loss_seconds / effort.blocks, progress)
    if block == 0:
        yield "busy", false_alarms.under_busy_loops(cluster, _BUSY_LOOPS, effort.busy_seconds, progress)
