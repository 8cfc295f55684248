"""VIPs and their backends as plain dicts: what each backend's weight is, and why it is out when it is. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pyminuteman.daemon.observed import Names, Observation, OutcomesOf
from pyminuteman.daemon.views import VERSION, mark_view
from pyminuteman.health.monitor import Health
from pyminuteman.ipvs import Destination, ServiceKey
from pyminuteman.ipvs.statistics import Connections
from pyminuteman.membership import Record
from pyminuteman.vips.claims import Claim
from pyminuteman.vips.model import Backend, BackendKey, InvalidVIPError, VIPKey
from pyminuteman.vips.names import dns_name
from pyminuteman.vips.policy import Refusal
from pyminuteman.vips.resolution import Exclusion, Resolution

__all__ = ["backends_view", "legacy_vips_view", "vip_name"]

Plain = dict[str, Any]


def vip_name(key: VIPKey) -> str:
    """The DNS name, without its zone, of a named VIP; as it was called where that makes none; empty for an address."""
    if isinstance(key.host, str):
        return ""
    try:
        return dns_name(key.host)
    except InvalidVIPError:
        return str(key.host)


def backends_view(seen: Observation) -> Plain:
    """What ``/v1/backends`` tells."""
    looking = _Looking(seen)
    return {
        "version": VERSION,
        "vips": [looking.vip(key, resolution) for key, resolution in seen.desired.resolutions.items()],
        "refused": [_refusal(looking.names, refusal) for refusal in seen.judgement.refusals],
        "conflicts": [str(conflict) for conflict in seen.desired.conflicts],
    }


def _refusal(names: Names, refusal: Refusal) -> Plain:
    source, principal = refusal.claimant
    return {
        "vip": str(refusal.vip),
        "claimant": {"source": source, "principal": principal},
        "node": names(refusal.node),
        "reason": str(refusal.reason),
        "detail": refusal.detail,
        "backend": None if refusal.backend is None else str(refusal.backend),
    }


class _Looking:
    """What is looked up for each backend, put in order once."""

    def __init__(self, seen: Observation) -> None:
        self.seen = seen
        self.nodes = seen.nodes_by_address()
        self.names = seen.names()
        self.claims: dict[VIPKey, list[Claim]] = {}
        for claim in seen.judgement.accepted:
            self.claims.setdefault(claim.vip.key, []).append(claim)
        # By address and port: the weight of a row may be another by now.
        self.connections: dict[tuple[ServiceKey, BackendKey], Connections] = {
            (service, BackendKey(row.address, row.port)): one.connections
            for service, statistics in seen.statistics.items()
            for row, one in statistics.destinations.items()
        }

    def vip(self, key: VIPKey, resolution: Resolution) -> Plain:
        claims = self.claims.get(key, [])
        excluded = {exclusion.backend: exclusion for exclusion in resolution.exclusions}
        rows: dict[BackendKey, tuple[ServiceKey, Destination]] = {
            BackendKey(row.address, row.port): (service.key, row) for service, found in resolution.services for row in found
        }
        return {
            "vip": str(key),
            "name": vip_name(key),
            "addresses": [service.key.address for service, _ in resolution.services],
            "port": key.port,
            "protocol": key.protocol.name.lower(),
            "scheduler": resolution.vip.settings.scheduler,
            "principal": resolution.vip.principal,
            "sources": sorted({claim.source for claim in claims}),
            "claimed_by": sorted({self.names(claim.node) for claim in claims}),
            "failed_open": [str(one.reason) for one in resolution.failed_open],
            "backends": [self.backend(key, one, excluded.get(one.key), rows) for one in resolution.vip.backends],
        }

    def backend(
        self,
        vip: VIPKey,
        backend: Backend,
        exclusion: Exclusion | None,
        rows: dict[BackendKey, tuple[ServiceKey, Destination]],
    ) -> Plain:
        seen, key = self.seen, backend.key
        where, found = key, rows.get(key)
        if found is None and backend.local is not None:
            where, found = backend.local, rows.get(backend.local)
        left_out = exclusion is not None and not exclusion.held
        if left_out:  # of two at one place the row is the other's
            found = None
        drain = seen.backend_drains.get((vip, key)) or seen.backend_drains.get((None, key)) or self.host_drain(backend)
        mark = seen.weights.get((vip, key)) or seen.weights.get((None, key))
        service = None if found is None else found[0]
        connections = None if service is None else self.connections.get((service, where))
        outcomes = None if service is None else seen.outcomes.get((service, where))
        agent: Record | None = self.nodes.get(backend.agent) if backend.agent else None
        return {
            "address": key.address,
            "port": key.port,
            "agent": backend.agent,
            "node": "" if agent is None else self.names(agent.id),
            "weight": backend.weight,
            "effective_weight": 0 if found is None else found[1].weight,
            "state": "in" if exclusion is None else "held" if exclusion.held else "out",
            "reason": "" if exclusion is None else str(exclusion.reason),
            "detail": "" if exclusion is None else exclusion.detail,
            "health": self.health(seen.health.get(key)),
            "drain": mark_view(drain),
            "weight_set": None if mark is None else {"weight": mark[0], **(mark_view(mark[1]) or {})},
            "connections": None if connections is None else {"active": connections.active, "inactive": connections.inactive},
            "outcomes": _outcomes(outcomes),
        }

    def host_drain(self, backend: Backend) -> Any:
        agent = self.nodes.get(backend.agent) if backend.agent else None
        return None if agent is None else self.seen.node_drains.get(agent.id)

    def health(self, health: Health | None) -> Plain | None:
        if health is None:
            return None
        return {"healthy": health.healthy, "reason": health.reason, "checked_at": self.seen.moment.text(health.checked_at)}


def _outcomes(outcomes: OutcomesOf | None) -> Plain | None:
    if outcomes is None:
        return None
    latency = outcomes.latency_seconds
    return {
        "opened": outcomes.opened,
        "failed": outcomes.failed,
        "latency_ms": None if latency is None else round(latency * 1000, 3),
    }


# The predecessor's shape


def legacy_vips_view(seen: Observation) -> list[Plain]:
    """What dcos-net's ``GET /v1/vips`` told: one row a VIP, named ones with their full name, backends without weights.

    As there, an IPv6 address has no brackets. Backends that take no new connections are told as well: dcos-net did not know of them.
    """
    return list(_legacy_rows(seen))


def _legacy_rows(seen: Observation) -> Iterator[Plain]:
    for key, resolution in seen.desired.resolutions.items():
        host = key.host if isinstance(key.host, str) else f"{vip_name(key)}.{seen.zone}"
        yield {
            "vip": f"{host}:{key.port}",
            "protocol": key.protocol.name.lower(),
            "backend": [{"ip": backend.address, "port": backend.port} for backend in resolution.vip.backends],
        }
