"""The gossip engine on memberships that talk through memory, in trio's jumping time; only disks take time that does not jump."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial, wraps
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from pyminuteman.addresses import Endpoint
from pyminuteman.kv.codec import encode
from pyminuteman.kv.entries import Log
from pyminuteman.kv.errors import StoreClosed, StoreDatabaseError, StoreUnavailable
from pyminuteman.kv.messages import Change, LogPart, Same
from pyminuteman.kv.operations import Add, Enable, SharedKey
from pyminuteman.kv.owners import StoredLog
from pyminuteman.kv.persistence import Batch, StoreDatabase
from pyminuteman.kv.store import Entry, Store, StoreLimits
from pyminuteman.kv.trio_driver import TOPIC, GossipStore, open_store, presence_of
from pyminuteman.membership import EpochTaken, Membership, MemberStatus, PartitionSuspected, open_membership
from pyminuteman.testing.memory_transport import MemoryNetwork
from tests.kv.support import EPOCH, node

CONTACT = Endpoint("127.0.0.1", 1)
FLAG = SharedKey.flag("drain")


def in_jumping_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Time passes when nobody has anything to do."""

    @wraps(test)
    def run(**fixtures: Any) -> None:
        trio.run(partial(test, **fixtures), clock=trio.testing.MockClock(autojump_threshold=0))

    return run


def in_real_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Where threads write to the disk: time that jumps would jump while they do, and leases would end meanwhile."""

    @wraps(test)
    def run(**fixtures: Any) -> None:
        trio.run(partial(test, **fixtures))

    return run


class Cluster:
    """Nodes on one network, each with a store; the first one is everybody's contact."""

    def __init__(self, stack: AsyncExitStack, **network: Any) -> None:
        self.network = MemoryNetwork(**{"delay_seconds": (0.0002, 0.001), **network})
        self.memberships: list[Membership] = []
        self.stores: list[GossipStore] = []
        self.stack = stack

    async def add(self, *, onto: AsyncExitStack | None = None, state: Path | None = None, **more: Any) -> GossipStore:
        number = len(self.memberships) + 1
        stack = onto or self.stack
        self.memberships.append(
            await stack.enter_async_context(
                open_membership(
                    name=f"node{number}",
                    transport=self.network.transport(Endpoint("127.0.0.1", number)),
                    contacts=[CONTACT],
                    rng=random.Random(number),  # noqa: S311 - reproducible
                    state_directory=state,
                )
            )
        )
        if number > 1:
            await self.memberships[-1].wait_joined(10)
        store = await stack.enter_async_context(
            open_store(self.memberships[-1], rng=random.Random(number), **more)  # noqa: S311
        )
        self.stores.append(store)
        with trio.fail_after(20):
            await store.wait_ready()
        return store

    async def everywhere(self, *entries: Entry) -> None:
        for store in self.stores:
            await until(lambda store=store: store.entries() == sorted(entries))  # type: ignore[misc]


async def until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for knows no events
            await trio.sleep(0.01)


async def really(condition: Callable[[], object]) -> None:
    """As :func:`until`, for what a thread does: it takes time that does not jump."""
    for _ in range(400):
        if condition():
            return
        await trio.to_thread.run_sync(time.sleep, 0.02)
    raise TimeoutError


@asynccontextmanager
async def a_cluster(count: int, **network: Any) -> AsyncIterator[Cluster]:
    async with AsyncExitStack() as stack:
        cluster = Cluster(stack, **network)
        for _ in range(count):
            await cluster.add()
        yield cluster


def is_a_store(store: GossipStore) -> Store:
    """For mypy: the engine is what the protocol asks for."""
    return store


@in_jumping_time
async def test_what_one_says_all_see_and_nobody_sees_who_has_left() -> None:
    async with a_cluster(5) as cluster:
        stores = cluster.stores
        for store in stores:
            await store.put_own("k", str(store.me).encode())
        await cluster.everywhere(*(Entry("k", store.me, str(store.me).encode()) for store in stores))
        await cluster.memberships[4].leave()
        gone = stores.pop()
        await cluster.everywhere(*(Entry("k", store.me, str(store.me).encode()) for store in stores))
        await gone.put_own("late", b"")  # reaches nobody, and does no harm
        assert is_a_store(stores[0]).problem == ""


@in_jumping_time
async def test_what_the_network_loses_is_repaired() -> None:
    async with a_cluster(4, loss=0.2) as cluster:
        for number in range(30):
            store = cluster.stores[number % 4]
            await store.put_own(f"k{number}", b"")
            await store.update(SharedKey.counter("n"), Add(1))
            await store.update(FLAG, Enable())
        await cluster.everywhere(*(Entry(f"k{number}", cluster.stores[number % 4].me, b"") for number in range(30)))
        for store in cluster.stores:
            await until(lambda store=store: store.shared() == {SharedKey.counter("n"): 30, FLAG: True})  # type: ignore[misc]


