"""The store in a real etcd: what goes wrong between the two, and what readers and writers see of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from pyminuteman.addresses import NodeId
from pyminuteman.errors import ConfigurationError
from pyminuteman.etcd.client import EtcdClient
from pyminuteman.etcd.errors import EtcdRefused, EtcdUnavailable
from pyminuteman.etcd.messages import Put, Transaction
from pyminuteman.http_client import HttpOptions
from pyminuteman.kv.errors import StoreClosed, StoreError, StoreUnavailable, TooManyKeys
from pyminuteman.kv.etcd import EtcdStore, open_etcd_store
from pyminuteman.kv.operations import Add, AddElement, Assign, Enable, Remove, SharedKey
from pyminuteman.kv.store import Changes, StoreLimits
from pyminuteman.testing.etcd_server import EtcdCluster, EtcdMember
from tests.support.etcd import QUICK, eventually, eventually_does, needs_etcd, own_etcd, put
from tests.support.etcd_stores import etcd_nodes, lasting_etcd

__all__ = ["own_etcd"]
pytestmark = [needs_etcd, pytest.mark.trio]
IMPATIENT = HttpOptions(timeout_seconds=0.5)
COUNTER = SharedKey.counter("c")


def shortly(seconds: float) -> StoreLimits:
    return StoreLimits(lease_seconds=seconds)


def seen(store: EtcdStore) -> dict[str, bytes]:
    return {entry.key: entry.value for entry in store.entries()}


class Faults:
    """What happens to the next transactions of a store: one word each; when none is left all is well."""

    def __init__(self, store: EtcdStore, monkeypatch: pytest.MonkeyPatch) -> None:
        self.plan: list[str] = []
        self.held: list[Callable[[], Awaitable[Transaction]]] = []
        self._store = store
        self._plain = store._client.transact
        monkeypatch.setattr(store._client, "transact", self._transact)

    async def _transact(self, *args: Any) -> Transaction:
        match self.plan.pop(0) if self.plan else "":
            case "answer is lost":
                await self._plain(*args)
                raise EtcdUnavailable("by the test")
            case "is sent twice":
                await self._plain(*args)
            case "is held up":
                self.held.append(partial(self._plain, *args))
                raise EtcdUnavailable("by the test")
            case "is refused":
                raise EtcdRefused("etcdserver: mvcc: database space exceeded", 8)
            case "life is set back":
                session = self._store._session
                await self._plain((), [Put(session._life_key, f"{session._life.name}:0".encode(), session._lease)])
            case "lease is lost":
                await self._store._client.revoke(self._store._session._lease)
            case "hangs after it was done":
                await self._plain(*args)
                await trio.sleep_forever()
        return await self._plain(*args)


# -- the etcd is away -------------------------------------------------------------------------------------------------------


async def test_a_store_opens_without_its_etcd_and_is_ready_when_that_comes(own_etcd: EtcdMember) -> None:
    own_etcd.kill()
    async with etcd_nodes([own_etcd.url]) as nodes:
        store = await nodes.open()
        assert "nothing was read" in store.problem
        with trio.move_on_after(0.3) as waited:
            await store.wait_ready()
        assert waited.cancelled_caught
        with pytest.raises(StoreUnavailable, match=own_etcd.url):
            await store.put_own("a", b"1")
        with pytest.raises(StoreUnavailable):
            await store.update(COUNTER, Add(1))
        assert store.entries() == []
        assert store.own() == {}
        own_etcd.launch()
        with trio.fail_after(30):
            await store.wait_ready()
        await eventually_does(partial(store.put_own, "a", b"1"), StoreUnavailable)
        await eventually(lambda: store.problem == "")
        assert seen(store) == {"a": b"1"}


async def test_while_it_is_away_reads_are_of_what_was_last_known_and_say_so(own_etcd: EtcdMember) -> None:
    async with etcd_nodes([own_etcd.url]) as nodes:
        one, other = await nodes.add(), await nodes.add()
        await one.put_own("a", b"1")
        await one.update(COUNTER, Add(5))
        await eventually(lambda: seen(other) == {"a": b"1"} and other.read(COUNTER) == 5)
        own_etcd.kill()
        await eventually(lambda: "may be old" in other.problem)
        assert seen(other) == {"a": b"1"}
        assert other.read(COUNTER) == 5
        with pytest.raises(StoreUnavailable, match="may or may not"):
            await one.put_own("a", b"2")
        with pytest.raises(StoreUnavailable):
            await other.update(COUNTER, Add(1))
        assert one.own() == {"a": b"1"}
        own_etcd.launch()
        await eventually_does(partial(one.put_own, "a", b"3"), StoreUnavailable)
        await eventually_does(partial(other.update, COUNTER, Add(1)), StoreUnavailable)
        await eventually(lambda: seen(other) == {"a": b"3"} and one.read(COUNTER) == 6)
        await eventually(lambda: one.problem == other.problem == "")


async def test_who_writes_nothing_notices_too_that_it_is_away(own_etcd: EtcdMember) -> None:
    async with etcd_nodes([own_etcd.url], limits=shortly(2)) as nodes:
        store = await nodes.add()
        assert store.limits == shortly(2)
        await eventually(lambda: store.problem == "")
        own_etcd.kill()
        await eventually(lambda: store.metrics()["store_etcd_write_failures_total"] >= 2)
        assert store.metrics()["store_etcd_reading_failures_total"] >= 1
        own_etcd.launch()
        await eventually(lambda: store.problem == "")


async def test_many_who_wait_to_write_to_one_that_is_frozen_fail_together(own_etcd: EtcdMember) -> None:
    async with etcd_nodes([own_etcd.url], options=IMPATIENT) as nodes:
        store = await nodes.add()
        await store.put_own("a", b"1")
        own_etcd.pause()
        failures = 0

        async def write(number: int) -> None:
            nonlocal failures
            with pytest.raises(StoreUnavailable):
                await store.put_own(f"k{number}", b"")
            failures += 1

        begun = trio.current_time()
        async with trio.open_nursery() as nursery:
            for number in range(30):
                nursery.start_soon(write, number)
        assert trio.current_time() - begun < 10
        assert failures == 30
        own_etcd.resume()
        await eventually_does(partial(store.put_own, "b", b"2"), StoreUnavailable)
        assert seen(store) == {"a": b"1", "b": b"2"}


async def test_an_etcd_set_up_anew_is_told_again_what_its_nodes_say(own_etcd: EtcdMember) -> None:
    async with etcd_nodes([own_etcd.url], limits=shortly(3)) as nodes:
        one, other = await nodes.add(), await nodes.add()
        await one.change_own({f"k{number}": b"1" for number in range(300)})
        await one.update(COUNTER, Add(5))
        await eventually(lambda: len(other.entries()) == 300)
        own_etcd.kill()
        own_etcd.wipe()
        own_etcd.launch()
        await eventually(lambda: one.metrics()["store_etcd_leases_lost_total"] >= 1)
        await eventually(lambda: len(other.entries()) == 300 and other.read(COUNTER) is None)
        await one.put_own("more", b"")
        await eventually(lambda: len(other.entries()) == 301)


async def test_without_a_leader_writes_fail_and_with_one_all_is_well_again(tmp_path: Path) -> None:
    with EtcdCluster(tmp_path, 3) as cluster:
        async with etcd_nodes(cluster.urls) as nodes:
            one, other = await nodes.add(), await nodes.add()
            await one.put_own("a", b"1")
            cluster.members[0].kill()
            await eventually_does(partial(one.put_own, "a", b"2"), StoreUnavailable)
            await eventually(lambda: seen(other) == {"a": b"2"})
            cluster.members[1].kill()
            await eventually(lambda: bool(other.problem) and bool(one.problem))
            with pytest.raises(StoreUnavailable):
                await one.put_own("a", b"3")
            assert seen(other) == {"a": b"2"}
            cluster.members[1].launch()
            await eventually_does(partial(one.put_own, "a", b"4"), StoreUnavailable)
            await eventually(lambda: seen(other) == {"a": b"4"} and other.problem == "")


# -- exactly once -------------------------------------------------------------------------------------------------------------


async def test_a_write_that_is_sent_twice_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async with etcd_nodes() as nodes:
        store = await nodes.add()
        await store.put_own("begun", b"")
        faults = Faults(store, monkeypatch)
        faults.plan = ["is sent twice"]
        assert await store.update(COUNTER, Add(5)) == 5
        faults.plan = ["is sent twice"]
        assert await store.update(COUNTER, Add(5)) == 10
        faults.plan = ["is sent twice"]
        await store.put_own("a", b"1")
        assert seen(store) == {"a": b"1", "begun": b""}
        assert store.metrics()["store_etcd_conflicts_total"] == 0


async def test_an_entry_whose_write_failed_is_taken_back_although_it_had_come_through(monkeypatch: pytest.MonkeyPatch) -> None:
    async with etcd_nodes() as nodes:
        store, other = await nodes.add(), await nodes.add()
        await store.change_own({"a": b"1", "b": b"1"})
        faults = Faults(store, monkeypatch)
        faults.plan = ["answer is lost"]
        with pytest.raises(StoreUnavailable, match="may or may not"):
            await store.change_own({"a": b"2", "b": None, "c": b"2"})
        assert store.own() == {"a": b"1", "b": b"1"}
        await eventually(lambda: store.problem == "" and seen(other) == seen(store) == {"a": b"1", "b": b"1"})
        await store.put_own("c", b"3")
        await eventually(lambda: seen(other) == {"a": b"1", "b": b"1", "c": b"3"})


async def test_a_shared_change_whose_answer_is_lost_is_told_as_such_and_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async with etcd_nodes() as nodes:
        store = await nodes.add()
        await store.update(COUNTER, Add(1))
        faults = Faults(store, monkeypatch)
        faults.plan = ["answer is lost"]
        with pytest.raises(StoreUnavailable):
            await store.update(COUNTER, Add(10))
        await eventually(lambda: store.read(COUNTER) == 11)
        assert await store.update(COUNTER, Add(100)) == 111


async def test_what_is_held_up_on_its_way_comes_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    async with etcd_nodes() as nodes:
        store, other = await nodes.add(), await nodes.add()
        await store.put_own("a", b"1")
        faults = Faults(store, monkeypatch)
        faults.plan = ["is held up"]
        with pytest.raises(StoreUnavailable):
            await store.put_own("a", b"old")
        await store.put_own("a", b"2")
        assert not (await faults.held[0]()).succeeded
        await store.put_own("b", b"")
        await eventually(lambda: seen(other) == {"a": b"2", "b": b""})


async def test_what_comes_through_while_we_compare_is_seen_and_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worst moment: between the reading and the write that settles it."""
    async with etcd_nodes() as nodes:
        store = await nodes.add()
        await store.put_own("a", b"1")
        faults = Faults(store, monkeypatch)
        faults.plan = ["is held up"]
        plain = store._client.read_prefix

        async def read_prefix(*args: Any, **options: Any) -> Any:
            found = await plain(*args, **options)
            while faults.held:
                assert (await faults.held.pop()()).succeeded
            return found

        monkeypatch.setattr(store._client, "read_prefix", read_prefix)
        with pytest.raises(StoreUnavailable):
            await store.put_own("a", b"old")
        await store.put_own("b", b"2")
        assert store.own() == {"a": b"1", "b": b"2"}
        await eventually(lambda: seen(store) == {"a": b"1", "b": b"2"})


