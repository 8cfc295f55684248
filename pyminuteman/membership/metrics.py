"""What the parts of a node count, under the names that operators see. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from pyminuteman.membership.census import Census
from pyminuteman.membership.failure_detector import FailureDetector
from pyminuteman.membership.hyparview import HyParView
from pyminuteman.membership.multicast import MulticastOverlay

__all__ = ["gather"]


def gather(
    detector: FailureDetector,
    views: HyParView,
    overlay: MulticastOverlay,
    census: Census,
    *,
    counters: Mapping[str, int],
    now: float,
) -> dict[str, int | float]:
    """Counters (``..._total``) and gauges of one node, as plain numbers."""
    members = census.members
    timeouts = [detector.timeout(watch, now) for watch in detector.watches.values()]
    trips = [trip for watch in detector.watches.values() if (trip := watch.round_trips.last) is not None]
    return {
        "active_view_size": len(views.active),
        "passive_view_size": len(views.passive),
        "table_size": len(census.table),
        "health_score": detector.health.score(now),
        "round_trip_seconds": sum(trips) / len(trips) if trips else 0.0,
        "answer_timeout_seconds": max(timeouts, default=0.0),
        "confirmations_total": detector.confirmations,
        "false_alarms_total": detector.false_alarms,
        "suspicions_total": members.suspicions,
        "refuted_total": members.refuted,
        "downs_total": members.downs,
        "joins_denied_total": views.joins_denied,
        "reach_rebuilds_total": census.reach.rebuilds,
        "records_dropped_total": census.table.dropped,
        "multicast_delivered_total": overlay.delivered,
        "multicast_duplicates_total": overlay.duplicates,
        "multicast_repaired_total": overlay.repaired,
        "multicast_expired_total": overlay.expired,
        "multicast_unawaited_total": overlay.unawaited,
        **{f"members_{status}": count for status, count in members.count().items()},
        **{f"{name}_total": count for name, count in sorted(counters.items())},
    }