@in_jumping_time
async def test_a_large_write_goes_over_in_parts() -> None:
    async with a_cluster(3) as cluster:
        await cluster.stores[0].change_own({f"k{number:04}": bytes(100) for number in range(3000)})
        await until(lambda: all(len(store.entries()) == 3000 for store in cluster.stores))
        late = await cluster.add()
        await until(lambda: len(late.entries()) == 3000)


@in_jumping_time
async def test_a_node_cut_off_from_all_keeps_what_it_has_and_says_why_it_may_be_old() -> None:
    async with a_cluster(3) as cluster:
        one, two, three = cluster.stores
        await one.put_own("k", b"1")
        await cluster.everywhere(Entry("k", one.me, b"1"))
        cluster.network.isolate(cluster.memberships[2].me.endpoint)
        await until(lambda: three.problem)
        assert three.problem == "no neighbour is in reach"
        await one.delete_own("k")
        await two.put_own("k", b"2")
        await trio.sleep(100)
        assert three.get(one.me, "k") == b"1", "to hear nobody does not mean that everybody is dead"
        cluster.network.mend()
        await until(lambda: three.entries() == [Entry("k", two.me, b"2")], seconds=300)
        assert three.problem == ""


# -- starting and ending -----------------------------------------------------------------------------------------------


@in_real_time
async def test_what_a_node_said_it_says_again_after_a_restart_with_its_disk(tmp_path: Path) -> None:
    async with a_cluster(2) as cluster:
        async with AsyncExitStack() as life:
            third = await cluster.add(onto=life, state=tmp_path, path=tmp_path / "store.db")
            await third.put_own("k", b"3")
            await third.update(FLAG, Enable())
            await cluster.everywhere(Entry("k", third.me, b"3"))
            del cluster.stores[2]
        await cluster.everywhere()
        again = await cluster.add(state=tmp_path, path=tmp_path / "store.db")
        assert again.me == third.me
        assert again.own() == {"k": b"3"}
        assert again.read(FLAG) is True
        await cluster.everywhere(Entry("k", third.me, b"3"))


