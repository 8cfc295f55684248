"""What is counted elsewhere under names of its own, and how operators see it: name, kind and meaning of every metric. Pure.

The names follow kube-proxy and node_exporter where these have a like thing. ``node_ipvs_*`` is never told again: whoever has both
exporters would count twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["API", "FAMILIES", "HEALTH", "MEMBERSHIP", "STORE", "Family", "Source"]

_COUNTER: Final = "counter"
_GAUGE: Final = "gauge"
_HISTOGRAM: Final = "histogram"


@dataclass(frozen=True, slots=True)
class Family:
    """One metric.

    Attributes:
        kind: ``counter``, ``gauge`` or ``histogram``.
        text: What it means, in one line.
        labels: Names of its labels.
    """

    kind: str
    text: str
    labels: tuple[str, ...] = ()


_BACKEND: Final = ("service", "local_address", "local_port", "remote_address", "remote_port", "proto", "local_mark")
_SERVICE: Final = ("service", "local_address", "local_port", "proto", "local_mark")

FAMILIES: Final[Mapping[str, Family]] = {
    # The node
    "minuteman_build_info": Family(_GAUGE, "Always 1; its labels say which software runs.", ("version", "python", "kernel")),
    "minuteman_up_since_timestamp_seconds": Family(_GAUGE, "When the daemon was started, in seconds of the epoch."),
    "minuteman_node_state": Family(
        _GAUGE, "1 for the state that the node is in: waiting, running, held or degraded.", ("state",)
    ),
    "minuteman_problems": Family(_GAUGE, "What /v1/status lists as problems, by kind.", ("kind",)),
    "minuteman_events_total": Family(_COUNTER, "Events of the log, by kind.", ("kind",)),
    # The kernel's table
    "minuteman_namespaces": Family(
        _GAUGE, "Network namespaces of containers that get the table: waiting, running, held or failing.", ("state",)
    ),
    "minuteman_sync_duration_seconds": Family(
        _HISTOGRAM, "How long it took to bring the kernel up to what is desired.", ("namespace",)
    ),
    "minuteman_sync_last_timestamp_seconds": Family(
        _GAUGE, "When the kernel was last known to be as desired, in seconds of the epoch.", ("namespace",)
    ),
    "minuteman_sync_last_queued_timestamp_seconds": Family(
        _GAUGE, "When a change was last asked for, in seconds of the epoch.", ("namespace",)
    ),
    "minuteman_sync_total": Family(_COUNTER, "Times that the kernel was brought up to what is desired.", ("namespace",)),
    "minuteman_sync_changes_pending": Family(_GAUGE, "Changes that the kernel does not have yet.", ("namespace",)),
    "minuteman_sync_errors_total": Family(
        _COUNTER, "Operations that the kernel refused, by the operation and the error.", ("namespace", "op", "errno")
    ),
    "minuteman_sync_held_back": Family(_GAUGE, "1 while a plan is held back that would take away too much.", ("namespace",)),
    "minuteman_programming_duration_seconds": Family(
        _HISTOGRAM, "From an event (of a source, a member, a check) to the acknowledgement of the kernel.", ("namespace",)
    ),
    "minuteman_kernel_services": Family(_GAUGE, "Services of ours in the kernel.", ("namespace",)),
    "minuteman_kernel_destinations": Family(_GAUGE, "Destinations behind these.", ("namespace",)),
    "minuteman_kernel_destinations_draining": Family(
        _GAUGE, "Destinations that are kept a little longer for their connections.", ("namespace",)
    ),
    "minuteman_kernel_foreign_services": Family(
        _GAUGE, "Services of others that stand where a VIP is wanted, and are left alone.", ("namespace",)
    ),
    # What is desired
    "minuteman_vips": Family(_GAUGE, "VIPs that count."),
    "minuteman_backends": Family(
        _GAUGE, "Backends of all VIPs: in, held (with weight 0, for their connections) or out.", ("state",)
    ),
    "minuteman_backends_excluded": Family(_GAUGE, "Backends that take no new connections, by the reason.", ("reason",)),
    "minuteman_failed_open": Family(
        _GAUGE, "Services that keep backends against better knowledge, by the reason.", ("reason",)
    ),
    "minuteman_refused_claims": Family(_GAUGE, "Claims, or backends of claims, that do not count, by the reason.", ("reason",)),
    "minuteman_conflicts": Family(_GAUGE, "Claims that disagree with one that stands."),
    "minuteman_names_without_address": Family(_GAUGE, "Named VIPs that have no address in a family."),
    "minuteman_faults": Family(
        _GAUGE,
        "What nodes say that cannot be read (claim, mark), or is of another's backends and does not count (health).",
        ("kind",),
    ),
    "minuteman_claim_faults_total": Family(_COUNTER, "Entries of claims that could not be read."),
    "minuteman_untold_vips": Family(_GAUGE, "VIPs of this node of which the store does not take all."),
    "minuteman_drained_nodes": Family(_GAUGE, "Nodes that operators drain."),
    "minuteman_drained_backends": Family(_GAUGE, "Backends that operators drain by themselves."),
    "minuteman_operator_weights": Family(_GAUGE, "Backends whose weight operators have set."),
    # Traffic
    **{
        f"minuteman_ipvs_service_{name}_total": Family(_COUNTER, text.format("a service"), _SERVICE)
        for name, text in (
            ("connections", "Connections of {}."),
            ("incoming_packets", "Packets from clients of {}."),
            ("outgoing_packets", "Packets to clients of {}; only masquerading brings them through this host."),
            ("incoming_bytes", "Bytes from clients of {}."),
            ("outgoing_bytes", "Bytes to clients of {}; only masquerading brings them through this host."),
        )
    },
    **{
        f"minuteman_ipvs_backend_{name}_total": Family(_COUNTER, text.format("a backend"), _BACKEND)
        for name, text in (
            ("connections", "Connections of {}."),
            ("incoming_packets", "Packets from clients to {}."),
            ("outgoing_packets", "Packets from {} to clients; only masquerading brings them through this host."),
            ("incoming_bytes", "Bytes from clients to {}."),
            ("outgoing_bytes", "Bytes from {} to clients; only masquerading brings them through this host."),
        )
    },
    "minuteman_ipvs_backend_connections_active": Family(_GAUGE, "Established connections of a backend.", _BACKEND),
    "minuteman_ipvs_backend_connections_inactive": Family(
        _GAUGE, "Connections of a backend in any other state; all UDP.", _BACKEND
    ),
    "minuteman_ipvs_backend_weight": Family(_GAUGE, "Weight of a backend in the kernel.", _BACKEND),
    "minuteman_connections_opened_total": Family(
        _COUNTER, "Connections from this host that were established, by service and backend.", ("service", "backend")
    ),
    "minuteman_connections_failed_total": Family(
        _COUNTER, "Connections from this host that died half open, by service and backend.", ("service", "backend")
    ),
    "minuteman_connection_latency_seconds": Family(
        _HISTOGRAM, "Estimated latency of new connections: round trip and three deviations of it.", ("service",)
    ),
    # Sources
    "minuteman_source_up": Family(
        _GAUGE, "0 while the last reading of the source failed, else 1; 1 before the first.", ("source",)
    ),
    "minuteman_source_stale": Family(_GAUGE, "1 while the source has been silent for longer than it may.", ("source",)),
    "minuteman_source_age_seconds": Family(_GAUGE, "Since the source was last known to be good.", ("source",)),
    "minuteman_source_failures": Family(_GAUGE, "Readings that failed in a row.", ("source",)),
    "minuteman_source_vips": Family(_GAUGE, "VIPs of the last good state of the source.", ("source",)),
    "minuteman_source_problems": Family(_GAUGE, "What was left out of the last good state of the source.", ("source",)),
    "minuteman_source_events_total": Family(
        _COUNTER, "What the source counts: fetches, states, failures and more.", ("source", "event")
    ),
    # Members
    "minuteman_members": Family(_GAUGE, "Members as this node sees them, itself among the alive.", ("state",)),
    "minuteman_gossip_bytes_total": Family(
        _COUNTER, "Bytes of the membership: datagrams, and bulk over TCP; sent and received.", ("kind", "direction")
    ),
    "minuteman_gossip_messages_total": Family(
        _COUNTER, "Datagrams and bulk messages of the membership; sent and received.", ("kind", "direction")
    ),
    "minuteman_dropped_total": Family(_COUNTER, "What arrived and was not taken, by the reason.", ("reason",)),
    "minuteman_unsent_total": Family(_COUNTER, "Datagrams that this host did not send, by the error.", ("errno",)),
    "minuteman_links_lost_total": Family(_COUNTER, "Links to neighbours that ended, by the reason.", ("reason",)),
    # The host
    "minuteman_host_step_ok": Family(_GAUGE, "1 while that step of the host's set-up stands.", ("step",)),
    # Health
    "minuteman_health_backends": Family(_GAUGE, "Backends that are checked, by what they are held to be.", ("state",)),
    # The API
    "minuteman_api_answers_total": Family(_COUNTER, "Answers of the API, by their HTTP status.", ("status",)),
    # The process
    "process_resident_memory_bytes": Family(_GAUGE, "Resident memory."),
    "process_virtual_memory_bytes": Family(_GAUGE, "Virtual memory."),
    "process_cpu_seconds_total": Family(_COUNTER, "User and system CPU time."),
    "process_open_fds": Family(_GAUGE, "Open file descriptors."),
    "process_max_fds": Family(_GAUGE, "Most open file descriptors."),
    "process_start_time_seconds": Family(_GAUGE, "When the process was started, in seconds of the epoch."),
    "process_threads": Family(_GAUGE, "Threads."),
}
"""Those that :mod:`~pyminuteman.daemon.metrics` puts together by itself."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where the numbers of one part go.

    Attributes:
        prefix: Of what has no name here: it is told all the same.
        names: By the part's own name: the metric's, and what it means. Counters end in ``_total``.
        labelled: By the beginning of the part's own name: metric and label that the rest of it is the value of.
    """

    prefix: str
    names: Mapping[str, tuple[str, str]]
    labelled: Mapping[str, tuple[str, str]]


MEMBERSHIP: Final = Source(
    "minuteman_membership_",
    {
        "active_view_size": ("minuteman_active_view_size", "Neighbours: members that this node has links with."),
        "passive_view_size": ("minuteman_passive_view_size", "Spare contacts."),
        "table_size": ("minuteman_table_size", "Records of members that are held."),
        "health_score": (
            "minuteman_health_score",
            "How late this process is of late: 0 is in time; it forgives others by that much.",
        ),
        "round_trip_seconds": ("minuteman_probe_rtt_seconds", "Mean of the last round trips to the neighbours."),
        "answer_timeout_seconds": (
            "minuteman_answer_timeout_seconds",
            "The longest that a neighbour may take to answer just now.",
        ),
        "confirmations_total": ("minuteman_confirmations_total", "Times that others were asked to confirm a silence."),
        "false_alarms_total": ("minuteman_false_alarms_total", "Silences that turned out to be none."),
        "suspicions_total": ("minuteman_suspicions_total", "Members that became suspect."),
        "refuted_total": ("minuteman_refuted_total", "Suspects that came back in time."),
        "downs_total": ("minuteman_downs_total", "Members that went down."),
        "stalls_total": ("minuteman_stalls_total", "Times that this process did not run for a while."),
        "joins_denied_total": ("minuteman_joins_denied_total", "Newcomers that were sent elsewhere."),
        "reach_rebuilds_total": ("minuteman_reach_rebuilds_total", "Times that who is in reach was worked out anew."),
        "records_dropped_total": ("minuteman_records_dropped_total", "Records of members that there was no room for."),
        "multicast_delivered_total": ("minuteman_multicast_delivered_total", "Packets for everybody that arrived."),
        "multicast_duplicates_total": ("minuteman_multicast_duplicates_total", "Packets that had arrived before."),
        "multicast_repaired_total": ("minuteman_multicast_repaired_total", "Packets that had to be asked for."),
        "multicast_expired_total": ("minuteman_multicast_expired_total", "Packets that never came."),
        "multicast_unawaited_total": ("minuteman_multicast_unawaited_total", "Packets that nobody could be asked for."),
        "multicast_unread_total": ("minuteman_multicast_unread_total", "Packets that were not read here in time."),
        "notifications_waiting": ("minuteman_notifications_waiting", "News of members that are not read yet."),
        "internal_faults_total": ("minuteman_internal_faults_total", "Errors of ours in the membership; each is in the log."),
        "messages_unknown_total": ("minuteman_messages_unknown_total", "Messages of a kind that this version does not know."),
        "messages_unknown_sender_total": (
            "minuteman_messages_unknown_sender_total",
            "Messages of processes that are not known any more.",
        ),
        "messages_no_common_version_total": (
            "minuteman_messages_no_common_version_total",
            "Messages of nodes that share no version of the protocol with this one.",
        ),
        "indirect_probes_refused_total": (
            "minuteman_indirect_probes_refused_total",
            "Requests to probe somebody who is no member.",
        ),
        "records_refused_total": ("minuteman_records_refused_total", "Records of members that did not hold what they must."),
        "records_known_total": ("minuteman_records_known_total", "Records that were known already."),
        "records_new_total": ("minuteman_records_new_total", "Records that were news."),
        "records_repaired_total": (
            "minuteman_records_repaired_total",
            "Records that came by comparing tables, and not by gossip.",
        ),
        "repairs_total": ("minuteman_repairs_total", "Tables that were compared because they differed."),
        "outdone_total": ("minuteman_outdone_total", "Times that somebody spoke as this node, and it took a later epoch."),
        "refutations_total": ("minuteman_refutations_total", "Times that this node had to say that it is alive."),
        "datagrams_malformed_total": (
            "minuteman_datagrams_malformed_total",
            "Datagrams that were sealed well, and hold no message.",
        ),
        "datagrams_under_our_id_total": (
            "minuteman_datagrams_under_our_id_total",
            "Datagrams of another node with the id of this one.",
        ),
        "datagrams_epoch_ahead_total": (
            "minuteman_datagrams_epoch_ahead_total",
            "Datagrams of an epoch further ahead than clocks explain.",
        ),
        "datagrams_old_epoch_total": ("minuteman_datagrams_old_epoch_total", "Datagrams of an earlier life of a node."),
        "datagrams_impersonating_total": (
            "minuteman_datagrams_impersonating_total",
            "Datagrams of a second process under one id.",
        ),
        "bulk_queued_bytes": ("minuteman_bulk_queued_bytes", "Bytes that wait to be sent over TCP."),
        "bulk_connections": ("minuteman_bulk_connections", "TCP connections of others that are open."),
        "bulk_failed_total": ("minuteman_bulk_failed_total", "TCP connections of the membership that failed."),
        "state_write_failures_total": (
            "minuteman_state_write_failures_total",
            "Times that the state directory could not be written.",
        ),
        "datagrams_unsent_total": ("", ""),  # is the sum of minuteman_unsent_total
        "members_alive": ("", ""),  # minuteman_members
        "members_suspect": ("", ""),
        "members_down": ("", ""),
        "members_left": ("", ""),
    },
    {
        "refused_": ("minuteman_dropped_total", "reason"),
        "datagrams_unsent_": ("minuteman_unsent_total", "errno"),
        "links_lost_": ("minuteman_links_lost_total", "reason"),
    },
)

STORE: Final = Source(
    "minuteman_",
    {
        "store_entries": ("minuteman_store_entries", "Entries of all nodes."),
        "store_own_entries": ("minuteman_store_own_entries", "Entries of this node."),
        "store_tombstones": ("minuteman_store_tombstones", "Removals of entries that are remembered."),
        "store_shared_values": ("minuteman_store_shared_values", "Shared values, such as operators' marks."),
        "store_shared_tombstones": ("minuteman_store_shared_tombstones", "Removals of shared values that are remembered."),
        "store_shared_refused_total": ("minuteman_store_shared_refused_total", "Shared values that there was no room for."),
        "store_comparisons_total": ("minuteman_store_comparisons_total", "Comparisons with a neighbour."),
        "store_comparisons_differing_total": (
            "minuteman_store_comparisons_differing_total",
            "Comparisons that found a difference.",
        ),
        "store_parts_of_unknown_lives_total": (
            "minuteman_store_parts_of_unknown_lives_total",
            "Parts of nodes that are not known yet.",
        ),
        "store_parts_refused_total": ("minuteman_store_parts_refused_total", "Parts that went beyond a limit."),
        "store_answers_cut_total": ("minuteman_store_answers_cut_total", "Answers that had to be told in several parts."),
        "store_packets_dropped_total": ("minuteman_store_packets_dropped_total", "Packets that were not read in time."),
        "store_payloads_malformed_total": ("minuteman_store_payloads_malformed_total", "Packets that could not be understood."),
        "store_messages_unknown_total": (
            "minuteman_store_messages_unknown_total",
            "Messages of a kind that this version does not know.",
        ),
        "store_internal_faults_total": (
            "minuteman_store_internal_faults_total",
            "Errors of ours in the store; each is in the log.",
        ),
        "store_write_failures_total": ("minuteman_store_write_failures_total", "Times that the database could not be written."),
        "store_watch_overflows_total": (
            "minuteman_store_watch_overflows_total",
            "Readers that fell behind, and had to read all anew.",
        ),
        "store_invalid_total": ("minuteman_store_invalid_total", "Keys or values in the etcd that are none of ours."),
        "store_etcd_reading_failures_total": (
            "minuteman_store_etcd_reading_failures_total",
            "Readings of the etcd that failed.",
        ),
        "store_etcd_readings_total": ("minuteman_store_etcd_readings_total", "Times that all was read from the etcd."),
        "store_etcd_watches_total": ("minuteman_store_etcd_watches_total", "Watches that were begun."),
        "store_etcd_compactions_total": ("minuteman_store_etcd_compactions_total", "Watches that the etcd had compacted away."),
        "store_etcd_failovers_total": ("minuteman_store_etcd_failovers_total", "Changes to another server of the etcd."),
        "store_etcd_writes_total": ("minuteman_store_etcd_writes_total", "Writes that were committed."),
        "store_etcd_write_failures_total": ("minuteman_store_etcd_write_failures_total", "Writes that failed."),
        "store_etcd_conflicts_total": ("minuteman_store_etcd_conflicts_total", "Writes that another was quicker than."),
        "store_etcd_leases_lost_total": ("minuteman_store_etcd_leases_lost_total", "Leases that ran out or were taken away."),
    },
    {},
)

HEALTH: Final = Source(
    "minuteman_health_",
    {
        "targets": ("", ""),  # minuteman_health_backends
        "healthy": ("", ""),
        "unconfirmed": ("minuteman_health_unconfirmed", "Backends that checks have not decided on yet."),
        "running": ("minuteman_health_checks_running", "Checks that run just now."),
        "waiting": ("minuteman_health_checks_waiting", "Checks that wait for a place."),
        "checks_total": ("minuteman_health_checks_total", "Checks that were made."),
        "passed_total": ("minuteman_health_checks_passed_total", "Checks that passed."),
        "failed_total": ("minuteman_health_checks_failed_total", "Checks that failed."),
        "timed_out_total": ("minuteman_health_checks_timed_out_total", "Checks that ran into their deadline."),
        "void_total": ("minuteman_health_checks_void_total", "Checks that count for nothing, for the fault was ours."),
        "became_healthy_total": ("minuteman_health_became_healthy_total", "Backends that became healthy."),
        "became_unhealthy_total": ("minuteman_health_became_unhealthy_total", "Backends that became unhealthy."),
        "coalesced_total": ("minuteman_health_coalesced_total", "Changes that a later one replaced before they were read."),
    },
    {},
)

API: Final = Source(
    "minuteman_api_",
    {
        "connections_open": ("minuteman_api_connections_open", "Connections that are open."),
        "streams_open": ("minuteman_api_streams_open", "Streams of events that are open."),
        "connections_total": ("minuteman_api_connections_total", "Connections that were taken."),
        "refused_connections_total": ("minuteman_api_connections_refused_total", "Connections beyond the limit."),
        "requests_total": ("minuteman_api_requests_total", "Requests."),
        "malformed_total": ("minuteman_api_malformed_total", "What was no HTTP, or too much of it."),
        "slow_readers_total": ("minuteman_api_slow_readers_total", "Clients that took nothing for too long, and were cut."),
        "failures_total": ("minuteman_api_failures_total", "Errors of ours; each is in the log."),
        "cut_total": ("minuteman_api_cut_total", "Ends at which connections had to be cut."),
        "streams_refused_total": ("minuteman_api_streams_refused_total", "Streams of events beyond the limit."),
        "events_missed_total": ("minuteman_api_events_missed_total", "Events that readers were too slow for."),
        "refused_requests_total": ("minuteman_api_requests_refused_total", "Requests that the guard turned away."),
    },
    {"answers_": ("minuteman_api_answers_total", "status")},
)
