"""Requests to a real etcd, and to what is none: what is written is read, and whatever fails says so in time."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
import trio

from pyminuteman.errors import ConfigurationError
from pyminuteman.etcd.client import EtcdClient, EtcdCredentials, Watch
from pyminuteman.etcd.errors import (
    EtcdAnswerInvalid,
    EtcdCompacted,
    EtcdError,
    EtcdRefused,
    EtcdTooLarge,
    EtcdUnavailable,
    LeaseGone,
)
from pyminuteman.etcd.messages import Compare, Delete, Get, Put, prefix_end
from pyminuteman.http_client import HttpOptions
from pyminuteman.testing.etcd_server import EtcdCluster, EtcdMember
from tests.support.etcd import QUICK, compact, delete, eventually_does, needs_etcd, put, tls_files

pytestmark = needs_etcd
LIMITS = {"most_keys": 100, "most_bytes": 10_000}


async def read_all(client: EtcdClient, prefix: bytes, **options: int) -> dict[bytes, bytes]:
    items, _, _ = await client.read_prefix(prefix, **(LIMITS | options))
    return {item.key: item.value for item in items}


async def drain(watch: Watch) -> None:
    while True:
        await watch.receive()


def dead_url() -> str:
    """Where nobody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}"


# -- keys -----------------------------------------------------------------------------------------------------------------


@pytest.mark.trio
async def test_what_is_written_is_read_whatever_its_bytes(client: EtcdClient, prefix: bytes) -> None:
    odd = prefix + b"\0\xff/\n"
    revision = await put(client, odd, b"\0\xfe")
    found = await client.range(odd)
    assert [(item.key, item.value, item.mod_revision) for item in found.items] == [(odd, b"\0\xfe", revision)]
    await put(client, odd, b"")
    assert await read_all(client, prefix) == {odd: b""}
    await delete(client, odd)
    assert await read_all(client, prefix) == {}


@pytest.mark.trio
async def test_a_prefix_ends_where_the_next_one_begins(client: EtcdClient, prefix: bytes) -> None:
    for name in (b"a", b"a\xff", b"b"):
        await put(client, prefix + name, name)
    assert set(await read_all(client, prefix + b"a")) == {prefix + b"a", prefix + b"a\xff"}


