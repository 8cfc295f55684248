"""A store of 100,000 entries comes back from its disk; and what one change costs while it holds them.

    python benchmarks/store/restart.py                  # builds a database, opens it once, prints what it found

Each measurement is a process of its own, with the real driver and a membership on loopback that has nobody to talk to.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

ENTRIES = 100_000
_EPOCH = 1_700_000_000
_CHANGES = 200
_BATCHES = 20


def build(path: Path, entries: int) -> int:
    """A database as a node has it that has an identity beside it, and says the first hundred itself; bytes on disk."""
    import trio  # noqa: PLC0415 - the child counts what it imports

    from benchmarks.store.workload import BACKENDS, log, node_ids  # noqa: PLC0415
    from pyminuteman.addresses import NodeId  # noqa: PLC0415
    from pyminuteman.kv.owners import OwnerTable  # noqa: PLC0415
    from pyminuteman.kv.persistence import Batch, StoreDatabase  # noqa: PLC0415

    async def identity() -> NodeId:
        async with member(path) as membership:
            mine: NodeId = membership.me.id
            return mine

    owners = OwnerTable(keys_max=20_000, entries_max=500_000)
    others = node_ids(entries // BACKENDS)[1:]
    with StoreDatabase(path) as database:
        for number, owner in enumerate([trio.run(identity), *others]):
            restored = log(owner, _EPOCH, number)
            owners.restore(restored)
            owners.unstored[owner] = None
        database.write(Batch(owners.take_unstored(), []))
    return sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))


def member(path: Path) -> Any:
    """A membership on loopback, of whoever has its identity beside the database."""
    from pyminuteman.addresses import Endpoint  # noqa: PLC0415
    from pyminuteman.membership import MembershipConfig, open_membership  # noqa: PLC0415

    state = path.parent / "members"
    return open_membership(name="bench", bind=Endpoint("127.0.0.1", 0), config=MembershipConfig.local(), state_directory=state)


def written() -> int:
    """Bytes that this process has handed to write(2) and its kin."""
    return int(dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())["wchar"])


def resident() -> int:
    """Bytes of memory that this process has now."""
    return _status("VmRSS")


def most_resident() -> int:
    """The most that it ever had."""
    return _status("VmHWM")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(dict(line.split(":", 1) for line in lines)[name].split()[0]) * 1024


async def opened(path: Path, *, costs: bool) -> dict[str, Any]:
    """Open the store as a node does, and say when which of it was there: seconds of a clock that on Linux all processes share."""
    from pyminuteman.kv.trio_driver import open_store  # noqa: PLC0415 - see above

    async with member(path) as membership:
        before, began, cpu_before = resident(), time.perf_counter(), time.process_time()
        async with open_store(membership, path=path, alone_seconds=0.0) as store:
            readable, cpu_readable = time.perf_counter(), time.process_time()
            await store.wait_ready()
            ready = {
                "ready_at": time.perf_counter(),
                "readable_seconds": readable - began,
                "ready_seconds": time.perf_counter() - began,
                "cpu_seconds": time.process_time(),
                "before_seconds": began,
                "open_cpu_seconds": cpu_readable - cpu_before,
                "rss_bytes": resident(),
                "rss_before_bytes": before,
                "entries": store.metrics()["store_entries"],
                "own": len(store.own()),
            }
            if costs:
                ready |= await _costs(store)
        if costs:  # now that the store's own task has let go of the database
            ready |= _writes(store, path)
        return ready


async def _costs(store: Any) -> dict[str, Any]:
    """Medians: of one change that is said here, and of one that is taken (microseconds); of reading everything (milliseconds)."""
    from benchmarks.store.workload import BACKENDS, key, node_ids, value  # noqa: PLC0415
    from pyminuteman.kv.codec import decode, encode  # noqa: PLC0415
    from pyminuteman.kv.lives import Presence  # noqa: PLC0415
    from pyminuteman.kv.messages import Change, LogPart  # noqa: PLC0415
    from pyminuteman.kv.versions import Actor  # noqa: PLC0415

    replica = store._replica  # noqa: SLF001 - what a user waits for is measured in its parts
    puts, takes, reads = [], [], []
    for _ in range(8):
        began = time.perf_counter()
        found = store.entries("vips/")
        reads.append(time.perf_counter() - began)
    assert len(found) == store.metrics()["store_entries"]
    for turn in range(_CHANGES):
        name, said = key(0, turn % BACKENDS), value(0, 1 + turn)
        began = time.perf_counter()
        await store.put_own(name, said)
        puts.append(time.perf_counter() - began)
    other = node_ids(2)[1]
    log = replica.owners.log(other)
    replica.notice(other, log.epoch, Presence.ALIVE, 0.0)
    origin = Actor(other, log.epoch)
    for turn in range(_CHANGES):
        at = log.version
        change = Change(at + 1, key(1, turn % BACKENDS), value(1, 1 + turn))
        payload = encode(LogPart(other, log.epoch, log.base, at, at + 1, at + 1, (change,)), origin=origin)
        began = time.perf_counter()
        message = decode(payload, origin=origin)
        replica.handle(message, other, 0.0)
        takes.append(time.perf_counter() - began)
    assert log.version > _CHANGES
    return {
        "put_us": median(puts) * 1e6,
        "take_us": median(takes) * 1e6,
        "first_read_ms": reads[0] * 1e3,
        "read_ms": median(reads[1:]) * 1e3,
    }


def _writes(store: Any, path: Path) -> dict[str, Any]:
    """Medians: of writing one change to the database (microseconds), and how many bytes that takes."""
    from benchmarks.store.workload import key, value  # noqa: PLC0415
    from pyminuteman.kv.persistence import Batch, StoreDatabase  # noqa: PLC0415

    replica = store._replica  # noqa: SLF001 - as above
    replica.owners.take_unstored()
    seconds, sizes = [], []
    with StoreDatabase(path) as database:
        for turn in range(_BATCHES):
            replica.change_own({key(0, turn): value(0, 700 + turn)})
            began, before = time.perf_counter(), written()
            database.write(Batch(replica.owners.take_unstored(), []))
            seconds.append(time.perf_counter() - began)
            sizes.append(written() - before)
    return {"write_us": median(seconds) * 1e6, "written_bytes": median(sizes)}


def in_a_process(arguments: list[str]) -> dict[str, Any]:
    """Start Python on these; what it found, with the time from the process's start."""
    began = time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    found["from_process_start_seconds"] = found.pop("ready_at") - began
    found["before_seconds"] -= began
    return found


def once(path: Path, *, costs: bool = False) -> dict[str, Any]:
    """Open the store in a process of its own."""
    return in_a_process([__file__, "--open", str(path), *(["--costs"] if costs else [])])


def measure(repetitions: int, entries: int = ENTRIES, progress: Any = None) -> dict[str, Any]:
    """Open the same store so many times, one process after the other, and once more for what a change costs."""
    with tempfile.TemporaryDirectory(prefix="minuteman-bench-") as directory:
        path = Path(directory) / "store.db"
        size = build(path, entries)
        runs = []
        for number in range(repetitions):
            runs.append(once(path))
            if progress:
                progress(f"{number + 1} of {repetitions}: {runs[-1]['from_process_start_seconds']:.2f} s")
        return {"disk_bytes": size, "sqlite": sqlite3.sqlite_version, "runs": runs, "costs": once(path, costs=True)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--open", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--costs", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.open is None:
        print(json.dumps(measure(1), indent=1))
        return 0
    import trio  # noqa: PLC0415 - see above

    async def run() -> dict[str, Any]:
        return await opened(options.open, costs=options.costs)

    json.dump(trio.run(run), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
