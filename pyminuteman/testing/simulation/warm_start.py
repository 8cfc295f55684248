"""A large cluster that has been running for long, without the hours that its nodes would need to find each other.

A cold start costs each node news of every link that any node made on the way, so all of it grows with the square of the cluster, and
one processor does everybody's share. Here nodes get, through the same door as always, what they would know in the end: requests to be
neighbours, along a random graph in which almost every view is full, and then everybody's record. Meanwhile the world is mute. What
follows is as simulated as ever; only how the cluster came to be is not.
"""

from __future__ import annotations

from itertools import pairwise
from random import Random

from pyminuteman.addresses import NodeId
from pyminuteman.membership.effects import Received
from pyminuteman.membership.messages import Neighbor, Peer, Priority, Records
from pyminuteman.membership.records import EncodedRecord
from pyminuteman.testing.simulation.process import Disk, Host, Process
from pyminuteman.testing.simulation.seeds import seeded
from pyminuteman.testing.simulation.shared_tables import share_tables
from pyminuteman.testing.simulation.world import Simulation

__all__ = ["random_graph", "start_warm"]

_FLUSH_SECONDS = 0.06
"""After each step nodes want to tell others of it; so long they do, and nobody hears it."""


def random_graph(nodes: int, degree: int, rng: Random) -> list[tuple[int, int]]:
    """Edges of a connected graph in which nearly every node has ``degree`` neighbours, and none has more: a ring and random chords."""
    order = rng.sample(range(nodes), nodes)
    ring = [*pairwise(order), (order[-1], order[0])]
    edges = {(min(edge), max(edge)): None for edge in (ring if degree > 1 else ring[::2])}
    degrees = [0] * nodes
    for one, other in edges:
        degrees[one] += 1
        degrees[other] += 1
    for _ in range(20):  # what is left after so many rounds has nobody left to pair with
        stubs = [node for node in range(nodes) for _ in range(degree - degrees[node])]
        rng.shuffle(stubs)
        for one, other in zip(stubs[::2], stubs[1::2], strict=False):
            edge = (min(one, other), max(one, other))
            if one != other and edge not in edges:
                edges[edge] = None
                degrees[one] += 1
                degrees[other] += 1
    return list(edges)


def start_warm(world: Simulation, *, shared: bool = False) -> None:
    """Start a process on every host, each linked and knowing all the others. Takes a moment of the world's time.

    Args:
        world: Hosts on which nothing runs.
        shared: Whether what all know alike is held once (:mod:`pyminuteman.testing.simulation.shared_tables`).
    """
    rng = seeded("warm start", world.seed)
    _prepare_disks(world, rng)
    world.is_mute = True
    for host in world.hosts:
        world.start(host, contacts=())
    processes = world.processes
    neighbours = _link(world, processes, rng)
    world.run(seconds=_FLUSH_SECONDS)
    records = [process.node.me.encode() for process in processes]
    for process, near in zip(processes, neighbours, strict=True):
        _tell(world, process, processes[near[0]], tuple(records[other] for other in near))
    world.run(seconds=_FLUSH_SECONDS)
    everything = tuple(process.node.me.encode() for process in processes)
    for process, near in zip(processes[:1] if shared else processes, neighbours, strict=False):
        _tell(world, process, processes[near[0]], everything)
        world.wake(process, ahead=_FLUSH_SECONDS)  # one by one: together, what all of them want to tell would fill the memory
    if shared:
        share_tables(processes[0], processes)
    world.run(seconds=_FLUSH_SECONDS)
    world.is_mute = False


def _link(world: Simulation, processes: list[Process], rng: Random) -> list[list[int]]:
    """Make neighbours of them along a random graph; returns whose neighbours are which."""
    neighbours: list[list[int]] = [[] for _ in processes]
    wish = Neighbor(1 << 30, Priority.LOW, round(world.config.heartbeat_interval_seconds * 1000))
    for one, other in random_graph(len(processes), world.config.active_view_size, rng):
        for asker, asked in ((one, other), (other, one)):
            neighbours[asked].append(asker)
            world.give(processes[asked], Received(processes[asker].boot, _peer(processes[asker]), (wish,)))
    return neighbours


def _tell(world: Simulation, process: Process, source: Process, records: tuple[EncodedRecord, ...]) -> None:
    world.give(process, Received(source.boot, _peer(source), (Records(records),)))


def _prepare_disks(world: Simulation, rng: Random) -> None:
    disks = [Disk(NodeId(rng.randbytes(NodeId.SIZE)), _wall(host, world.now)) for host in world.hosts]
    peers = [Peer(disk.id, disk.epoch, host.endpoint) for disk, host in zip(disks, world.hosts, strict=True)]
    for disk, host in zip(disks, world.hosts, strict=True):
        known = rng.sample(peers, min(len(peers), world.config.passive_view_size))
        disk.known = tuple(peer for peer in known if peer.id != disk.id)
        host.disk = disk


def _wall(host: Host, now: float) -> int:
    return int(host.clock.local(now) + host.clock.wall_offset)


def _peer(process: Process) -> Peer:
    return Peer(process.id, process.epoch, process.host.endpoint)
