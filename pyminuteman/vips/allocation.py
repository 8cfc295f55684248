"""Addresses for names of VIPs: the same on every node, in whatever order the names came and went.

Pure. Invariants:

1. Where a name's address stands depends on the set of names (and reserved addresses) present, and on nothing else.
2. A name that collides with nobody has the address that dcos-net gave it: the first address of the range plus ``phash2`` of the name
   for IPv4, plus its SHA-1 for IPv6, both modulo the range's size.
3. A name that comes or goes moves only names it collides with.

The predecessors gave a collided name the next free address, so that it depended on who came first, and nodes disagreed. Here every
address prefers, of those that would have it, the one that is nearest to its own hash, then the lesser name; whoever is displaced goes
on to the next address. That is a stable matching, of which there is one that suits the names best, however one gets there: strongly
history-independent hashing with linear probing (Blelloch and Golovin, FOCS 2007).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple, Self

from pyminuteman.addresses import IPV4, format_address, parse_address
from pyminuteman.vips.model import InvalidVIPError
from pyminuteman.vips.names import phash2, sha1_number

__all__ = ["IPV4_RANGE", "IPV6_RANGE", "AddressRange", "Allocation"]

_PROBES_MAX: Final = 4096
"""How far from its hash a name may land. In a range that is nine tenths full they land some fifty addresses away."""


class AddressRange(NamedTuple):
    """Addresses to give names, from ``low`` up to but without ``high``: dcos-net never gave its last one either."""

    family: int
    low: int
    high: int

    @classmethod
    def parse(cls, low: str, high: str) -> Self:
        """From the texts of two addresses of one family.

        Raises:
            InvalidVIPError: They are not, or nothing is between them.
        """
        try:
            (family, first), (other, last) = parse_address(low), parse_address(high)
        except ValueError as error:
            raise InvalidVIPError(str(error)) from None
        if family != other or first >= last:
            msg = f"{low} to {high} is no range: two addresses of one family, the lower one first"
            raise InvalidVIPError(msg)
        return cls(family, int.from_bytes(first, "big"), int.from_bytes(last, "big"))

    @property
    def size(self) -> int:
        """How many names it has room for."""
        return self.high - self.low

    def address(self, slot: int) -> str:
        """The address in that place."""
        return format_address((self.low + slot).to_bytes(4 if self.family == IPV4 else 16, "big"))

    def slot(self, address: str) -> int | None:
        """The place of that address; None when it is not of the range.

        Raises:
            ValueError: It is no address.
        """
        family, packed = parse_address(address)
        slot = int.from_bytes(packed, "big") - self.low
        return slot if family == self.family and 0 <= slot < self.size else None

    def home(self, name: str) -> int:
        """The place that the name would have if it were alone."""
        return phash2(name, self.size) if self.family == IPV4 else sha1_number(name) % self.size


IPV4_RANGE: Final = AddressRange.parse("11.0.0.0", "11.255.255.254")
"""Minuteman's. It belongs to somebody: choose 10.x or 198.18.0.0/15 when the hosts have to reach the Internet's 11.0.0.0/8."""
IPV6_RANGE: Final = AddressRange.parse("fd01:c::", "fd01:c::ffff:ffff:ffff:ffff")
"""dcos-net's."""


