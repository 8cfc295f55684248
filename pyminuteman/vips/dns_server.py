"""The DNS server: UDP and TCP around :class:`pyminuteman.vips.dns.Responder`, with trio.

    async with trio.open_nursery() as nursery:
        server = DNSServer(responder, [Endpoint("198.51.100.1", 53)])
        await nursery.start(server.run)

Invariants: a client costs a bounded amount of memory and time, and keeps nobody else from being answered; what cannot be answered is
counted, and ends nothing. Whoever leaves a connection open is cut off after :attr:`ServerLimits.idle_seconds`, as is one that sends a
message byte by byte: the clock runs until a message is whole.

Bind the addresses that clients ask, not 0.0.0.0: on a host of several addresses, a datagram's answer would leave by another.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import trio

from pyminuteman.addresses import IPV6, Endpoint, parse_address
from pyminuteman.errors import ConfigurationError
from pyminuteman.vips.dns import Responder

__all__ = ["DNSServer", "ServerLimits"]

_BACKLOG: Final = 64
_LENGTH_BYTES: Final = 2
_DATAGRAM_MAX_BYTES: Final = 65536
_PORT_TRIES: Final = 32
_ERROR_PAUSE_SECONDS: Final = 0.05
"""After the system refused to receive, so that a lasting refusal does not spin."""


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """What clients may cost.

    Raises:
        ConfigurationError: One is not positive.
    """

    connections_max: int = 128
    """Connections at a time. Beyond, they are closed at once."""
    connections_per_source_max: int = 32
    """Of these, from one address, so that no client takes them all."""
    idle_seconds: float = 10.0
    """How long a connection may go without a whole message, and how long an answer may take to be read. RFC 7766 asks for seconds."""
    query_max_bytes: int = 4096
    """A larger message is not looked at, and ends its connection: the longest sensible query is below 1,000 bytes."""

    def __post_init__(self) -> None:
        """Validate."""
        for key in ("connections_max", "connections_per_source_max", "idle_seconds", "query_max_bytes"):
            value = getattr(self, key)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                raise ConfigurationError(None, f"dns.{key}", f"{value!r} is not a number above 0")


class DNSServer:
    """Answers on UDP and TCP, at each of some endpoints.

    Args:
        responder: Who knows the answers.
        endpoints: Where; port 0 lets the system choose one that is free for both.
        limits: What clients may cost.

    Attributes:
        endpoints: Where it answers, with the ports that were chosen; of use once :meth:`run` has started.
        counters: ``datagrams``, ``oversized``, ``unsent`` (the system took no answer), ``receive_errors``; ``connections``,
            ``connections_refused``, ``connections_timed_out``, ``connections_broken``, ``messages`` over TCP.
    """

    def __init__(self, responder: Responder, endpoints: Sequence[Endpoint], limits: ServerLimits | None = None) -> None:
        if not endpoints:
            raise ConfigurationError(None, "dns.listen", "expected at least one ADDRESS:PORT")
        self.endpoints: tuple[Endpoint, ...] = tuple(endpoints)
        self._responder = responder
        self._limits = ServerLimits() if limits is None else limits
        self._open: dict[str, int] = {}
        outcomes = ("datagrams", "oversized", "unsent", "receive_errors", "messages")
        endings = ("connections", "connections_refused", "connections_timed_out", "connections_broken")
        self.counters: Final = dict.fromkeys((*outcomes, *endings), 0)

    @property
    def connections(self) -> int:
        """How many are open."""
        return sum(self._open.values())

    async def run(self, *, task_status: trio.TaskStatus[tuple[Endpoint, ...]] = trio.TASK_STATUS_IGNORED) -> None:
        """Answer until cancelled. As for ``nursery.start``, it has started once the sockets are bound, and gives their endpoints.

        Raises:
            ConfigurationError: An endpoint cannot be bound; nothing is.
        """
        pairs: list[tuple[trio.socket.SocketType, trio.socket.SocketType]] = []
        try:
            for endpoint in self.endpoints:
                pairs.append(await _bind(endpoint))  # noqa: PERF401 - those bound already are closed when one is not
            self.endpoints = tuple(Endpoint(*stream.getsockname()[:2]) for stream, _ in pairs)
            async with trio.open_nursery() as nursery:
                for _, datagrams in pairs:
                    nursery.start_soon(self._answer_datagrams, datagrams)
                listeners = [trio.SocketListener(stream) for stream, _ in pairs]
                nursery.start_soon(partial(trio.serve_listeners, self._answer_stream, listeners))
                task_status.started(self.endpoints)
        finally:
            for stream, datagrams in pairs:
                stream.close()
                datagrams.close()

    async def _answer_datagrams(self, datagrams: trio.socket.SocketType) -> None:
        while True:
            try:
                query, peer = await datagrams.recvfrom(_DATAGRAM_MAX_BYTES)
            except OSError:
                self.counters["receive_errors"] += 1
                await trio.sleep(_ERROR_PAUSE_SECONDS)
                continue
            self.counters["datagrams"] += 1
            if len(query) > self._limits.query_max_bytes:
                self.counters["oversized"] += 1
                continue
            answer = self._responder.answer(query)
            if answer is not None:
                with trio.move_on_after(self._limits.idle_seconds) as scope:
                    try:
                        await datagrams.sendto(answer, peer)
                    except OSError:  # a source port of 0, no route back
                        self.counters["unsent"] += 1
                self.counters["unsent"] += scope.cancelled_caught

    async def _answer_stream(self, stream: trio.SocketStream) -> None:
        async with stream:
            try:
                source = str(stream.socket.getpeername()[0])
            except OSError:  # gone before it was looked at
                self.counters["connections_broken"] += 1
                return
            here = self._open.get(source, 0)
            if self.connections >= self._limits.connections_max or here >= self._limits.connections_per_source_max:
                self.counters["connections_refused"] += 1
                return
            self.counters["connections"] += 1
            self._open[source] = here + 1
            try:
                await self._converse(stream)
            except trio.TooSlowError:
                self.counters["connections_timed_out"] += 1
            except trio.BrokenResourceError:
                self.counters["connections_broken"] += 1
            finally:
                self._open[source] -= 1
                if not self._open[source]:
                    del self._open[source]

    async def _converse(self, stream: trio.SocketStream) -> None:
        """One message after the other, in order, until the client has no more (RFC 7766)."""
        while True:
            with trio.fail_after(self._limits.idle_seconds):
                length = int.from_bytes(await _receive_exactly(stream, _LENGTH_BYTES), "big")
                if not length:  # the end, or a message of nothing
                    return
                if length > self._limits.query_max_bytes:
                    self.counters["oversized"] += 1
                    return
                query = await _receive_exactly(stream, length)
            if not query:
                return
            self.counters["messages"] += 1
            answer = self._responder.answer(query, stream=True)
            if answer is None:
                return
            with trio.fail_after(self._limits.idle_seconds):
                await stream.send_all(len(answer).to_bytes(_LENGTH_BYTES, "big") + answer)


async def _receive_exactly(stream: trio.SocketStream, size: int) -> bytes:
    """So many bytes; none if the stream ends before."""
    found = bytearray()
    while len(found) < size:
        chunk = await stream.receive_some(size - len(found))
        if not chunk:
            return b""
        found += chunk
    return bytes(found)


async def _bind(endpoint: Endpoint) -> tuple[trio.socket.SocketType, trio.socket.SocketType]:
    """A listening TCP socket and a UDP socket on one port."""
    for left in reversed(range(_PORT_TRIES)):
        stream = await _bind_one(endpoint, trio.socket.SOCK_STREAM)
        try:
            port = stream.getsockname()[1]
            return stream, await _bind_one(Endpoint(endpoint.address, port), trio.socket.SOCK_DGRAM)
        except ConfigurationError:
            stream.close()
            if endpoint.port or not left:  # a port that was chosen for TCP may be taken for UDP: have another one chosen
                raise
    raise AssertionError  # pragma: no cover - the last try returns or raises


async def _bind_one(endpoint: Endpoint, kind: socket.SocketKind) -> trio.socket.SocketType:
    try:
        family = parse_address(endpoint.address)[0]
    except ValueError as error:
        raise ConfigurationError(None, "dns.listen", str(error)) from None
    one, bound = trio.socket.socket(family, kind), False
    try:
        if family == IPV6:
            one.setsockopt(trio.socket.IPPROTO_IPV6, trio.socket.IPV6_V6ONLY, 1)
        if kind == trio.socket.SOCK_STREAM:
            one.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_REUSEADDR, 1)
        await one.bind((endpoint.address, endpoint.port))
        if kind == trio.socket.SOCK_STREAM:
            one.listen(_BACKLOG)
    except OSError as error:
        what = "TCP" if kind == trio.socket.SOCK_STREAM else "UDP"
        raise ConfigurationError(None, "dns.listen", f"{endpoint} cannot be bound for {what}: {error.strerror}") from None
    else:
        bound = True
        return one
    finally:
        if not bound:  # refused, or cancelled
            one.close()
