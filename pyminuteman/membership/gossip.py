"""News on its way: records wait a moment for others to share their datagrams, then go to every neighbour but who brought them.

Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf

from pyminuteman.addresses import NodeId
from pyminuteman.membership.config import MembershipConfig
from pyminuteman.membership.effects import Send
from pyminuteman.membership.messages import Peer, Records
from pyminuteman.membership.records import EncodedRecord
from pyminuteman.membership.steps import FlushDue, SetTimer, Step

__all__ = ["Gossip"]


class Gossip:
    """The records that wait to be flooded: of each node the newest only, so the table bounds it."""

    def __init__(self, config: MembershipConfig) -> None:
        self._config = config
        self._pending: dict[NodeId, tuple[EncodedRecord, NodeId | None]] = {}
        self._serial = 0
        self._due = inf

    def __len__(self) -> int:
        return len(self._pending)

    def add(self, encoded: EncodedRecord, source: NodeId | None, now: float, *, urgent: bool) -> list[Step]:
        """Pass a record on; ``source`` is the neighbour that brought it, None when it is ours."""
        self._pending[encoded.id] = (encoded, source)
        due = now + (self._config.gossip_urgent_seconds if urgent else self._config.gossip_batch_seconds)
        if due >= self._due:
            return []
        self._due = due
        self._serial += 1
        return [SetTimer(FlushDue(self._serial), due)]

    def flush(self, timer: FlushDue, peers: Sequence[Peer], is_unsure: Callable[[NodeId], bool]) -> list[Step]:
        """Send what waits. ``is_unsure`` tells of a neighbour whether it may not know us by our boot."""
        if timer.serial != self._serial:
            return []
        self._due = inf
        pending, self._pending = self._pending, {}
        steps: list[Step] = []
        for peer in peers:
            news = tuple(encoded for encoded, source in pending.values() if peer.id not in (source, encoded.id))
            if news:
                steps.append(Send(peer.endpoint, (Records(news),), identify=is_unsure(peer.id)))
        return steps
