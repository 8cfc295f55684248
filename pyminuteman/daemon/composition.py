"""From the configuration to the parts of a node: each function makes one, and opens nothing that it does not say."""

from __future__ import annotations

import grp
import math
import socket
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio

from pyminuteman.capabilities import Capability
from pyminuteman.daemon.api.options import ApiOptions
from pyminuteman.daemon.config import DaemonConfig, SourceConfig
from pyminuteman.daemon.entries import ClaimTable
from pyminuteman.daemon.feeds import Feed
from pyminuteman.daemon.ledger import Ledger
from pyminuteman.daemon.namespaces import Namespaces, Place, Serving
from pyminuteman.daemon.observed import Buckets, OutcomesOf
from pyminuteman.daemon.outcomes import OutcomesReading
from pyminuteman.daemon.outlook import Outlook
from pyminuteman.daemon.privileges import needed
from pyminuteman.daemon.reconciler import Reconciler
from pyminuteman.daemon.reconciler_options import ReconcilerOptions
from pyminuteman.daemon.sources import FeedOptions, Sources
from pyminuteman.errors import ConfigurationError
from pyminuteman.health.backends import MakeCheck, parse_check
from pyminuteman.health.hysteresis import CheckPolicy
from pyminuteman.health.monitor import Target
from pyminuteman.host.firewall import takes_raw_sockets
from pyminuteman.host.rights import first_free_port
from pyminuteman.host.setup import HostSettings, HostSetup
from pyminuteman.http_client import HttpOptions
from pyminuteman.ipvs import DrainPolicy, IPVSTable, Scope, ServiceKey
from pyminuteman.kv import GossipStore, Store, open_store
from pyminuteman.kv.etcd import open_etcd_store
from pyminuteman.membership import Keyring, Membership, load_key_file, open_membership
from pyminuteman.sources.base import Source
from pyminuteman.sources.options import parse_source
from pyminuteman.sources.push import PushSource
from pyminuteman.vips.address_book import AddressBook
from pyminuteman.vips.desired import DesiredState, DesiredTable
from pyminuteman.vips.model import Backend, BackendKey
from pyminuteman.vips.policy import Networks, Policy, Rule

__all__ = [
    "api_options",
    "host_settings",
    "membership_of",
    "namespaces",
    "outcomes_of",
    "outlook",
    "own_addresses",
    "policy_of",
    "reader_of",
    "reconciler",
    "reconciler_options",
    "rights_of",
    "sources",
    "store_of",
    "target_of",
]

_ANYWHERE: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 - what is left out
_WRITTEN: Final = frozenset({"file", "ipvsadm", "push", "http", "https", "etcd"})
"""Kinds of sources in which operators themselves write VIPs and backends."""
_VOUCHING: Final = _WRITTEN | {"mesos", "marathon"}
"""Those, and kinds that have the addresses of tasks and hosts from records of their own, and not from what tasks say of themselves."""

OpenTable = Callable[[Scope, DrainPolicy | None], IPVSTable]
Tell = Callable[[str, str, Mapping[str, Any]], object]


def membership_of(config: DaemonConfig) -> AbstractAsyncContextManager[Membership]:
    """The membership, to be opened.

    Raises:
        KeyringError: The key file is no good.
    """
    node, cluster = config.node, config.cluster
    keyring = None if cluster.key_file is None else Keyring(load_key_file(cluster.key_file), cluster=cluster.name)
    return open_membership(
        name=node.name or socket.gethostname(),
        bind=node.bind,
        advertise=node.advertise,
        contacts=cluster.contacts,
        config=node.membership,
        keyring=keyring,
        cluster=cluster.name,
        state_directory=node.state_directory,
        tags=dict(node.tags),
        addresses=node.addresses,
        insecure=cluster.insecure,
    )


def store_of(config: DaemonConfig, membership: Membership) -> AbstractAsyncContextManager[Store]:
    """The store, to be opened in the membership's block."""
    store = config.store
    if store.engine == "gossip":
        gossip: AbstractAsyncContextManager[GossipStore] = open_store(
            membership, limits=store.limits, path=config.node.state_directory / "store.db"
        )
        return gossip
    etcd = store.etcd
    options = HttpOptions(ca_file=etcd.ca, certificate_file=etcd.cert, key_file=etcd.key, token_file=etcd.token_file)
    return open_etcd_store(etcd.endpoints, membership.me.id, prefix=etcd.prefix, limits=store.limits, options=options)


