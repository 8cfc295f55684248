"""The two engines beside each other: from put to watch on another node, and a node that starts when 100,000 entries are there.

    python benchmarks/store/engines.py                  # prints what it found

Gossip: two nodes on loopback, in one process. etcd: a real one with one member on loopback, its data on a disk, and likewise two
stores in one process. Between machines each has the network's time besides.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import trio  # noqa: E402

from benchmarks.store.restart import in_a_process, resident  # noqa: E402
from benchmarks.store.workload import BACKENDS, entries, key, node_ids, value  # noqa: E402
from pyminuteman.addresses import Endpoint  # noqa: E402
from pyminuteman.etcd.client import EtcdClient  # noqa: E402
from pyminuteman.etcd.messages import Put  # noqa: E402
from pyminuteman.http_client import HttpOptions  # noqa: E402
from pyminuteman.kv.etcd import EtcdStore, open_etcd_store  # noqa: E402
from pyminuteman.kv.etcd_index import StoreKeys  # noqa: E402
from pyminuteman.kv.store import Store  # noqa: E402
from pyminuteman.kv.trio_driver import GossipStore, open_store  # noqa: E402
from pyminuteman.membership import Membership, MembershipConfig, open_membership  # noqa: E402
from pyminuteman.testing.etcd_server import EtcdCluster, why_no_etcd  # noqa: E402

_PREFIX = "/minuteman/store/"
_A_TRANSACTION = 120
"""Keys put at one time: an etcd takes 128 operations."""
_PATIENT = HttpOptions(timeout_seconds=30.0)
_WAIT_SECONDS = 60.0


async def latencies(writer: Store, reader: Store, count: int) -> dict[str, list[float]]:
    """Seconds from the call of ``put_own`` on one node until its return, and until a watch on the other has told of it."""
    returned, told = [], []
    async with reader.watch("vips/") as watch:
        await anext(watch)
        for turn in range(count + 1):
            name, said = key(0, turn % BACKENDS), value(0, turn)
            began = time.perf_counter()
            async with trio.open_nursery() as nursery:

                async def put(name: str = name, said: bytes = said, began: float = began) -> None:
                    await writer.put_own(name, said)
                    returned.append(time.perf_counter() - began)

                nursery.start_soon(put)
                with trio.fail_after(_WAIT_SECONDS):
                    while reader.get(writer.me, name) != said:
                        await anext(watch)
                told.append(time.perf_counter() - began)
            await trio.sleep(0.01)
    return {"put_seconds": returned[1:], "watch_seconds": told[1:]}  # the first finds connections not made


@asynccontextmanager
async def gossip_node(name: str, contacts: list[Endpoint]) -> AsyncIterator[tuple[Membership, GossipStore]]:
    bind, config = Endpoint("127.0.0.1", 0), MembershipConfig.lan()
    async with open_membership(name=name, bind=bind, contacts=contacts, config=config) as membership:
        if contacts:
            await membership.wait_joined(_WAIT_SECONDS)
        async with open_store(membership, alone_seconds=0.1) as store:
            yield membership, store


async def gossip(count: int) -> dict[str, Any]:
    """Two real nodes."""
    async with gossip_node("one", []) as (first, one), gossip_node("two", [first.me.endpoint]) as (_, two):
        with trio.fail_after(_WAIT_SECONDS):
            await one.wait_ready()
            await two.wait_ready()
        return await latencies(one, two, count)


async def etcd(urls: list[str], count: int) -> dict[str, Any]:
    """Two stores in one etcd, with nothing else in it."""
    first, second = node_ids(2)
    async with open_etcd_store(urls, first, options=_PATIENT) as one, open_etcd_store(urls, second, options=_PATIENT) as two:
        with trio.fail_after(_WAIT_SECONDS):
            await one.wait_ready()
            await two.wait_ready()
        return await latencies(one, two, count)


async def fill(urls: list[str], count: int) -> float:
    """Put so many entries of others there, in transactions one after the other; seconds."""
    keys = StoreKeys(_PREFIX)
    puts = [
        Put(keys.own(owner, name), said)
        for number, owner in enumerate(node_ids(count // BACKENDS))
        for name, said in entries(number)
    ]
    began = time.perf_counter()
    async with EtcdClient(urls, _PATIENT) as client:
        for at in range(0, len(puts), _A_TRANSACTION):
            await client.transact([], puts[at : at + _A_TRANSACTION])
    return time.perf_counter() - began


async def opened(urls: list[str]) -> dict[str, Any]:
    """Open a store and wait until all is read; then the copy is what a replica of the other engine is."""
    before, began, cpu = resident(), time.perf_counter(), time.process_time()
    store: EtcdStore
    async with open_etcd_store(urls, node_ids(1)[0], options=_PATIENT) as store:
        with trio.fail_after(_WAIT_SECONDS):
            await store.wait_ready()
        return {
            "ready_at": time.perf_counter(),
            "before_seconds": began,
            "ready_seconds": time.perf_counter() - began,
            "cpu_seconds": time.process_time(),
            "open_cpu_seconds": time.process_time() - cpu,
            "rss_bytes": resident(),
            "rss_before_bytes": before,
            "entries": len(store.entries()),
        }


def measure(count: int, loaded: int, starts: int, progress: Any = None) -> dict[str, Any]:
    """So many puts with each engine; and an etcd of so many entries, read so many times by a process that starts."""
    say = progress or (lambda text: print(text, file=sys.stderr))
    found: dict[str, Any] = {"gossip": trio.run(gossip, count)}
    say("gossip: put to watch")
    reason = why_no_etcd()
    if reason is not None:
        return found | {"etcd_missing": reason}
    version = subprocess.run(["etcd", "--version"], capture_output=True, text=True, check=True).stdout.split()[2]
    with tempfile.TemporaryDirectory(prefix="minuteman-bench-") as directory, EtcdCluster(Path(directory)) as cluster:
        found["etcd"] = trio.run(etcd, cluster.urls, count) | {"version": version}
        say("etcd: put to watch")
        found["etcd"]["fill_seconds"] = trio.run(fill, cluster.urls, loaded)
        say(f"etcd: {loaded:,} entries put")
        found["etcd"]["starts"] = [in_a_process([__file__, "--open", cluster.urls[0]]) for _ in range(starts)]
        say("etcd: read by a node that starts")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--open", help=argparse.SUPPRESS)
    options = parser.parse_args()
    print(json.dumps(trio.run(opened, [options.open]) if options.open else measure(100, 100_000, 1), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
