"""Every constant of the membership protocol, each with what it means and how to choose it.

Pure. Names follow the HyParView paper (Leitao, Pereira, Rodrigues, DSN 2007) where it has one. Start from a profile
(:meth:`MembershipConfig.lan`, :meth:`~MembershipConfig.wan`, :meth:`~MembershipConfig.local`) and change single fields with
:func:`dataclasses.replace`. All nodes of a cluster should use one profile. Nodes that differ still understand each other: who asks for
a link, and who grants one, says how often it will be heard from (a join does not, and is taken to be like ourselves).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final, Self

from pyminuteman.errors import ConfigurationError

__all__ = ["RANGES", "MembershipConfig"]

_PROFILES: Final = ("lan", "wan", "local")


@dataclass(frozen=True, slots=True, kw_only=True)
class MembershipConfig:
    """The constants of one node. Times are seconds, sizes are counts unless the name ends in ``_bytes``.

    Raises:
        ConfigurationError: When built with a value out of its range; ``key`` names the field.
    """

    # -- views (HyParView) ---------------------------------------------------------------------------------------------
    active_view_size: int = 7
    """Links a node keeps (1 to 32). The paper: log10(n) + 1, so 5 for 10,000 nodes; 7, as Lashup has it, survives more deaths
    at once and costs two heartbeats more a period. Each link costs one datagram a heartbeat interval."""
    passive_view_size: int = 42
    """Spare contacts a node remembers (active_view_size to 1,000). The paper: six times the active view."""
    active_random_walk_length: int = 8
    """ARWL: hops a forwarded join travels before it ends in a link (1 to 32). The paper has 6; two more cost nothing and mix
    better above 1,000 nodes."""
    passive_random_walk_length: int = 5
    """PRWL: hops left when a forwarded join also enters a passive view (0 to ARWL). The paper has 3."""
    shuffle_active_size: int = 3
    """ka: members of the active view sent in a shuffle (0 to active_view_size), as in the paper."""
    shuffle_passive_size: int = 4
    """kp: members of the passive view sent in a shuffle (0 to passive_view_size), as in the paper."""
    shuffle_time_to_live: int = 5
    """Hops of a shuffle's random walk (1 to 32)."""
    shuffle_interval_seconds: float = 30.0
    """Mean time between a node's shuffles, jittered by half each way. They only keep the passive view mixed: the table of
    members, which HyParView does not have, refills it when it runs dry."""
    join_timeout_seconds: float = 0.5
    """How long a contact has to answer a join before the next contact is asked. Above the worst round trip."""
    join_rate_per_second: float = 25.0
    """Joins a node with a full active view takes in a second; further ones are told whom to ask instead, so one contact is
    not the bottleneck of a cluster that starts. Each costs a neighbour its link."""
    neighbor_timeout_seconds: float = 0.5
    """How long a peer has to answer a request to be a neighbour. Above the worst round trip."""
    neighbor_retry_seconds: float = 0.5
    """First pause between searches for a neighbour while the active view has room; doubles up to the next field."""
    neighbor_retry_max_seconds: float = 10.0
    """Longest such pause. A view short of a link or two is harmless, so the search for them may be slow."""

    # -- failure detector ----------------------------------------------------------------------------------------------
    heartbeat_interval_seconds: float = 0.2
    """Mean time between heartbeats to one neighbour (0.01 to 60). With seven links 0.2 s is 35 datagrams a second, 3.5 kB/s on
    the wire. Detection takes about a quarter of it, since seven neighbours listen, plus two to three timeouts."""
    heartbeat_jitter: float = 0.1
    """Share of the interval by which each heartbeat is early or late (0 to 0.5): continuous, so nodes started together drift
    apart."""
    timeout_min_seconds: float = 0.04
    """Least time allowed for an answer, however short the round trips seen (0.005 to timeout_max). Below it are the hiccups of a
    busy scheduler: the worst round trip seen beside eight busy loops on two cores was 6 ms at real-time priority; it was 72 ms
    without, which the window of round trips follows, and of which seven neighbours in a row make no death."""
    timeout_max_seconds: float = 0.5
    """Most time allowed for an answer, however long the round trips seen, before local health stretches it."""
    round_trip_window: int = 32
    """Round trips remembered of each neighbour (2 to 1,000). A window and not the last one: one fast answer must not make
    the next slow one a failure."""
    indirect_probes: int = 6
    """Others asked to probe a silent neighbour (0 to 32), its own other neighbours first. Three would clear a false alarm even where
    one path in three is bad; six are all that watch it, and asking them sets off their own confirmations: all cut it at about the
    same time, 50 ms earlier, and the news of it shares its datagrams."""
    direct_failure_seconds: float = 2.0
    """A neighbour that others hear and we do not, for this long, is dropped without being accused: the path is bad, not it."""
    local_health_max: int = 8
    """Highest local-health score (0 to 100): a node that notices its own stalls multiplies its timeouts by one more than the
    score (Lifeguard's local health multiplier, arXiv 1707.00788)."""
    timeout_stretched_max_seconds: float = 30.0
    """Bound of a timeout that local health has stretched."""
    stall_seconds: float = 0.04
    """A timer that fires this much late is a stall of our own: the time lost is given back to everybody we were about to judge."""

    # -- states of members ---------------------------------------------------------------------------------------------
    orphan_grace_seconds: float = 0.5
    """How long a member that no path reaches, and that nobody accuses, stays alive: its links may be on the move."""
    down_after_seconds: float = 0.7
    """Further silence that turns suspect into down. Longer than the freezes you want forgiven; the time to suspicion comes
    before it."""
    forget_after_seconds: float = 86400.0
    """How long an unreachable member is remembered and tried again, so that partitions longer than lunch heal."""
    heal_interval_seconds: float = 2.0
    """Scale of the pause between attempts to reach an unreachable member: a node waits this, times the reachable members over
    the unreachable ones, within 1 and 300 s. So a lost half is found within seconds, and one dead node is not stormed."""

    # -- gossip --------------------------------------------------------------------------------------------------------
    gossip_batch_seconds: float = 0.02
    """How long a change may wait for others to share its datagram (0 to 1)."""
    gossip_urgent_seconds: float = 0.01
    """The same for news of a failure. Not zero: a death is news from each of its neighbours within a few milliseconds, and
    while it waits, it is seen who else has it."""
    repair_after_seconds: float = 0.3
    """How long a neighbour's table must differ from ours before the two are compared; four times that before they are again."""
    multicast_announce_seconds: float = 0.03
    """How long ids of multicast packets wait to be announced to the neighbours they were not sent to."""
    multicast_request_seconds: float = 0.06
    """How long an announced packet may take by the tree before it is asked for."""
    multicast_keep_seconds: float = 30.0
    """How long a packet is kept for those who missed it."""
    multicast_keep_bytes: int = 8 * 1024 * 1024
    """Bound of what is kept; the oldest go first, and are counted."""
    multicast_time_to_live: int = 32
    """Hops of a multicast packet (1 to 255): several times the diameter of the graph."""

    # -- limits --------------------------------------------------------------------------------------------------------
    members_max: int = 20_000
    """Members a node will remember; records beyond are dropped and counted."""
    datagram_max_bytes: int = 1200
    """Largest datagram sent (576 to 9,000): below every path's MTU, so nothing is fragmented. Larger messages go over TCP."""
    payload_max_bytes: int = 1024 * 1024
    """Largest payload of a multicast (1 to 8 MiB)."""
    tags_max_bytes: int = 1024
    """Largest sum of a node's tags, names and values (0 to 4,096): a record holds it besides all else."""
    clock_skew_max_seconds: float = 86400.0
    """How far ahead of our wall clock a peer's epoch may be. A record beyond is refused: accepting the highest epoch there is
    would lock its owner out for ever."""

    def __post_init__(self) -> None:
        for name, low, high in RANGES:
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigurationError(None, name, f"{value!r} is not from {low:g} to {high:g}")
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.endswith("_seconds") and not 0 <= value < float("inf"):
                raise ConfigurationError(None, field.name, f"{value!r} is not a time of zero or more seconds")
        for small, large in _ORDERED:
            if getattr(self, small) > getattr(self, large):
                raise ConfigurationError(None, small, f"{getattr(self, small)!r} is above {large} ({getattr(self, large)!r})")

    @classmethod
    def lan(cls) -> Self:
        """One site, round trips below 10 ms: the defaults."""
        return cls()

    @classmethod
    def wan(cls) -> Self:
        """Sites far apart, round trips up to 300 ms and the loss of public networks: suspicion in about two seconds."""
        return cls(
            heartbeat_interval_seconds=0.5,
            timeout_min_seconds=0.3,
            timeout_max_seconds=2.0,
            join_timeout_seconds=2.0,
            neighbor_timeout_seconds=2.0,
            neighbor_retry_seconds=2.0,
            orphan_grace_seconds=2.0,
            down_after_seconds=3.0,
            direct_failure_seconds=6.0,
            gossip_batch_seconds=0.05,
            gossip_urgent_seconds=0.01,
            repair_after_seconds=1.0,
            multicast_announce_seconds=0.1,
            multicast_request_seconds=0.6,
        )

    @classmethod
    def local(cls) -> Self:
        """Many nodes on one machine, for trying things out: half the traffic of :meth:`lan`, and patience with busy cores."""
        return cls(heartbeat_interval_seconds=0.3, timeout_min_seconds=0.15, down_after_seconds=1.0)

    @classmethod
    def profile(cls, name: str) -> Self:
        """The profile of that name: ``lan``, ``wan`` or ``local``.

        Raises:
            ConfigurationError: There is none of that name.
        """
        if name not in _PROFILES:
            raise ConfigurationError(None, "profile", f"{name!r} is none of {', '.join(_PROFILES)}")
        made: Self = getattr(cls, name)()
        return made


