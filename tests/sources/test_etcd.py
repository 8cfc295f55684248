"""VIPs in a real etcd: complete states, and the last good one whatever happens to the etcd."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from random import Random

import pytest
import trio

from pyminuteman.errors import ConfigurationError
from pyminuteman.etcd.client import EtcdClient
from pyminuteman.etcd.errors import EtcdUnavailable
from pyminuteman.etcd.messages import Delete, Put
from pyminuteman.http_client import HttpOptions
from pyminuteman.sources.backoff import Backoff
from pyminuteman.sources.base import SourceState
from pyminuteman.sources.document import plain_vip
from pyminuteman.sources.etcd import EtcdSource
from pyminuteman.sources.options import parse_source
from pyminuteman.testing.etcd_server import EtcdCluster, EtcdMember
from tests.support.etcd import (
    QUICK,
    client,
    compact,
    delete,
    eventually,
    eventually_does,
    needs_etcd,
    own_etcd,
    prefix,
    put,
    shared_etcd,
    tls_files,
)

__all__ = ["client", "own_etcd", "prefix", "shared_etcd"]
pytestmark = needs_etcd


def source_of(url: str, prefix: bytes, options: HttpOptions = QUICK) -> EtcdSource:
    return EtcdSource([url], prefix.decode(), options, random=Random(1), backoff=Backoff(0.05, 0.2), settle_seconds=0.01)  # noqa: S311


def web(number: int, *backends: str) -> bytes:
    rows = [{"address": address, "port": 8080} for address in backends]
    return json.dumps({"listen": f"tcp://11.0.0.{number}:80", "backend": rows}).encode()


def shown(state: SourceState) -> dict[str, list[str]]:
    return {str(vip.key): [backend.address for backend in vip.backends] for vip in state.vips}


async def following(states: AsyncIterator[SourceState]) -> SourceState:
    with trio.fail_after(30):
        return await anext(states)


async def state_with(states: AsyncIterator[SourceState], wanted: dict[str, list[str]]) -> SourceState:
    while shown(state := await following(states)) != wanted:
        pass
    return state


@pytest.mark.trio
async def test_the_first_state_is_all_there_is_and_each_change_gives_the_next(client: EtcdClient, prefix: bytes) -> None:
    await put(client, prefix + b"one", web(1, "10.0.0.1"))
    await put(client, prefix + b"team/two", web(2))
    await put(client, prefix[:-1] + b"x", web(3))
    source = source_of(client.endpoint, prefix)
    async with source.states() as states:
        assert shown(await following(states)) == {"tcp://11.0.0.1:80": ["10.0.0.1"], "tcp://11.0.0.2:80": []}
        assert source.status.failures == 0
        assert source.status.last_good_at is not None
        await put(client, prefix + b"one", web(1, "10.0.0.1", "10.0.0.2"))
        assert shown(await following(states))["tcp://11.0.0.1:80"] == ["10.0.0.1", "10.0.0.2"]
        await delete(client, prefix + b"team/two")
        state = await following(states)
        assert list(shown(state)) == ["tcp://11.0.0.1:80"]
        await put(client, prefix + b"one", json.dumps(plain_vip(state.vips[0])).encode())
        await put(client, prefix + b"end", web(9))
        await state_with(states, {"tcp://11.0.0.1:80": ["10.0.0.1", "10.0.0.2"], "tcp://11.0.0.9:80": []})
        assert source.status.counters["states"] == 4, "the same once more is no new state"


@pytest.mark.trio
async def test_an_empty_prefix_is_a_complete_state(client: EtcdClient, prefix: bytes) -> None:
    async with source_of(client.endpoint, prefix).states() as states:
        assert await following(states) == SourceState()


@pytest.mark.trio
async def test_changes_of_one_transaction_come_together(client: EtcdClient, prefix: bytes) -> None:
    async with source_of(client.endpoint, prefix).states() as states:
        await following(states)
        puts = [Put(prefix + b"%d" % at, web(at)) for at in range(1, 100)]
        await client.transact((), puts)
        assert len((await following(states)).vips) == 99
        await client.transact((), [Delete(prefix + b"1"), Delete(prefix + b"2")])
        assert len((await following(states)).vips) == 97


@pytest.mark.trio
async def test_a_value_that_is_no_vip_takes_none_away(client: EtcdClient, prefix: bytes) -> None:
    await put(client, prefix + b"one", web(1, "10.0.0.1"))
    async with source_of(client.endpoint, prefix).states() as states:
        good = await following(states)
        await put(client, prefix + b"one", b"{")
        state = await following(states)
        assert state.vips == good.vips
        assert [problem.where for problem in state.problems] == [f"{prefix.decode()}one"]


@pytest.mark.trio
async def test_while_the_etcd_is_away_the_last_state_stands_and_the_reason_is_told(own_etcd: EtcdMember) -> None:
    source = source_of(own_etcd.url, b"/vips/")
    async with EtcdClient([own_etcd.url], QUICK) as client, source.states() as states:
        await put(client, b"/vips/a", web(1))
        await state_with(states, {"tcp://11.0.0.1:80": []})
        own_etcd.kill()
        await eventually(lambda: source.status.failures >= 3)
        assert own_etcd.url in source.status.reason
        assert source.status.failing_since is not None
        with trio.move_on_after(0.2) as waited:
            await anext(states)
        assert waited.cancelled_caught, "no state comes of a failure"
        own_etcd.launch()
        await eventually_does(partial(put, client, b"/vips/a", web(2)), EtcdUnavailable)
        await state_with(states, {"tcp://11.0.0.2:80": []})
        assert source.status.failures == 0
        assert source.status.reason == ""
        assert source.status.counters["readings"] == 1, "the watch went on from where it stood"


@pytest.mark.trio
async def test_it_begins_when_the_etcd_does(own_etcd: EtcdMember) -> None:
    own_etcd.kill()
    source = source_of(own_etcd.url, b"/vips/")
    async with source.states() as states:
        await eventually(lambda: source.status.failures >= 2)
        own_etcd.launch()
        assert await following(states) == SourceState()


@pytest.mark.trio
async def test_history_compacted_while_it_was_away_is_made_up_for(own_etcd: EtcdMember) -> None:
    source = source_of(own_etcd.url, b"/vips/")
    async with EtcdClient([own_etcd.url], QUICK) as client, source.states() as states:
        await put(client, b"/vips/a", web(1))
        await state_with(states, {"tcp://11.0.0.1:80": []})
        await eventually(lambda: source.status.counters["watches"] > 0)
        own_etcd.pause()
        own_etcd.kill()
        own_etcd.start()
        await eventually_does(partial(delete, client, b"/vips/a"), EtcdUnavailable)
        await compact(client, await put(client, b"/vips/b", web(2)))
        await state_with(states, {"tcp://11.0.0.2:80": []})


@pytest.mark.trio
async def test_over_tls_with_a_certificate(tmp_path: Path) -> None:
    tls, options = tls_files(tmp_path)
    with EtcdCluster(tmp_path, tls=tls) as cluster:
        async with EtcdClient(cluster.urls, options) as client:
            await put(client, b"/vips/a", web(1))
        async with source_of(cluster.urls[0], b"/vips/", options).states() as states:
            assert shown(await following(states)) == {"tcp://11.0.0.1:80": []}
        source = source_of(cluster.urls[0], b"/vips/", HttpOptions(ca_file=tls.ca_file, timeout_seconds=2))
        async with source.states():
            await eventually(lambda: source.status.failures > 0)


def test_what_cannot_be_is_refused_when_it_is_made() -> None:
    with pytest.raises(ConfigurationError, match="needs a prefix"):
        EtcdSource(["http://127.0.0.1:2379"], "/")
    with pytest.raises(ConfigurationError, match="at least one endpoint"):
        EtcdSource([], "/vips")


def test_it_is_named_on_the_command_line(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    source = parse_source(f"etcd:http://a:1,http://b:2/minuteman/my%20vips?user=root&password-file={secret}&timeout=3")
    assert isinstance(source, EtcdSource)
    assert source.name == "etcd:http://a:1,http://b:2/minuteman/my vips/"
    assert source._credentials is not None
    assert (source._credentials.user, source._credentials.password_file) == ("root", secret)
    assert source._options is not None
    assert source._options.timeout_seconds == 3
    for wrong in ("etcd:http://a:1", "etcd:http://a:1/", "etcd:http://a:1/x?user=root", "etcd:http://a:1/x?usr=root"):
        with pytest.raises(ConfigurationError):
            parse_source(wrong)


@pytest.mark.trio
async def test_what_is_no_url_is_refused_when_it_begins() -> None:
    with pytest.raises(ConfigurationError, match="is not a URL"):
        async with EtcdSource(["nonsense"], "/vips").states():
            pass


def test_its_name_has_no_secrets() -> None:
    source = EtcdSource(["http://user:secret@127.0.0.1:2379?token=secret", "http://127.0.0.2:2379"], "vips")
    assert source.name == "etcd:http://127.0.0.1:2379,http://127.0.0.2:2379/vips/"
