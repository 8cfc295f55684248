"""Addresses of agents that are known by name: looked up, and kept for a while.

Invariants: nobody waits for a name longer than the deadline; no more names are kept than the limit; of several addresses it is always
the same one that counts (the least of IPv4, else the least of IPv6), for a name server turns them around with each answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import Final

import trio

from pyminuteman.addresses import IPV4, IPV6, format_address, parse_address

__all__ = ["HostAddresses"]

_NAMES_MAX: Final = 100_000
_AT_ONCE: Final = 16
_KEPT_SECONDS: Final = 60.0
_FAILURE_KEPT_SECONDS: Final = 10.0


class HostAddresses:
    """Names of hosts and their addresses.

    Args:
        deadline_seconds: How long a look-up of all names together may take.

    Attributes:
        failures: Look-ups that gave nothing.
        several: Names that have more than one address.
    """

    def __init__(self, deadline_seconds: float = 5.0) -> None:
        self._deadline = deadline_seconds
        self._known: dict[str, tuple[str | None, float]] = {}
        self.failures = 0
        self.several = 0

    async def look_up(self, names: Iterable[str]) -> dict[str, str]:
        """Addresses of those names that have one. An address that was known is better than none, should the name server be silent."""
        now = trio.current_time()
        wanted = sorted(set(names))[:_NAMES_MAX]
        limit = trio.CapacityLimiter(_AT_ONCE)
        with trio.move_on_after(self._deadline):
            async with trio.open_nursery() as nursery:
                for name in wanted:
                    if self._known.get(name, (None, -inf))[1] <= now:
                        nursery.start_soon(self._look_up, name, limit)
        found = {name: self._known.get(name, (None, 0.0)) for name in wanted}
        self._known = {name: entry for name, entry in self._known.items() if name in found}
        return {name: address for name, (address, _) in found.items() if address is not None}

    async def _look_up(self, name: str, limit: trio.CapacityLimiter) -> None:
        async with limit:
            try:
                rows = await trio.socket.getaddrinfo(name, None, type=trio.socket.SOCK_STREAM)
            except (OSError, UnicodeError):
                rows = []
        found = sorted({parse_address(str(row[4][0])) for row in rows if row[0] in {IPV4, IPV6} and "%" not in str(row[4][0])})
        kept = _KEPT_SECONDS if found else _FAILURE_KEPT_SECONDS
        self.failures += not found
        self.several += len(found) > 1
        address = format_address(found[0][1]) if found else self._known.get(name, (None, 0.0))[0]
        self._known[name] = (address, trio.current_time() + kept)
