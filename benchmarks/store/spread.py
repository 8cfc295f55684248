"""One backend changes in a cluster that holds thousands: what each link carries, and when the last node has it. By simulation.

    python benchmarks/store/spread.py --nodes 100

The nodes are the library's own, membership and store, on a virtual clock; each datagram is packed and sealed. README.md has the method.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.store.preload import preload  # noqa: E402
from benchmarks.store.restart import most_resident  # noqa: E402
from benchmarks.store.workload import BACKENDS, key, value  # noqa: E402
from pyminuteman.addresses import Endpoint, NodeId  # noqa: E402
from pyminuteman.kv.codec import decode  # noqa: E402
from pyminuteman.kv.messages import Same, Summary  # noqa: E402
from pyminuteman.membership.config import MembershipConfig  # noqa: E402
from pyminuteman.membership.effects import Effect, Send  # noqa: E402
from pyminuteman.membership.messages import (  # noqa: E402
    Message,
    Multicast,
    MulticastAnnounce,
    MulticastRequest,
    Peer,
    Unicast,
)
from pyminuteman.testing.simulation.faults import Faults  # noqa: E402
from pyminuteman.testing.simulation.process import Parcel, Process  # noqa: E402
from pyminuteman.testing.simulation.sealed_wire import SealedWire  # noqa: E402
from pyminuteman.testing.simulation.seeds import seeded  # noqa: E402
from pyminuteman.testing.simulation.stores import StoreCore, StoreCores  # noqa: E402
from pyminuteman.testing.simulation.story import Story  # noqa: E402
from pyminuteman.testing.simulation.warm_start import start_warm  # noqa: E402
from pyminuteman.testing.simulation.wire import FRAME_BYTES  # noqa: E402
from pyminuteman.testing.simulation.world import Simulation  # noqa: E402

LINK_SECONDS = 0.005
"""What each datagram takes, one way."""
WARM_UP_SECONDS = 1.0
WINDOW_SECONDS = 0.6
"""How long one change is watched at least: twice what its announcements take."""
WAIT_SECONDS = 10.0
"""And at most, while somebody does not have it."""
CHANGE, ANNOUNCE, REPAIR, REST = "change", "announce", "repair", "rest"


class CountingWire(SealedWire):
    """Counts what each datagram is for. One that says several things is counted whole, as the first of the kinds that is in it."""

    def __init__(self, config: MembershipConfig) -> None:
        super().__init__(config)
        self.links: list[int] = []
        """Bytes of each datagram that carried the change."""
        self.datagrams: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()

    def reset(self) -> None:
        self.links, self.datagrams, self.bytes = [], Counter(), Counter()

    def pack(self, process: Process, send: Send, target: Process | None) -> Iterable[Parcel]:
        parcels = list(super().pack(process, send, target))
        kind = kind_of(send.messages)
        self.datagrams[kind] += len(parcels)
        self.bytes[kind] += sum(parcel.size for parcel in parcels)
        if kind == CHANGE:
            self.links += [parcel.size for parcel in parcels]
        return parcels


def kind_of(messages: Sequence[Message]) -> str:
    """What a datagram is for: the change itself, news that there is one, what a comparison found, or what there is at rest as well."""
    if any(isinstance(message, Multicast) for message in messages):
        return CHANGE
    if any(isinstance(message, MulticastAnnounce | MulticastRequest) for message in messages):
        return ANNOUNCE
    if any(isinstance(message, Unicast) and not isinstance(decode(message.payload), Summary | Same) for message in messages):
        return REPAIR
    return REST


class QuietCore(StoreCore):
    """A node whose store said long ago what it begins with: the start tells nobody, and what all say is loaded afterwards."""

    def start(self, now: float, *, contacts: Sequence[Endpoint] = (), known: Sequence[Peer] = ()) -> list[Effect]:
        self.replica.start(now)
        return super(StoreCore, self).start(now, contacts=contacts, known=known)


class QuietCores(StoreCores):
    def __call__(self, *arguments: Any, **named: Any) -> StoreCore:
        return QuietCore(*arguments, **named, cores=self)


class Arrivals:
    """When each node has the change that is watched, in seconds of the world."""

    def __init__(self, world: Simulation, cores: Sequence[StoreCore]) -> None:
        self._world = world
        self._numbers = {id(core): number for number, core in enumerate(cores)}
        self._owner, self._said = cores[0].replica.me.node, dict[str, bytes]()
        self.times: dict[int, float] = {}

    def watch(self, owner: NodeId, said: dict[str, bytes]) -> None:
        """Look out for this from now on."""
        self._owner, self._said, self.times = owner, said, {}

    def changed(self, core: StoreCore) -> None:
        """Something of that node's replica has changed."""
        get = core.replica.owners.get
        if self._said and all(get(self._owner, name) == new for name, new in self._said.items()):
            self.times.setdefault(self._numbers[id(core)], self._world.now)


