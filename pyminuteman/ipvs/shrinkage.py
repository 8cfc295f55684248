"""How much a desired table would take away of what works, so that a source gone wrong does not empty the kernel. Pure.

What counts is not what is removed but what is missing afterwards: backends that are replaced by as many others are no loss.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import NamedTuple

from pyminuteman.ipvs.records import DESTINATION_KEY_SIZE, DESTINATION_SIZE, destination_keys, destination_rows
from pyminuteman.ipvs.scope import Scope
from pyminuteman.ipvs.service import ServiceKey
from pyminuteman.ipvs.snapshot import Snapshot

__all__ = ["Shrinkage", "shrinkage"]

_WEIGHT = slice(DESTINATION_KEY_SIZE, DESTINATION_KEY_SIZE + 4)
_ZERO = bytes(4)


class Shrinkage(NamedTuple):
    """What would be lost.

    Attributes:
        losses: Services in the order of listing, with the destinations each would have fewer.
        lost: The sum of these.
        present: Destinations that work now. Those that drain already (weight 0 and not desired) count neither here nor as lost.
    """

    losses: tuple[tuple[ServiceKey, int], ...]
    lost: int
    present: int

    @property
    def identity(self) -> str:
        """16 hexadecimal digits that name just this loss: who confirms it says what he has seen."""
        digest = blake2b(f"{self.lost}/{self.present}".encode(), digest_size=8)
        for key, count in self.losses:
            digest.update(key.packed + count.to_bytes(8, "big"))
        return digest.hexdigest()

    @property
    def percent(self) -> float:
        """The share of what is present that would be lost."""
        return 100 * self.lost / self.present if self.present else 0.0

    def exceeds(self, percent: float) -> bool:
        """Whether more than that share would be lost."""
        return self.percent > percent

    def __str__(self) -> str:
        """``7 of 10 destinations (70 %)``."""
        return f"{self.lost} of {self.present} destination{'' if self.present == 1 else 's'} ({self.percent:.0f} %)"


def shrinkage(current: Snapshot, wanted: Snapshot, scope: Scope) -> Shrinkage:
    """What ``current`` would lose, in scope, on its way to ``wanted``, all of which is in scope."""
    losses: list[tuple[bytes, int]] = []
    present = 0
    for packed, entry in current.entries.items():
        want = wanted.entries.get(packed)
        if want is not None and want[1] == entry[1]:  # nearly all, nearly always
            present += len(entry[1]) // DESTINATION_SIZE
        elif want is not None or ServiceKey.from_packed(packed) in scope:
            desired = set(destination_keys(want[1])) if want is not None else set()
            rows = destination_rows(entry[1])
            working = sum(row[_WEIGHT] != _ZERO or row[:DESTINATION_KEY_SIZE] in desired for row in rows)
            present += working
            if working > len(desired):
                losses.append((packed, working - len(desired)))
    listed = tuple((ServiceKey.from_packed(packed), count) for packed, count in sorted(losses))
    return Shrinkage(listed, sum(count for _, count in losses), present)
