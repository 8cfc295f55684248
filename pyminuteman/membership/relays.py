"""Probes done for others: who asked, about whom, until the answer comes.

Pure.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from pyminuteman.addresses import Endpoint
from pyminuteman.membership.effects import Send
from pyminuteman.membership.messages import IndirectProbe, IndirectReply, Peer, Probe, ProbeReply
from pyminuteman.membership.steps import Step

__all__ = ["Relays"]

_RELAYS_MAX: Final = 256
_FIRST_NUMBER: Final = 1 << 31
"""Above the numbers of our own probes, so that an answer is to one or the other."""


class Relays:
    """The probes under way for others; when there are too many the oldest goes without an answer."""

    def __init__(self) -> None:
        self._number = _FIRST_NUMBER
        self._under_way: OrderedDict[int, tuple[Endpoint, IndirectProbe]] = OrderedDict()

    def relay(self, message: IndirectProbe, asker: Peer, target: Endpoint) -> list[Step]:
        """Probe the target for the asker."""
        self._number += 1
        self._under_way[self._number] = (asker.endpoint, message)
        if len(self._under_way) > _RELAYS_MAX:
            self._under_way.popitem(last=False)
        return [Send(target, (Probe(self._number),))]

    def on_reply(self, message: ProbeReply, sender: Peer) -> list[Step]:
        """An answer: pass it to whoever asked, if somebody did, and if it is the target that answers."""
        asked = self._under_way.get(message.number)
        if asked is None or asked[1].target != sender.id:
            return []
        del self._under_way[message.number]
        endpoint, request = asked
        return [Send(endpoint, (IndirectReply(request.number, request.target),))]
