"""Links, addresses and routes over netlink: the only importer of the C module ``_native``.

Not thread safe; :class:`~pyminuteman.host.announcements.VIPAddresses` has the lock.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from errno import EACCES, EEXIST, ENODEV, EOPNOTSUPP, EPERM
from types import TracebackType
from typing import Any, Final, Self

from pyminuteman.addresses import format_address, parse_address
from pyminuteman.host.errors import HostSetupError
from pyminuteman.host.namespaces import refused

__all__ = ["DEVICE_NAME_MAX", "LOOPBACK", "Announce", "Link", "Links"]

DEVICE_NAME_MAX: Final = 15
"""Bytes of a device's name (IFNAMSIZ, without the zero)."""
LOOPBACK: Final = "lo"
_IFF_UP: Final = 1
_RIGHT: Final = "run as root, or with CAP_NET_ADMIN"


class Announce(IntEnum):
    """How a virtual address is made this host's own, so that its packets come to IPVS."""

    ADDRESS = 0
    """``/32`` or ``/128`` on the device: visible in ``ip address``, usable as a source address."""
    ROUTE = 1
    """A local route, as dcos-net had it: visible in ``ip route show table local proto 77``."""
    INSIDE = 2
    """A local route whose connections come from an address that the namespace has besides: they need no masquerade to be answered, and a
    backend in the namespace itself is reached too. For namespaces of containers, which are not the way of anybody else."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """``address``, ``route`` or ``inside``."""
        return cls[text.upper()]


@dataclass(frozen=True, slots=True)
class Link:
    """A network device."""

    index: int
    kind: str
    """``dummy``, ``bridge``, ``veth``, ...; empty for hardware and lo."""
    is_up: bool
    mtu: int


class Links:
    """A routing socket.

    Args:
        netns: Path of the network namespace; None for this thread's.
        timeout_seconds: The longest wait for any one answer of the kernel.

    Raises:
        HostSetupError: No libnl-route, no such namespace, or we may not enter it.
    """

    def __init__(self, netns: str | None = None, timeout_seconds: float = 5.0) -> None:
        """Open it."""
        try:
            from pyminuteman.host._native import ffi, lib  # noqa: PLC0415 - the pure parts work without libnl
        except ImportError as error:
            msg = f"the C module cannot be loaded ({error})"
            raise HostSetupError(
                "device", msg, "install libnl-3-200 and libnl-route-3-200, or build it: pip install ."
            ) from error
        self._ffi, self._lib = ffi, lib
        self._socket: Any = None
        out = ffi.new("struct pmm_route_socket **")
        descriptor = -1
        if netns is not None:
            try:
                descriptor = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
            except (OSError, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) else str(error)
                raise HostSetupError("namespace", f"network namespace {netns} cannot be opened: {reason}") from error
        try:
            result = lib.pmm_route_open(out, descriptor, max(1, int(timeout_seconds * 1000)))
        finally:
            if descriptor >= 0:
                os.close(descriptor)
        if result < 0 and netns is not None:
            raise refused(netns, -result)
        self._check(result, "open a routing socket")
        self._socket = out[0]

    def __enter__(self) -> Self:
        """Nothing more to do: the socket is open."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Close the socket. Twice does no harm."""
        if self._socket is not None:
            self._lib.pmm_route_close(self._socket)
            self._socket = None

    def get(self, name: str) -> Link | None:
        """The device of this name; None when there is none."""
        out = self._ffi.new("struct pmm_link *")
        result = self._lib.pmm_link_get(self._opened(), _name(name), out)
        if result == -ENODEV:
            return None
        self._check(result, f"look for the device {name}")
        kind: bytes = self._ffi.string(out.kind)
        return Link(int(out.index), kind.decode("ascii", "replace"), bool(out.flags & _IFF_UP), int(out.mtu))

    def add(self, name: str, kind: str = "dummy") -> bool:
        """Make a device that is up; whether it is new.

        Raises:
            HostSetupError: Not permitted; or the kernel has no such kind of device.
        """
        result = self._lib.pmm_link_add(self._opened(), _name(name), kind.encode())
        if result == -EEXIST:
            return False
        if result == -EOPNOTSUPP:
            hint = f"load its module: modprobe {kind}, and for every boot: echo {kind} > /etc/modules-load.d/minuteman.conf"
            raise HostSetupError("device", f"this kernel cannot make devices of the kind {kind}", hint)
        self._check(result, f"make the {kind} device {name}")
        return True

    def up(self, link: Link) -> None:
        """Switch it on."""
        self._check(self._lib.pmm_link_up(self._opened(), link.index), f"switch device {link.index} on")

    def delete(self, link: Link) -> None:
        """Remove it, and with it what addresses and routes it has."""
        result = self._lib.pmm_link_delete(self._opened(), link.index)
        if result != -ENODEV:
            self._check(result, f"remove device {link.index}")

    def addresses(self, how: Announce, link: Link) -> frozenset[str]:
        """The virtual addresses on a device. As routes, only ours (protocol 77)."""
        out = self._ffi.new("struct pmm_vip **")
        count = self._check(self._lib.pmm_vips_list(self._opened(), int(how), link.index, out), "list virtual addresses")
        raw = bytes(self._ffi.buffer(out[0], count * self._ffi.sizeof("struct pmm_vip"))) if count else b""
        return frozenset(_unpack(raw[at : at + 20]) for at in range(0, len(raw), 20))

    def change(
        self, how: Announce, link: Link, addresses: Iterable[str], *, add: bool, source: str | None = None
    ) -> Mapping[str, int]:
        """Add or remove virtual addresses, all in one call.

        Args:
            how: In which way.
            link: On which device.
            addresses: Which.
            add: Or remove.
            source: With :attr:`Announce.INSIDE`, the IPv4 address that connections to IPv4 ones come from.

        Returns:
            Those that failed, with the kernel's (positive) error number. There already, or gone already, is no failure.

        Raises:
            HostSetupError: The socket failed, after some of them perhaps.
        """
        ordered = sorted(addresses)
        if not ordered:
            return {}
        vips = self._ffi.new("struct pmm_vip[]", len(ordered))
        self._ffi.memmove(vips, b"".join(map(_pack, ordered)), 20 * len(ordered))
        outcomes = self._ffi.new("int32_t[]", len(ordered))
        origin = self._ffi.NULL
        if source is not None:
            origin = self._ffi.new("struct pmm_vip *")
            self._ffi.memmove(origin, _pack(source), 20)
        result = self._lib.pmm_vips_change(self._opened(), int(how), link.index, int(add), origin, vips, len(ordered), outcomes)
        self._check(result, f"{'add' if add else 'remove'} virtual addresses")
        return {address: -int(outcomes[at]) for at, address in enumerate(ordered) if outcomes[at]}

    def _opened(self) -> Any:
        if self._socket is None:
            msg = "these links are closed"
            raise ValueError(msg)
        return self._socket

    def _check(self, result: int, what: str) -> int:
        if result >= 0:
            return int(result)
        hint = _RIGHT if -result in {EPERM, EACCES} else ""
        raise HostSetupError("device", f"{what}: {os.strerror(-result)}", hint)


def _name(name: str) -> bytes:
    raw = os.fsencode(name)
    if not 0 < len(raw) <= DEVICE_NAME_MAX or b"/" in raw or b"\0" in raw or any(byte <= 0x20 for byte in raw):  # noqa: PLR2004 - space
        raise HostSetupError("device", f"{name!r} is no device's name: 1 to {DEVICE_NAME_MAX} bytes, no slash, no space")
    return raw


def _pack(address: str) -> bytes:
    family, packed = parse_address(address)
    return bytes([family, 0, 0, 0]) + packed.ljust(16, b"\0")


def _unpack(record: bytes) -> str:
    return format_address(record[4:8] if record[0] == 2 else record[4:20])  # noqa: PLR2004 - AF_INET