async def test_a_caller_who_does_not_wait_for_the_end_takes_it_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async with etcd_nodes() as nodes:
        store, other = await nodes.add(), await nodes.add()
        await store.put_own("a", b"1")
        faults = Faults(store, monkeypatch)
        faults.plan = ["hangs after it was done"]
        with trio.move_on_after(0.2):
            await store.put_own("a", b"2")
        assert store.own() == {"a": b"1"}
        await eventually(lambda: store.metrics()["store_etcd_writes_total"] >= 3)
        await eventually(lambda: seen(other) == {"a": b"1"})
        await store.put_own("b", b"")
        await eventually(lambda: seen(other) == {"a": b"1", "b": b""})


async def test_what_the_etcd_refuses_says_why_and_is_tried_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    async with etcd_nodes() as nodes:
        store = await nodes.add()
        await store.put_own("a", b"1")
        faults = Faults(store, monkeypatch)
        faults.plan = ["is refused", "is refused"]
        with pytest.raises(StoreUnavailable, match=r"refuses it: .*database space exceeded"):
            await store.put_own("a", b"2")
        assert store.own() == {"a": b"1"}
        await eventually(lambda: not faults.plan and store.problem == "")


async def test_many_who_count_at_once_all_count() -> None:
    async with etcd_nodes() as nodes:
        stores = [await nodes.add() for _ in range(3)]
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                for store in stores:
                    nursery.start_soon(partial(store.update, COUNTER, Add(1)))
        await eventually(lambda: all(store.read(COUNTER) == 60 for store in stores))
        assert sum(store.metrics()["store_etcd_conflicts_total"] for store in stores) > 0


