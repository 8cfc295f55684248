"""Nodes at work, in one process: real memberships and stores over loopback, and a double of each kernel."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from pyminuteman.addresses import Endpoint
from pyminuteman.daemon.entries import ClaimTable
from pyminuteman.daemon.events import EventLog
from pyminuteman.daemon.feeds import Feed
from pyminuteman.daemon.ledger import Ledger
from pyminuteman.daemon.node import Node, NodeParts
from pyminuteman.daemon.outlook import Outlook
from pyminuteman.daemon.reconciler import Reconciler
from pyminuteman.daemon.reconciler_options import ReconcilerOptions
from pyminuteman.daemon.sources import FeedOptions, Sources
from pyminuteman.health.monitor import open_monitor
from pyminuteman.ipvs import IPVSTable, Scope
from pyminuteman.kv import Changes, StoreLimits, open_store
from pyminuteman.membership import open_membership
from pyminuteman.sources.push import PushSource
from pyminuteman.testing.fake_kernel import FakeKernel
from pyminuteman.vips.desired import DesiredTable
from pyminuteman.vips.model import VIP, Backend, BackendKey, VIPKey, VIPName
from pyminuteman.vips.policy import Networks, Policy, Rule

WEB = VIPKey.tcp("11.0.0.1", 80)
MANAGED = Scope.networks("11.0.0.0/8")
POLICY = Policy((Rule(vip_networks=Networks("11.0.0.0/8"), backend_networks=Networks("10.0.0.0/8", "172.16.0.0/12")),))


class Host:
    """One node, with its kernel and the source that the test pushes to."""

    def __init__(self, name: str, node: Node, kernel: FakeKernel, source: PushSource, stop: trio.CancelScope) -> None:
        self.name, self.node, self.kernel, self.source, self.stop = name, node, kernel, source, stop

    def weights(self) -> dict[str, int]:
        """What the kernel has behind the VIP: destinations with their weights."""
        snapshot = self.kernel.read()
        rows = [row for service in snapshot for row in snapshot.destinations(service.key)]
        return {str(BackendKey(row.address, row.port)): row.weight for row in rows}


@asynccontextmanager
async def cluster(
    count: int, directory: Path, *, feed_options: FeedOptions | None = None, limits: StoreLimits | None = None, **options: Any
) -> AsyncIterator[list[Host]]:
    hosts: list[Host] = []
    async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
        contact: list[Endpoint] = []
        for number in range(1, count + 1):
            membership = await stack.enter_async_context(
                open_membership(
                    name=f"n{number}", bind=Endpoint("127.0.0.1", 0), contacts=contact, addresses=[f"10.0.0.{number}"]
                )
            )
            contact = contact or [membership.me.endpoint]
            store = await stack.enter_async_context(open_store(membership, limits=limits, alone_seconds=0.1))
            monitor = await stack.enter_async_context(open_monitor())
            events, kernel, source = EventLog(), FakeKernel(), PushSource()
            box: list[Node] = []
            feed = Feed("web", source, events=events, changed=lambda box=box: box[0].publish())  # type: ignore[misc]
            own = frozenset({f"10.0.0.{number}"})
            (directory / f"{number}").mkdir(exist_ok=True)
            reconciler = Reconciler(
                "",
                open_table=lambda scope, drain, kernel=kernel: IPVSTable(scope=scope, drain=drain, backend=kernel),  # type: ignore[misc]
                ledger=Ledger(directory / f"{number}" / "ledger.json"),
                options=ReconcilerOptions(managed=MANAGED, **options),
                tell=events.tell,
            )
            node = Node(
                NodeParts(
                    membership=membership,
                    store=store,
                    sources=Sources(feeds=[feed], options={"web": feed_options or FeedOptions()}),
                    outlook=Outlook(ClaimTable(), DesiredTable(own_addresses=own), POLICY),
                    monitor=monitor,
                    reconcilers={"": reconciler},
                    events=events,
                    own_addresses=own,
                )
            )
            box.append(node)
            stop = trio.CancelScope()

            async def work(node: Node = node, stop: trio.CancelScope = stop) -> None:
                with stop:
                    await node.run()

            nursery.start_soon(work)
            hosts.append(Host(f"n{number}", node, kernel, source, stop))
        with trio.fail_after(20):
            for host in hosts:
                await host.node.ready.wait()
        yield hosts
        nursery.cancel_scope.cancel()


async def until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    with trio.fail_after(seconds):
        while not true():  # noqa: ASYNC110 - the kernel tells nobody
            await trio.sleep(0.005)


def vip(*backends: Backend) -> VIP:
    return VIP(WEB, backends)


@pytest.mark.trio
async def test_what_one_node_says_is_in_every_kernel_and_goes_when_it_says_no_more(tmp_path: Path) -> None:
    async with cluster(3, tmp_path, max_loss_percent=100) as hosts:
        hosts[0].source.push([vip(Backend("10.0.0.1", 8080))])
        hosts[1].source.push([vip(Backend("10.0.0.2", 8080, weight=3))])
        both = {"10.0.0.1:8080": 1, "10.0.0.2:8080": 3}
        await until(lambda: all(host.weights() == both for host in hosts))
        await until(lambda: all("vip_added" in host.node.events.counts for host in hosts))  # kernels come before events
        hosts[0].source.push([])
        await until(lambda: all(host.weights() == {"10.0.0.2:8080": 3} for host in hosts))
        hosts[1].source.push([])
        await until(lambda: all(host.weights() == {} and not host.kernel.services for host in hosts))
        await until(lambda: all(not Ledger(tmp_path / f"{number}" / "ledger.json").keys for number in (1, 2, 3)))


@pytest.mark.trio
async def test_operators_marks_are_obeyed_everywhere_and_undone(tmp_path: Path) -> None:
    async with cluster(2, tmp_path) as (one, two):
        one.source.push([vip(Backend("10.0.0.1", 8080), Backend("10.0.0.2", 8080), Backend("10.0.0.7", 8080))])
        await until(lambda: len(one.weights()) == len(two.weights()) == 3)
        target = (None, BackendKey("10.0.0.7", 8080))
        await two.node.drain(target, by="ann", reason="disk")
        await until(lambda: one.weights()["10.0.0.7:8080"] == 0 == two.weights()["10.0.0.7:8080"])
        assert one.node.marks.backend_drains[target].by == "ann"
        await one.node.undrain(target, by="ann", reason="")
        await until(lambda: one.weights()["10.0.0.7:8080"] == 1 == two.weights()["10.0.0.7:8080"])
        await one.node.set_weight((WEB, BackendKey("10.0.0.7", 8080)), 9, by="ann", reason="")
        await until(lambda: two.weights()["10.0.0.7:8080"] == 9)
        await one.node.clear_weight((WEB, BackendKey("10.0.0.7", 8080)), by="ann", reason="")
        await until(lambda: two.weights()["10.0.0.7:8080"] == 1)
        await one.node.drain(two.node.membership.me.id, by="ann", reason="reboot")
        await until(lambda: one.weights()["10.0.0.2:8080"] == 0 == two.weights()["10.0.0.2:8080"])
        await two.node.undrain(two.node.membership.me.id, by="ann", reason="")
        await until(lambda: set(one.weights().values()) == {1})


def told(node: Node) -> list[str]:
    """What a node has told of operators' marks."""
    return [event.text for event in node.events.since(0) if event.kind in {"drained", "undrained", "weight"}]