def own_addresses(config: DaemonConfig, membership: Membership) -> frozenset[str]:
    """The addresses of this host, as far as they are known."""
    found = {membership.me.endpoint.address, config.node.bind.address, *membership.me.addresses, *config.node.addresses}
    return frozenset(found - _ANYWHERE)


def outlook(config: DaemonConfig, own: frozenset[str]) -> Outlook:
    """What this node makes of what all say."""
    table = DesiredTable(own_addresses=own, book=AddressBook(config.names.ranges))
    return Outlook(ClaimTable(), table, policy_of(config))


def policy_of(config: DaemonConfig) -> Policy:
    """Who may claim what.

    Where the configuration has no rules, operators who write a source may have VIPs at any managed address; tasks, which say what they
    like of themselves, only named ones. The ports of the daemon itself are guarded whatever the configuration says: that of the membership,
    as bound and as advertised, and that of the API over TCP.
    """
    places = (config.node.bind, config.node.advertise, config.api.tcp)
    ports = frozenset(place.port for place in places if place is not None and place.port)
    policy = replace(config.policy, guarded_ports=config.policy.guarded_ports | ports)
    if policy.rules != Policy().rules:
        return policy
    managed = Networks(*config.ipvs.managed)
    written = [source.name for source in config.sources if _kind(source) in _WRITTEN]
    rules = tuple(Rule(source=name, vip_networks=managed) for name in written)
    return replace(policy, rules=(*rules, Rule()))


def _kind(source: SourceConfig) -> str:
    return source.place.partition(":")[0]


def reader_of(source: SourceConfig) -> Source:
    """Where a source is read; nothing is opened yet.

    Raises:
        ConfigurationError: It cannot be.
    """
    return PushSource(f"push:{source.name}") if source.is_pushed else parse_source(source.place)


def sources(
    config: DaemonConfig,
    readers: Mapping[str, Source],
    *,
    before: Mapping[str, Feed],
    make_feed: Callable[[str, Source], Feed],
) -> Sources:
    """The sources. Those that were there go on; those that are read elsewhere now keep what was last read. Neither waits nor fails.

    Args:
        config: All of it, which was read and is good.
        readers: What is to be opened, by the source's name: see :func:`reader_of`.
        before: Feeds that are there, by name.
        make_feed: Makes one more.
    """
    feeds: list[Feed] = []
    for source in config.sources:
        feed, reader = before.get(source.name), readers.get(source.name)
        if feed is None:
            feed = make_feed(source.name, readers[source.name])
        elif reader is not None:
            feed.reopen(reader)
        feed.withdraw_after(source.silence_seconds if source.on_silence == "withdraw" else math.inf)
        feeds.append(feed)
    options = {source.name: FeedOptions(source.publish, vouch=_kind(source) in _VOUCHING) for source in config.sources}
    return Sources(feeds=feeds, options=options, target=target_of(config))


def target_of(config: DaemonConfig) -> Callable[[str, Backend], Target | None]:
    """How a backend of this host that a source wants is asked; None when it is not.

    Raises:
        InvalidCheckError: A check is none.
    """
    found: dict[str, tuple[MakeCheck, CheckPolicy]] = {}
    for source in config.sources:
        health = config.health_of(source.name)
        if health.check:
            found[source.name] = parse_check(health.check), health.policy

    def target(source: str, backend: Backend) -> Target | None:
        if source not in found:
            return None
        make, policy = found[source]
        return Target(make(backend), policy)

    return target


def host_settings(config: DaemonConfig) -> HostSettings:
    """What of the host is to be set up.

    VIPs come and go, so that one may become persistent at any time; and whether this host is a router for others is not ours to say.
    """
    host = config.host
    return HostSettings(
        device=host.device,
        announce=host.announce,
        masquerade=host.masquerade,
        guard=host.guard,
        portmap_bypass=host.portmap_bypass,
        sysctls=host.sysctls,
        ipv6=config.ipvs.has_ipv6,
    )