def built(nodes: int, backends: int, seed: int, loss: float) -> tuple[Simulation, CountingWire, list[StoreCore], QuietCores]:
    """A cluster that has run for long, whose replicas hold everything."""
    config = MembershipConfig.lan()
    wire, cores = CountingWire(config), QuietCores(seed)
    faults = Faults(delay_min_seconds=LINK_SECONDS, delay_mean_seconds=0.0, delay_max_seconds=LINK_SECONDS, loss=loss)
    world = Simulation(
        seed, nodes=nodes, start_within_seconds=None, faults=faults, config=config, wire=wire, core=cores, story=Story(lines=0)
    )
    for host in world.hosts:
        host.keys = (1,)
    start_warm(world, shared=True)
    started = [process.node for process in world.processes]
    stores = [node for node in started if isinstance(node, StoreCore)]
    now = max(process.local_time(world.now) for process in world.processes)
    preload(stores, backends, now)
    world.run(seconds=WARM_UP_SECONDS)
    return world, wire, stores, cores


def measure(
    nodes: int, *, backends: int = BACKENDS, changes: int = 20, keys: int = 1, loss: float = 0.0, seed: int = 1
) -> dict[str, Any]:
    """Change so many backends at a time, at random owners, one change after the other."""
    began = time.process_time()
    gc.set_threshold(100_000, 50, 100)
    world, wire, stores, cores = built(nodes, backends, seed, loss)
    arrivals = Arrivals(world, stores)
    cores.listeners.append(arrivals.changed)
    wire.reset()
    world.run(seconds=WINDOW_SECONDS)
    rest = wire.datagrams[REST] / nodes / WINDOW_SECONDS, wire.bytes[REST] / nodes / WINDOW_SECONDS
    random = seeded("changes", seed)
    records = []
    for turn in range(changes):
        owner = random.randrange(nodes)
        said = {key(owner, one): value(owner, 500 + turn) for one in random.sample(range(backends), keys)}
        records.append(_changed(world, wire, arrivals, owner, said))
        print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return {
        "nodes": nodes,
        "backends": backends,
        "keys": keys,
        "loss": loss,
        "entries": stores[0].replica.owners.count,
        "seed": seed,
        "link_seconds": LINK_SECONDS,
        "frame_bytes": FRAME_BYTES,
        "rest_datagrams_a_node_second": round(rest[0], 2),
        "rest_bytes_a_node_second": round(rest[1], 1),
        "changes": records,
        "memory_bytes": most_resident(),
        "cpu_seconds": round(time.process_time() - began, 1),
    }


def _changed(world: Simulation, wire: CountingWire, arrivals: Arrivals, owner: int, said: dict[str, bytes]) -> dict[str, Any]:
    """Let an owner say it, and all others have it."""
    nodes, core = len(world.hosts), world.processes[owner].node
    assert isinstance(core, StoreCore)
    assert not set(said.items()) & set(core.replica.own().items()), "nothing would change"
    wire.reset()
    arrivals.watch(core.replica.me.node, said)
    began = world.now
    world.ask(world.hosts[owner], lambda _, now: core.write(said, now))
    world.run(seconds=WINDOW_SECONDS)
    while len(arrivals.times) < nodes and world.now < began + WAIT_SECONDS:
        world.run(seconds=0.1)
    times = sorted(at - began for number, at in arrivals.times.items() if number != owner)
    return {
        "link_bytes": [min(wire.links), round(sum(wire.links) / len(wire.links), 2), max(wire.links)],
        "seconds_median": times[(nodes - 1) // 2] if len(times) > (nodes - 1) // 2 else None,
        "seconds_last": times[-1] if len(times) == nodes - 1 else None,
        "missing": nodes - 1 - len(times),
        "datagrams": {kind: wire.datagrams[kind] for kind in (CHANGE, ANNOUNCE, REPAIR)},
        "bytes": {kind: wire.bytes[kind] for kind in (CHANGE, ANNOUNCE, REPAIR)},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=40)
    parser.add_argument("--backends", type=int, default=BACKENDS, help="of each node (default %(default)s)")
    parser.add_argument("--changes", type=int, default=20, help="default %(default)s")
    parser.add_argument("--keys", type=int, default=1, help="backends that change at one time (default %(default)s)")
    parser.add_argument("--loss", type=float, default=0.0, help="share of datagrams that vanish (default 0)")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    json.dump(measure(**vars(options)), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