@pytest.mark.trio
async def test_every_node_tells_once_who_laid_a_mark_down_and_who_undid_it(tmp_path: Path) -> None:
    async with cluster(2, tmp_path) as (one, two):
        backend = (None, BackendKey("10.0.0.7", 8080))
        expected = []
        for verb, text in (
            (one.node.drain(backend, by="ann", reason="disk"), "10.0.0.7:8080 is drained by ann: disk"),
            (two.node.undrain(backend, by="bob", reason="done"), "10.0.0.7:8080 is put back by bob: done"),
            (two.node.set_weight(backend, 9, by="ann", reason=""), "10.0.0.7:8080 is given weight 9 by ann"),
            (one.node.clear_weight(backend, by="bob", reason=""), "10.0.0.7:8080 has its source's weight again by bob"),
        ):
            await verb
            expected.append(text)
            await until(lambda: told(one.node) == expected == told(two.node))
        await one.node.undrain(backend, by="ann", reason="")  # which it is already
        await two.node.drain(one.node.membership.me.id, by="ann", reason="")
        await until(lambda: len(told(one.node)) == 5 == len(told(two.node)))
        assert told(one.node)[-1] == f"node {one.node.membership.me.id.short} is drained by ann"


@pytest.mark.trio
async def test_a_node_that_starts_anew_obeys_old_marks_and_does_not_tell_them_again(tmp_path: Path) -> None:
    async with cluster(1, tmp_path) as (one,):
        backend = (None, BackendKey("10.0.0.7", 8080))
        await one.node.drain(backend, by="ann", reason="disk")
        await until(lambda: len(told(one.node)) == 1)
        anew = Node(replace(one.node._parts, events=EventLog()))
        await one.node.set_weight(backend, 9, by="ann", reason="")
        anew._hear(Changes(everything=True))
        assert list(anew.marks.backend_drains) == [backend] == list(anew.marks.weights)
        assert told(anew) == ["10.0.0.7:8080 is given weight 9 by ann"]
        anew._hear(Changes(everything=True))
        assert len(told(anew)) == 1


