"""What Prometheus is told: all of an observation as text, about 0.1 s for 10,000 backends. Pure; to be run in a thread.

Rows of backends are written from the tables, without an object for each: that is what makes them cheap.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

from pyminuteman.daemon.exposition import Exposition, labelled
from pyminuteman.daemon.metric_names import API, FAMILIES, HEALTH, MEMBERSHIP, STORE, Source
from pyminuteman.daemon.observed import Buckets, KernelObserved, Observation
from pyminuteman.daemon.traffic_views import service_text, vips_by_service
from pyminuteman.daemon.views import KERNEL_STATES, kernel_state, node_state, problems, status_view
from pyminuteman.daemon.vip_views import vip_name
from pyminuteman.ipvs import ServiceKey
from pyminuteman.ipvs.service import Protocol
from pyminuteman.ipvs.statistics import DestinationStatistics
from pyminuteman.vips.model import VIPKey

__all__ = ["OPEN_METRICS", "SYNC_BOUNDS", "as_open_metrics", "exposition"]

OPEN_METRICS: Final = "application/openmetrics-text"
SYNC_BOUNDS: Final = tuple(0.001 * 2**k for k in range(15))
"""Upper bounds of the histograms of syncs, in seconds: 1 ms to 16.384 s, as kube-proxy has them."""
_STATES: Final = ("waiting", "running", "held", "degraded")
_ALL_OTHERS: Final = "*"
"""What the label ``namespace`` has for all but the host's own, which is empty. No entry can have this name."""
_OTHER: Final = "what the {} counts under this name"
_COUNTED: Final = (
    ("connections", "connections"),
    ("incoming_packets", "in_packets"),
    ("outgoing_packets", "out_packets"),
    ("incoming_bytes", "in_bytes"),
    ("outgoing_bytes", "out_bytes"),
)
Row = tuple[str, float]


def exposition(seen: Observation, process: Mapping[str, float], labels: tuple[str, ...]) -> bytes:
    """All metrics.

    Args:
        seen: The node.
        process: Of the process, by their names.
        labels: Which labels rows of backends have, besides ``service``; rows that have become alike are summed.
    """
    out = Exposition()
    _node(out, seen)
    _kernels(out, seen.kernels)
    _desired(out, seen)
    _traffic(out, seen, labels)
    _sources(out, seen)
    _members(out, seen)
    _write(out, "minuteman_faults", _by("kind", seen.faults.counts))
    _write(out, "minuteman_claim_faults_total", [("", seen.faults.claims_total)])
    _write(out, "minuteman_untold_vips", [("", len(seen.faults.untold))])
    _write(out, "minuteman_host_step_ok", [(labelled({"step": one.step}), int(one.ok)) for one in seen.host])
    healthy = seen.health_metrics.get("healthy", 0)
    states = {"healthy": healthy, "unhealthy": seen.health_metrics.get("targets", 0) - healthy}
    _write(out, "minuteman_health_backends", _by("state", states))
    for source, numbers in (
        (MEMBERSHIP, seen.membership_metrics),
        (STORE, seen.store_metrics),
        (HEALTH, seen.health_metrics),
        (API, seen.api_metrics),
    ):
        _others(out, source, numbers)
    for name, value in process.items():
        _write(out, name, [("", value)])
    return out.text()


def as_open_metrics(text: bytes) -> bytes:
    """The same for whoever asks for OpenMetrics: a counter's family has no ``_total`` there, and the end is marked."""
    return re.sub(rb"(?m)^(# (?:HELP|TYPE) \S+)_total ", rb"\1 ", text) + b"# EOF\n"


def _write(out: Exposition, name: str, rows: Iterable[Row]) -> None:
    family = FAMILIES[name]
    out.family(name, family.kind, family.text, rows)


def _by(label: str, values: Mapping[str, float]) -> list[Row]:
    return [(labelled({label: key}), value) for key, value in values.items()]


def _node(out: Exposition, seen: Observation) -> None:
    _write(out, "minuteman_build_info", [(labelled(seen.build), 1)])
    _write(out, "minuteman_up_since_timestamp_seconds", [("", seen.started_at)])
    state = node_state(seen)
    _write(out, "minuteman_node_state", _by("state", {one: int(one == state) for one in _STATES}))
    _write(out, "minuteman_problems", _by("kind", Counter(one["kind"] for one in problems(seen))))
    _write(out, "minuteman_events_total", _by("kind", dict(sorted(seen.event_counts.items()))))