@pytest.mark.trio
async def test_pages_are_of_one_moment(client: EtcdClient, prefix: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    for at in range(5):
        await put(client, prefix + b"%d" % at, b"before")
    plain, pages = client.range, 0

    async def disturbed(*args: bytes, **options: int) -> object:
        nonlocal pages
        found = await plain(*args, **options)
        pages += 1
        await put(client, prefix + b"4", b"after page %d" % pages)
        return found

    monkeypatch.setattr(client, "range", disturbed)
    assert await read_all(client, prefix, page=2) == {prefix + b"%d" % at: b"before" for at in range(5)}
    assert pages == 3


@pytest.mark.trio
async def test_a_moment_that_is_compacted_while_it_is_read_is_given_up_for_a_later_one(
    client: EtcdClient, prefix: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    for at in range(4):
        await put(client, prefix + b"%d" % at, b"before")
    plain, disturbances = client.range, 1

    async def disturbed(*args: bytes, **options: int) -> object:
        nonlocal disturbances
        found = await plain(*args, **options)
        if disturbances:
            disturbances -= 1
            await compact(client, await put(client, prefix + b"3", b"after"))
        return found

    monkeypatch.setattr(client, "range", disturbed)
    assert (await read_all(client, prefix, page=2))[prefix + b"3"] == b"after"
    disturbances = 1000
    with pytest.raises(EtcdCompacted):
        await read_all(client, prefix, page=2)
    assert disturbances == 1000 - 3 * 1, "a bounded number of attempts"


@pytest.mark.trio
async def test_more_than_we_would_hold_is_refused_whole(client: EtcdClient, prefix: bytes) -> None:
    for at in range(3):
        await put(client, prefix + b"%d" % at, b"x" * 100)
    with pytest.raises(EtcdTooLarge, match="more than 2 keys"):
        await read_all(client, prefix, most_keys=2, page=1)
    with pytest.raises(EtcdTooLarge, match="200 bytes"):
        await read_all(client, prefix, most_bytes=200)


@pytest.mark.trio
async def test_a_transaction_does_one_branch_or_the_other(client: EtcdClient, prefix: bytes) -> None:
    key = prefix + b"k"
    first = await client.transact([Compare(key, 0)], [Put(key, b"1")], [Get(key)])
    assert first.succeeded
    again = await client.transact([Compare(key, 0)], [Put(key, b"2")], [Get(key)])
    assert not again.succeeded
    assert again.found[0] is not None
    assert [item.value for item in again.found[0].items] == [b"1"]
    swapped = await client.transact([Compare(key, first.header.revision)], [Put(key, b"2"), Get(key)])
    assert swapped.succeeded
    assert swapped.found[0] is None
    assert swapped.found[1] is not None
    assert [item.value for item in swapped.found[1].items] == [b"2"]
    await client.transact((), [Delete(prefix, prefix_end(prefix))])
    assert await read_all(client, prefix) == {}


@pytest.mark.trio
async def test_what_an_etcd_refuses_is_refused_at_once_and_at_no_other_endpoint(
    shared_etcd: EtcdCluster, prefix: bytes
) -> None:
    async with EtcdClient([shared_etcd.urls[0], dead_url()], QUICK) as client:
        with pytest.raises(EtcdRefused, match="duplicate key") as caught:
            await client.transact((), [Put(prefix + b"k", b""), Put(prefix + b"k", b"")])
        assert caught.value.code == 3
        assert str(caught.value).startswith(shared_etcd.urls[0])
        with pytest.raises(EtcdRefused, match="larger than max"):
            await put(client, prefix + b"k", b"x" * (2 << 20))
        assert client.failovers == 0


# -- leases ---------------------------------------------------------------------------------------------------------------


@pytest.mark.trio
async def test_keys_live_as_long_as_their_lease(client: EtcdClient, prefix: bytes) -> None:
    lease = 7_000_000_000_000_001
    assert await client.grant(lease, 60) == 60
    await client.transact((), [Put(prefix + b"k", b"v", lease)])
    assert (await client.range(prefix + b"k")).items[0].lease == lease
    assert await client.keep_alive(lease) == 60
    await client.revoke(lease)
    assert await read_all(client, prefix) == {}
    assert await client.keep_alive(lease) == 0
    with pytest.raises(LeaseGone):
        await client.transact((), [Put(prefix + b"k", b"v", lease)])
    with pytest.raises(LeaseGone):
        await client.revoke(lease)


@pytest.mark.trio
async def test_a_lease_has_at_least_the_time_that_was_asked_for(client: EtcdClient) -> None:
    assert await client.grant(7_000_000_000_000_002, 1) >= 1
    await client.revoke(7_000_000_000_000_002)


# -- endpoints ------------------------------------------------------------------------------------------------------------


@pytest.mark.trio
async def test_the_next_endpoint_answers_when_one_does_not_and_is_asked_first_from_then_on(
    shared_etcd: EtcdCluster, prefix: bytes
) -> None:
    async with EtcdClient([dead_url(), shared_etcd.urls[0]], QUICK) as client:
        await put(client, prefix + b"k", b"v")
        assert client.endpoint == shared_etcd.urls[0]
        assert client.failovers == 1
        async with client.watch(prefix, 1):
            pass
        assert client.failovers == 1


@pytest.mark.trio
async def test_requests_that_fail_together_all_find_the_one_that_answers(shared_etcd: EtcdCluster, prefix: bytes) -> None:
    async with EtcdClient([dead_url(), dead_url(), shared_etcd.urls[0]], QUICK) as client, trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(put, client, prefix + b"%d" % number, b"")
    assert client.endpoint == shared_etcd.urls[0]
    assert client.failovers == 2


@pytest.mark.trio
async def test_when_none_answers_the_error_says_what_each_did() -> None:
    urls = [dead_url(), dead_url()]
    async with EtcdClient(urls, QUICK) as client:
        with pytest.raises(EtcdUnavailable) as caught:
            await client.range(b"k")
        with pytest.raises(EtcdUnavailable):
            async with client.watch(b"k", 1):
                pass
    assert all(url in str(caught.value) for url in urls)


@pytest.mark.trio
async def test_one_that_is_frozen_costs_no_more_than_its_timeouts(own_etcd: EtcdMember) -> None:
    options = HttpOptions(timeout_seconds=0.5)
    async with EtcdClient([own_etcd.url], options) as client:
        await put(client, b"k", b"v")
        own_etcd.pause()
        begun = trio.current_time()
        with pytest.raises(EtcdUnavailable):
            await client.range(b"k")
        with pytest.raises(EtcdUnavailable):
            async with client.watch(b"k", 1):
                pass
        assert trio.current_time() - begun < 10
        own_etcd.resume()
        await eventually_does(partial(client.range, b"k"), EtcdUnavailable)


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """A server that is no etcd."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "body", "error", "text"),
    [
        (404, b"404 page not found", EtcdAnswerInvalid, "as no etcd"),
        (200, b"[]", EtcdAnswerInvalid, "no JSON object"),
        (200, b"<html>", EtcdUnavailable, "no JSON"),
        (502, b"<html>", EtcdUnavailable, "answered 502"),
        (302, b"", EtcdAnswerInvalid, "answered 302"),
    ],
)
@pytest.mark.trio
async def test_what_is_no_etcd_is_told_by_its_url(status: int, body: bytes, error: type[EtcdError], text: str) -> None:
    with answering(status, body) as url:
        async with EtcdClient([url], QUICK) as client:
            with pytest.raises(error, match=text) as caught:
                await client.range(b"k")
            assert url in str(caught.value)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "broken off"),
        (b"{", "no JSON"),
        (b'{"error":{"grpc_code":14,"message":"etcdserver: no leader"}}', "no leader"),
        (b"{\n", "no JSON"),
        (b"{}\n", "no JSON object"),
        (b'{"result":{"header":{"revision":"3"},"canceled":true}}\n', "no reason given"),
    ],
)
@pytest.mark.trio
async def test_a_watch_that_makes_no_sense_fails(body: bytes, text: str) -> None:
    with answering(200, body) as url:
        async with EtcdClient([url], QUICK) as client:
            with pytest.raises(EtcdError, match=text) as caught:
                async with client.watch(b"k", 1):
                    pass
            assert url in str(caught.value)


def test_a_client_needs_endpoints_that_are_urls() -> None:
    with pytest.raises(ConfigurationError, match="at least one endpoint"):
        EtcdClient([])
    with pytest.raises(ConfigurationError, match="is not a URL"):
        EtcdClient(["127.0.0.1:2379"])


# -- watches --------------------------------------------------------------------------------------------------------------


@pytest.mark.trio
async def test_a_watch_tells_each_change_once_and_in_order_from_its_revision_on(client: EtcdClient, prefix: bytes) -> None:
    first = await put(client, prefix + b"a", b"1")
    await put(client, prefix + b"a", b"2")
    told = []
    with trio.fail_after(10):
        async with client.watch(prefix, first + 1) as (watch, begun):
            assert begun.created
            await delete(client, prefix + b"a")
            await put(client, prefix + b"b", b"3")
            await put(client, prefix[:-1] + b"x", b"elsewhere")
            await put(client, prefix + b"end", b"")
            while not told or told[-1][0] != prefix + b"end":
                told += [(event.key, event.item and event.item.value) for event in (await watch.receive()).events]
    assert told == [(prefix + b"a", b"2"), (prefix + b"a", None), (prefix + b"b", b"3"), (prefix + b"end", b"")]


@pytest.mark.trio
async def test_a_watch_from_what_is_compacted_says_so(client: EtcdClient, prefix: bytes) -> None:
    first = await put(client, prefix + b"a", b"1")
    last = await put(client, prefix + b"a", b"2")
    await compact(client, last)
    with pytest.raises(EtcdCompacted) as caught:
        async with client.watch(prefix, first) as (watch, _):
            await watch.receive()
    assert caught.value.revision >= last


# -- several members, TLS, users --------------------------------------------------------------------------------------------


@pytest.mark.trio
async def test_a_cluster_serves_while_it_has_a_majority_and_without_one_says_so(tmp_path: Path, prefix: bytes) -> None:
    with EtcdCluster(tmp_path, 3) as cluster:
        async with EtcdClient(cluster.urls, QUICK) as client:
            revision = await put(client, prefix + b"a", b"1")
            cluster.members[0].kill()
            await eventually_does(partial(client.range, prefix + b"a"), EtcdUnavailable)
            assert client.endpoint != cluster.urls[0]
            await eventually_does(partial(put, client, prefix + b"a", b"2"), EtcdUnavailable)
            with trio.fail_after(30):
                async with client.watch(prefix, revision + 1) as (watch, _):
                    other = next(member for member in cluster.members[1:] if member.url != watch.endpoint)
                    other.kill()
                    with pytest.raises(EtcdUnavailable, match="no leader"):
                        await drain(watch)
            for attempt in (partial(client.range, prefix), partial(put, client, prefix + b"a", b"3")):
                with pytest.raises(EtcdUnavailable):
                    await attempt()
            other.launch()
            await eventually_does(partial(put, client, prefix + b"a", b"4"), EtcdUnavailable)


@pytest.mark.trio
async def test_over_tls_both_sides_show_who_they_are(tmp_path: Path, prefix: bytes) -> None:
    tls, options = tls_files(tmp_path)
    with EtcdCluster(tmp_path, tls=tls) as cluster:
        async with EtcdClient(cluster.urls, options) as client:
            await put(client, prefix + b"a", b"1")
            async with client.watch(prefix, 1):
                pass
        for worse in (HttpOptions(ca_file=tls.ca_file, timeout_seconds=2), HttpOptions(timeout_seconds=2)):
            async with EtcdClient(cluster.urls, worse) as client:
                with pytest.raises(EtcdUnavailable):
                    await client.range(prefix + b"a")


@pytest.mark.trio
async def test_a_user_is_authenticated_anew_whenever_the_token_is_no_longer_good(own_etcd: EtcdMember, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("secret\n")
    credentials = EtcdCredentials("root", password)
    async with EtcdClient([own_etcd.url], QUICK) as admin:
        for path, body in (
            ("/v3/auth/user/add", {"name": "root", "password": "secret"}),
            ("/v3/auth/role/add", {"name": "root"}),
            ("/v3/auth/user/grant", {"user": "root", "role": "root"}),
            ("/v3/auth/enable", {}),
        ):
            await admin._ask(path, body, lambda answer: answer)
        with pytest.raises(EtcdRefused, match="user name is empty"):
            await admin.range(b"k")
        with pytest.raises(EtcdRefused, match="user name is empty"):
            async with admin.watch(b"k", 1):
                pass
    async with EtcdClient([own_etcd.url], QUICK, credentials) as client:
        await put(client, b"k", b"v")
        own_etcd.kill()
        own_etcd.start()  # which forgets its tokens
        async with client.watch(b"k", 1) as (watch, _):
            assert (await watch.receive()).events[0].key == b"k"
        await put(client, b"k", b"w")
        client._token = ""
        password.write_text("wrong")
        with pytest.raises(EtcdRefused, match="invalid user ID or password") as caught:
            await put(client, b"k", b"w")
        assert "wrong" not in str(caught.value).replace("wrong password", "")
        password.unlink()
        with pytest.raises(EtcdUnavailable, match="cannot be read"):
            await put(client, b"k", b"w")