@pytest.mark.trio
async def test_who_undid_a_mark_is_forgotten_by_a_verb_that_comes_an_hour_later(tmp_path: Path) -> None:
    async with cluster(2, tmp_path) as (one, two):
        first, second = ((None, BackendKey("10.0.0.7", port)) for port in (1, 2))
        for verb in (one.node.drain, one.node.undrain):
            await verb(first, by="ann", reason="")
        await until(lambda: [target for target, _ in two.node.marks.undone.values()] == [first])
        now = two.node._parts.clock() + 3601
        two.node._parts.clock = lambda: now
        await two.node.drain(second, by="ann", reason="")
        await until(lambda: not one.node.marks.undone and not two.node.marks.undone)
        assert [text.split()[0] for text in told(one.node)] == ["10.0.0.7:1", "10.0.0.7:1", "10.0.0.7:2"]


@pytest.mark.trio
async def test_a_second_claimant_is_refused_everywhere_and_told_of(tmp_path: Path) -> None:
    async with cluster(2, tmp_path) as (one, two):
        one.source.push([vip(Backend("10.0.0.1", 8080))])
        await until(lambda: len(one.weights()) == len(two.weights()) == 1)
        two.source.push([VIP(WEB, (Backend("10.0.0.2", 8080),), principal="thief")])
        await until(lambda: bool(one.node.judgement.refusals and two.node.judgement.refusals))
        assert one.weights() == two.weights() == {"10.0.0.1:8080": 1}
        await until(lambda: one.node.events.counts["refused"] == two.node.events.counts["refused"] == 1)


@pytest.mark.trio
async def test_a_member_that_leaves_takes_its_backends_with_it(tmp_path: Path) -> None:
    async with cluster(3, tmp_path, max_loss_percent=100) as hosts:
        one, two, three = hosts
        one.source.push([vip(*(Backend(f"10.0.0.{number}", 8080) for number in (1, 2, 3)))])
        await until(lambda: all(len(host.weights()) == 3 for host in hosts))
        await three.node.membership.leave()
        await until(lambda: all(set(host.weights()) == {"10.0.0.1:8080", "10.0.0.2:8080"} for host in (one, two)))
        assert one.node.events.counts["member_left"] == 1
        await until(lambda: one.node.events.counts["backend_out"] >= 1)


