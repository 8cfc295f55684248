"""A real etcd for the tests of whoever speaks to one, and what they have in common."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import count
from pathlib import Path
from random import Random

import pytest
import trio
import trustme

from pyminuteman.etcd.client import EtcdClient
from pyminuteman.etcd.messages import Delete, Put
from pyminuteman.etcd.mirror import PrefixMirror
from pyminuteman.http_client import HttpOptions
from pyminuteman.testing.etcd_server import EtcdCluster, EtcdMember, EtcdTLS, why_no_etcd
from tests.support.tools import needs

needs_etcd = needs(why_no_etcd())
PATIENCE = 30.0
"""Seconds until a condition must hold; on a quiet machine it takes a fraction of one."""
QUICK = HttpOptions(timeout_seconds=5.0)
_prefixes = count()


@pytest.fixture(scope="module")
def shared_etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    """One member that no test hurts; each has a prefix of its own."""
    with EtcdCluster(tmp_path_factory.mktemp("etcd")) as cluster:
        yield cluster


@pytest.fixture
def own_etcd(tmp_path: Path) -> Iterator[EtcdMember]:
    """One member for one test, to be treated badly."""
    with EtcdCluster(tmp_path) as cluster:
        yield cluster.members[0]


@pytest.fixture
def prefix() -> bytes:
    """Nothing is under it yet."""
    return f"/test{next(_prefixes)}/".encode()


@pytest.fixture
async def client(shared_etcd: EtcdCluster) -> AsyncIterator[EtcdClient]:
    async with EtcdClient(shared_etcd.urls, QUICK) as opened:
        yield opened


def tls_files(directory: Path) -> tuple[EtcdTLS, HttpOptions]:
    """What a server needs to ask for certificates, and a client to show one."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(directory / "ca.pem"))
    for name, host in (("server", "127.0.0.1"), ("client", "client.example")):
        issued = authority.issue_cert(host)
        issued.private_key_pem.write_to_path(str(directory / f"{name}.key"))
        for blob in issued.cert_chain_pems:
            blob.write_to_path(str(directory / f"{name}.pem"), append=True)
    tls = EtcdTLS(directory / "ca.pem", directory / "server.pem", directory / "server.key")
    options = HttpOptions(
        ca_file=tls.ca_file, certificate_file=directory / "client.pem", key_file=directory / "client.key", timeout_seconds=5.0
    )
    return tls, options


async def put(client: EtcdClient, key: bytes, value: bytes) -> int:
    return (await client.transact((), [Put(key, value)])).header.revision


async def delete(client: EtcdClient, key: bytes) -> int:
    return (await client.transact((), [Delete(key)])).header.revision


async def compact(client: EtcdClient, revision: int) -> None:
    await client._ask("/v3/kv/compaction", {"revision": str(revision), "physical": True}, lambda answer: answer)


async def eventually(condition: Callable[[], bool], what: str = "") -> None:
    """Wait until it holds, with a deadline."""
    with trio.move_on_after(PATIENCE):
        while not condition():  # noqa: ASYNC110 - the condition is anything
            await trio.sleep(0.005)
        return
    raise AssertionError(what or "it did not come to hold in time")


async def eventually_does(attempt: Callable[[], Awaitable[object]], *errors: type[Exception]) -> None:
    """Try until it does not raise one of these errors."""
    with trio.move_on_after(PATIENCE):
        while True:
            try:
                await attempt()
            except errors:
                await trio.sleep(0.05)
            else:
                return
    raise AssertionError("it failed for too long")


def mirror_of(client: EtcdClient, prefix: bytes, **options: float) -> PrefixMirror:
    return PrefixMirror(client, prefix, Random(1), **options)  # type: ignore[arg-type]  # noqa: S311
