"""The sources of a node, and what is done with what they say: told the others, and checked."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from pyminuteman.daemon.feeds import Feed
from pyminuteman.daemon.publisher import Publish
from pyminuteman.health.monitor import Target
from pyminuteman.ipvs import Protocol
from pyminuteman.vips.model import Backend, BackendKey

__all__ = ["FeedOptions", "Sources", "nobody_is_asked"]


@dataclass(frozen=True, slots=True)
class FeedOptions:
    """What of a source this node tells the others.

    Attributes:
        publish: ``all``; ``own``: the backends on this host; ``none``: nothing, and all of it counts here alone.
        vouch: Whether the addresses it names are from its own records, and not from labels that anybody may write.
    """

    publish: Publish = "all"
    vouch: bool = False


def nobody_is_asked(_source: str, _backend: Backend) -> None:
    """No backend is checked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """All of them.

    Attributes:
        feeds: In the order of the configuration.
        options: Of each, by its name.
        target: How a backend that the source of this name wants is asked whether it would serve; None: it is not.
    """

    feeds: Sequence[Feed] = ()
    options: Mapping[str, FeedOptions] = field(default_factory=dict)
    target: Callable[[str, Backend], Target | None] = nobody_is_asked

    def targets(self, own_addresses: Collection[str]) -> dict[BackendKey, Target]:
        """What to ask of the backends of TCP VIPs on the host of these addresses.

        A backend that several sources want is asked once, as the first of them has it that has its backends checked.
        """
        found: dict[BackendKey, Target] = {}
        for feed in self.feeds:
            vips = () if feed.state is None else feed.state.vips
            for backend in (one for vip in vips if vip.key.protocol == Protocol.TCP for one in vip.backends):
                if backend.key in found or (backend.address not in own_addresses and backend.agent not in own_addresses):
                    continue
                if (target := self.target(feed.name, backend)) is not None:
                    found[backend.key] = target
        return found
