"""What every store does, whichever engine is behind it. An engine joins by a function that opens stores of one cluster, in ENGINES.

The tests run on real time: what an engine needs to tell others is waited for, with a deadline.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Protocol, TypeAlias

import pytest
import trio

from pyminuteman.addresses import Endpoint
from pyminuteman.errors import ConfigurationError
from pyminuteman.kv.errors import InvalidKeyError, InvalidOperationError, StoreClosed, TooManyKeys, ValueTooLarge
from pyminuteman.kv.operations import (
    Add,
    AddElement,
    Assign,
    Disable,
    Enable,
    InMap,
    Operation,
    Remove,
    RemoveElement,
    SharedKey,
)
from pyminuteman.kv.store import Changes, Entry, Store, StoreLimits
from pyminuteman.kv.transfer import Imported, export_store, import_store
from pyminuteman.kv.trio_driver import open_store
from pyminuteman.membership import MembershipConfig, open_membership
from tests.support.etcd_stores import etcd_nodes

DEADLINE = 20.0
LIMITS = StoreLimits(value_max_bytes=1000, own_keys_max=10, shared_keys_max=20, watch_keys_max=5, lease_seconds=5.0)


class Nodes(Protocol):
    """A cluster in the making."""

    async def add(self) -> Store:
        """One more node's store, ready."""

    async def leave(self, store: Store) -> None:
        """Its node leaves: its entries go."""


Engine: TypeAlias = Callable[[], AbstractAsyncContextManager[Nodes]]


