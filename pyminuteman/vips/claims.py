"""Claims: what one node says, on behalf of one source, of one VIP; and how the claims on one VIP are joined.

Pure. Invariants:

1. What claims come to depends on the set of them, not on the order in which they were heard.
2. Joining loses no backend: several nodes each say their own.
3. Where claims disagree, the lowest (principal, source, node) is right, and the disagreement is reported.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pyminuteman.vips.model import VIP, Backend, BackendKey, VIPKey

__all__ = ["Claim", "Conflict", "join", "order_of_new_claim"]


@dataclass(frozen=True, slots=True)
class Claim:
    """One VIP as one source of one node has it."""

    vip: VIP
    source: str = ""
    """The name that the operators gave the source, the same on every node (``mesos``): not where it is read from."""
    node: str = ""
    """Who says so: the node's id, in text."""
    order: int = 0
    """Which claims on this VIP it was made after: see :func:`order_of_new_claim`. Replicated with the claim, and kept while it stands."""
    vouched: frozenset[str] = frozenset()
    """Addresses of tasks and agents that the source has from its own records, and not from a label that anybody may write."""

    @property
    def claimant(self) -> tuple[str, str]:
        """Source and principal: on whose behalf."""
        return self.source, self.vip.principal

    @property
    def sort_key(self) -> tuple[str, str, str]:
        """For an order that is the same on every node."""
        return self.vip.principal, self.source, self.node


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two claims on one VIP that disagree; what the lesser one says stands.

    Attributes:
        vip: The VIP.
        what: ``settings``, or the backend that they describe differently.
        kept: Principal, source and node of the claim that stands.
        passed_over: Those of the other.
    """

    vip: VIPKey
    what: str
    kept: tuple[str, str, str]
    passed_over: tuple[str, str, str]

    def __str__(self) -> str:
        """As a log has it."""
        return f"{self.vip}: {self.what}: {_who(self.passed_over)} disagrees with {_who(self.kept)}, which stands"


def _who(sort_key: tuple[str, str, str]) -> str:
    principal, source, node = sort_key
    return f"{principal or 'nobody in particular'} (source {source or '?'}, node {node or '?'})"


def order_of_new_claim(standing: Iterable[Claim], claimant: tuple[str, str]) -> int:
    """The order that a node gives a claim it makes, having heard of ``standing`` on the same VIP.

    A claimant that is there already keeps its place, on whichever node it says so again; another one comes after all that stand. It is
    Lamport's rule (*Time, Clocks, and the Ordering of Events*, 1978): who has heard of a claim comes after it, whatever the clocks
    say. Claims made at once, none having heard of the other, are equal, and the lesser (source, principal) is first.
    """
    others = list(standing)
    own = [claim.order for claim in others if claim.claimant == claimant]
    return min(own) if own else 1 + max((claim.order for claim in others), default=-1)


def join(claims: Sequence[Claim]) -> tuple[VIP, tuple[Conflict, ...]]:
    """One VIP of all claims on one key: backends of all, settings and principal of the first in :attr:`Claim.sort_key`.

    Raises:
        ValueError: There are none, or they are of more than one VIP.
    """
    if len({claim.vip.key for claim in claims}) != 1:
        msg = "one or more claims of one VIP can be joined"
        raise ValueError(msg)
    if len(claims) == 1:
        return claims[0].vip, ()
    first, *others = sorted(claims, key=lambda claim: claim.sort_key)
    conflicts: list[Conflict] = []
    backends: dict[BackendKey, tuple[Backend, Claim]] = {backend.key: (backend, first) for backend in first.vip.backends}
    for claim in others:
        if claim.vip.settings != first.vip.settings:
            conflicts.append(Conflict(first.vip.key, "settings", first.sort_key, claim.sort_key))
        for backend in claim.vip.backends:
            known, teller = backends.setdefault(backend.key, (backend, claim))
            if known != backend:
                conflicts.append(Conflict(first.vip.key, f"backend {backend.key}", teller.sort_key, claim.sort_key))
    return first.vip.with_backends(backend for backend, _ in backends.values()), tuple(conflicts)
