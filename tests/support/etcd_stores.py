"""Stores in a real etcd, for the tests of the engine and of the contract that it keeps."""

from __future__ import annotations

import atexit
import tempfile
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from functools import cache
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import trio
import trio.lowlevel

from pyminuteman.addresses import NodeId
from pyminuteman.kv.etcd import EtcdStore, open_etcd_store
from pyminuteman.testing.etcd_server import EtcdCluster, why_no_etcd
from tests.support.etcd import PATIENCE, QUICK
from tests.support.tools import missing

__all__ = ["EtcdNodes", "etcd_nodes"]

_prefixes = count()


@cache
def lasting_etcd() -> EtcdCluster:
    """One for the whole test run, started when it is first asked for; no test may hurt it."""
    if reason := why_no_etcd():
        missing(reason)
    stack = ExitStack()
    directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="pmm-etcd-"))
    cluster = stack.enter_context(EtcdCluster(Path(directory)))
    atexit.register(stack.close)
    return cluster


class EtcdNodes:
    """Nodes whose stores are in one etcd, under one prefix."""

    def __init__(self, nursery: trio.Nursery, urls: list[str], **options: Any) -> None:
        self._nursery = nursery
        self._urls = urls
        self._options = {"prefix": f"/stores/{next(_prefixes)}", "options": QUICK, **options}
        self._numbers = count(100)
        self._ends: dict[EtcdStore, trio.Event] = {}

    async def add(self, number: int | None = None) -> EtcdStore:
        """A store that is ready; a node's number stands for its id."""
        store = await self.open(number)
        with trio.fail_after(PATIENCE):
            await store.wait_ready()
        return store

    async def open(self, number: int | None = None) -> EtcdStore:
        """A store, whether the etcd is there or not."""
        store: EtcdStore = await self._nursery.start(self._run, next(self._numbers) if number is None else number)
        return store

    async def leave(self, store: EtcdStore) -> None:
        await store.leave()
        await self.close(store)

    async def close(self, store: EtcdStore) -> None:
        """Let its block end, as a process ends that will be back."""
        self._ends.pop(store).set()
        with trio.fail_after(PATIENCE):
            while not store._closed:
                await trio.lowlevel.checkpoint()

    async def _run(self, number: int, task_status: trio.TaskStatus[EtcdStore]) -> None:
        async with open_etcd_store(self._urls, NodeId(number.to_bytes(16, "big")), random=Random(), **self._options) as store:  # noqa: S311
            self._ends[store] = trio.Event()
            task_status.started(store)
            await self._ends[store].wait()


@asynccontextmanager
async def etcd_nodes(urls: list[str] | None = None, **options: Any) -> AsyncIterator[EtcdNodes]:
    async with trio.open_nursery() as nursery:
        yield EtcdNodes(nursery, lasting_etcd().urls if urls is None else urls, **options)
        nursery.cancel_scope.cancel()