class GossipNodes:
    """Nodes on the loopback interface."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._contacts: list[Endpoint] = []
        self._leaving: dict[Store, tuple[trio.Event, trio.Event]] = {}

    async def add(self) -> Store:
        store: Store = await self._nursery.start(self._run)
        with trio.fail_after(DEADLINE):
            await store.wait_ready()
        return store

    async def leave(self, store: Store) -> None:
        leave, left = self._leaving[store]
        leave.set()
        with trio.fail_after(DEADLINE):
            await left.wait()

    async def _run(self, task_status: trio.TaskStatus[Store]) -> None:
        leave, left = trio.Event(), trio.Event()
        number = len(self._contacts) + 1
        async with open_membership(
            name=f"node{number}", bind=Endpoint("127.0.0.1", 0), contacts=list(self._contacts), config=MembershipConfig.local()
        ) as membership:
            self._contacts.append(membership.me.endpoint)
            if number > 1:
                await membership.wait_joined(DEADLINE)
            async with open_store(membership, limits=LIMITS, alone_seconds=0.2) as store:
                self._leaving[store] = leave, left
                task_status.started(store)
                await leave.wait()
        left.set()


@asynccontextmanager
async def gossip() -> AsyncIterator[Nodes]:
    async with trio.open_nursery() as nursery:
        yield GossipNodes(nursery)
        nursery.cancel_scope.cancel()


ENGINES: dict[str, Engine] = {"gossip": gossip, "etcd": partial(etcd_nodes, limits=LIMITS)}

pytestmark = pytest.mark.trio
engines = pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)


@asynccontextmanager
async def stores(engine: Engine, count: int) -> AsyncIterator[tuple[Nodes, list[Store]]]:
    async with engine() as nodes:
        yield nodes, [await nodes.add() for _ in range(count)]


async def until(condition: Callable[[], object]) -> None:
    with trio.fail_after(DEADLINE):
        while not condition():  # noqa: ASYNC110 - what is waited for knows no events
            await trio.sleep(0.01)


# -- own entries -------------------------------------------------------------------------------------------------------


@engines
async def test_what_one_node_says_all_see_as_its_own(engine: Engine) -> None:
    async with stores(engine, 2) as (_, (one, other)):
        await one.put_own("vips/a", b"1")
        await other.put_own("vips/a", b"2")
        await other.put_own("other/b", b"")
        expected = sorted([Entry("vips/a", one.me, b"1"), Entry("vips/a", other.me, b"2")])
        for store in (one, other):
            await until(lambda store=store: len(store.entries()) == 3)  # type: ignore[misc]
            assert list(store.entries("vips/")) == expected
            assert list(store.get_all("vips/a").items()) == [(entry.owner, entry.value) for entry in expected]
            assert store.get(other.me, "other/b") == b""
            assert store.get(one.me, "other/b") is None
            assert store.problem == ""
        assert one.own() == {"vips/a": b"1"}
        assert one.me != other.me


@engines
async def test_many_entries_are_changed_in_one_call_and_all_or_none_of_them(engine: Engine) -> None:
    async with stores(engine, 2) as (_, (one, other)):
        await one.change_own({"a": b"1", "b": b"1", "c": b"1"})
        await one.change_own({"a": b"2", "b": None, "none": None})
        await until(lambda: [(entry.key, entry.value) for entry in other.entries()] == [("a", b"2"), ("c", b"1")])
        with pytest.raises(ValueTooLarge):
            await one.change_own({"a": b"3", "z": bytes(LIMITS.value_max_bytes + 1)})
        with pytest.raises(InvalidKeyError):
            await one.change_own({"a": b"3", "": b""})
        with pytest.raises(TooManyKeys):
            await one.change_own({"a": b"3", **{f"k{number}": b"" for number in range(LIMITS.own_keys_max)}})
        assert one.own() == {"a": b"2", "c": b"1"}


@engines
async def test_a_deleted_entry_is_gone_everywhere(engine: Engine) -> None:
    async with stores(engine, 2) as (_, (one, other)):
        await one.put_own("a", b"1")
        await until(other.entries)
        assert await one.delete_own("a")
        assert not await one.delete_own("a")
        assert one.get(one.me, "a") is None
        await until(lambda: not other.entries())
        await one.put_own("a", b"again")
        await until(lambda: other.get(one.me, "a") == b"again")


@engines
async def test_the_entries_of_a_node_that_leaves_go_and_its_store_has_ended(engine: Engine) -> None:
    async with stores(engine, 3) as (nodes, (one, other, third)):
        await one.put_own("a", b"1")
        await third.put_own("a", b"3")
        await until(lambda: len(other.entries()) == 2)
        await nodes.leave(one)
        await until(lambda: list(other.get_all("a")) == [third.me])
        with pytest.raises(StoreClosed):
            await one.put_own("b", b"")
        with pytest.raises(StoreClosed):
            await one.update(SharedKey.flag("f"), Enable())
        with pytest.raises(StoreClosed):
            await one.wait_ready()
        assert one.problem


@engines
async def test_a_newcomer_sees_what_was_said_before(engine: Engine) -> None:
    async with stores(engine, 1) as (nodes, (one,)):
        await one.change_own({"a": b"1", "b": b"2"})
        await one.update(SharedKey.counter("c"), Add(5))
        late = await nodes.add()
        await until(lambda: late.entries() == one.entries() and late.shared() == one.shared())
        assert len(late.entries()) == 2
        assert late.read(SharedKey.counter("c")) == 5


# -- shared values -----------------------------------------------------------------------------------------------------

WRITTEN: list[tuple[SharedKey, Operation, object]] = [
    (SharedKey.register("v"), Assign(b"x"), b"x"),
    (SharedKey.counter("v"), Add(-3), -3),
    (SharedKey.flag("v"), Enable(), True),
    (SharedKey.set("v"), AddElement(b"x"), frozenset({b"x"})),
    (SharedKey.map("v"), InMap(SharedKey.counter("f"), Add(2)), {SharedKey.counter("f"): 2}),
]


@engines
async def test_a_value_of_each_kind_is_written_read_and_removed(engine: Engine) -> None:
    async with stores(engine, 2) as (_, (one, other)):
        for key, operation, value in WRITTEN:
            assert one.read(key) is None
            assert await one.update(key, operation) == value
            assert one.read(key) == value
        expected = {key: value for key, _, value in WRITTEN}
        await until(lambda: other.shared("v") == expected)
        assert list(other.shared()) == sorted(expected)
        assert other.shared("w") == {}
        for key in expected:
            assert await other.update(key, Remove()) is None
        await until(lambda: one.shared() == {})


@engines
async def test_changes_at_one_time_are_merged_as_the_kind_has_it(engine: Engine) -> None:
    async with stores(engine, 2) as (_, (one, other)):
        counter, hosts = SharedKey.counter("n"), SharedKey.set("hosts")
        async with trio.open_nursery() as nursery:
            for number, store in enumerate((one, other) * 5):
                nursery.start_soon(partial(store.update, counter, Add(number)))
                nursery.start_soon(partial(store.update, hosts, AddElement(b"%d" % number)))
        elements = frozenset(b"%d" % number for number in range(10))
        for store in (one, other):
            await until(lambda store=store: store.shared() == {counter: 45, hosts: elements})  # type: ignore[misc]
        await one.update(hosts, *(RemoveElement(element) for element in elements))
        await until(lambda: other.read(hosts) is None)


@engines
async def test_operations_in_one_call_are_done_in_order(engine: Engine) -> None:
    async with stores(engine, 1) as (_, (one,)):
        assert await one.update(SharedKey.set("s"), AddElement(b"a"), RemoveElement(b"a"), AddElement(b"b")) == {b"b"}
        assert await one.update(SharedKey.flag("f"), Enable(), Disable()) is None
        field = SharedKey.register("weight")
        assert await one.update(SharedKey.map("m"), InMap(field, Assign(b"1")), InMap(field, Assign(b"2"))) == {field: b"2"}
        assert await one.update(SharedKey.map("m"), InMap(field, Remove())) is None


@engines
async def test_what_cannot_be_done_to_a_shared_value_is_refused(engine: Engine) -> None:
    async with stores(engine, 1) as (_, (one,)):
        with pytest.raises(InvalidOperationError):
            await one.update(SharedKey.set("s"), Add(1))
        with pytest.raises(InvalidKeyError):
            await one.update(SharedKey.set(""), AddElement(b""))
        with pytest.raises(ValueTooLarge):
            await one.update(SharedKey.register("r"), Assign(bytes(LIMITS.shared_value_max_bytes + 1)))
        assert one.shared() == {}
        for number in range(LIMITS.shared_keys_max):
            await one.update(SharedKey.counter(f"c{number}"), Add(1))
        with pytest.raises(TooManyKeys):
            await one.update(SharedKey.counter("more"), Add(1))
        assert len(one.shared()) == LIMITS.shared_keys_max


# -- watching ----------------------------------------------------------------------------------------------------------


async def following(watch: AsyncIterator[Changes]) -> Changes:
    with trio.fail_after(DEADLINE):
        return await anext(watch)


@engines
async def test_a_watch_begins_with_everything_and_then_names_what_changed(engine: Engine) -> None:
    async with stores(engine, 2) as (_, (one, other)), other.watch("vips/") as watch:
        assert await following(watch) == Changes(everything=True)
        await one.put_own("elsewhere", b"")
        await one.update(SharedKey.flag("elsewhere"), Enable())
        await one.put_own("vips/a", b"1")
        assert await following(watch) == Changes(own=frozenset({"vips/a"}))
        await one.update(SharedKey.flag("vips/f"), Enable())
        assert await following(watch) == Changes(shared=frozenset({SharedKey.flag("vips/f")}))
        await one.delete_own("vips/a")
        assert await following(watch) == Changes(own=frozenset({"vips/a"}))
        assert other.get(one.me, "vips/a") is None


@engines
async def test_what_nobody_reads_is_gathered_and_too_much_of_it_is_everything(engine: Engine) -> None:
    async with stores(engine, 1) as (_, (one,)), one.watch() as watch:
        await following(watch)
        for value in (b"1", b"2", b"3"):
            await one.put_own("a", value)
        await one.put_own("b", b"")
        await until(lambda: one.own().keys() == {"a", "b"})
        seen: set[str] = set()
        while seen != {"a", "b"}:
            seen |= (await following(watch)).own
        await one.change_own({f"k{number}": b"" for number in range(LIMITS.watch_keys_max + 1)})
        while not (await following(watch)).everything:
            pass


@engines
async def test_a_watch_ends_when_the_store_does(engine: Engine) -> None:
    async with stores(engine, 2) as (nodes, (one, _)), AsyncExitStack() as stack:
        watch = await stack.enter_async_context(one.watch())
        await following(watch)
        await nodes.leave(one)
        while True:
            try:
                await following(watch)
            except StopAsyncIteration:
                break


# -- in and out --------------------------------------------------------------------------------------------------------


@engines
async def test_an_export_is_imported_elsewhere_and_reads_the_same(engine: Engine) -> None:
    async with stores(engine, 2) as (_, (one, other)):
        await one.change_own({"a": b"\x00\xff", "b": b""})
        await other.put_own("a", b"other")
        for key, operation, _ in WRITTEN:
            await one.update(key, operation)
        await one.update(SharedKey.map("v"), InMap(SharedKey.set("s"), AddElement(b"e")), InMap(SharedKey.flag("f"), Enable()))
        await until(lambda: len(one.entries()) == 3)
        text = export_store(one)
        document = json.loads(text)
        assert (document["format"], document["version"], len(document["shared"])) == ("pyminuteman-store", 1, 5)
        assert document["own"][str(one.me)] == {"a": "AP8=", "b": ""}
    async with stores(engine, 1) as (_, (new,)):
        await new.update(SharedKey.counter("v"), Add(100))
        await new.update(SharedKey.set("v"), AddElement(b"old"))
        await new.put_own("stays", b"")
        assert await import_store(new, text, owner=one.me) == Imported(own=2, shared=5, others=1)
        again = json.loads(export_store(new))
        assert again["shared"] == document["shared"]
        assert again["own"] == {str(new.me): {**document["own"][str(one.me)], "stays": ""}}
        assert await import_store(new, export_store(new, "stays")) == Imported(own=1, shared=0, others=0)


@engines
async def test_what_is_no_export_is_refused_and_changes_nothing(engine: Engine) -> None:
    async with stores(engine, 1) as (_, (one,)):
        with pytest.raises(ConfigurationError, match="not JSON"):
            await import_store(one, "{")
        assert one.shared() == {}


@engines
async def test_metrics_are_numbers_under_the_stores_name(engine: Engine) -> None:
    async with stores(engine, 1) as (_, (one,)):
        await one.put_own("a", b"1")
        metrics = one.metrics()
        assert metrics
        assert all(name.startswith("store_") and isinstance(value, int | float) for name, value in metrics.items())
        assert metrics["store_entries"] == 1
