"""What goes through the kernel's services, as plain dicts. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pyminuteman.addresses import IPV6
from pyminuteman.daemon.observed import Observation
from pyminuteman.daemon.views import VERSION
from pyminuteman.ipvs import Counters, Rates, ServiceKey
from pyminuteman.vips.model import VIPKey

__all__ = ["service_text", "statistics_view", "vips_by_service"]

_FIELDS: Final = ("connections", "in_bytes", "out_bytes", "in_packets", "out_packets")


def service_text(key: ServiceKey) -> str:
    """``tcp://11.0.0.1:80``; ``fwmark://7`` for a mark, ``fwmark://7/ipv6`` for one of IPv6."""
    if key.mark:
        return f"fwmark://{key.mark}" + ("/ipv6" if key.family == IPV6 else "")
    return "://".join(str(key).rsplit(" ", 1))


def vips_by_service(seen: Observation) -> dict[ServiceKey, VIPKey]:
    """Which VIP each service of the desired table is for."""
    return {service.key: key for key, resolution in seen.desired.resolutions.items() for service, _ in resolution.services}


def statistics_view(seen: Observation) -> dict[str, Any]:
    """What ``/v1/statistics`` tells. Rates are the kernel's own estimates, a second."""
    vips = vips_by_service(seen)
    rows = []
    for key, service in seen.statistics.items():
        vip = vips.get(key)
        backends = [
            {
                "address": row.address,
                "port": row.port,
                "weight": row.weight,
                "active": one.connections.active,
                "inactive": one.connections.inactive,
                **_totals(one.counters),
                "rates": _rates(one.rates),
            }
            for row, one in service.destinations.items()
        ]
        rows.append(
            {
                "service": service_text(key),
                "vip": "" if vip is None else str(vip),
                **_totals(service.counters),
                "rates": _rates(service.rates),
                "backends": backends,
            }
        )
    return {"version": VERSION, "time": seen.moment.now, "services": rows}


def _totals(counters: Counters) -> Mapping[str, int]:
    return {f"{name}_total": getattr(counters, name) for name in _FIELDS}


def _rates(rates: Rates) -> Mapping[str, int]:
    return {name: getattr(rates, name) for name in _FIELDS}
