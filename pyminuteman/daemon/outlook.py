"""What this node makes of all that is said: claims by the policy's verdict, marks, health and reach, as one desired state.

Pure. Invariants:

1. The outlook depends on what is said now, not on the order in which it was heard.
2. What a change bears on is looked at again, and nothing else: the places of the claims that changed, the VIPs of the hosts that did.
3. Addresses of hosts are no VIPs: when a member with a new address comes, the claims that this bears on are judged again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Final

from pyminuteman.daemon.entries import ClaimTable
from pyminuteman.vips.claims import Claim
from pyminuteman.vips.desired import DesiredState, DesiredTable
from pyminuteman.vips.model import BackendKey, VIPKey
from pyminuteman.vips.policy import Judgement, Policy, Refusal, place_of
from pyminuteman.vips.resolution import Adjustments, Reach

__all__ = ["Outlook"]

_NOTHING: Final = Judgement()


class Outlook:
    """The view of the whole from one node.

    Args:
        claims: What all nodes say; filled by whoever hears it.
        table: What it comes to.
        policy: Who may claim what.

    Attributes:
        state: The desired state, as of the last :meth:`refresh`.
    """

    def __init__(self, claims: ClaimTable, table: DesiredTable, policy: Policy) -> None:
        self.claims = claims
        self.state = DesiredState()
        self._table = table
        self._policy = policy
        self._hosts: frozenset[str] = frozenset()
        self._places: set[str] = set()
        self._judgements: dict[str, Judgement] = {}
        self._accepted: dict[str, dict[VIPKey, list[Claim]]] = {}
        self._fresh_refusals: list[Refusal] = []
        self._whole: Judgement | None = _NOTHING

    # What bears on it

    def set_policy(self, policy: Policy) -> None:
        """From now on this policy counts."""
        if policy != self._policy:
            self._policy = policy
            self._places |= self._all_places()

    def set_hosts(self, hosts: Iterable[str]) -> None:
        """These are the addresses of this host and of every member."""
        now = frozenset(hosts)
        if now != self._hosts:
            self._hosts = now
            self._places |= self._all_places()

    def adjust(self, adjustments: Adjustments) -> None:
        """This bears on weights besides what sources say."""
        self._table.adjust(adjustments)

    def hear(self) -> None:
        """Judge what has been said since. :meth:`refresh` does it too; before, for who asks :meth:`placed` of what is new."""
        self._places |= self.claims.take_touched()
        for place in sorted(self._places):
            self._judge(place)
        self._places.clear()

    # What it comes to

    def placed(self, backend: BackendKey) -> Mapping[VIPKey, str]:
        """The VIPs that have a backend at that place, by the claims that count, with the host that it runs on."""
        return self._table.placed(backend)

    @property
    def judgement(self) -> Judgement:
        """Which claims count, and why the others do not."""
        if self._whole is None:
            ordered = [self._judgements[place] for place in sorted(self._judgements)]
            accepted = chain.from_iterable(one.accepted for one in ordered)
            self._whole = Judgement(tuple(accepted), tuple(chain.from_iterable(one.refusals for one in ordered)))
        return self._whole

    def take_refusals(self) -> list[Refusal]:
        """The refusals that are new since the last call: each is an event, to be told once."""
        fresh, self._fresh_refusals = self._fresh_refusals, []
        return fresh

    def refresh(self, reach: Mapping[str, Reach]) -> DesiredState:
        """The desired state now; the very object of last time if nothing changed.

        Args:
            reach: How each host is in reach, by address; one that is not in it is no member's, and held in reach.
        """
        self.hear()
        self.state = self._table.refresh(lambda agent: reach.get(agent, Reach.UP))
        return self.state

    def _judge(self, place: str) -> None:
        claims = self.claims.claims_at(place)
        before = self._judgements.get(place, _NOTHING)
        after = self._policy.judge(claims, self._hosts) if claims else _NOTHING
        if after == before:
            return
        self._whole = None
        self._fresh_refusals += after.new_since(before)
        if claims:
            self._judgements[place] = after
        else:
            self._judgements.pop(place, None)
        by_key: dict[VIPKey, list[Claim]] = {}
        for claim in after.accepted:
            by_key.setdefault(claim.vip.key, []).append(claim)
        for key in self._accepted.pop(place, {}).keys() - by_key.keys():
            self._table.put(key, ())
        for key, stated in by_key.items():
            self._table.put(key, stated)
        if by_key:
            self._accepted[place] = by_key

    def _all_places(self) -> set[str]:
        return {place_of(claim.vip.key) for claim in self.claims.all()}
