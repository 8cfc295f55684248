"""The device that VIP addresses are on: a dummy, which sends nothing anywhere."""

from __future__ import annotations

from typing import Final

from pyminuteman.host.announcements import DEVICE, VIPAddresses
from pyminuteman.host.findings import Finding, Severity
from pyminuteman.host.journal import Journal, namespace_id
from pyminuteman.host.links import Announce, Link, Links

__all__ = ["AnnouncementStep", "DummyDevice"]

_WHY: Final = (
    "packets to a VIP come to IPVS only where the VIP is an address of this host; this device carries them, and nothing else"
)
_WHY_ANNOUNCED: Final = "a VIP that is no address of this host is routed to somewhere else, and its clients time out"


class DummyDevice:
    """A dummy of this name, switched on."""

    name = "device"

    def __init__(self, journal: Journal, netns: str | None = None, device: str = DEVICE) -> None:
        self._journal, self._netns, self._device = journal, netns, device

    def check(self) -> Finding:
        """See :class:`~pyminuteman.host.steps.HostStep`."""
        with Links(self._netns) as links:
            link = links.get(self._device)
        make = f"ip link add {self._device} type dummy && ip link set {self._device} up"
        if link is None:
            return self._finding(Severity.ERROR, f"there is no device {self._device}", make)
        if not link.is_up:
            return self._finding(Severity.ERROR, f"the device {self._device} is down", f"ip link set {self._device} up")
        kind = "" if link.kind == "dummy" else f"; it is a {link.kind or 'real'} device and no dummy, and is used as it is"
        return Finding("host.device", Severity.OK, f"the device {self._device} is there and up{kind}", _WHY)

    def apply(self) -> None:
        """See :class:`~pyminuteman.host.steps.HostStep`."""
        namespace = namespace_id(self._netns)
        with Links(self._netns) as links:
            link = links.get(self._device)
            if link is None:
                self._journal.remember(namespace, self.name, {self._device: "absent"})
                links.add(self._device)
            elif not link.is_up:
                self._journal.remember(namespace, self.name, {self._device: "down"})
                links.up(link)

    def undo(self) -> bool:
        """See :class:`~pyminuteman.host.steps.HostStep`. A device that was there before us stays, and stays up."""
        namespace = namespace_id(self._netns)
        before = self._journal.recall(namespace, self.name)
        removed = False
        with Links(self._netns) as links:
            for device, state in before.items():
                link: Link | None = links.get(device) if state == "absent" else None
                if link is not None and link.kind == "dummy":
                    links.delete(link)
                    removed = True
        self._journal.forget(namespace, self.name)
        return removed

    def _finding(self, severity: Severity, what: str, fix: str) -> Finding:
        return Finding("host.device", severity, what, _WHY, fix, fixable=True)


class AnnouncementStep:
    """VIP addresses. The device is ours, so whoever keeps it withdraws all that is no VIP; what was there before us is restored at the end."""

    name = "addresses"

    def __init__(self, journal: Journal, addresses: VIPAddresses) -> None:
        self._journal, self._addresses = journal, addresses

    def check(self) -> Finding:
        """See :class:`~pyminuteman.host.steps.HostStep`."""
        how = "as addresses" if self._addresses.mode is Announce.ADDRESS else "by local routes"
        what = f"{len(self._addresses.present())} VIP addresses on {self._addresses.device}, {how}"
        return Finding("host.addresses", Severity.OK, what, _WHY_ANNOUNCED)

    def remember(self) -> None:
        """Remember which are there before our first one."""
        namespace = namespace_id(self._addresses.netns)
        if self.name not in self._journal.steps(namespace):
            before = dict.fromkeys(sorted(self._addresses.present()), "there")
            self._journal.remember(namespace, self.name, {"mode": self._addresses.mode.name, **before})

    def apply(self) -> None:
        """See :class:`~pyminuteman.host.steps.HostStep`: nothing to do before there are VIPs."""

    def undo(self) -> bool:
        """See :class:`~pyminuteman.host.steps.HostStep`: just those that were there before us."""
        namespace = namespace_id(self._addresses.netns)
        before = self._journal.recall(namespace, self.name)
        if not before:
            return False
        there, earlier = self._addresses.present(), before.keys() - {"mode"}
        self._addresses.withdraw(there - earlier)
        self._addresses.announce(earlier - there)
        self._journal.forget(namespace, self.name)
        return there != earlier