async def test_whoever_is_always_too_late_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async with etcd_nodes() as nodes:
        store = await nodes.add()

        async def commit(*_args: object) -> tuple[bool, None]:
            return False, None

        monkeypatch.setattr(store._session, "_commit", commit)
        with pytest.raises(StoreUnavailable, match="others changed counter:c again and again"):
            await store.update(COUNTER, Add(1))
        assert store.metrics()["store_etcd_conflicts_total"] == 20


# -- leases -------------------------------------------------------------------------------------------------------------------


async def test_a_restart_within_the_lease_is_seen_by_nobody() -> None:
    async with etcd_nodes(limits=shortly(30)) as nodes:
        one, other = await nodes.add(1), await nodes.add()
        await one.change_own({"a": b"1", "b": b"2"})
        await eventually(lambda: len(other.entries()) == 2)
        await nodes.close(one)
        async with other.watch() as watch:
            assert (await anext(watch)).everything
            again = await nodes.add(1)
            await eventually(lambda: again.own() == {"a": b"1", "b": b"2"})
            await again.change_own({"a": b"1", "b": b"3"})
            assert await anext(watch) == Changes(own=frozenset({"b"}))


async def test_a_restart_with_another_lease_takes_its_entries_along() -> None:
    async with etcd_nodes(limits=shortly(3)) as nodes:
        one, other = await nodes.add(1), await nodes.add()
        await one.put_own("a", b"1")
        first = one._session._lease
        await nodes.close(one)
        nodes._options["limits"] = shortly(30)
        again = await nodes.add(1)
        await eventually(lambda: again.own() == {"a": b"1"} and again._session._lease != first)
        async with EtcdClient(lasting_etcd().urls, QUICK) as client:
            await client.revoke(first)
        await again.put_own("b", b"2")
        await eventually(lambda: seen(other) == {"a": b"1", "b": b"2"})


