"""How sealed bytes travel: the :class:`Transport` protocol, and UDP with TCP beside it on the same port number.

A transport knows neither messages nor keys. Datagrams are sent and taken without waiting, since the driver drains whatever has
arrived in one go; only waiting for the first of them, and streams, are trio's. What the network refuses (a full buffer, no route, a
firewall's no) is counted and the datagram dropped, for the protocol above repairs losses anyway.

The contract is held by one suite that runs on this implementation and on
:class:`pyminuteman.testing.memory_transport.MemoryTransport`.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import trio

from pyminuteman.addresses import IPV4, IPV6, Endpoint, format_address, parse_address
from pyminuteman.errors import ConfigurationError
from pyminuteman.membership.alarm import Alarm
from pyminuteman.membership.sealing import Buffer

__all__ = ["DEFAULT_PORT", "NetworkTransport", "Transport", "TransportCounters", "is_loopback"]

DEFAULT_PORT: Final = 61420
"""The port, of UDP and of TCP, where none is said."""
_RECEIVE_BUFFER_BYTES: Final = 1 << 20
"""Asked of the kernel, which may give less: room for what arrives while the process is off its core. A node of 1,000 members gets
some 60 datagrams a second, each of which the kernel counts as about 800 bytes; this outlasts a freeze of ten seconds."""
_DATAGRAM_MAX_BYTES: Final = 65536
"""No datagram is larger, so none is cut. The buffer is shrunk to what came, which costs less than copying out of one that is kept."""
_PORT_TRIES: Final = 32
_BACKLOG: Final = 64
_TARGETS_MAX: Final = 65536
_ACCEPT_PAUSE_SECONDS: Final = 0.1
_V4_MAPPED: Final = "::ffff:"
_ANY: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared with, not bound to
_ELSEWHERE: Final = {IPV4: "192.0.2.1", IPV6: "2001:db8::1"}
"""Addresses for documentation (RFC 5737, RFC 3849): routed the default way, if there is one. Nothing is sent to them."""


@dataclass(slots=True)
class TransportCounters:
    """What went over the wire, and what did not; numbers since the start. Bytes are those handed over, without IP and UDP headers."""

    datagrams_sent: int = 0
    bytes_sent: int = 0
    datagrams_received: int = 0
    bytes_received: int = 0
    unsent: dict[str, int] = field(default_factory=dict)
    """Datagrams the system refused, by the name of the error: ``EAGAIN``, ``ENETUNREACH``, ``EMSGSIZE``, ``EAFNOSUPPORT``..."""

    def refuse(self, reason: str) -> None:
        """Count one that could not be sent."""
        self.unsent[reason] = self.unsent.get(reason, 0) + 1


class Transport(Protocol):
    """Datagrams that may be lost, doubled and reordered, and streams. One task receives; any may send."""

    @property
    def advertised(self) -> Endpoint:
        """Where others reach this node."""

    @property
    def is_private(self) -> bool:
        """Whether nobody beyond this machine can reach it: then it needs no key."""

    @property
    def counters(self) -> TransportCounters:
        """What it has carried."""

    async def wait(self, until: float) -> None:
        """Return when there may be a datagram to :meth:`receive`, at once when there is; at ``until`` at the latest.

        Args:
            until: In seconds of :func:`trio.current_time`; infinity for never.
        """

    def hurry(self, until: float) -> None:
        """Have the :meth:`wait` that is going on, if one is, end by then."""

    def receive(self) -> Buffer | None:
        """The next datagram that has arrived, to be read before the next call; None when there is none just now. Never waits, never fails."""

    def send(self, datagram: bytes, to: Endpoint) -> bool:
        """Send, or drop and count; never waits, never fails.

        Returns:
            Whether it was handed to the network, which does not mean that it arrives.
        """

    async def connect(self, to: Endpoint) -> trio.abc.Stream:
        """Open a stream to a node. The caller sets the deadline.

        Raises:
            OSError: It was refused, or cannot be reached.
        """

    async def accept(self) -> tuple[trio.abc.Stream, str]:
        """Wait for somebody to open a stream to us; with it comes the address it is from, for limits."""

    def close(self) -> None:
        """Give up the sockets. A second call does nothing."""


class NetworkTransport:
    """UDP for datagrams and TCP for streams, on one address and port number.

    Args:
        bind: Where to listen. Port 0 takes one that is free for both. ``0.0.0.0`` and ``[::]`` mean every address.
        advertise: Where others reach us, when that is not where we listen (NAT, several addresses). Port 0 stands for the real one.
            None: the address bound; for every address, the one from which the first contact, or else the default route, is reached.
        contacts: Only to find that address.
        dual_stack: With ``[::]``: IPv4 as well, on the same socket.

    Raises:
        ConfigurationError: An address that cannot be used, or none to advertise was found; the text says what to give.
        OSError: The port is taken, or not ours to take.
    """

    def __init__(
        self,
        bind: Endpoint,
        *,
        advertise: Endpoint | None = None,
        contacts: Sequence[Endpoint] = (),
        dual_stack: bool = False,
    ) -> None:
        self.counters = TransportCounters()
        self._family = _usable(bind.address, "bind", any_address=True)
        self._dual = dual_stack and bind.address == "::"
        if dual_stack and not self._dual:
            raise ConfigurationError(None, "dual_stack", f"it goes with an address of [::], not {bind.address}")
        if advertise is None:
            address = bind.address
            if address in _ANY:
                address = _address_towards(contacts, self._family, dual=self._dual)
            advertise = Endpoint(address, 0)
        _usable(advertise.address, "advertise", any_address=False)
        self._source = bind.address
        self._datagrams, self._listening = self._open(bind)
        self._received = memoryview(bytearray(_DATAGRAM_MAX_BYTES))
        self._listener = trio.socket.from_stdlib_socket(self._listening)
        self._alarm = Alarm(self._datagrams)
        self.bound: Endpoint = Endpoint(bind.address, self._datagrams.getsockname()[1])
        """Where it listens, with the real port."""
        self._advertised = Endpoint(advertise.address, advertise.port or self.bound.port)
        self._targets: dict[Endpoint, tuple[str, int]] = {}
        self._closed = False

    @property
    def advertised(self) -> Endpoint:
        """Where others reach this node."""
        return self._advertised

    @property
    def is_private(self) -> bool:
        """Whether it is bound to a loopback address."""
        return is_loopback(self.bound.address)

    async def wait(self, until: float) -> None:
        """Return when there may be a datagram, or at that time."""
        await self._alarm.wait(until)

    def hurry(self, until: float) -> None:
        """Have the wait end by then."""
        self._alarm.hurry(until)

    def receive(self) -> memoryview | None:
        """The next datagram, to be read before the next call; or None."""
        try:
            datagram = self._received[: self._datagrams.recv_into(self._received)]
        except OSError:
            return None  # nothing there; or an ICMP error about something we sent, which proves nothing, and is cleared by this
        counters = self.counters
        counters.datagrams_received += 1
        counters.bytes_received += len(datagram)
        return datagram

    def send(self, datagram: bytes, to: Endpoint) -> bool:
        """Send, or drop and count."""
        try:
            self._datagrams.sendto(datagram, self._targets.get(to) or self._target(to))
        except OSError as error:
            self.counters.refuse(errno.errorcode.get(error.errno or 0, "other"))
            return False
        counters = self.counters
        counters.datagrams_sent += 1
        counters.bytes_sent += len(datagram)
        return True

    async def connect(self, to: Endpoint) -> trio.abc.Stream:
        """Open a TCP connection, from the address that we are bound to."""
        target = self._targets.get(to) or self._target(to)
        made = trio.socket.socket(self._family, socket.SOCK_STREAM)
        try:
            if self._source not in _ANY:
                await made.bind((self._source, 0))
            await made.connect(target)
        except BaseException:
            made.close()
            raise
        return trio.SocketStream(made)

    async def accept(self) -> tuple[trio.abc.Stream, str]:
        """Wait for a TCP connection."""
        while True:
            try:
                made, address = await self._listener.accept()
            except OSError:
                if self._closed:
                    raise
                # Out of descriptors, or the peer went away before we looked. Neither passes by asking again at once.
                await trio.sleep(_ACCEPT_PAUSE_SECONDS)
                continue
            return trio.SocketStream(made), str(address[0]).removeprefix(_V4_MAPPED)

    def close(self) -> None:
        """Close both sockets."""
        if self._closed:
            return
        self._closed = True
        self._alarm.close()
        self._datagrams.close()
        with contextlib.suppress(RuntimeError):  # outside of trio nobody waits
            trio.lowlevel.notify_closing(self._listening)
        self._listening.close()

    def _open(self, bind: Endpoint) -> tuple[socket.socket, socket.socket]:
        """Both sockets. Where any port will do, several are tried: one free for UDP may be taken for TCP."""
        tries = 1 if bind.port else _PORT_TRIES
        while True:
            tries -= 1
            with contextlib.ExitStack() as stack:
                datagrams = stack.enter_context(socket.socket(self._family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK))
                listener = stack.enter_context(socket.socket(self._family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
                if self._family == IPV6:
                    for made in (datagrams, listener):
                        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not self._dual)
                # Connections of an earlier life may linger for a minute; they are no reason not to listen.
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                datagrams.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
                try:
                    datagrams.bind((bind.address, bind.port))
                    listener.bind((bind.address, datagrams.getsockname()[1]))
                    listener.listen(_BACKLOG)
                except OSError as error:
                    if error.errno == errno.EADDRINUSE and tries:
                        continue
                    # As told by the kernel, it does not say which address.
                    raise OSError(error.errno, f"cannot listen on {bind}: {error.strerror}") from error
                stack.pop_all()
                return datagrams, listener

    def _target(self, to: Endpoint) -> tuple[str, int]:
        """What the kernel is to be told. Kept, for it is asked for at every datagram.

        Raises:
            OSError: EAFNOSUPPORT, for an IPv6 address on an IPv4 socket and the reverse.
        """
        family = IPV6 if ":" in to.address else IPV4
        if family == self._family:
            target = (to.address, to.port)
        elif self._dual:
            target = (_V4_MAPPED + to.address, to.port)
        else:
            raise OSError(errno.EAFNOSUPPORT, f"{to} cannot be reached from {self._source}")
        if len(self._targets) >= _TARGETS_MAX:
            self._targets.clear()
        self._targets[to] = target
        return target


def is_loopback(address: str) -> bool:
    """Whether an address is of this machine alone: 127.0.0.0/8 or ::1."""
    return address.startswith("127.") or address == "::1"


def _usable(address: str, key: str, *, any_address: bool) -> int:
    """The family of an address that a node may be bound to, or reached at.

    Raises:
        ConfigurationError: It is of another kind.
    """
    try:
        family, packed = parse_address(address)
    except ValueError as error:
        hint = " without a scope: link-local addresses mean something else on every machine" if "%" in address else ""
        raise ConfigurationError(None, key, f"{error}; give an IPv4 or IPv6 address{hint}") from None
    if family == IPV6 and packed[0] == 0xFE and packed[1] & 0xC0 == 0x80:  # noqa: PLR2004 - fe80::/10
        raise ConfigurationError(
            None,
            key,
            f"{address} is link-local, and means something else on every machine: give a global or unique local address",
        )
    if packed[0] >= 0xE0 if family == IPV4 else packed[0] == 0xFF:  # noqa: PLR2004 - 224.0.0.0/3 and ff00::/8
        raise ConfigurationError(None, key, f"{address} is no address of one machine")
    if not any_address and format_address(packed) in _ANY:
        raise ConfigurationError(
            None, key, f"{address} means every address, and nobody can send there: give one of this machine"
        )
    return family


def _address_towards(contacts: Sequence[Endpoint], family: int, *, dual: bool) -> str:
    """Which of our addresses the kernel would take to reach the contacts, or, without one, the world.

    Raises:
        ConfigurationError: It knows no way, or only one that does not leave the machine.
    """
    families = [family, IPV4] if dual else [family]
    wanted = [contact.address for contact in contacts if (IPV6 if ":" in contact.address else IPV4) in families]
    for address in [*wanted, *(_ELSEWHERE[family] for family in families)]:
        with (
            contextlib.suppress(OSError),
            socket.socket(IPV6 if ":" in address else IPV4, socket.SOCK_DGRAM) as probe,
        ):
            probe.connect((address, DEFAULT_PORT))
            found = str(probe.getsockname()[0])
            if found not in _ANY and not found.startswith("fe80:") and (is_loopback(address) or not is_loopback(found)):
                return found
    raise ConfigurationError(
        None,
        "advertise",
        "we listen on every address, and no route says which one others reach: give it, as in advertise=10.0.0.1",
    )
