"""What the daemon is told, as objects: each setting with what it means and how to choose it. Pure.

:func:`pyminuteman.daemon.config_file.load_config` makes these from files; docs/reference/configuration.md is for people. The names here are
the keys there: ``[node] bind`` is ``config.node.bind``. Only ``[policy]`` is an object of another package, :class:`~pyminuteman.vips.policy.Policy`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

from pyminuteman.addresses import Endpoint
from pyminuteman.health.hysteresis import CheckPolicy
from pyminuteman.kv.store import StoreLimits
from pyminuteman.membership.config import MembershipConfig
from pyminuteman.vips.allocation import IPV4_RANGE, IPV6_RANGE, AddressRange
from pyminuteman.vips.policy import Policy

__all__ = [
    "API_PORT",
    "GOSSIP_PORT",
    "METRICS_LABELS",
    "APIConfig",
    "ClusterConfig",
    "DaemonConfig",
    "EtcdConfig",
    "HealthConfig",
    "HostConfig",
    "IPVSConfig",
    "LogConfig",
    "NamesConfig",
    "NamespacesConfig",
    "NodeConfig",
    "SourceConfig",
    "StoreConfig",
]

GOSSIP_PORT: Final = 61420
"""Where members listen, UDP and TCP, unless told otherwise."""
API_PORT: Final = 61421
"""Where the API listens, when it is given an address without a port."""
METRICS_LABELS: Final = ("local_address", "local_port", "remote_address", "remote_port", "proto", "local_mark")
"""The labels that rows of backends can have in ``/metrics``; fewer of them make fewer rows."""
_EVERYWHERE: Final = Endpoint("0.0.0.0", GOSSIP_PORT)  # noqa: S104 - members are reached from elsewhere; that takes a key
_LIMITS: Final = StoreLimits()
_POLICY: Final = Policy()


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig:
    """``[node]``: this node, as the others know it."""

    name: str = ""
    """A label for people, 1 to 64 bytes of printable text. No two nodes should share one. Empty: the host's name."""
    bind: Endpoint = _EVERYWHERE
    """Where members are listened to, UDP and TCP. Choose one address of the hosts' own network where there are several. Port 0 takes a
    free one."""
    advertise: Endpoint | None = None
    """Where others reach this node. None: at ``bind``, or at the address that leads to the contacts."""
    addresses: tuple[str, ...] = ()
    """Other addresses of this host, canonical: backends at one are this node's, and no VIP may be at one."""
    tags: tuple[tuple[str, str], ...] = ()
    """What the operator wants known of this node: names and values in the order of the names, up to 1,024 bytes together."""
    state_directory: Path = Path("/var/lib/minuteman")
    """Where id, epoch, known members, the store's entries and the ledger are kept. One for each daemon."""
    profile: Literal["lan", "wan", "local"] = "lan"
    """Constants of membership: ``lan`` within a site, ``wan`` between sites, ``local`` to try many nodes on one machine. All nodes of a
    cluster should have the same."""
    realtime: bool = True
    """Ask for real-time priority, so that a busy host is not taken for a dead one: for the loop, and one below it for all other threads and
    for the programs that set up the host. Where it is not granted, that is said and all goes on."""

    membership_overrides: tuple[tuple[str, int | float], ...] = ()
    """``[membership]``: constants that are to differ from the profile's, by name in the order of the names."""

    @property
    def membership(self) -> MembershipConfig:
        """The constants: the profile's, and what is to differ from it.

        Raises:
            ConfigurationError: One is out of its range; ``key`` names it.
        """
        overrides: dict[str, Any] = dict(self.membership_overrides)
        return replace(MembershipConfig.profile(self.profile), **overrides)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterConfig:
    """``[cluster]``: which cluster this node is of."""

    name: str = "minuteman"
    """The cluster's name, 1 to 64 bytes of printable text; members of another are not heard."""
    contacts: tuple[Endpoint, ...] = ()
    """Members to ask to be let in. Name three that are seldom down; this node among them does no harm. None: the first node."""
    key_file: Path | None = None
    """The cluster's keys (``minuteman keys generate``), readable by the daemon alone. None takes a loopback ``node.bind`` or ``insecure``."""
    insecure: bool = False
    """Do without a key although others can reach us: whoever can send a datagram here can then speak as any member."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdConfig:
    """``[store.etcd]``: for ``store.engine = "etcd"``."""

    endpoints: tuple[str, ...] = ()
    """URLs, such as ``https://10.0.0.1:2379``: all members of the etcd cluster."""
    prefix: str = "/minuteman/store/"
    """Of all keys; another one for each cluster."""
    ca: Path | None = None
    """Certificates to trust, PEM. None: the system's."""
    cert: Path | None = None
    """Our certificate, PEM; goes with ``key``."""
    key: Path | None = None
    """The certificate's private key, PEM."""
    token_file: Path | None = None
    """A file with a token for etcd, read again when it changes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreConfig:
    """``[store]``: where nodes tell each other of VIPs."""

    engine: Literal["gossip", "etcd"] = "gossip"
    """``gossip``: among the members themselves. ``etcd``: in an etcd cluster that is there already. The same on all nodes."""
    etcd: EtcdConfig = EtcdConfig()
    """How etcd is reached."""
    limits: StoreLimits = _LIMITS
    """What is held at most. The same on all nodes. Its ``lease_seconds`` is the one below."""
    lease_seconds: float = 60.0
    """How long what a node said outlives it when it is down, 0 to 86,400. Longer than a reboot keeps claims in order."""

    def __post_init__(self) -> None:
        """The lease is one of the store's limits, and is said once."""
        object.__setattr__(self, "limits", replace(self.limits, lease_seconds=self.lease_seconds))


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthConfig:
    """``[health]``: how this node's own backends are checked; of TCP VIPs only. ``[source.health]`` changes it for one source."""

    check: str = "tcp"
    """``tcp`` (a connection is taken), ``http:/PATH`` (answered with 2xx), ``exec:/PROGRAM`` (ends with 0; given address and port), or empty:
    none are."""
    interval_seconds: float = 2.0
    """Between two checks of a backend, 0.05 to 3,600."""
    timeout_seconds: float = 1.0
    """For one check, 0.05 to 3,600. Choose twice what your slowest honest answer takes."""
    rise: int = 2
    """Successes in a row that put a backend back, 1 to 100."""
    fall: int = 3
    """Failures in a row that take a backend out, 1 to 100."""
    concurrency: int = 64
    """Checks at a time, 1 to 10,000; of the whole node, so no source has one of its own."""

    @property
    def policy(self) -> CheckPolicy:
        """The same, for the monitor."""
        return CheckPolicy(
            interval_seconds=self.interval_seconds,
            undecided_interval_seconds=min(CheckPolicy().undecided_interval_seconds, self.interval_seconds),
            timeout_seconds=self.timeout_seconds,
            rise=self.rise,
            fall=self.fall,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceConfig:
    """``[[source]]``: where VIPs are said."""

    name: str
    """The operator's, for policy, status and ``PUT /v1/sources/NAME``: 1 to 64 letters, digits, ``.``, ``_`` and ``-``. Unique."""
    place: str
    """As :func:`pyminuteman.sources.options.parse_source` takes it; ``push:`` for what is sent to ``PUT /v1/sources/NAME``."""
    publish: Literal["all", "own", "none"] = "all"
    """What of it is told the other nodes: ``all``; the backends on this host (``own``: every node has the source); or ``none``: it is for
    this node's kernel only."""
    on_silence: Literal["keep", "withdraw"] = "keep"
    """What becomes of its VIPs when the source has been silent for ``silence_seconds``. ``keep`` unless wrong VIPs are worse than none."""
    silence_seconds: float = 300.0
    """From when on a source that fails counts as silent, 1 to 31,536,000."""
    health: HealthConfig | None = None
    """Its own checks, whole: what ``[source.health]`` leaves open is taken from ``[health]``. None: as ``[health]`` says."""

    @property
    def is_pushed(self) -> bool:
        """Whether it is sent to the API, and nothing is to be opened."""
        return self.place == "push:"


@dataclass(frozen=True, slots=True, kw_only=True)
class NamesConfig:
    """``[names]``: addresses and DNS names of named VIPs. The same on all nodes, but for ``dns_bind``."""

    ipv4_range: AddressRange | None = IPV4_RANGE
    """``LOW-HIGH``; the last one is not given. Choose 10.x or 198.18.0.0/15 where the Internet's 11.0.0.0/8 is needed. None: none are given."""
    ipv6_range: AddressRange | None = IPV6_RANGE
    """The same for IPv6."""
    zone: str = "l4lb.minuteman"
    """The DNS zone: ``foo.marathon`` is found as ``foo.marathon.l4lb.minuteman``. Lower case, without a dot at its end."""
    dns_bind: Endpoint | None = None
    """Where names are answered for, UDP and TCP; port 53 unless said. None: nowhere."""

    @property
    def ranges(self) -> tuple[AddressRange, ...]:
        """Those there are."""
        return tuple(addresses for addresses in (self.ipv4_range, self.ipv6_range) if addresses is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class IPVSConfig:
    """``[ipvs]``: what may be done to the kernel's table."""

    managed: tuple[str, ...] = ()
    """Networks whose services may be ours: nothing is done to any other. Loaded without it: those of ``[names]`` and of the policy's
    ``vip_networks``."""
    exclude: tuple[str, ...] = ()
    """Networks within them whose services are somebody else's, come what may."""
    adopt: Literal["no", "desired", "everything"] = "no"
    """Services that are managed, and that the ledger does not know: left alone (``no``), taken over where one like it is wanted
    (``desired``), or taken over and removed (``everything``). The latter two are for moving in."""
    max_loss_percent: float = 50.0
    """A change that would remove more of our services or backends than this is held back until it is confirmed, 0 to 100. 100: never."""
    audit_seconds: float = 60.0
    """Between two comparisons with all that is in the kernel, 1 to 86,400."""
    drain_seconds: float = 60.0
    """How long a removed backend keeps its connections, 0 to 86,400; a VIP's own ``drain`` goes first."""
    on_exit: Literal["keep", "drain", "flush"] = "keep"
    """At the end of the daemon: services stay as they are (``keep``: a restart is not noticed), get no new connections, or go."""
    min_interval_seconds: float = 0.0
    """Least time between two changes of the kernel, 0 to 60. More than 0 costs repair time; bursts are joined in any case."""

    @property
    def has_ipv6(self) -> bool:
        """Whether VIPs may be IPv6."""
        return any(":" in network for network in self.managed)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostConfig:
    """``[host]``: what of the host is set up, as ``minuteman doctor --fix`` does it."""

    setup: bool = True
    """False: nothing is, and the rest of this section is idle."""
    device: str = "minuteman"
    """The device that VIP addresses are put on: 1 to 15 characters. Made if it is missing."""
    announce: Literal["address", "route", "none"] = "address"
    """VIPs as an address on the device, as a local route, or not at all: then somebody else sees to it."""
    masquerade: Literal["auto", "nft", "iptables", "none"] = "auto"
    """By which tool connections to VIPs are masqueraded; ``none`` where backends find the way back."""
    guard: bool = True
    """Reject what is sent to a VIP address and is no VIP: ports of the host are not reached by it."""
    portmap_bypass: bool = True
    """Keep host-port rules of others (CNI portmap, Docker) from VIP addresses."""
    sysctls: bool = True
    """Write the kernel's settings as VIPs need them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NamespacesConfig:
    """``[namespaces]``: network namespaces whose kernels get the table too."""

    directory: Path | None = None
    """Every namespace that is mounted in it (``/run/netns``), or whose path a file in it holds (``/var/run/dcos/cni/l4lb``); 256 at most. Takes
    CAP_SYS_ADMIN. None: the host's own only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class APIConfig:
    """``[api]``: who may ask and command."""

    socket: Path | None = Path("/run/minuteman/api.sock")
    """The unix socket, mode 0660. None: there is none."""
    group: str = "minuteman"
    """Whose members may use the socket. Empty, or a group that is not there: root and the daemon's own user."""
    tcp: Endpoint | None = None
    """Also by TCP; 127.0.0.1:61421 is usual. Takes ``token_file`` or ``client_ca``; beyond loopback ``cert`` and ``key``, too."""
    token_file: Path | None = None
    """A file with the token that clients by TCP send, readable by the daemon alone."""
    cert: Path | None = None
    """The server's certificate chain, PEM: the API by TCP is then https. Goes with ``key``."""
    key: Path | None = None
    """The certificate's private key, PEM."""
    client_ca: Path | None = None
    """Clients by TCP need a certificate of one of these, PEM. Takes ``cert``."""
    hosts: tuple[str, ...] = ()
    """Names that the API by TCP may be called by (``Host``), in lower case, besides its address and ``localhost``: a page from elsewhere cannot
    then reach it by a name of its own."""
    metrics_labels: tuple[str, ...] = METRICS_LABELS
    """Labels of backends' rows in ``/metrics``; leave out ``remote_address`` and ``remote_port`` where there are too many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig:
    """``[log]``: what is said, and how."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least grave that is said."""
    format: Literal["auto", "text", "json", "journal"] = "auto"
    """``auto``: for the journal under systemd, else text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonConfig:
    """All of it. The default objects are the defaults of the files, but that a loaded ``ipvs.managed`` is never empty."""

    node: NodeConfig = NodeConfig()
    cluster: ClusterConfig = ClusterConfig()
    store: StoreConfig = StoreConfig()
    sources: tuple[SourceConfig, ...] = ()
    policy: Policy = _POLICY
    names: NamesConfig = NamesConfig()
    ipvs: IPVSConfig = IPVSConfig()
    health: HealthConfig = HealthConfig()
    host: HostConfig = HostConfig()
    namespaces: NamespacesConfig = NamespacesConfig()
    api: APIConfig = APIConfig()
    log: LogConfig = LogConfig()

    def source(self, name: str) -> SourceConfig | None:
        """The source of that name."""
        return next((source for source in self.sources if source.name == name), None)

    def health_of(self, source: str) -> HealthConfig:
        """How backends of that source are checked."""
        found = self.source(source)
        return self.health if found is None or found.health is None else found.health
