"""The address book: named VIPs and their addresses, of both families.

Pure. Invariants:

1. What it says depends on the names and reserved addresses that are in it, not on how they came.
2. A DNS name is one VIP name's: the lesser (framework, label) has it. The others have no address, and are told whose it is.
3. A name has its address in both families, whether or not it has backends there: backends that come and go move nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from pyminuteman.vips.allocation import IPV4_RANGE, IPV6_RANGE, AddressRange, Allocation
from pyminuteman.vips.model import InvalidVIPError, VIPName
from pyminuteman.vips.names import dns_name

__all__ = ["AddressBook"]


class AddressBook:
    """Names with their addresses.

    Args:
        ranges: Where addresses are taken from, one range a family; a family without one has no named VIPs.

    Raises:
        InvalidVIPError: Two ranges are of one family.
    """

    def __init__(self, ranges: Iterable[AddressRange] = (IPV4_RANGE, IPV6_RANGE)) -> None:
        self._allocations: dict[int, Allocation] = {}
        for addresses in ranges:
            if addresses.family in self._allocations:
                msg = "two ranges of one family: names take their addresses from one"
                raise InvalidVIPError(msg)
            self._allocations[addresses.family] = Allocation(addresses)
        self._dns_names: dict[VIPName, str] = {}
        self._nameless: dict[VIPName, str] = {}
        self._claimants: dict[str, set[VIPName]] = {}
        self._uses: Counter[VIPName] = Counter()
        self._reserved: Counter[str] = Counter()
        self._changed: set[VIPName] = set()

    def __len__(self) -> int:
        return len(self._uses)

    # What is in it

    def add(self, name: VIPName) -> None:
        """One more VIP has the name: it may have one on several ports."""
        self._uses[name] += 1
        if self._uses[name] > 1:
            return
        self._changed.add(name)
        try:
            dns = dns_name(name)
        except InvalidVIPError as error:
            self._nameless[name] = str(error)
            return
        self._dns_names[name] = dns
        claimants = self._claimants.setdefault(dns, set())
        self._changed |= claimants  # one of them may have to give it up
        claimants.add(name)
        if len(claimants) == 1:
            for allocation in self._allocations.values():
                allocation.add(dns)

    def remove(self, name: VIPName) -> None:
        """One VIP of that name fewer. A name that is not there is passed over."""
        if name not in self._uses:
            return
        self._uses[name] -= 1
        if self._uses[name]:
            return
        del self._uses[name]
        self._changed.add(name)
        self._nameless.pop(name, None)
        dns = self._dns_names.pop(name, None)
        if dns is None:
            return
        claimants = self._claimants[dns]
        claimants.discard(name)
        self._changed |= claimants
        if not claimants:
            del self._claimants[dns]
            for allocation in self._allocations.values():
                allocation.remove(dns)

    def reserve(self, address: str) -> None:
        """One more VIP is at the address itself, so no name gets it."""
        self._reserved[address] += 1
        if self._reserved[address] == 1:
            for allocation in self._allocations.values():
                allocation.reserve(address)

    def release(self, address: str) -> None:
        """One VIP fewer at the address. One that was not reserved is passed over."""
        if address not in self._reserved:
            return
        self._reserved[address] -= 1
        if not self._reserved[address]:
            del self._reserved[address]
            for allocation in self._allocations.values():
                allocation.release(address)

    # What it says

    @property
    def families(self) -> tuple[int, ...]:
        """The families in which names have addresses, in order."""
        return tuple(sorted(self._allocations))

    def take_changed(self) -> set[VIPName]:
        """Names of which something may be different from when this was last called."""
        changed, self._changed = self._changed, set()
        for allocation in self._allocations.values():
            for dns in allocation.take_moved():
                changed |= self._claimants.get(dns, set())
        return changed

    def dns_name(self, name: VIPName) -> str | None:
        """The DNS name without its zone, if the name is there and it is the name's own."""
        dns = self._dns_names.get(name)
        return dns if dns is not None and self._owner(dns) == name else None

    def address(self, name: VIPName, family: int) -> str | None:
        """The address of the name in that family; None if it has none (:meth:`reason` says why)."""
        dns = self.dns_name(name)
        allocation = self._allocations.get(family)
        return None if dns is None or allocation is None else allocation.address(dns)

    def reason(self, name: VIPName, family: int) -> str:
        """Why the name has no address in that family; empty when it has one."""
        dns = self._dns_names.get(name)
        if dns is None:
            return self._nameless.get(name, f"{name} is not in the address book")
        if (owner := self._owner(dns)) != name:
            return f"{owner} has the DNS name {dns}, too, and comes first"
        if family not in self._allocations:
            return "no range of addresses of this family was given"
        return "" if self._allocations[family].address(dns) else f"the range of addresses is too full for {dns}"

    @property
    def shadowed(self) -> Mapping[VIPName, VIPName]:
        """Names whose DNS name is another's, and whose it is, in order."""
        found = {name: owner for name, dns in self._dns_names.items() if (owner := self._owner(dns)) != name}
        return {name: found[name] for name in sorted(found)}

    @property
    def nameless(self) -> Mapping[VIPName, str]:
        """Names that make no DNS name, and why, in order."""
        return {name: self._nameless[name] for name in sorted(self._nameless)}

    def homeless(self, family: int) -> list[str]:
        """DNS names that found no address in that family: its range is too small."""
        return self._allocations[family].homeless if family in self._allocations else []

    def _owner(self, dns: str) -> VIPName:
        return min(self._claimants[dns], key=lambda name: (name.framework, name.label))