async def test_what_a_dead_node_said_goes_when_its_lease_ends() -> None:
    async with etcd_nodes(limits=shortly(0)) as nodes:
        one, other = await nodes.add(), await nodes.add()
        await one.put_own("a", b"1")
        await eventually(lambda: seen(other) == {"a": b"1"})
        await nodes.close(one)
        assert seen(other) == {"a": b"1"}
        await eventually(lambda: seen(other) == {})


async def test_a_lease_is_kept_alive_beyond_its_time() -> None:
    async with etcd_nodes(limits=shortly(1)) as nodes:
        one, other = await nodes.add(), await nodes.add()
        await one.put_own("a", b"1")
        with trio.move_on_after(5):
            await eventually(lambda: one.metrics()["store_etcd_leases_lost_total"] > 0 or "a" not in seen(one))
        assert seen(other) == seen(one) == {"a": b"1"}
        assert one.metrics()["store_etcd_leases_lost_total"] == 0


@pytest.mark.parametrize("way", ["writing", "waiting"])
async def test_a_lost_lease_is_replaced_and_all_is_said_again(way: str) -> None:
    async with etcd_nodes(limits=shortly(2 if way == "waiting" else 60)) as nodes:
        one, other = await nodes.add(), await nodes.add()
        await one.change_own({f"k{number}": b"1" for number in range(200)})
        await eventually(lambda: len(other.entries()) == 200)
        async with EtcdClient(lasting_etcd().urls, QUICK) as client:
            await client.revoke(one._session._lease)
        await eventually(lambda: len(other.entries()) == 0 or way == "waiting")
        if way == "writing":
            await one.put_own("k0", b"2")
            assert seen(one)["k0"] == b"2"
        await eventually(lambda: one.metrics()["store_etcd_leases_lost_total"] == 1)  # else all may still look as before
        await eventually(lambda: one.own() == seen(other))
        assert one.metrics()["store_etcd_leases_lost_total"] == 1
        assert len(one.own()) == 200