def _together(others: Sequence[KernelObserved]) -> KernelObserved:
    """Namespaces of containers as one, for gauges: they come and go, and a row for each would stay in the memory of who collects them."""
    return KernelObserved(
        namespace=_ALL_OTHERS,
        services=sum(kernel.services for kernel in others),
        destinations=sum(kernel.destinations for kernel in others),
        last_sync_at=min((kernel.last_sync_at for kernel in others if kernel.last_sync_at is not None), default=None),
        last_queued_at=max((kernel.last_queued_at for kernel in others if kernel.last_queued_at is not None), default=None),
        changes_pending=sum(kernel.changes_pending for kernel in others),
        draining=sum(kernel.draining for kernel in others),
        held="; ".join(kernel.held for kernel in others if kernel.held),
        foreign=tuple(key for kernel in others for key in kernel.foreign),
    )


def _kernels(out: Exposition, kernels: tuple[KernelObserved, ...]) -> None:
    others = [kernel for kernel in kernels if kernel.namespace]
    spaces = [({"namespace": ""}, kernel) for kernel in kernels if not kernel.namespace]
    gauges = [*spaces, *([({"namespace": _ALL_OTHERS}, _together(others))] if others else [])]
    states = Counter(kernel_state(kernel) for kernel in others)
    _write(out, "minuteman_namespaces", _by("state", {state: states[state] for state in KERNEL_STATES}))

    def write(name: str, value: Callable[[KernelObserved], float | None], *, counter: bool = False) -> None:
        found = ((labelled(space), value(kernel)) for space, kernel in (spaces if counter else gauges))
        _write(out, name, [(text, number) for text, number in found if number is not None])

    def histogram(name: str, value: Callable[[KernelObserved], Buckets | None]) -> None:
        found = ((space, value(kernel)) for space, kernel in spaces)
        out.histogram(name, FAMILIES[name].text, [(space, buckets) for space, buckets in found if buckets is not None])

    histogram("minuteman_sync_duration_seconds", lambda kernel: kernel.sync)
    histogram("minuteman_programming_duration_seconds", lambda kernel: kernel.programming)
    write("minuteman_sync_last_timestamp_seconds", lambda kernel: kernel.last_sync_at)
    write("minuteman_sync_last_queued_timestamp_seconds", lambda kernel: kernel.last_queued_at)
    write("minuteman_sync_total", lambda kernel: kernel.syncs_total, counter=True)
    write("minuteman_sync_changes_pending", lambda kernel: kernel.changes_pending)
    write("minuteman_sync_held_back", lambda kernel: int(bool(kernel.held)))
    write("minuteman_kernel_services", lambda kernel: kernel.services)
    write("minuteman_kernel_destinations", lambda kernel: kernel.destinations)
    write("minuteman_kernel_destinations_draining", lambda kernel: kernel.draining)
    write("minuteman_kernel_foreign_services", lambda kernel: len(kernel.foreign))
    errors = [
        (labelled({**space, "op": operation, "errno": errno}), count)
        for space, kernel in spaces
        for (operation, errno), count in sorted(kernel.errors.items())
    ]
    _write(out, "minuteman_sync_errors_total", errors)


def _desired(out: Exposition, seen: Observation) -> None:
    resolutions = seen.desired.resolutions.values()
    total = sum(len(resolution.vip.backends) for resolution in resolutions)
    held: Counter[bool] = Counter()
    reasons: Counter[str] = Counter()
    for exclusion in seen.desired.exclusions:
        held[exclusion.held] += 1
        reasons[exclusion.reason.name.lower()] += 1
    states = {"in": total - held.total(), "held": held[True], "out": held[False]}
    _write(out, "minuteman_vips", [("", len(resolutions))])
    _write(out, "minuteman_backends", _by("state", states))
    _write(out, "minuteman_backends_excluded", _by("reason", reasons))
    opened = Counter(one.reason.name.lower() for one in seen.desired.failed_open)
    _write(out, "minuteman_failed_open", _by("reason", opened or {"none": 0}))
    refused = Counter(one.reason.name.lower() for one in seen.judgement.refusals)
    _write(out, "minuteman_refused_claims", _by("reason", refused or {"none": 0}))
    for name, value in (
        ("minuteman_conflicts", len(seen.desired.conflicts)),
        ("minuteman_names_without_address", len(seen.desired.unaddressed)),
        ("minuteman_drained_nodes", len(seen.node_drains)),
        ("minuteman_drained_backends", len(seen.backend_drains)),
        ("minuteman_operator_weights", len(seen.weights)),
    ):
        _write(out, name, [("", value)])