class Allocation:
    """Names and their addresses, of one range.

    Args:
        addresses: The range.
        home: Where a name would stand if it were alone; the range's own rule unless a test wants collisions.
    """

    def __init__(self, addresses: AddressRange, home: Callable[[str], int] | None = None) -> None:
        self._range = addresses
        self._home = addresses.home if home is None else home
        self._probes = min(_PROBES_MAX, addresses.size)
        self._homes: dict[str, int] = {}
        self._slots: dict[str, int] = {}
        self._holders: dict[int, str | None] = {}  # None holds what is reserved
        self._homeless: dict[str, None] = {}
        self._moved: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._homes

    def __len__(self) -> int:
        return len(self._homes)

    def address(self, name: str) -> str | None:
        """The name's address; None when it is not there, or when the range is too full for it."""
        slot = self._slots.get(name)
        return None if slot is None else self._range.address(slot)

    @property
    def homeless(self) -> list[str]:
        """Names that found no address, in order: the range is too small."""
        return sorted(self._homeless)

    def take_moved(self) -> list[str]:
        """Names whose address may be another than when this was last called (they came, went or stepped aside), in order."""
        moved = sorted(self._moved)
        self._moved.clear()
        return moved

    def add(self, name: str) -> None:
        """The name is there."""
        if name not in self._homes:
            self._homes[name] = self._home(name) % self._range.size
            self._place(name, 0)

    def remove(self, name: str) -> None:
        """The name is gone: whoever stepped aside for it comes back."""
        if name not in self._homes:
            return
        slot = self._slots.pop(name, None)
        self._homeless.pop(name, None)
        self._moved.add(name)
        del self._homes[name]
        if slot is not None:
            self._vacate(slot)

    def reserve(self, address: str) -> None:
        """Somebody uses the address as it stands: no name gets it. Addresses outside of the range are passed over.

        Raises:
            ValueError: It is no address.
        """
        slot = self._range.slot(address)
        if slot is None or (slot in self._holders and self._holders[slot] is None):
            return
        displaced = self._holders.get(slot)
        self._holders[slot] = None
        if displaced is not None:
            del self._slots[displaced]
            self._place(displaced, self._distance(displaced, slot) + 1)

    def release(self, address: str) -> None:
        """The address is free for names again, however often it was reserved.

        Raises:
            ValueError: It is no address.
        """
        slot = self._range.slot(address)
        if slot is not None and slot in self._holders and self._holders[slot] is None:
            self._vacate(slot)

    def _distance(self, name: str, slot: int) -> int:
        return (slot - self._homes[name]) % self._range.size

    def _place(self, name: str, distance: int) -> None:
        size, homes, holders = self._range.size, self._homes, self._holders
        home = homes[name]
        while distance < self._probes:
            slot = (home + distance) % size
            if slot not in holders:
                self._settle(name, slot)
                return
            holder = holders[slot]
            if holder is not None:
                held = (slot - homes[holder]) % size
                if distance < held or (distance == held and name < holder):
                    del self._slots[holder]
                    self._settle(name, slot)
                    name, distance, home = holder, held, homes[holder]
            distance += 1
        self._homeless[name] = None
        self._moved.add(name)

    def _settle(self, name: str, slot: int) -> None:
        self._slots[name] = slot
        self._holders[slot] = name
        self._homeless.pop(name, None)
        self._moved.add(name)

    def _vacate(self, slot: int) -> None:
        """Fill a place with whoever it prefers of those that had to go on from it, and so on with the place that one leaves.

        Places are left further and further on, so one walk to the end of the run of taken places sees everybody who may move, and
        of those with one home it sees them in the order of preference. All places are counted from ``slot``.
        """
        size = self._range.size
        waiting = self._waiting_beyond(slot)
        homes = deque(sorted(waiting))
        passed: list[int] = []  # homes at or before the vacant place, the nearest, which is preferred, last
        vacant = 0
        while True:
            del self._holders[(slot + vacant) % size]
            while homes and homes[0] <= vacant:
                passed.append(homes.popleft())
            while passed and not _is_heir(waiting[passed[-1]], vacant, vacant - passed[-1] < self._probes):
                passed.pop()
            if not passed:
                return
            at, name = waiting[passed[-1]].popleft()
            self._slots.pop(name, None)
            self._settle(name, (slot + vacant) % size)
            if at == size:
                return
            vacant = at

    def _waiting_beyond(self, slot: int) -> dict[int, deque[tuple[int, str]]]:
        """By their homes, those that stand beyond a place, and where; the homeless stand at the range's size."""
        size = self._range.size
        waiting: dict[int, deque[tuple[int, str]]] = {}
        for step in range(1, size):
            at = (slot + step) % size
            if at not in self._holders:
                break
            holder = self._holders[at]
            if holder is not None:
                waiting.setdefault(step - self._distance(holder, at), deque()).append((step, holder))
        for name in sorted(self._homeless):
            home = -self._distance(name, slot)
            for around in (home, home + size):  # its search may have gone around the whole range
                waiting.setdefault(around, deque()).append((size, name))
        return waiting


def _is_heir(queue: deque[tuple[int, str]], vacant: int, within: bool) -> bool:
    """Drop who stands before the vacant place already; whether the next of those with this home would rather stand there."""
    while queue and queue[0][0] <= vacant:
        queue.popleft()
    return bool(queue) and within
