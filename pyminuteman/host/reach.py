"""Whether this node can gossip: its port, and the way to each contact, over UDP, over TCP, and with full datagrams.

A member answers a sealed Probe at once, whoever holds the key, and never answers anybody else. So with the cluster's key the question is put
as a member would; without it only TCP can be tried.
"""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from errno import EACCES, EADDRINUSE, EADDRNOTAVAIL, ECONNREFUSED, EMSGSIZE, EPERM
from time import perf_counter
from typing import Final

from pyminuteman.addresses import Endpoint, NodeId
from pyminuteman.host.findings import Finding, Severity
from pyminuteman.membership import codec
from pyminuteman.membership.errors import MembershipError
from pyminuteman.membership.keyring import Ring
from pyminuteman.membership.messages import Peer, Probe, ProbeReply, RecordRequest

__all__ = [
    "DATAGRAM_BYTES",
    "Reached",
    "check_api_port",
    "check_contact",
    "check_dns_port",
    "check_gossip_port",
    "is_own",
    "probe_udp",
]

DATAGRAM_BYTES: Final = 1200
"""The largest that gossip sends."""
_TRIES: Final = 3
# linux/in.h and linux/in6.h
_MTU_DISCOVER: Final = {socket.AF_INET: (0, 10, 2), socket.AF_INET6: (41, 23, 2)}
_WHY_PORT: Final = "nodes hear of each other over UDP, and exchange bulk over TCP, both on the gossip port"
_WHY_API_PORT: Final = "the API listens there besides its socket: where it cannot, the daemon does not start"
_WHY_DNS_PORT: Final = (
    "names of VIPs are answered for there, over UDP and TCP: where that cannot be had, the daemon does not start"
)
_BOTH: Final = ((socket.SOCK_DGRAM, "udp"), (socket.SOCK_STREAM, "tcp"))
_WHY_UDP: Final = (
    "over UDP nodes probe each other: without it this node is held for dead, and its backends are taken out everywhere"
)
_WHY_TCP: Final = "over TCP nodes join and exchange what fits no datagram: without it this node knows only part of the VIPs"
_WHY_MTU: Final = (
    f"gossip sends datagrams of up to {DATAGRAM_BYTES} bytes that must not be cut up: where they do not pass, small ones do, so that nodes "
    "are held for alive and never hear the news"
)


def check_gossip_port(bind: Endpoint) -> Finding:
    """Whether the gossip port is free, or taken: by our own daemon, or by somebody else, which cannot be told apart from here."""
    return _port("gossip.port", bind, _BOTH, _WHY_PORT)


def check_api_port(bind: Endpoint) -> Finding:
    """The same of where the API listens by TCP."""
    return _port("api.port", bind, _BOTH[1:], _WHY_API_PORT)


def check_dns_port(bind: Endpoint) -> Finding:
    """The same of where names are answered for."""
    return _port("dns.port", bind, _BOTH, _WHY_DNS_PORT)


def is_own(endpoint: Endpoint) -> bool:
    """Whether an address is this host's: then the kernel takes it for the source of what goes there. Nothing is sent."""
    family = socket.AF_INET6 if ":" in endpoint.address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as ours:
            ours.connect((endpoint.address, endpoint.port or 1))
            return bool(ours.getsockname()[0] == endpoint.address)
    except OSError:
        return False


def _port(identity: str, bind: Endpoint, kinds: Sequence[tuple[socket.SocketKind, str]], why: str) -> Finding:
    family = socket.AF_INET6 if ":" in bind.address else socket.AF_INET
    for kind, protocol in kinds:
        try:
            with socket.socket(family, kind) as probe:
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(kind == socket.SOCK_STREAM))
                probe.bind((bind.address, bind.port))
        except OSError as error:
            if error.errno == EADDRINUSE:
                fix = f"if the daemon does not run: ss -Hlnp 'sport = :{bind.port}' tells who has it"
                return Finding(identity, Severity.INFO, f"{protocol} port {bind} is taken, by the daemon if it runs", why, fix)
            fixes = {
                EADDRNOTAVAIL: "give an address of this host, or 0.0.0.0, as bind",
                EACCES: "take a port from 1024 on, or give the process CAP_NET_BIND_SERVICE",
            }
            what = f"{protocol} port {bind} cannot be bound: {error.strerror}"
            return Finding(identity, Severity.ERROR, what, why, fixes.get(error.errno or 0, ""))
    names = " and ".join(protocol for _, protocol in kinds)
    return Finding(identity, Severity.OK, f"{names} port {bind} {'is' if len(kinds) == 1 else 'are'} free", why)


@dataclass(frozen=True, slots=True)
class Reached:
    """What came of a question over UDP.

    Attributes:
        seconds: Until the answer; None when none came.
        reason: Why none came.
    """

    seconds: float | None
    reason: str = ""