def rights_of(config: DaemonConfig) -> frozenset[Capability]:
    """The rights that it takes."""
    host, places = config.host, (config.node.bind, config.api.tcp, config.names.dns_bind)
    return needed(
        namespaces=config.namespaces.directory is not None,
        low_ports=any(place is not None and 0 < place.port < first_free_port() for place in places),
        legacy_iptables=host.setup and host.masquerade != "none" and takes_raw_sockets(host.masquerade),
    )


def managed_scope(config: DaemonConfig) -> Scope:
    """The services that may be ours."""
    if not config.ipvs.managed:
        raise ConfigurationError(None, "ipvs.managed", "names no network, so nothing could ever be done")
    scope = Scope.networks(*config.ipvs.managed)
    return scope - Scope.networks(*config.ipvs.exclude) if config.ipvs.exclude else scope


def reconciler_options(config: DaemonConfig) -> ReconcilerOptions:
    """How every namespace's table is kept.

    Raises:
        ConfigurationError: No network is managed.
    """
    ipvs = config.ipvs
    return ReconcilerOptions(
        managed=managed_scope(config),
        adopt=ipvs.adopt,
        max_loss_percent=ipvs.max_loss_percent,
        audit_seconds=ipvs.audit_seconds,
        drain_seconds=ipvs.drain_seconds,
        min_interval_seconds=ipvs.min_interval_seconds,
        on_exit=ipvs.on_exit,
    )


def namespaces(config: DaemonConfig, tell: Tell) -> Namespaces | None:
    """What serves other namespaces than the host's own; None where none are asked for."""
    if config.namespaces.directory is None:
        return None
    ledgers = config.node.state_directory / "namespaces"
    return Namespaces(config.namespaces.directory, make=partial(_serving, config, tell), ledgers=ledgers, tell=tell)


def _serving(config: DaemonConfig, tell: Tell, place: Place) -> Serving:
    """What keeps that namespace.

    No packet filter is touched in there: connections come from an address of the namespace itself, and it is the way of nobody else. What set-up
    changes is not remembered on disk: it goes with the namespace.
    """
    host = config.host
    own = host_settings(config)
    inside = replace(
        own, announce="none" if own.announce == "none" else "inside", masquerade="none", guard=False, portmap_bypass=False
    )
    setup = HostSetup(inside, netns=place.path) if host.setup else None

    def open_table(scope: Scope, drain: DrainPolicy | None) -> IPVSTable:
        return IPVSTable(scope=scope, drain=drain, netns=place.path)

    kept = reconciler(
        config, tell=tell, name=place.name, host=setup, open_table=open_table, ledger=place.ledger, limiter=place.limiter
    )
    return Serving(kept, setup)


def reconciler(
    config: DaemonConfig,
    *,
    tell: Tell,
    name: str = "",
    host: Any = None,
    synced: Callable[[DesiredState], object] | None = None,
    open_table: OpenTable | None = None,
    ledger: Path | None = None,
    limiter: trio.CapacityLimiter | None = None,
) -> Reconciler:
    """What keeps the table of one namespace: the host's own, unless told otherwise.

    Raises:
        ConfigurationError: No network is managed.
    """
    return Reconciler(
        name,
        open_table=open_table or (lambda scope, drain: IPVSTable(scope=scope, drain=drain)),
        ledger=Ledger(ledger or config.node.state_directory / "ledger.json"),
        options=reconciler_options(config),
        tell=tell,
        host=host,
        synced=synced,
        limiter=limiter,
    )


def api_options(config: DaemonConfig) -> ApiOptions:
    """How the API is reached.

    Raises:
        ConfigurationError: It would be open to others.
    """
    api = config.api
    return ApiOptions(
        socket=api.socket,
        group=api.group if _is_group(api.group) else "",
        tcp=api.tcp,
        token_file=api.token_file,
        certificate=api.cert,
        key=api.key,
        client_ca=api.client_ca,
        hosts=api.hosts,
        metrics_labels=api.metrics_labels,
    )


def _is_group(name: str) -> bool:
    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True


def outcomes_of(reading: OutcomesReading) -> dict[tuple[ServiceKey, BackendKey], OutcomesOf]:
    """What became of connections, as the API shows it."""
    return {
        key: OutcomesOf(
            one.opened,
            one.failed,
            None if one.latency is None else Buckets(one.latency.bounds, one.latency.counts, one.latency.sum),
            one.latency_seconds,
        )
        for key, one in reading.backends.items()
    }
