"""Requests to an etcd cluster: one endpoint at a time, the next one when it fails, and watches.

1. A request is tried once at each endpoint, the one that answered last first, and has one deadline for all of it.
2. A request whose connection broke is sent again to the next endpoint, although it may have been carried out. So every write must be
   one that does no harm twice, nor late: a transaction that compares revisions with what its writer knew.
3. Reads go through the leader: what they give is not older than what was written before. A watch asks for a leader too, and ends
   when the member it hangs on has lost touch with it.
4. Nothing is waited for without a deadline, except the next change of a watch: there the caller has one.

Needs httpx2, from the extra ``etcd``.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final, Self, TypeAlias, TypeVar

import trio

from pyminuteman.errors import ConfigurationError
from pyminuteman.etcd.errors import EtcdAnswerInvalid, EtcdCompacted, EtcdError, EtcdRefused, EtcdTooLarge, EtcdUnavailable
from pyminuteman.etcd.messages import (
    UNAUTHENTICATED,
    Compare,
    KeyValue,
    LineSplitter,
    Operation,
    Range,
    Transaction,
    WatchAnswer,
    is_unauthenticated,
    lease_request,
    prefix_end,
    range_request,
    read_keep_alive,
    read_lease,
    read_range,
    read_refusal,
    read_token,
    read_transaction,
    read_watch,
    transaction_request,
    watch_request,
)
from pyminuteman.http_client import HttpClient, HttpError, HttpOptions, without_secrets

__all__ = ["EtcdClient", "EtcdCredentials", "Watch"]

T = TypeVar("T")
Attempt: TypeAlias = Callable[[HttpClient, str, dict[str, str]], Awaitable[T]]
"""A request to one endpoint, whose URL is given too, with these headers."""

PAGE_KEYS: Final = 500
"""Keys that are read at once. With 380 KiB a value, which is far more than anybody has, they still fit into a body."""
MESSAGE_MAX_BYTES: Final = 64 << 20
"""Longest message of a watch. One may hold the changes of 1000 revisions."""
_RANGE_TRIES: Final = 3
_REQUIRE_LEADER: Final = {"grpc-metadata-hasleader": "true"}
"""The gateway hands headers with this beginning on as metadata of gRPC; ``clientv3.WithRequireLeader`` is this one."""
_NOT_PERMITTED: Final = ("permission denied", "user name is empty", "invalid auth token")
_DEADLINES: Final = 3
"""A whole request may take this many of the timeouts that hold for each wait in it."""


class EtcdCredentials:
    """A user of etcd, for a cluster with authentication. The password is read anew whenever a token is needed."""

    def __init__(self, user: str, password_file: Path) -> None:
        """Name the user, and the file that holds the password alone."""
        self.user = user
        self.password_file = password_file

    def password(self) -> str:
        """The file's text, without the white space around it.

        Raises:
            EtcdUnavailable: It cannot be read now.
        """
        try:
            return self.password_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise EtcdUnavailable(f"the password in {self.password_file} cannot be read: {error}") from None


class Watch:
    """Changes as they come, from one member."""

    def __init__(self, pieces: AsyncIterator[bytes], endpoint: str) -> None:
        """Read the body of an answer."""
        self.endpoint = endpoint
        self._pieces = pieces
        self._lines = LineSplitter(MESSAGE_MAX_BYTES)
        self._waiting: deque[bytes] = deque()

    async def receive(self) -> WatchAnswer:
        """The next message; it waits for as long as there is none. After an error there is no other.

        Raises:
            EtcdCompacted: The history from the revision asked for is gone.
            EtcdUnavailable: The connection broke, or the member has no leader.
            EtcdError: The etcd has ended it, or makes no sense.
        """
        while not self._waiting:
            try:
                piece = await anext(self._pieces, None)
            except HttpError as error:
                raise EtcdUnavailable(str(error)) from None
            # Its last words, when it has lost its leader, come without the end of a line.
            self._waiting.extend(self._lines.feed(b"\n" if piece is None else piece))
            if piece is None and not self._waiting:
                raise EtcdUnavailable("the watch has broken off")
        message = read_watch(_decode(self._waiting.popleft()))
        if message.compact_revision:
            raise EtcdCompacted(f"history begins at revision {message.compact_revision}", message.compact_revision)
        if message.canceled:
            # Of a watch, an etcd says that it is not permitted also when only the token has expired.
            if any(text in message.reason for text in _NOT_PERMITTED):
                raise EtcdRefused(message.reason, UNAUTHENTICATED)
            raise EtcdUnavailable(f"the watch was canceled: {message.reason or 'no reason given'}")
        return message


class EtcdClient:
    """An etcd cluster. An async context manager."""

    def __init__(
        self, endpoints: Sequence[str], options: HttpOptions | None = None, credentials: EtcdCredentials | None = None
    ) -> None:
        """Take the URLs of its members, such as ``http://127.0.0.1:2379``.

        Raises:
            ConfigurationError: There is none, one is no URL, or a file of the options is no good.
        """
        if not endpoints:
            raise ConfigurationError(None, "etcd", "needs at least one endpoint, such as http://127.0.0.1:2379")
        self.options = HttpOptions() if options is None else options
        self._clients = [HttpClient(endpoint, self.options) for endpoint in endpoints]
        self._names = [without_secrets(endpoint) for endpoint in endpoints]
        self._credentials = credentials
        self._token = ""
        self._current = 0
        self._stack = AsyncExitStack()
        self.failovers = 0
        """How often the next endpoint was asked because one had failed."""

    @property
    def endpoint(self) -> str:
        """The one that is asked first."""
        return self._names[self._current]

    async def __aenter__(self) -> Self:
        for client in self._clients:
            await self._stack.enter_async_context(client)
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._stack.aclose()

    # -- keys --

    async def range(self, key: bytes, end: bytes = b"", *, limit: int = 0, revision: int = 0) -> Range:
        """One key, or all from ``key`` up to and without ``end``, in order.

        Raises:
            EtcdError: It cannot be had, and why; so for all below.
        """
        return await self._ask("/v3/kv/range", range_request(key, end, limit=limit, revision=revision), read_range)

    async def read_prefix(
        self, prefix: bytes, *, most_keys: int, most_bytes: int, page: int = PAGE_KEYS
    ) -> tuple[list[KeyValue], int, int]:
        """Everything under a prefix as it was at one moment, in the order of the keys; its revision; and the cluster's id.

        Raises:
            EtcdTooLarge: There are more keys than that, or more bytes of keys and values.
        """
        for _ in range(_RANGE_TRIES - 1):
            try:
                return await self._read_pages(prefix, most_keys, most_bytes, page)
            except EtcdCompacted:  # between two pages; the next reading is of a later moment
                continue
        return await self._read_pages(prefix, most_keys, most_bytes, page)

    async def _read_pages(self, prefix: bytes, most_keys: int, most_bytes: int, page: int) -> tuple[list[KeyValue], int, int]:
        items: list[KeyValue] = []
        size, begin, revision = 0, prefix or b"\0", 0
        while True:
            found = await self.range(begin, prefix_end(prefix), limit=page, revision=revision)
            items += found.items
            size += sum(len(item.key) + len(item.value) for item in found.items)
            if len(items) > most_keys or size > most_bytes:
                raise EtcdTooLarge(
                    f"there are more than {most_keys} keys or {most_bytes} bytes under {prefix.decode(errors='replace')}"
                )
            revision = revision or found.header.revision
            if not found.more or not found.items:
                return items, revision, found.header.cluster_id
            begin = found.items[-1].key + b"\0"

    async def transact(
        self, compare: Sequence[Compare], success: Sequence[Operation], failure: Sequence[Operation] = ()
    ) -> Transaction:
        """All of one branch, or nothing; an etcd takes 128 operations at most unless told otherwise. See rule 2 above."""
        return await self._ask("/v3/kv/txn", transaction_request(compare, success, failure), read_transaction)

    # -- leases --

    async def grant(self, lease: int, ttl_seconds: int) -> int:
        """Make a lease of this id (1 to 2**63 - 1, random), which expires unless kept alive. Returns its time, which may be longer."""
        return await self._ask("/v3/lease/grant", lease_request(lease, ttl_seconds), read_lease)

    async def keep_alive(self, lease: int) -> int:
        """Begin the lease's time anew. Returns it; 0 when the lease is gone."""
        return await self._ask("/v3/lease/keepalive", lease_request(lease), read_keep_alive)

    async def revoke(self, lease: int) -> None:
        """End a lease, and with it all keys under it."""
        await self._ask("/v3/lease/revoke", lease_request(lease), lambda _answer: None)

    # -- watches --

    @asynccontextmanager
    async def watch(self, prefix: bytes, start_revision: int) -> AsyncIterator[tuple[Watch, WatchAnswer]]:
        """Changes under a prefix from a revision (1 or more) on, and the message with which it began.

        The revision may lie in the future. With deadlines until it has begun; then none.
        """
        request = watch_request(prefix or b"\0", prefix_end(prefix), start_revision)
        async with AsyncExitStack() as stack:

            async def begin(client: HttpClient, name: str, headers: dict[str, str]) -> tuple[Watch, WatchAnswer]:
                async with AsyncExitStack() as attempt:
                    answer = await attempt.enter_async_context(
                        client.stream(
                            "POST", "/v3/watch", body=request, headers={**headers, **_REQUIRE_LEADER}, timeout_seconds=math.inf
                        )
                    )
                    watch = Watch(answer.chunks(), name)
                    begun = await watch.receive()
                    stack.push_async_exit(attempt.pop_all())
                return watch, begun

            yield await self._try_each(begin)

    # -- endpoints --

    async def _ask(self, path: str, body: object, read: Callable[[object], T]) -> T:
        async def attempt(client: HttpClient, _name: str, headers: dict[str, str]) -> T:
            return read(await client.json("POST", path, body=body, headers=headers))

        return await self._try_each(attempt)

    async def _try_each(self, attempt: Attempt[T]) -> T:
        reasons: list[str] = []
        deadline = trio.current_time() + _DEADLINES * self.options.timeout_seconds
        first, count = self._current, len(self._clients)
        for at in [*range(first, count), *range(first)]:
            client, name = self._clients[at], self._names[at]
            try:
                with trio.fail_at(min(deadline, trio.current_time() + 2 * self.options.timeout_seconds)):
                    return await self._authenticated(attempt, client, name)
            except trio.TooSlowError:
                reasons.append(f"{name}: no answer in time")
            except EtcdUnavailable as error:
                reasons.append(str(error))
            if self._current == at and count > 1:  # else another request has found out before
                self._current = (at + 1) % count
                self.failovers += 1
        raise EtcdUnavailable("; ".join(reasons))

    async def _authenticated(self, attempt: Attempt[T], client: HttpClient, name: str) -> T:
        try:
            return await _mapped(attempt, client, name, self._headers())
        except EtcdError as error:
            if self._credentials is None or not is_unauthenticated(error):
                raise
        # No token yet, or it has expired: a simple one does after five minutes without use.
        asked = {"name": self._credentials.user, "password": self._credentials.password()}

        async def authenticate(client: HttpClient, _name: str, _headers: dict[str, str]) -> str:
            return read_token(await client.json("POST", "/v3/auth/authenticate", body=asked))

        self._token = await _mapped(authenticate, client, name, {})
        return await _mapped(attempt, client, name, self._headers())

    def _headers(self) -> dict[str, str]:
        return {"authorization": self._token} if self._token else {}


async def _mapped(attempt: Attempt[T], client: HttpClient, name: str, headers: dict[str, str]) -> T:
    """Try it, and let what goes wrong be one of our errors, which says where."""
    try:
        return await attempt(client, name, headers)
    except HttpError as error:
        mapped = EtcdUnavailable(str(error)) if error.status is None else read_refusal(error.status, error.body)
    except EtcdError as error:
        mapped = error
    mapped.endpoint = name
    raise mapped


def _decode(line: bytes) -> object:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        raise EtcdAnswerInvalid("a message of the watch is no JSON") from None