async def test_of_two_processes_of_one_node_the_later_has_the_word() -> None:
    async with etcd_nodes(limits=shortly(2)) as nodes:
        first = await nodes.add(1)
        await first.put_own("a", b"1")
        second, other = await nodes.add(1), await nodes.add()
        await second.put_own("a", b"2")
        with pytest.raises(StoreUnavailable, match=r"another process writes as node 0{31}1"):
            await first.put_own("a", b"3")
        with pytest.raises(StoreUnavailable, match="nothing was changed"):
            await first.put_own("a", b"3")
        assert "another process" in first.problem
        await first.leave()
        await second.put_own("b", b"2")
        await eventually(lambda: seen(other) == {"a": b"2", "b": b"2"})
        third = await nodes.add(1)
        await third.put_own("c", b"3")
        await eventually(lambda: "another process" in second.problem)  # it notices without writing


async def test_leaving_takes_everything_back_and_says_so_when_it_cannot(own_etcd: EtcdMember) -> None:
    async with etcd_nodes([own_etcd.url], options=IMPATIENT) as nodes:
        one, two, other = [await nodes.add() for _ in range(3)]
        await one.put_own("a", b"1")
        await two.put_own("b", b"1")
        await eventually(lambda: len(other.entries()) == 2)
        await one.leave()
        await eventually(lambda: seen(other) == {"b": b"1"})
        assert one.own() == {}
        with pytest.raises(StoreClosed):
            await one.leave()
        own_etcd.kill()
        with pytest.raises(StoreUnavailable, match="goes when its lease ends"):
            await two.leave()


async def test_leaving_before_anything_was_written_is_leaving_all_the_same(own_etcd: EtcdMember) -> None:
    own_etcd.kill()
    async with etcd_nodes([own_etcd.url], options=IMPATIENT) as nodes:
        store = await nodes.open()
        await store.leave()
        with pytest.raises(StoreClosed):
            await store.wait_ready()


async def test_a_lease_that_ended_while_leaving_is_as_good(monkeypatch: pytest.MonkeyPatch) -> None:
    async with etcd_nodes() as nodes:
        store, other = await nodes.add(), await nodes.add()
        await store.put_own("a", b"1")
        plain = store._client.transact

        async def transact(*args: Any) -> Transaction:
            answer = await plain(*args)
            await store._client.revoke(store._session._lease)
            return answer

        monkeypatch.setattr(store._client, "transact", transact)
        await store.leave()
        await eventually(lambda: seen(other) == {})


async def test_leaving_right_after_a_write_that_failed_takes_that_back_too(monkeypatch: pytest.MonkeyPatch) -> None:
    async with etcd_nodes(limits=shortly(300)) as nodes:
        store, other = await nodes.add(), await nodes.add()
        await store.put_own("a", b"1")
        Faults(store, monkeypatch).plan = ["answer is lost"]
        with pytest.raises(StoreUnavailable):
            await store.put_own("b", b"1")
        await store.leave()
        await eventually(lambda: seen(other) == {})


async def test_another_process_is_not_made_to_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    async with etcd_nodes() as nodes:
        first = await nodes.add(1)
        await first.put_own("a", b"1")
        monkeypatch.setattr(first._client, "keep_alive", never)  # so that it does not notice
        second, other = await nodes.add(1), await nodes.add()
        await second.put_own("b", b"2")
        await first.leave()
        await second.put_own("c", b"3")
        await eventually(lambda: seen(other) == {"a": b"1", "b": b"2", "c": b"3"})


async def never(_lease: int) -> int:
    raise EtcdUnavailable("by the test")


# -- an etcd that changes under our hands -------------------------------------------------------------------------------------


async def test_a_life_that_was_set_back_as_by_a_backup_is_written_on(monkeypatch: pytest.MonkeyPatch) -> None:
    async with etcd_nodes() as nodes:
        store, other = await nodes.add(), await nodes.add()
        await store.put_own("a", b"1")
        faults = Faults(store, monkeypatch)
        faults.plan = ["life is set back"]
        await store.put_own("b", b"2")
        await eventually(lambda: seen(other) == {"a": b"1", "b": b"2"})
        faults.plan = ["life is set back", "", "life is set back"]
        with pytest.raises(StoreUnavailable, match="again and again"):
            await store.put_own("c", b"3")
        faults.plan = ["life is set back"] * 4
        with pytest.raises(StoreUnavailable, match="again and again"):
            await store.put_own("c", b"3")
        await eventually(lambda: store.problem == "")
        await store.put_own("c", b"3")
        await eventually(lambda: seen(other) == {"a": b"1", "b": b"2", "c": b"3"})


