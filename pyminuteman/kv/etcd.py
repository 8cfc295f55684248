"""The etcd engine of the store: for those who run an etcd anyway.

    async with open_etcd_store(["http://10.0.0.1:2379", "http://10.0.0.2:2379"], me) as store:
        await store.put_own("vips/tcp:11.0.0.1:80", b"...")

Besides what :mod:`pyminuteman.kv.store` promises of every engine:

1. What is read is a copy, kept up to date by a watch (:mod:`pyminuteman.etcd.mirror`). While the etcd is away it stands, and
   :attr:`EtcdStore.problem` says so.
2. What is written is committed when the call returns, and is in the copy. While the etcd is away writes fail, after the deadline of a
   request, with :class:`~pyminuteman.kv.errors.StoreUnavailable`.
3. An own entry goes with its node's lease, which outlives the process: by ``lease_seconds`` from its last sign of life, or until the
   node opens the store again. :meth:`EtcdStore.leave` takes all of them back at once.
4. Shared values are changed one after another in the order that the etcd gives them; who changes one sees the others' changes before.

Needs httpx2, from the extra ``etcd``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from random import Random
from typing import Final, NoReturn

import trio

from pyminuteman.addresses import NodeId
from pyminuteman.errors import ConfigurationError
from pyminuteman.etcd.client import EtcdClient, EtcdCredentials
from pyminuteman.etcd.errors import EtcdError
from pyminuteman.etcd.messages import Event, KeyValue
from pyminuteman.etcd.mirror import PrefixMirror
from pyminuteman.http_client import HttpOptions
from pyminuteman.kv.errors import RemoteStoreError, StoreClosed, StoreUnavailable, TooManyKeys, ValueTooLarge
from pyminuteman.kv.etcd_index import StoreIndex, StoreKeys
from pyminuteman.kv.etcd_session import EtcdSession
from pyminuteman.kv.etcd_values import changed, decode_value, encode_value
from pyminuteman.kv.operations import Operation, SharedKey, SharedValue, check_bytes, check_key, check_operation
from pyminuteman.kv.store import Changes, Entry, StoreLimits
from pyminuteman.kv.watches import Watches

__all__ = ["EtcdStore", "open_etcd_store"]

_LIVES_MAX: Final = 100_000
_RETRY_SECONDS: Final = (0.25, 1.0)
_TIMEOUT_SECONDS: Final = 3.0


class EtcdStore:
    """A :class:`~pyminuteman.kv.store.Store` in an etcd, as :func:`open_etcd_store` gives it."""

    def __init__(
        self, client: EtcdClient, prefix: str, me: NodeId, *, limits: StoreLimits, random: Random, idle_seconds: float
    ) -> None:
        """For :func:`open_etcd_store`."""
        self._me = me
        self._limits = limits
        self._random = random
        self._client = client
        self._keys = StoreKeys(prefix)
        self._mirror = PrefixMirror(
            client,
            self._keys.prefix,
            random,
            most_keys=limits.entries_max + limits.shared_keys_max + _LIVES_MAX,
            idle_seconds=idle_seconds,
        )
        self._index = StoreIndex(self._keys)
        self._watches = Watches(limits.watch_keys_max)
        self._session = EtcdSession(
            client,
            self._keys,
            me,
            random,
            lease_seconds=limits.lease_seconds,
            entries_max=limits.entries_max,
            tell=self._tell_ahead,
        )
        self._ready = trio.Event()
        self._closed = False
        self._reading_problem = "nothing was read from the etcd yet"
        self._reading_failures = 0

    # What is known

    @property
    def me(self) -> NodeId:
        """This node."""
        return self._me

    @property
    def limits(self) -> StoreLimits:
        """What it holds at most."""
        return self._limits

    @property
    def problem(self) -> str:
        """Why what is read here may be old, or what is written may not arrive; empty when all is well."""
        if self._closed:
            return "the store has ended"
        return self._reading_problem or self._session.problem

    async def wait_ready(self) -> None:
        """Return when all was read from the etcd.

        Raises:
            StoreClosed: It has ended.
        """
        await self._ready.wait()
        self._must_be_open()

    def own(self) -> dict[str, bytes]:
        """What this node says, by key."""
        return dict(self._session.said)

    def get(self, owner: NodeId, key: str) -> bytes | None:
        """What a node says under a key; None when it does not."""
        return self._index.get(owner, key)

    def get_all(self, key: str) -> dict[NodeId, bytes]:
        """What all nodes say under a key, in the order of their ids."""
        return self._index.get_all(key)

    def entries(self, prefix: str = "") -> list[Entry]:
        """All own entries of all nodes whose keys begin so, in order."""
        return self._index.entries(prefix)

    def read(self, key: SharedKey) -> SharedValue | None:
        """A shared value; None when there is none."""
        return self._index.read(key)

    def shared(self, prefix: str = "") -> dict[SharedKey, SharedValue]:
        """All shared values whose names begin so, in order."""
        return self._index.shared(prefix)

    @asynccontextmanager
    async def watch(self, prefix: str = "") -> AsyncIterator[AsyncIterator[Changes]]:
        """What changes under a prefix, from now on; "everything" first."""
        with self._watches.watch(prefix) as watch:
            yield watch

    def metrics(self) -> dict[str, int | float]:
        """Plain numbers by name; counters end in ``_total``."""
        session, mirror = self._session, self._mirror
        return {
            "store_entries": self._index.entries_count,
            "store_own_entries": len(session.said),
            "store_shared_values": self._index.shared_count,
            "store_invalid_total": self._index.invalid,
            "store_watch_overflows_total": self._watches.overflows,
            "store_etcd_reading_failures_total": self._reading_failures,
            "store_etcd_readings_total": mirror.readings,
            "store_etcd_watches_total": mirror.watches,
            "store_etcd_compactions_total": mirror.compactions,
            "store_etcd_failovers_total": self._client.failovers,
            "store_etcd_writes_total": session.writes,
            "store_etcd_write_failures_total": session.failures,
            "store_etcd_conflicts_total": session.conflicts,
            "store_etcd_leases_lost_total": session.losses,
        }

    # What is said

    async def put_own(self, key: str, value: bytes) -> None:
        """:meth:`change_own` of one key."""
        await self.change_own({key: value})

    async def delete_own(self, key: str) -> bool:
        """:meth:`change_own` of one key; False when it was not there."""
        present = key in self._session.said
        await self.change_own({key: None})
        return present

    async def change_own(self, changes: Mapping[str, bytes | None]) -> None:
        """Say, or no longer say (None), all of these, as :meth:`pyminuteman.kv.store.Store.change_own` has it.

        More than 127 of them, or than a megabyte, are several transactions: when one fails, those before it stay.
        """
        self._must_be_open()
        for key, value in changes.items():
            check_key(key)
            if value is not None:
                check_bytes("a value", value)
                if len(value) > self._limits.value_max_bytes:
                    raise ValueTooLarge(f"{key}: {len(value)} bytes; a value has at most {self._limits.value_max_bytes}")
        said = self._session.said
        more = sum(
            (value is not None) - (key in said) for key, value in changes.items() if (value is not None) != (key in said)
        )
        if more > 0 and len(said) + more > self._limits.own_keys_max:
            raise TooManyKeys(f"{len(said) + more} own entries; a node has at most {self._limits.own_keys_max}")
        if more > 0 and self._index.entries_count + more > self._limits.entries_max:
            raise TooManyKeys(
                f"{self._index.entries_count + more} entries of all nodes; there are at most {self._limits.entries_max}"
            )
        await self._session.change_own(changes)

    async def update(self, key: SharedKey, *operations: Operation) -> SharedValue | None:
        """Change a shared value, as :meth:`pyminuteman.kv.store.Store.update` has it."""
        self._must_be_open()
        check_key(key.name)
        for operation in operations:
            check_operation(key.kind, operation)
        raw = self._keys.shared(key)
        after: SharedValue | None = None

        def make(there: KeyValue | None) -> bytes | None:
            nonlocal after
            before = _read(key, there)
            after = changed(before, operations)
            encoded = None if after is None else encode_value(after)
            if encoded is not None and len(encoded) > self._limits.shared_value_max_bytes:
                raise ValueTooLarge(
                    f"{key}: {len(encoded)} bytes; a shared value has at most {self._limits.shared_value_max_bytes}"
                )
            if after is not None and before is None and self._index.shared_count >= self._limits.shared_keys_max:
                raise TooManyKeys(f"there are {self._index.shared_count} shared values already, and no more than that")
            return encoded

        if not await self._session.change_shared(raw, partial(self._mirror.contents.get, raw), make):
            raise StoreUnavailable(f"nothing was changed: others changed {key} again and again before we could")
        return after

    async def leave(self) -> None:
        """Take back all that this node says, for all to see at once; then close the store.

        Raises:
            StoreUnavailable: The etcd is out of reach: it goes when the lease ends.
        """
        self._must_be_open()
        self.end()
        await self._session.leave()

    def _must_be_open(self) -> None:
        if self._closed:
            raise StoreClosed("the store has ended")

    # The work

    async def run(self) -> NoReturn:
        """For :func:`open_etcd_store`: work until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._session.run)
            while True:
                try:
                    await self._mirror.follow(self._tell)
                except EtcdError as error:
                    self._reading_failures += 1
                    self._reading_problem = f"what is read may be old: {error}"
                await trio.sleep(self._random.uniform(*_RETRY_SECONDS))

    def end(self) -> None:
        """For :func:`open_etcd_store`: nothing will change any more. A second call does nothing."""
        self._closed = True
        self._ready.set()
        self._watches.end()

    def _tell(self, changed: set[bytes]) -> None:
        own, shared = self._index.change(changed, self._mirror.contents)
        self._reading_problem = ""
        self._ready.set()
        self._watches.put(own, shared)

    def _tell_ahead(self, events: Sequence[Event]) -> None:
        own, shared = self._index.change(self._mirror.contents.ahead(events), self._mirror.contents)
        self._watches.put(own, shared)


