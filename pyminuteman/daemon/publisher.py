"""What this node says of the VIPs that its sources want. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from typing import Literal

from pyminuteman.vips.claims import Claim, order_of_new_claim
from pyminuteman.vips.model import VIP, Backend, VIPKey

__all__ = ["Publish", "claims_of"]

Publish = Literal["all", "own", "none"]
"""What of a source is told: everything; the backends on this host; nothing, and everything counts on this node alone."""


def claims_of(
    source: str,
    vips: Iterable[VIP],
    *,
    node: str,
    own_addresses: Collection[str],
    hosts: Collection[str] = (),
    publish: Publish,
    vouch: bool,
    standing: Callable[[VIPKey], Iterable[Claim]],
) -> list[Claim]:
    """The claims of one source.

    Args:
        source: What the operators call it.
        vips: What it wants.
        node: This node's id, in text.
        own_addresses: This host's.
        hosts: Addresses of all hosts of the cluster. A backend that names no host, and is at one of these or ours, is on that host: it
            is out of reach, or drained, when the host is.
        publish: Which backends are in them; with ``own``, a VIP that has none here is not either. Whom they are told is for the caller.
        vouch: Whether the source has addresses from its own records, so that the policy need not allow them.
        standing: The claims that are known on a VIP: who was there before keeps it.
    """
    found: list[Claim] = []
    for vip in vips:
        backends = [_placed(backend, own_addresses, hosts) for backend in vip.backends]
        if publish == "own":
            backends = [one for one in backends if one.agent in own_addresses or one.address in own_addresses]
            if not backends:
                continue
        said = VIP(vip.key, tuple(backends), vip.settings, vip.principal)
        vouched = frozenset(
            address
            for one in (backends if vouch else ())
            for address in (one.address, one.agent, "" if one.local is None else one.local.address)
            if address
        )
        order = order_of_new_claim(standing(vip.key), (source, vip.principal))
        found.append(Claim(said, source, node, order, vouched))
    return found


def _placed(backend: Backend, own_addresses: Collection[str], hosts: Collection[str]) -> Backend:
    if backend.agent or (backend.address not in own_addresses and backend.address not in hosts):
        return backend
    return replace(backend, agent=backend.address)
