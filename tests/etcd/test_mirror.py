"""The mirror of a prefix of a real etcd: it ends up equal to what is there, whatever happens to watches, histories and servers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from pyminuteman.etcd import client as client_module
from pyminuteman.etcd.client import EtcdClient
from pyminuteman.etcd.errors import EtcdError, EtcdTooLarge, EtcdUnavailable
from pyminuteman.etcd.mirror import PrefixMirror
from pyminuteman.testing.etcd_server import EtcdCluster, EtcdMember
from tests.support.etcd import QUICK, compact, delete, eventually, eventually_does, mirror_of, needs_etcd, put

pytestmark = needs_etcd


class Follower:
    """Follows again whenever it failed; keeps what it was told."""

    def __init__(self, mirror: PrefixMirror) -> None:
        self.mirror = mirror
        self.changed: set[bytes] = set()
        self.told = 0
        self.failures: list[EtcdError] = []

    def tell(self, changed: set[bytes]) -> None:
        self.told += 1
        self.changed |= changed

    async def run(self) -> None:
        while True:
            try:
                await self.mirror.follow(self.tell)
            except EtcdError as error:
                self.failures.append(error)
                await trio.sleep(0.02)

    def values(self) -> dict[bytes, bytes]:
        return {key: item.value for key, item in self.mirror.contents.items()}


@asynccontextmanager
async def following(mirror: PrefixMirror) -> AsyncIterator[Follower]:
    async with trio.open_nursery() as nursery:
        follower = Follower(mirror)
        nursery.start_soon(follower.run)
        yield follower
        nursery.cancel_scope.cancel()


@pytest.mark.trio
async def test_what_was_there_is_told_at_once_and_then_each_change(client: EtcdClient, prefix: bytes) -> None:
    await put(client, prefix + b"a", b"1")
    async with following(mirror_of(client, prefix)) as follower:
        await eventually(lambda: follower.mirror.watches == 1)
        assert follower.changed == {prefix + b"a"}
        follower.changed.clear()
        await put(client, prefix + b"b", b"2")
        await eventually(lambda: follower.values() == {prefix + b"a": b"1", prefix + b"b": b"2"})
        await delete(client, prefix + b"a")
        await eventually(lambda: follower.values() == {prefix + b"b": b"2"})
        assert follower.changed == {prefix + b"a", prefix + b"b"}
        assert (follower.mirror.readings, follower.mirror.watches) == (1, 1)


@pytest.mark.trio
async def test_an_empty_prefix_is_a_state_too(client: EtcdClient, prefix: bytes) -> None:
    async with following(mirror_of(client, prefix)) as follower:
        await eventually(lambda: follower.told >= 1)
        assert follower.mirror.contents.revision > 0
        assert not follower.mirror.contents


@pytest.mark.trio
async def test_a_quiet_watch_is_opened_anew_and_misses_nothing(client: EtcdClient, prefix: bytes) -> None:
    async with following(mirror_of(client, prefix, idle_seconds=0.02)) as follower:
        for at in range(50):
            await put(client, prefix + b"k", b"%d" % at)
            await trio.sleep(0.01 if at % 5 else 0.05)
        await eventually(lambda: follower.values() == {prefix + b"k": b"49"})
        await eventually(lambda: follower.mirror.watches > 5)
        assert follower.mirror.readings == 1
        assert follower.failures == []


@pytest.mark.trio
async def test_audits_read_all_of_it_again(client: EtcdClient, prefix: bytes) -> None:
    async with following(mirror_of(client, prefix, idle_seconds=0.01, audit_seconds=0.05)) as follower:
        await eventually(lambda: follower.mirror.readings >= 3)


@pytest.mark.trio
async def test_history_that_is_gone_is_made_up_for_by_a_reading(own_etcd: EtcdMember) -> None:
    """The server restarts meanwhile; what happened in between is compacted away before we ask."""
    async with EtcdClient([own_etcd.url], QUICK) as client, EtcdClient([own_etcd.url], QUICK) as other:
        for name in (b"/a", b"/b"):
            await put(other, name, b"1")
        mirror = mirror_of(client, b"/")
        async with following(mirror) as follower:
            await eventually(lambda: mirror.watches == 1)
        assert set(follower.values()) == {b"/a", b"/b"}
        await delete(other, b"/a")
        await compact(other, await put(other, b"/b", b"2"))
        async with following(mirror) as follower:
            await eventually(lambda: follower.values() == {b"/b": b"2"})
            assert follower.changed == {b"/a", b"/b"}
            assert (mirror.compactions, mirror.readings) == (1, 2)


@pytest.mark.trio
async def test_a_restart_costs_one_failure_and_no_reading(own_etcd: EtcdMember) -> None:
    async with EtcdClient([own_etcd.url], QUICK) as client, EtcdClient([own_etcd.url], QUICK) as other:
        await put(other, b"/a", b"1")
        async with following(mirror_of(client, b"/")) as follower:
            await eventually(lambda: follower.mirror.watches == 1)
            own_etcd.kill()
            await eventually(lambda: bool(follower.failures))
            assert follower.values() == {b"/a": b"1"}
            own_etcd.launch()
            await eventually_does(partial(put, other, b"/a", b"2"), EtcdUnavailable)
            await eventually(lambda: follower.values() == {b"/a": b"2"})
            assert follower.mirror.readings == 1


@pytest.mark.trio
async def test_an_etcd_set_up_anew_is_noticed_and_what_it_lacks_is_told(own_etcd: EtcdMember) -> None:
    """At the same URLs and with the same token it has the same cluster id: only its revision tells."""
    async with EtcdClient([own_etcd.url], QUICK) as client, EtcdClient([own_etcd.url], QUICK) as other:
        for at in range(20):
            await put(other, b"/a%d" % at, b"1")
        async with following(mirror_of(client, b"/")) as follower:
            await eventually(lambda: len(follower.values()) == 20)
            cluster_id = follower.mirror.contents.cluster_id
            follower.changed.clear()
            own_etcd.kill()
            own_etcd.wipe()
            own_etcd.launch()
            await eventually_does(partial(put, other, b"/new", b"1"), EtcdUnavailable)
            await eventually(lambda: follower.values() == {b"/new": b"1"})
            assert len(follower.changed) == 21
            assert follower.mirror.contents.cluster_id == cluster_id
            await put(other, b"/new", b"2")
            await eventually(lambda: follower.values() == {b"/new": b"2"})


@pytest.mark.trio
async def test_a_member_that_hangs_is_left_for_another(tmp_path_factory: pytest.TempPathFactory) -> None:
    with EtcdCluster(tmp_path_factory.mktemp("etcd"), 3) as cluster:
        async with EtcdClient(cluster.urls, QUICK) as client, EtcdClient(cluster.urls, QUICK) as other:
            await put(other, b"/a", b"1")
            async with following(mirror_of(client, b"/", idle_seconds=1.0)) as follower:
                await eventually(lambda: follower.mirror.watches == 1)
                cluster.members[0].pause()
                await eventually_does(partial(put, other, b"/a", b"2"), EtcdUnavailable)
                await eventually(lambda: follower.values() == {b"/a": b"2"})
                assert client.endpoint != cluster.urls[0]
                cluster.members[0].resume()


@pytest.mark.trio
async def test_a_message_that_is_too_long_is_made_up_for_by_a_reading(
    client: EtcdClient, prefix: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "MESSAGE_MAX_BYTES", 1000)
    async with following(mirror_of(client, prefix)) as follower:
        await eventually(lambda: follower.mirror.watches == 1)
        await put(client, prefix + b"k", b"x" * 2000)
        await eventually(lambda: follower.values() == {prefix + b"k": b"x" * 2000})
        assert follower.mirror.readings == 2
        assert "more than 1000 bytes" in str(follower.failures[0])


@pytest.mark.trio
async def test_too_much_is_an_error_and_not_a_part(client: EtcdClient, prefix: bytes) -> None:
    for at in range(3):
        await put(client, prefix + b"%d" % at, b"")
    mirror = mirror_of(client, prefix, most_keys=2)
    with pytest.raises(EtcdTooLarge):
        await mirror.follow(lambda _changed: None)
    assert not mirror.contents