async def test_a_lease_that_is_lost_twice_is_replaced_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    async with etcd_nodes() as nodes:
        store, other = await nodes.add(), await nodes.add()
        await store.put_own("a", b"1")
        faults = Faults(store, monkeypatch)
        faults.plan = ["lease is lost", "lease is lost"]
        await store.put_own("b", b"2")
        assert store.metrics()["store_etcd_leases_lost_total"] == 2
        faults.plan = ["lease is lost", "", "is refused"]
        with pytest.raises(StoreUnavailable, match="refuses"):
            await store.put_own("c", b"3")
        await eventually(lambda: seen(other) == {"a": b"1", "b": b"2"})


# -- sizes, strangers, settings -------------------------------------------------------------------------------------------------


async def test_more_than_a_transaction_holds_is_several() -> None:
    async with etcd_nodes() as nodes:
        one, other = await nodes.add(), await nodes.add()
        await one.change_own({f"k{number}": bytes(4096) for number in range(600)})
        await eventually(lambda: len(other.entries()) == 600)
        writes = one.metrics()["store_etcd_writes_total"]
        await one.change_own({f"k{number}": bytes(4096) for number in range(600)})
        assert one.metrics()["store_etcd_writes_total"] == writes, "what is as it was costs nothing"
        await one.change_own(dict.fromkeys([f"k{number}" for number in range(600)]))
        await eventually(lambda: len(other.entries()) == 0)


async def test_there_are_only_so_many_entries_in_all() -> None:
    async with etcd_nodes(limits=StoreLimits(entries_max=3)) as nodes:
        one, other = await nodes.add(), await nodes.add()
        await one.change_own({"a": b"", "b": b""})
        await eventually(lambda: len(other.entries()) == 2)
        with pytest.raises(TooManyKeys):
            await other.change_own({"a": b"", "b": b""})
        await other.put_own("a", b"")


async def test_what_others_put_there_is_left_alone_and_written_over() -> None:
    async with etcd_nodes() as nodes:
        store = await nodes.add()
        prefix = store._keys.prefix
        async with EtcdClient(lasting_etcd().urls, QUICK) as client:
            await put(client, prefix + b"README", b"do not touch")
            await put(client, store._keys.shared(COUNTER), b"many")
            await eventually(lambda: store.metrics()["store_invalid_total"] == 2)
            assert store.read(COUNTER) is None
            assert await store.update(COUNTER, Add(1)) == 1
            await store.leave()
            assert (await client.range(prefix + b"README")).items


async def test_what_is_not_there_is_removed_without_a_word() -> None:
    async with etcd_nodes() as nodes:
        store, other = await nodes.add(), await nodes.add()
        assert await store.update(COUNTER, Remove()) is None
        await other.update(SharedKey.set("s"), AddElement(b"x"))
        assert await store.update(SharedKey.set("s"), Remove()) is None
        await eventually(lambda: other.shared() == {})


async def test_what_cannot_be_is_refused_at_the_start() -> None:
    me = NodeId(b"\1" * 16)
    for arguments in (([], {}), (["nonsense"], {}), (["http://127.0.0.1:1"], {"prefix": "/"})):
        with pytest.raises(ConfigurationError):
            async with open_etcd_store(arguments[0], me, **arguments[1]):  # type: ignore[arg-type]
                pass


async def test_an_error_in_the_block_comes_out_as_it_is() -> None:
    with pytest.raises(KeyError):
        async with open_etcd_store(lasting_etcd().urls, NodeId(b"\1" * 16), prefix="/error"):
            raise KeyError


async def test_after_the_end_reads_stand_and_writes_are_refused() -> None:
    async with etcd_nodes() as nodes:
        store = await nodes.add()
        await store.put_own("a", b"1")
        await store.update(SharedKey.register("r"), Assign(b"x"))
        await nodes.close(store)
        assert seen(store) == {"a": b"1"}
        assert store.shared() == {SharedKey.register("r"): b"x"}
        assert store.problem == "the store has ended"
        writes: list[Callable[[], Awaitable[object]]] = [
            partial(store.put_own, "a", b""),
            partial(store.update, SharedKey.flag("f"), Enable()),
        ]
        for write in writes:
            with pytest.raises(StoreError):
                await write()
