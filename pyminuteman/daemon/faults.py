"""What does not count of what nodes say, gathered for who shows it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pyminuteman.daemon.entries import FAULTS_KEPT, ClaimTable
from pyminuteman.daemon.health_words import HealthWords
from pyminuteman.daemon.marks import Marks
from pyminuteman.daemon.observed import FaultObserved, Faults

__all__ = ["gather"]

_CLAIM: Final = "claim"
_MARK: Final = "mark"
_HEALTH: Final = "health"


def gather(claims: ClaimTable, marks: Marks, words: HealthWords, untold: Mapping[str, str]) -> Faults:
    """All of it, as it is now."""
    return Faults(
        counts={_CLAIM: claims.faults_now, _MARK: marks.malformed, _HEALTH: len(words.faults)},
        shown=(
            *(FaultObserved(_CLAIM, str(fault.owner), fault.key, fault.reason) for fault in claims.faults),
            *(FaultObserved(_MARK, "", name, reason) for name, reason in marks.faults),
            *(FaultObserved(_HEALTH, str(owner), key, reason) for owner, key, reason in words.faults[:FAULTS_KEPT]),
        ),
        claims_total=claims.faults_total,
        untold=untold,
    )
