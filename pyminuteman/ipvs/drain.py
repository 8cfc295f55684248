"""Letting removed destinations finish their connections.

Pure: the time and the connection counts are handed in.

A destination that is no longer desired first gets weight 0 (no new connections, the old ones live), and is removed when its
connections have ended or its time is up. That is done by *desiring it with weight 0* for a while: nothing is stored that could
be lost. One that is desired again is simply edited back to its weight. One found after a restart, undesired and in the table,
is drained from then on: a restart can lengthen a drain by at most its timeout, and never forgets one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pyminuteman.ipvs.destination import Destination
from pyminuteman.ipvs.records import DESTINATION_KEY_SIZE, destination_keys, destination_rows
from pyminuteman.ipvs.service import Protocol, ServiceKey
from pyminuteman.ipvs.snapshot import Snapshot

__all__ = ["Drain", "DrainPolicy"]

_WEIGHT = slice(DESTINATION_KEY_SIZE, DESTINATION_KEY_SIZE + 4)
_ZERO = bytes(4)


@dataclass(frozen=True, slots=True)
class DrainPolicy:
    """How long removed destinations may finish.

    Raises:
        ValueError: The timeout is not positive.
    """

    timeout_seconds: float = 60.0
    """Connections that live longer are cut. Choose what your longest request may take."""
    drain_udp: bool = False
    """UDP has no end of a connection to wait for, so its destinations are removed at once unless this is set; then they stay
    until the kernel's UDP timeout (300 s) has passed without a datagram, or ours has."""
    timeout_of: Callable[[ServiceKey], float] | None = None
    """The timeout of one service, where they differ: 0 removes at once. None: ``timeout_seconds`` for all."""

    def __post_init__(self) -> None:
        """Validate."""
        if not self.timeout_seconds > 0:
            msg = f"a drain timeout of {self.timeout_seconds!r} s is not positive"
            raise ValueError(msg)

    def timeout(self, key: ServiceKey) -> float:
        """How long the destinations of a service may finish, in seconds; 0 when they go at once."""
        if key.protocol == Protocol.UDP and not self.drain_udp:
            return 0.0
        return self.timeout_seconds if self.timeout_of is None else self.timeout_of(key)


class Drain:
    """The deadlines of what is draining. One for each table."""

    def __init__(self, policy: DrainPolicy) -> None:
        """Start with nothing draining."""
        self.policy = policy
        self._deadlines: dict[tuple[bytes, bytes], float] = {}

    def hold_back(
        self,
        current: Snapshot,
        wanted: Snapshot,
        differing: Sequence[bytes],
        now: float,
        connections: Callable[[ServiceKey], Mapping[bytes, int]],
    ) -> tuple[Snapshot, list[tuple[ServiceKey, Destination, float]]]:
        """What to desire for now: ``wanted``, and with weight 0 what has yet to finish.

        Args:
            current: The table.
            wanted: What is really desired.
            differing: Packed keys of the services to look at (:func:`pyminuteman.ipvs.plan.differing`).
            now: Seconds on any clock that does not jump.
            connections: Connections that have yet to end, by packed destination key, of one service; asked only for services
                with something that has weight 0 already.

        Returns:
            The table to plan for, restricted to ``differing``; and what is draining, with the seconds left to it.
        """
        entries = dict(wanted.restricted(differing).entries)
        deadlines: dict[tuple[bytes, bytes], float] = {}
        waiting: list[tuple[ServiceKey, Destination, float]] = []
        for packed in differing:
            have, want = current.entries.get(packed), entries.get(packed)
            key = ServiceKey.from_packed(packed)
            timeout = 0.0 if have is None else self.policy.timeout(key)
            if have is None or not timeout:
                continue
            service, rows = want if want is not None else (have[0], b"")
            desired = set(destination_keys(rows))
            leaving = [row for row in destination_rows(have[1]) if row[:DESTINATION_KEY_SIZE] not in desired]
            counts = connections(key) if any(row[_WEIGHT] == _ZERO for row in leaving) else {}
            held: list[bytes] = []
            for row in leaving:
                place = (packed, row[:DESTINATION_KEY_SIZE])
                deadline = self._deadlines.get(place, now + timeout)
                finished = row[_WEIGHT] == _ZERO and not counts.get(place[1], 0)
                if finished or now >= deadline:
                    continue
                deadlines[place] = deadline
                waiting.append((key, Destination.from_packed(row), deadline - now))
                held.append(row[: _WEIGHT.start] + _ZERO + row[_WEIGHT.stop :])
            if held:
                entries[packed] = (service, b"".join(sorted([*destination_rows(rows), *held])))
        self._deadlines = deadlines
        return Snapshot(entries, wanted.features), waiting