def _service_name(key: ServiceKey, vips: Mapping[ServiceKey, VIPKey]) -> str:
    """``foo.marathon:80`` of a named VIP; ``tcp://11.0.0.1:80`` of others."""
    vip = vips.get(key)
    name = "" if vip is None else vip_name(vip)
    return f"{name}:{key.port}" if name else service_text(key)


def _service_labels(key: ServiceKey) -> dict[str, str]:
    """As node_exporter has them."""
    proto = "FWM" if key.mark else key.protocol.name if isinstance(key.protocol, Protocol) else str(key.protocol)
    return {
        "local_address": key.address,
        "local_port": str(key.port),
        "proto": proto,
        "local_mark": f"{key.mark:08X}" if key.mark else "",
    }


def _traffic(out: Exposition, seen: Observation, labels: tuple[str, ...]) -> None:
    vips = vips_by_service(seen)
    named = {key: {"service": _service_name(key, vips)} for key in seen.statistics}
    services = [
        (labelled({**named[key], **_service_labels(key)}), service.counters) for key, service in seen.statistics.items()
    ]
    for name, attribute in _COUNTED:
        rows = [(text, getattr(counters, attribute)) for text, counters in services]
        _write(out, f"minuteman_ipvs_service_{name}_total", rows)
    backends = list(_backend_rows(seen, named, labels))
    for name, attribute in _COUNTED:
        rows = [(text, getattr(one.counters, attribute)) for text, one, _ in backends]
        _write(out, f"minuteman_ipvs_backend_{name}_total", _summed(rows))
    for name, rows in (
        ("connections_active", [(text, one.connections.active) for text, one, _ in backends]),
        ("connections_inactive", [(text, one.connections.inactive) for text, one, _ in backends]),
        ("weight", [(text, weight) for text, _, weight in backends]),
    ):
        _write(out, f"minuteman_ipvs_backend_{name}", _summed(rows))
    _outcomes(out, seen, vips)


def _backend_rows(
    seen: Observation, named: Mapping[ServiceKey, dict[str, str]], labels: tuple[str, ...]
) -> Iterator[tuple[str, DestinationStatistics, int]]:
    remote = "remote_address" in labels, "remote_port" in labels
    for key, service in seen.statistics.items():
        kept = {name: value for name, value in _service_labels(key).items() if name in labels}
        head = labelled({**named[key], **kept})[:-1]
        for row, one in service.destinations.items():
            # Addresses have nothing to escape.
            address = f',remote_address="{row.address}"' if remote[0] else ""
            port = f',remote_port="{row.port}"' if remote[1] else ""
            yield f"{head}{address}{port}}}", one, row.weight


def _summed(rows: Iterable[Row]) -> Iterable[Row]:
    """One row of all that have the same labels."""
    sums: dict[str, float] = {}
    for text, value in rows:
        sums[text] = sums.get(text, 0) + value
    return sums.items()


def _outcomes(out: Exposition, seen: Observation, vips: Mapping[ServiceKey, VIPKey]) -> None:
    found = [
        (_service_name(service, vips), labelled({"service": _service_name(service, vips), "backend": str(backend)}), one)
        for (service, backend), one in seen.outcomes.items()
    ]
    _write(out, "minuteman_connections_opened_total", _summed([(text, one.opened) for _, text, one in found]))
    _write(out, "minuteman_connections_failed_total", _summed([(text, one.failed) for _, text, one in found]))
    latencies: dict[str, Buckets] = {}
    for service, _, one in found:
        if one.latency is not None:
            before = latencies.get(service)
            latencies[service] = one.latency if before is None else _joined(before, one.latency)
    name = "minuteman_connection_latency_seconds"
    out.histogram(name, FAMILIES[name].text, [({"service": service}, buckets) for service, buckets in latencies.items()])