def _read(key: SharedKey, item: KeyValue | None) -> SharedValue | None:
    """What is there; what cannot be read is taken for nothing, and written over."""
    with suppress(RemoteStoreError):
        return None if item is None else decode_value(key.kind, item.value)
    return None


@asynccontextmanager
async def open_etcd_store(
    endpoints: Sequence[str],
    me: NodeId,
    *,
    prefix: str = "/minuteman/store/",
    limits: StoreLimits | None = None,
    options: HttpOptions | None = None,
    credentials: EtcdCredentials | None = None,
    random: Random | None = None,
    idle_seconds: float = 60.0,
) -> AsyncIterator[EtcdStore]:
    """Hold a copy of the store in an etcd for as long as the block lasts. It opens whether the etcd is there or not.

    Args:
        endpoints: URLs of the cluster's members, such as ``http://127.0.0.1:2379``.
        me: This node. Of two processes with one id, the later writes.
        prefix: Of all its keys; one for each cluster. A ``/`` is added where it does not end with one.
        limits: The same on all nodes. Leases last for whole seconds, and at least for what the etcd grants (2 to 3 s).
        options: How to reach the etcd.
        credentials: For an etcd with authentication.
        random: For reproducible tests.
        idle_seconds: How long a connection that died without a word goes unnoticed.

    Raises:
        ConfigurationError: No endpoint or no prefix is given, an endpoint is no URL, or a file of the options is no good.
    """
    if not prefix.strip("/"):
        raise ConfigurationError(None, "etcd store", "needs a prefix, such as /minuteman/store/")
    prefix = prefix if prefix.endswith("/") else f"{prefix}/"
    options = HttpOptions(timeout_seconds=_TIMEOUT_SECONDS) if options is None else options
    error: Exception | None = None
    async with EtcdClient(endpoints, options, credentials) as client:
        rng = Random() if random is None else random  # noqa: S311 - jitter, and names that nobody else would choose
        store = EtcdStore(client, prefix, me, limits=limits or StoreLimits(), random=rng, idle_seconds=idle_seconds)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(store.run)
                try:
                    yield store
                except Exception as raised:  # noqa: BLE001 - handed on below: it comes out as it is, and not in a group
                    error = raised
                nursery.cancel_scope.cancel()
        finally:
            store.end()
    if error is not None:
        raise error
