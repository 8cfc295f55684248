"""The IPv4 address that a namespace's own connections come from, as the kernel chooses it."""

from __future__ import annotations

import fcntl
import socket
import struct
from collections.abc import Iterable
from typing import Final

from pyminuteman.host.links import LOOPBACK
from pyminuteman.host.namespaces import in_namespace

__all__ = ["source_address", "with_other_source"]

_SIOCGIFADDR: Final = 0x8915  # linux/sockios.h
_REQUEST: Final = struct.Struct("16s24x")  # struct ifreq of linux/if.h
_ADDRESS_AT: Final = slice(20, 24)  # in it, that of its sockaddr_in
_SOMEWHERE: Final = ("192.0.2.1", 9)
"""TEST-NET-1 (RFC 5737): where the default route leads. Nothing is sent there."""


def source_address(netns: str | None, device: str) -> str | None:
    """That of the default route; where there is none the first address of a device; None when there is none but on lo and ``device``.

    Raises:
        HostSetupError: There is no such namespace, or we may not enter it.
    """
    return in_namespace(netns, lambda: _look(device))


def with_other_source(netns: str | None, device: str, destinations: Iterable[str]) -> frozenset[str]:
    """Those IPv4 addresses to which connections do not come from :func:`source_address`; none when there is no such address.

    Raises:
        HostSetupError: There is no such namespace, or we may not enter it.
    """
    ordered = sorted(destinations)

    def look() -> frozenset[str]:
        source = _look(device)
        return frozenset(one for one in ordered if source is not None and _source_to((one, 9)) != source)

    return in_namespace(netns, look)


def _source_to(somewhere: tuple[str, int]) -> str:
    """Empty where no route leads there, or one with a source that is no address of this namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as asking:
        try:
            asking.connect(somewhere)
            found: str = asking.getsockname()[0]
        except OSError:
            return ""
    return found


def _look(device: str) -> str | None:
    found = _source_to(_SOMEWHERE)
    if found and not found.startswith("127."):
        return found
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as asking:
        for _, name in socket.if_nameindex():
            if name in {LOOPBACK, device}:
                continue
            try:
                answer = fcntl.ioctl(asking, _SIOCGIFADDR, _REQUEST.pack(name.encode()))
            except OSError:
                continue  # it has none
            return socket.inet_ntoa(answer[_ADDRESS_AT])
    return None