def _joined(one: Buckets, other: Buckets) -> Buckets:
    counts = tuple(a + b for a, b in zip(one.counts, other.counts, strict=True))
    return Buckets(one.bounds, counts, one.sum + other.sum)


def _sources(out: Exposition, seen: Observation) -> None:
    feeds = [(labelled({"source": feed.name}), feed) for feed in seen.feeds]
    _write(out, "minuteman_source_up", [(text, int(not feed.status.reason)) for text, feed in feeds])
    _write(out, "minuteman_source_stale", [(text, int(feed.stale)) for text, feed in feeds])
    ages = [(text, round(feed.age_seconds, 3)) for text, feed in feeds if feed.age_seconds is not None]
    _write(out, "minuteman_source_age_seconds", ages)
    _write(out, "minuteman_source_failures", [(text, feed.status.failures) for text, feed in feeds])
    _write(out, "minuteman_source_vips", [(text, len(feed.state.vips) if feed.state else 0) for text, feed in feeds])
    _write(out, "minuteman_source_problems", [(text, len(feed.state.problems) if feed.state else 0) for text, feed in feeds])
    counted = [
        (labelled({"source": feed.name, "event": event}), count)
        for feed in seen.feeds
        for event, count in sorted(feed.status.counters.items())
    ]
    _write(out, "minuteman_source_events_total", counted)


def _members(out: Exposition, seen: Observation) -> None:
    numbers = seen.membership_metrics
    _write(out, "minuteman_members", _by("state", status_view(seen)["members"]))
    for name, of in (
        (
            "minuteman_gossip_bytes_total",
            (
                "datagram_bytes_sent_total",
                "datagram_bytes_received_total",
                "bulk_sent_bytes_total",
                "bulk_received_bytes_total",
            ),
        ),
        (
            "minuteman_gossip_messages_total",
            ("datagrams_sent_total", "datagrams_received_total", "bulk_sent_total", "bulk_received_total"),
        ),
    ):
        ways = [(kind, direction) for kind in ("datagram", "bulk") for direction in ("sent", "received")]
        rows = [
            (labelled({"kind": kind, "direction": direction}), numbers[key])
            for (kind, direction), key in zip(ways, of, strict=True)
            if key in numbers
        ]
        _write(out, name, rows)
    dropped = {key.removeprefix("bulk_").removesuffix("_total"): numbers[key] for key in _BULK_DROPPED if key in numbers}
    dropped |= {
        key.removeprefix("refused_").removesuffix("_total"): value
        for key, value in numbers.items()
        if key.startswith("refused_")
    }
    _write(out, _DROPPED, _by("reason", dropped))


_DROPPED: Final = "minuteman_dropped_total"
_BULK_DROPPED: Final = ("bulk_dropped_total", "bulk_refused_total", "bulk_unauthenticated_total")
_TOLD: Final = frozenset(
    {
        *_BULK_DROPPED,
        *("datagram_bytes_sent_total", "datagram_bytes_received_total", "bulk_sent_bytes_total", "bulk_received_bytes_total"),
        *("datagrams_sent_total", "datagrams_received_total", "bulk_sent_total", "bulk_received_total"),
    }
)
"""What :func:`_members` tells of the membership's own names."""


def _rest(numbers: Mapping[str, float], prefix: str) -> dict[str, float]:
    """What is counted under names that begin so, by what follows."""
    found = {key[len(prefix) :].removesuffix("_total"): value for key, value in numbers.items() if key.startswith(prefix)}
    return {key: value for key, value in found.items() if key != "total"}


def _others(out: Exposition, source: Source, numbers: Mapping[str, float]) -> None:
    """What a part counts, under the names that operators see; what has no name yet is told all the same."""
    for prefix, (name, label) in source.labelled.items():
        if name != _DROPPED:
            _write(out, name, _by(label, _rest(numbers, prefix)))
    for key, value in numbers.items():
        name, text = source.names.get(key, (source.prefix + key, _OTHER.format(source.prefix.strip("_"))))
        if name and key not in _TOLD and not any(key.startswith(prefix) for prefix in source.labelled):
            out.family(name, "counter" if name.endswith("_total") else "gauge", text, [("", value)])