RANGES: Final = (
    ("active_view_size", 1, 32),
    ("passive_view_size", 1, 1000),
    ("active_random_walk_length", 1, 32),
    ("passive_random_walk_length", 0, 32),
    ("shuffle_time_to_live", 1, 32),
    ("shuffle_active_size", 0, 32),
    ("shuffle_passive_size", 0, 32),
    ("join_rate_per_second", 0.1, 10_000),
    ("heartbeat_interval_seconds", 0.01, 60),
    ("heartbeat_jitter", 0, 0.5),
    ("timeout_min_seconds", 0.005, 60),
    ("timeout_max_seconds", 0.005, 60),
    ("round_trip_window", 2, 1000),
    ("indirect_probes", 0, 32),
    ("local_health_max", 0, 100),
    ("stall_seconds", 0.001, 60),
    ("gossip_batch_seconds", 0, 1),
    ("gossip_urgent_seconds", 0, 1),
    ("multicast_time_to_live", 1, 255),
    ("multicast_keep_bytes", 0, 1 << 40),
    ("members_max", 1, 1_000_000),
    ("datagram_max_bytes", 576, 9000),
    ("payload_max_bytes", 1, 8 * 1024 * 1024),
    ("tags_max_bytes", 0, 4096),
)
"""What fields may be, from and to; other times are zero or more."""
_ORDERED: Final = (
    ("active_view_size", "passive_view_size"),
    ("passive_random_walk_length", "active_random_walk_length"),
    ("shuffle_active_size", "active_view_size"),
    ("shuffle_passive_size", "passive_view_size"),
    ("timeout_min_seconds", "timeout_max_seconds"),
    ("timeout_max_seconds", "timeout_stretched_max_seconds"),
    ("neighbor_retry_seconds", "neighbor_retry_max_seconds"),
    ("gossip_urgent_seconds", "gossip_batch_seconds"),
)
