"""Who is at the other end of a connection: of a unix socket the kernel says so, of TCP a certificate may.

A unix socket has the peer's credentials as they were when it connected, and they cannot be forged (unix(7), ``SO_PEERCRED``).
"""

from __future__ import annotations

import pwd
import socket
import sys
from dataclasses import dataclass, replace
from functools import lru_cache
from struct import Struct
from typing import Any, Final

import trio

__all__ = ["Peer", "peer_of", "user_name"]

_UCRED: Final = Struct("iII")
_SO_PEERGROUPS: Final = 59
"""From asm-generic/socket.h (Linux 4.13); Python has no name for it."""
_GROUPS_BYTES: Final = 1024
"""The most that Python asks a socket for: 256 groups."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Who asks.

    Attributes:
        address: Of TCP; empty for a unix socket.
        uid: User at the other end of a unix socket; None for TCP.
        groups: Groups of that process, the effective one and the supplementary ones.
        certificate: Common name of the client's certificate; empty without one.
        verified: The client has shown a certificate that was verified.
    """

    address: str = ""
    uid: int | None = None
    groups: frozenset[int] = frozenset()
    certificate: str = ""
    verified: bool = False

    @property
    def is_root(self) -> bool:
        """Root, over the unix socket."""
        return self.uid == 0

    @property
    def key(self) -> str:
        """Whose share of the connections it takes."""
        return self.address if self.uid is None else f"uid {self.uid}"

    def with_certificate(self, certificate: Any) -> Peer:
        """The same with what :meth:`ssl.SSLSocket.getpeercert` gives, which is None or empty without a verified certificate."""
        if not certificate:
            return self
        names = [value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"]
        return replace(self, certificate=names[0] if names else "(no common name)", verified=True)


def peer_of(connection: trio.socket.SocketType) -> Peer:
    """The peer of a connection, as far as the kernel knows it."""
    if connection.family != socket.AF_UNIX:
        address = connection.getpeername()[0]
        return Peer(address.removeprefix("::ffff:"))
    _, uid, gid = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    groups = {gid}
    try:
        packed = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_BYTES)
    except OSError:  # more groups than that, or an older kernel: the effective group is known all the same
        packed = b""
    whole = len(packed) // 4 * 4
    groups |= {int.from_bytes(packed[at : at + 4], sys.byteorder) for at in range(0, whole, 4)}
    return Peer(uid=uid, groups=frozenset(groups))


@lru_cache(maxsize=256)
def user_name(uid: int) -> str:
    """The user's name, or ``uid 1234``. May ask a directory service: call it in a thread."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