def probe_udp(contact: Endpoint, ring: Ring, *, size: int, timeout_seconds: float = 1.0) -> Reached:
    """Ask a member for a sign of life, with a datagram of about this size that may not be cut up on its way.

    Args:
        contact: Where it listens.
        ring: The cluster's keys and name.
        size: Bytes of the datagram; the least that holds the question when it is less than that.
        timeout_seconds: The longest wait for the answer to one of three attempts.
    """
    family = socket.AF_INET6 if ":" in contact.address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as ours:
            level, option, dont_fragment = _MTU_DISCOVER[family]
            ours.setsockopt(level, option, dont_fragment)
            ours.connect((contact.address, contact.port))
            host, port = ours.getsockname()[:2]
            me = Peer(NodeId(os.urandom(NodeId.SIZE)), 1, Endpoint(host, port))
            return _ask(ours, me, ring, size, timeout_seconds)
    except OSError as error:
        return Reached(None, _refusal(error))


def _ask(ours: socket.socket, me: Peer, ring: Ring, size: int, timeout_seconds: float) -> Reached:
    reason = "no answer"
    for _ in range(_TRIES):
        number = random.SystemRandom().getrandbits(63)
        sealed = _question(me, ring, number, size)
        start = perf_counter()
        try:
            ours.send(sealed)
            while (left := start + timeout_seconds - perf_counter()) > 0:
                ours.settimeout(left)
                opened = ring.open(ours.recv(65536))
                if opened is not None and ProbeReply(number) in codec.unpack(bytes(opened.plain)).messages:
                    return Reached(perf_counter() - start)
        except TimeoutError:
            continue
        except OSError as error:
            if error.errno not in {ECONNREFUSED, EMSGSIZE}:
                raise
            reason = _refusal(error)
        except MembershipError as error:
            reason = f"its answer is not understood: {error}"
    return Reached(None, reason)


def _question(me: Peer, ring: Ring, number: int, size: int) -> bytes:
    """A Probe, made longer by asking for records of nodes that nobody knows."""
    room = size - ring.overhead
    payload = codec.pack([Probe(number)], me, limit=1 << 13)[0][0]
    padding = max(0, room - len(payload) - 8) // (NodeId.SIZE + 2)
    if padding:
        ids = tuple(NodeId(os.urandom(NodeId.SIZE)) for _ in range(padding))
        payload = codec.pack([Probe(number), RecordRequest(ids)], me, limit=1 << 13)[0][0]
    return ring.seal(payload)


def _refusal(error: OSError) -> str:
    return {
        ECONNREFUSED: "refused: nobody listens there, or a firewall rejects it",
        EMSGSIZE: "larger than the way there lets pass",
        EPERM: "our own firewall drops it",
    }.get(error.errno or 0, error.strerror or str(error))


def _tcp(contact: Endpoint, timeout_seconds: float) -> Reached:
    start = perf_counter()
    try:
        with socket.create_connection((contact.address, contact.port), timeout_seconds):
            return Reached(perf_counter() - start)
    except TimeoutError:
        return Reached(None, "no answer")
    except OSError as error:
        return Reached(None, _refusal(error))


def check_contact(contact: Endpoint, ring: Ring | None, timeout_seconds: float = 1.0) -> Iterable[Finding]:
    """Whether a member is reached: over TCP, over UDP, and with a full datagram.

    Args:
        contact: Where it listens.
        ring: The cluster's keys and name; None when there is none to ask with.
        timeout_seconds: For each attempt.
    """
    port = contact.port
    tcp = _tcp(contact, timeout_seconds)
    yield _finding("gossip.tcp", contact, tcp, _WHY_TCP, f"start the daemon there; let pass tcp port {port}, both ways")
    if ring is None:
        fix = "give the cluster's key: --key-file"
        yield Finding(
            "gossip.udp", Severity.INFO, f"{contact} could not be asked over UDP without the cluster's key", _WHY_UDP, fix
        )
        return
    small = probe_udp(contact, ring, size=0, timeout_seconds=timeout_seconds)
    fix = (
        f"let pass udp port {port}, both ways"
        if tcp.seconds is not None
        else f"start the daemon there; let pass udp port {port}, both ways"
    )
    if small.seconds is None and tcp.seconds is not None:
        fix += "; or its key, or its cluster's name, is another one: members answer nobody else"
    yield _finding("gossip.udp", contact, small, _WHY_UDP, fix)
    if small.seconds is not None:
        full = probe_udp(contact, ring, size=DATAGRAM_BYTES, timeout_seconds=timeout_seconds)
        fix = (
            "set the MTU of both hosts' interfaces to what the way between them carries (tunnels and VPNs take 50 to 100 bytes)"
        )
        yield _finding("gossip.mtu", contact, full, _WHY_MTU, fix)


def _finding(identity: str, contact: Endpoint, came: Reached, why: str, fix: str) -> Finding:
    how = {"gossip.tcp": "over TCP", "gossip.udp": "over UDP", "gossip.mtu": f"with a datagram of {DATAGRAM_BYTES} bytes"}[
        identity
    ]
    if came.seconds is None:
        return Finding(identity, Severity.ERROR, f"{contact} is not reached {how}: {came.reason}", why, fix)
    took = f", in {came.seconds * 1000:.1f} ms"
    return Finding(identity, Severity.OK, f"{contact} is reached {how}{took}", why)
