"""A multicast packet reaches every node that could be reached, once; and nobody twice, whatever happens.

Could be reached: ran from before the packet was sent until things were quiet, with no cut in the network meanwhile, and neither it
nor the origin was ever frozen for as long as packets are kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from pyminuteman.membership.effects import Delivered, Notification
from pyminuteman.testing.checkers.checker import Checker
from pyminuteman.testing.simulation.bounds import Bounds
from pyminuteman.testing.simulation.process import Process
from pyminuteman.testing.simulation.world import TOPIC, Simulation

__all__ = ["MulticastOnce"]


class MulticastOnce(Checker):
    """Counts deliveries by packet and process."""

    def __init__(self, world: Simulation, bounds: Bounds) -> None:
        super().__init__(world, bounds)
        self._delivered: Counter[tuple[bytes, Process]] = Counter()

    def notified(self, time: float, process: Process, notification: Notification) -> None:
        """Count it."""
        if isinstance(notification, Delivered) and notification.topic == TOPIC:
            key = (notification.payload, process)
            self._delivered[key] += 1
            self.judged += 1
            if self._delivered[key] == 2:  # noqa: PLR2004 - once is right; of more, the second is told
                self.found(time, process, f"got packet {label(notification.payload)} twice")
            if all(packet.payload != notification.payload for packet in self.world.packets):
                self.found(time, process, "got a packet that nobody sent")

    def unsettled(self) -> Iterator[str]:
        """Each delivery that is missing."""
        truth = self.world.truth
        for packet in self.world.packets:
            until = self.world.now
            if truth.any_cut(packet.time, packet.time + self.world.config.multicast_keep_seconds):
                continue
            if not truth.ran(packet.origin, packet.time, packet.time + self.bounds.news):
                continue
            for process in self.world.processes:
                lasted = process.started_at + self.bounds.joined < packet.time and truth.ran(process, packet.time, until)
                if lasted and process is not packet.origin and not self._delivered[packet.payload, process]:
                    yield f"{process.name} did not get packet {label(packet.payload)}, sent by {packet.origin.name} at {packet.time:.4f}"


def label(payload: bytes) -> str:
    """The number that a packet carries."""
    return payload.split(b" ", 1)[0].decode()