@in_real_time
async def test_a_crash_and_restart_without_the_disk_ends_what_was_said(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        cluster, limits = Cluster(stack), StoreLimits(lease_seconds=86_400)  # time may jump far while a thread is at the disk
        for _ in range(2):
            await cluster.add(limits=limits)
        with trio.CancelScope() as crash:
            async with AsyncExitStack() as life:
                third = await cluster.add(onto=life, state=tmp_path)
                await third.put_own("k", b"3")
                await cluster.everywhere(Entry("k", third.me, b"3"))
                crash.cancel()
                await trio.sleep_forever()
        del cluster.stores[2]
        assert cluster.stores[0].get(third.me, "k") == b"3"
        again = await cluster.add(state=tmp_path)
        assert again.me == third.me
        await cluster.everywhere()


@in_real_time
async def test_a_node_that_starts_alone_knows_from_its_disk_what_the_others_said(tmp_path: Path) -> None:
    other = StoredLog(node(7), EPOCH, 1, 2, True, (("k", 2, b"7"),), ())
    with StoreDatabase(tmp_path / "store.db") as database:
        database.write(Batch([other], []))
    async with AsyncExitStack() as stack:
        cluster = Cluster(stack)
        store = await cluster.add(path=tmp_path / "store.db", limits=StoreLimits(lease_seconds=6))
        assert store.entries() == [Entry("k", node(7), b"7")]
        await until(lambda: store.entries() == [])
        await really(lambda: _logs(tmp_path / "store.db") == [store.me])


def _logs(path: Path) -> list[Any]:
    with StoreDatabase(path) as database:
        return [log.owner for log in database.load().logs]


@in_real_time
async def test_the_end_of_the_block_ends_the_store_and_hands_on_its_error(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        cluster = Cluster(stack)
        async with open_membership(name="x", transport=cluster.network.transport(CONTACT)) as membership:
            with pytest.raises(StoreUnavailable, match="within the store"):  # noqa: PT012 - the block is what is tested
                async with open_store(membership, path=tmp_path / "store.db") as store:
                    await store.put_own("k", b"1")
                    raise StoreUnavailable("within the store")
        assert store.problem == "the store has ended"
        with pytest.raises(StoreClosed):
            await store.put_own("k", b"2")
        async with store.watch() as watch:
            assert (await anext(watch)).everything
            with pytest.raises(StopAsyncIteration):
                await anext(watch)
        with StoreDatabase(tmp_path / "store.db") as database:
            assert [list(log.entries) for log in database.load().logs if log.entries] == [["k"]]


@in_real_time
async def test_a_database_that_cannot_be_used_is_said_before_anything_starts(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        cluster = Cluster(stack)
        with pytest.raises(StoreDatabaseError):
            await cluster.add(path=tmp_path)


# -- what arrives ------------------------------------------------------------------------------------------------------


@in_jumping_time
async def test_odd_bytes_are_counted_and_dropped() -> None:
    async with a_cluster(2) as cluster:
        one, two = cluster.stores
        sender = cluster.memberships[0]
        await sender.multicast(TOPIC, b"odd")
        await sender.unicast(two.me, TOPIC, b"\x01\x91\x63")
        forged = LogPart(node(9), EPOCH, 1, 0, 1, 1, (Change(1, "k", b""),))
        await sender.multicast(TOPIC, encode(forged))
        await until(lambda: two.metrics()["store_payloads_malformed_total"] == 2)
        await until(lambda: two.metrics()["store_messages_unknown_total"] == 1)
        await one.put_own("k", b"1")
        await until(lambda: two.get(one.me, "k") == b"1")
        assert all(isinstance(value, int | float) for value in two.metrics().values())


@in_jumping_time
async def test_a_fault_of_ours_ends_no_node(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    async with a_cluster(2) as cluster:
        one, two = cluster.stores
        with monkeypatch.context() as broken:
            broken.setattr(Log, "receive", lambda *_: 1 // 0)
            await one.put_own("k", b"1")
            await until(lambda: two.metrics()["store_internal_faults_total"])
        assert "a fault in pyminuteman" in caplog.text
        await until(lambda: two.get(one.me, "k") == b"1")


@in_jumping_time
async def test_a_new_epoch_of_ours_says_everything_again() -> None:
    async with a_cluster(2) as cluster:
        one, two = cluster.stores
        await one.put_own("k", b"1")
        await until(lambda: two.get(one.me, "k") == b"1")
        epoch = cluster.memberships[0].me.epoch
        assert one._notice(PartitionSuspected(1, 1), trio.current_time()) == []
        await one._perform(one._notice(EpochTaken(epoch + 3), trio.current_time()))
        assert one._replica.me.epoch == epoch + 3
        assert one.own() == {"k": b"1"}
        await trio.sleep(10)
        assert two.get(one.me, "k") == b"1", "two has not been told of that life, so what was said before counts for a lease"


@in_jumping_time
async def test_whom_the_membership_forgets_the_store_forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_cluster(2) as cluster:
        one, two = cluster.stores
        monkeypatch.setattr(cluster.memberships[1], "members", dict)
        await trio.sleep(61)
        await one.put_own("k", b"1")
        await until(lambda: two.metrics()["store_parts_of_unknown_lives_total"])
        assert two.get(one.me, "k") is None


def test_a_suspect_is_there_until_it_is_down() -> None:
    assert [presence_of(status).value for status in MemberStatus] == ["alive", "alive", "away", "left"]


# -- the disk ----------------------------------------------------------------------------------------------------------


@in_jumping_time
async def test_a_disk_that_refuses_stops_nobody_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise StoreDatabaseError("the disk is full")

    async with AsyncExitStack() as stack:
        cluster = Cluster(stack)
        store = await cluster.add(path=tmp_path / "store.db", limits=StoreLimits())
        with monkeypatch.context() as broken:
            broken.setattr(StoreDatabase, "write", refuse)
            await store.put_own("k", b"1")
            await store.update(FLAG, Enable())
            await really(lambda: store.metrics()["store_write_failures_total"] >= 2)
            assert store.problem == "the disk is full"
            assert store.get(store.me, "k") == b"1"
        await really(lambda: store.problem == "")
        assert caplog.text.count("the disk is full") == 1
    with StoreDatabase(tmp_path / "store.db") as database:
        logs, states = database.load()
    assert [list(log.entries) for log in logs] == [["k"]]
    assert [key for key, _ in states] == [FLAG]


@in_jumping_time
async def test_unicasts_that_mean_nothing_now_do_no_harm() -> None:
    async with a_cluster(2) as cluster:
        one, two = cluster.stores
        await cluster.memberships[0].unicast(two.me, TOPIC, encode(Same()))
        await one.put_own("k", b"1")
        await until(lambda: two.get(one.me, "k") == b"1")
