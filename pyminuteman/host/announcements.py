"""VIP addresses on this host: what makes a packet to a VIP ours, so that it comes to IPVS.

1. Only what is on our own device is looked at or touched; of routes, only those of our protocol number (77).
2. To announce what is there, or withdraw what is not, is a success.
3. One call to the kernel a batch, and each failure is told by address.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from errno import EACCES, EPERM
from types import TracebackType
from typing import Final, Self

from pyminuteman.host.errors import HostSetupError
from pyminuteman.host.links import Announce, Link, Links
from pyminuteman.host.source_address import source_address, with_other_source

__all__ = ["DEVICE", "VIPAddresses"]

DEVICE: Final = "minuteman"
"""The device's name unless told otherwise: that of the predecessors, so that their tools still find it."""
_SHOWN: Final = 3


class VIPAddresses:
    """The VIP addresses of one network namespace. Calls block for as long as the kernel does: make them in a worker thread.

    Args:
        netns: Path of the namespace; None for ours. Another takes CAP_SYS_ADMIN, for the moment of opening.
        device: The device they are on; it is made by :class:`~pyminuteman.host.device.DummyDevice`, and taken for ours.
        mode: As addresses, or as local routes of one kind or the other.
    """

    def __init__(self, netns: str | None = None, device: str = DEVICE, mode: Announce = Announce.ADDRESS) -> None:
        self.netns = netns
        self.device = device
        self.mode = mode
        self._lock = threading.Lock()
        self._links: Links | None = None

    def __enter__(self) -> Self:
        """Nothing to do: the socket is opened when it is needed."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Close the socket; addresses stay as they are. The next call opens it again."""
        with self._lock:
            self._drop()

    def present(self) -> frozenset[str]:
        """The addresses that are there, by the kernel; none when there is no such device.

        Raises:
            HostSetupError: The kernel could not be asked.
        """
        with self._lock:
            try:
                links = self._open()
                link = links.get(self.device)
                return frozenset() if link is None else links.addresses(self.mode, link)
            except HostSetupError:
                self._drop()
                raise

    def announce(self, new: Iterable[str]) -> None:
        """Have packets to these addresses come to this host. Do it last, when IPVS and the firewall know of them.

        Raises:
            HostSetupError: There is no such device, or the kernel refused some; the others are there. With :attr:`Announce.INSIDE` also that
                the namespace has no IPv4 address of its own (yet); IPv6 ones are there then.
            ValueError: One is no address.
        """
        self._change(new, add=True)

    def withdraw(self, gone: Iterable[str]) -> None:
        """Have packets to these addresses come here no more. Do it first, before IPVS forgets them.

        Raises:
            HostSetupError: The kernel refused some; the others are gone.
            ValueError: One is no address.
        """
        self._change(gone, add=False)

    def withdraw_stale(self) -> frozenset[str]:
        """With :attr:`Announce.INSIDE`, withdraw those whose connections come from an address that is no longer the namespace's: which they were.

        Raises:
            HostSetupError: The kernel could not be asked, or refused.
        """
        if self.mode is not Announce.INSIDE:
            return frozenset()
        fours = [one for one in self.present() if ":" not in one]
        stale = with_other_source(self.netns, self.device, fours) if fours else frozenset()
        self.withdraw(stale)
        return stale

    def _change(self, addresses: Iterable[str], *, add: bool) -> None:
        wanted = frozenset(addresses)
        if not wanted:
            return
        source, sourceless = None, frozenset[str]()
        if add and self.mode is Announce.INSIDE and (fours := frozenset(one for one in wanted if ":" not in one)):
            source = source_address(self.netns, self.device)
            sourceless = fours if source is None else sourceless
        with self._lock:
            try:
                links = self._open()
                link = self._device(links) if add else links.get(self.device)
                failed = {} if link is None else links.change(self.mode, link, wanted - sourceless, add=add, source=source)
            except HostSetupError:
                self._drop()
                raise
        if sourceless:
            hint = "it is tried again; give one of its devices an address, or its entry later"
            raise HostSetupError("addresses", "the namespace has no IPv4 address that connections could come from", hint)
        if failed:
            some = ", ".join(f"{address}: {os.strerror(errno)}" for address, errno in sorted(failed.items())[:_SHOWN])
            more = f" and {len(failed) - _SHOWN} more" if len(failed) > _SHOWN else ""
            hints = {
                EPERM: "run as root, or with CAP_NET_ADMIN",
                EACCES: f"IPv6 is switched off there: sysctl -w net.ipv6.conf.{self.device}.disable_ipv6=0",
            }
            hint = next((text for errno, text in hints.items() if errno in failed.values()), "")
            verb = "announced on" if add else "withdrawn from"
            msg = f"{len(failed)} of {len(wanted)} addresses could not be {verb} {self.device}: {some}{more}"
            raise HostSetupError("addresses", msg, hint)

    def _device(self, links: Links) -> Link:
        link = links.get(self.device)
        if link is None:
            hint = f"ip link add {self.device} type dummy && ip link set {self.device} up; or: minuteman doctor --fix"
            raise HostSetupError("addresses", f"there is no device {self.device}", hint)
        if not link.is_up:  # without that its addresses are nobody's
            links.up(link)
        return link

    def _open(self) -> Links:
        if self._links is None:
            self._links = Links(self.netns)
        return self._links

    def _drop(self) -> None:
        if self._links is not None:
            self._links.close()
            self._links = None