@pytest.mark.trio
async def test_what_is_not_published_counts_on_its_own_node_alone(tmp_path: Path) -> None:
    async with cluster(2, tmp_path, feed_options=FeedOptions("none"), max_loss_percent=100) as (one, two):
        one.source.push([vip(Backend("10.0.0.1", 8080), Backend("10.0.0.7", 8080))])
        two.source.push([vip(Backend("10.0.0.2", 8080))])
        await until(
            lambda: set(one.weights()) == {"10.0.0.1:8080", "10.0.0.7:8080"} and set(two.weights()) == {"10.0.0.2:8080"}
        )
        assert one.node.store.entries("vip/") == two.node.store.entries("vip/") == []
        await two.node.drain(one.node.membership.me.id, by="ann", reason="")  # marks bear on it as on all
        await until(lambda: one.weights()["10.0.0.1:8080"] == 0)
        one.source.push([])
        await until(lambda: one.weights() == {} and len(two.weights()) == 1)


@pytest.mark.trio
async def test_what_the_store_has_no_room_for_hides_nothing_else_and_is_told_of_once(tmp_path: Path) -> None:
    async with cluster(2, tmp_path, limits=StoreLimits(value_max_bytes=200)) as (one, two):
        long = VIP(VIPKey.tcp(VIPName("/" + "x" * 190, "marathon"), 80), (Backend("10.0.0.1", 1),), principal="y" * 60)
        one.source.push([long, vip(Backend("10.0.0.1", 8080))])
        await until(lambda: two.weights() == {"10.0.0.1:8080": 1})
        one.source.push([long, vip(Backend("10.0.0.2", 8080))])
        await until(lambda: two.weights() == {"10.0.0.2:8080": 1})
        (refused,) = [event for event in one.node.events.since(0) if event.kind == "refused"]
        assert "the limit is 200" in refused.text
        assert list(one.node.voice.untold) == [str(long.key)]
        one.source.push([vip(Backend("10.0.0.2", 8080))])
        await until(lambda: not one.node.voice.untold)


@pytest.mark.trio
async def test_only_its_own_host_says_that_a_backend_is_unhealthy(tmp_path: Path) -> None:
    async with cluster(2, tmp_path) as (one, two):
        backends = Backend("10.0.0.1", 8080), Backend("10.0.0.2", 8080), Backend("172.17.0.2", 80, agent="10.0.0.2")
        await two.node.store.put_own("unhealthy/172.17.0.2:80", b"refused")  # before anybody knows of it
        await two.node.store.put_own("unhealthy/10.0.0.1:8080", b"so says another")
        one.source.push([vip(*backends)])
        weights = {"10.0.0.1:8080": 1, "10.0.0.2:8080": 1, "172.17.0.2:80": 0}
        await until(lambda: one.weights() == two.weights() == weights)
        assert [owner for owner, *_ in one.node.words.faults] == [two.node.membership.me.id]
        await two.node.store.put_own("unhealthy/10.0.0.2:8080", b"refused")
        await until(lambda: one.weights()["10.0.0.2:8080"] == 0 == two.weights()["10.0.0.2:8080"])
        assert one.weights()["10.0.0.1:8080"] == 1


@pytest.mark.trio
async def test_another_namespace_is_told_what_is_desired_and_kept_as_the_host_is(tmp_path: Path) -> None:
    async with cluster(1, tmp_path, max_loss_percent=100) as hosts, trio.open_nursery() as nursery:
        node = hosts[0].node
        hosts[0].source.push([vip(Backend("10.0.0.1", 8080))])
        await until(lambda: hosts[0].weights() == {"10.0.0.1:8080": 1})
        changed = ReconcilerOptions(managed=MANAGED, max_loss_percent=100, audit_seconds=7.0)
        node.reconcilers[""].set_options(changed)
        kernel = FakeKernel()
        other = Reconciler(
            "blue",
            open_table=lambda scope, drain: IPVSTable(scope=scope, drain=drain, backend=kernel),
            ledger=Ledger(None),
            options=ReconcilerOptions(managed=MANAGED),
            tell=node.events.tell,
        )
        node.admit(other)
        nursery.start_soon(other.run)
        assert other.options is changed
        await until(lambda: len(kernel.services) == 1)
        hosts[0].source.push([])
        await until(lambda: not kernel.services)
        node.dismiss(other)
        assert node.reconcilers.keys() == {""}
        nursery.cancel_scope.cancel()
