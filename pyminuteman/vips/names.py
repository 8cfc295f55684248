"""Names of VIPs: how a label and its framework become a DNS name, and the two numbers that old clusters made of one.

Pure. The rules are those of Mesos's frameworks and of dcos-net, so that a cluster that moves keeps its names and its addresses.
"""

from __future__ import annotations

import re
from hashlib import sha1
from typing import Final

from pyminuteman.vips.model import InvalidVIPError, VIPName

__all__ = ["dns_label", "dns_name", "phash2", "sha1_number"]

_LABEL_MAX: Final = 63  # RFC 1035, 2.3.4
_DROPPED: Final = re.compile("[^A-Za-z0-9_-]+")
_MASK: Final = 0xFFFF_FFFF
_GOLDEN_RATIO: Final = 0x9E37_79B9
_BINARY_TAG: Final = 13
"""What Erlang begins the hash of a binary with, times the golden ratio."""
_RANGE_DEFAULT: Final = 1 << 27


def dns_label(text: str) -> str:
    """One label of a DNS name: lower case letters and digits, and hyphens between them; all else is dropped.

    ``-`` and ``_`` become a hyphen once something stands before them; what is beyond 63 bytes is cut off; then a hyphen at the end.
    Empty when nothing is left. So ``/a/b`` and ``ab`` are one: frameworks that use such names do not tell them apart.
    """
    kept = _DROPPED.sub("", text)  # before the case is changed: that makes an ASCII letter of the Kelvin sign
    return kept.lstrip("-_").replace("_", "-").lower()[:_LABEL_MAX].rstrip("-")


def dns_name(name: VIPName) -> str:
    """The DNS name of a VIP without its zone: ``/foo`` of ``marathon`` is ``foo.marathon``, ``/api.web`` is ``api.web.marathon``.

    Raises:
        InvalidVIPError: Nothing of the label or of the framework is left.
    """
    labels: list[str] = []
    for text in (name.label, name.framework):
        parts = [dns_label(part) for part in text.split(".") if part]
        if not parts or not all(parts):
            msg = f"{name} has no DNS name: each part of {text!r} needs a letter or a digit"
            raise InvalidVIPError(msg)
        labels += parts
    return ".".join(labels)


def sha1_number(text: str) -> int:
    """SHA-1 of the name, as a number: what dcos-net makes IPv6 addresses of. No secret hangs on it."""
    return int.from_bytes(sha1(text.encode(), usedforsecurity=False).digest(), "big")


def phash2(text: str, size: int = _RANGE_DEFAULT) -> int:
    """Erlang's ``phash2(<<"text">>, size)``: what Minuteman and dcos-net make IPv4 addresses of.

    Bob Jenkins's hash of 1996 ("lookup2", Dr. Dobb's Journal, September 1997), begun as Erlang does for binaries.
    """
    data = text.encode()
    a = b = _GOLDEN_RATIO
    c = _BINARY_TAG * _GOLDEN_RATIO & _MASK
    if not data:
        return c % size
    whole = len(data) - len(data) % 12
    for at in range(0, whole, 12):
        a = a + int.from_bytes(data[at : at + 4], "little") & _MASK
        b = b + int.from_bytes(data[at + 4 : at + 8], "little") & _MASK
        c = c + int.from_bytes(data[at + 8 : at + 12], "little") & _MASK
        a, b, c = _mix(a, b, c)
    tail = data[whole:]
    a = a + int.from_bytes(tail[:4], "little") & _MASK
    b = b + int.from_bytes(tail[4:8], "little") & _MASK
    c = c + len(data) + (int.from_bytes(tail[8:], "little") << 8) & _MASK  # the lowest byte is the length's
    return _mix(a, b, c)[2] % size


def _mix(a: int, b: int, c: int) -> tuple[int, int, int]:
    for first, second, third in ((13, 8, 13), (12, 16, 5), (3, 10, 15)):
        a = (a - b - c & _MASK) ^ c >> first
        b = (b - c - a & _MASK) ^ a << second & _MASK
        c = (c - a - b & _MASK) ^ b >> third
    return a, b, c
