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
from pyminuteman.testing.simulation.process import Disk, Host, Process
from pyminuteman.testing.simulation.seeds import seeded
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


def start_warm(world: Simulation) -> None:
    """Start a process on every host, each linked and knowing all the others. Takes a moment of the world's time."""
    rng = seeded("warm start", world.seed)
    config = world.config
    _prepare_disks(world, rng)
    world.is_mute = True
    for host in world.hosts:
        world.start(host)
    processes = world.processes
    peers = [_peer(process) for process in processes]
    neighbours: list[list[int]] = [[] for _ in processes]
    interval_ms = round(config.heartbeat_interval_seconds * 1000)
    wish = Neighbor(1 << 30, Priority.LOW, interval_ms)
    for one, other in random_graph(len(processes), config.active_view_size, rng):
        neighbours[one].append(other)
        neighbours[other].append(one)
        world.give(processes[one], Received(processes[other].boot, peers[other], (wish,)))
        world.give(processes[other], Received(processes[one].boot, peers[one], (wish,)))
    world.run(seconds=_FLUSH_SECONDS)
    records = [process.node.me.encode() for process in processes]
    for number, process in enumerate(processes):
        near = neighbours[number]
        if near:
            source = near[0]
            news = Records(tuple(records[other] for other in near))
            world.give(process, Received(processes[source].boot, peers[source], (news,)))
    world.run(seconds=_FLUSH_SECONDS)
    everything = Records(tuple(process.node.me.encode() for process in processes))
    for number, process in enumerate(processes):
        source = neighbours[number][0]
        world.give(process, Received(processes[source].boot, peers[source], (everything,)))
        world.wake(process, ahead=_FLUSH_SECONDS)  # one by one: together, what all of them want to tell would fill the memory
    world.run(seconds=_FLUSH_SECONDS)
    world.is_mute = False


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
