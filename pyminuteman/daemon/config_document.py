"""Plain data (what TOML holds) to the daemon's configuration; what is wrong is told with its place.

Each key has a reader here, and each of those takes the text of an environment variable as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from typing import Any, Final, TypeVar

from pyminuteman.addresses import IPV4, IPV6
from pyminuteman.daemon.config import (
    API_PORT,
    GOSSIP_PORT,
    METRICS_LABELS,
    APIConfig,
    ClusterConfig,
    DaemonConfig,
    EtcdConfig,
    HealthConfig,
    HostConfig,
    IPVSConfig,
    LogConfig,
    NamesConfig,
    NamespacesConfig,
    NodeConfig,
    SourceConfig,
    StoreConfig,
)
from pyminuteman.daemon.config_checks import check, networks_of
from pyminuteman.daemon.config_readers import (
    Reader,
    address,
    address_range,
    check_text,
    decimal,
    endpoint,
    host_name,
    many,
    network,
    path,
    port_range,
    switch,
    tags,
    text,
    url,
    whole,
    word,
)
from pyminuteman.errors import ConfigurationError
from pyminuteman.kv.store import RANGES as LIMITS
from pyminuteman.kv.store import StoreLimits
from pyminuteman.membership.config import RANGES, MembershipConfig
from pyminuteman.plain.fields import Invalid, Place, as_table, get
from pyminuteman.vips.policy import Networks, Policy, Rule

__all__ = ["KEYS", "managed_of", "read_config", "scalar_keys"]

T = TypeVar("T")

_DAY: Final = 86_400
_YEAR: Final = 31_536_000
_SOURCES_MAX: Final = 1000
_RULES_MAX: Final = 10_000

_CONSTANTS: Final = {name: (low, high) for name, low, high in RANGES}


def _number(default: object, low: float, high: float) -> Reader:
    return whole(int(low), int(high)) if isinstance(default, int) else decimal(low, high)


_HEALTH: Final[Mapping[str, Reader]] = {
    "check": check_text,
    "interval_seconds": decimal(0.05, 3600),
    "timeout_seconds": decimal(0.05, 3600),
    "rise": whole(1, 100),
    "fall": whole(1, 100),
}
KEYS: Final[Mapping[str, Mapping[str, Reader]]] = {
    "node": {
        "name": text(r".{0,64}", "up to 64 bytes of printable text", most_bytes=64),
        "bind": endpoint(GOSSIP_PORT),
        "advertise": endpoint(GOSSIP_PORT, optional=True),
        "addresses": many(address),
        "tags": tags,
        "state_directory": path(),
        "profile": word("lan", "wan", "local"),
        "realtime": switch,
    },
    "membership": {
        field.name: _number(field.default, *_CONSTANTS.get(field.name, (0, _YEAR))) for field in fields(MembershipConfig)
    },
    "cluster": {
        "name": text(r".{1,64}", "1 to 64 bytes of printable text", most_bytes=64),
        "contacts": many(endpoint(GOSSIP_PORT)),
        "key_file": path(optional=True),
        "insecure": switch,
    },
    "store": {"engine": word("gossip", "etcd"), "lease_seconds": decimal(0, _DAY)},
    "store.etcd": {
        "endpoints": many(url),
        "prefix": text(r"(?=/*[^/])[!-~]{1,255}", "a prefix such as /minuteman/store/"),
        "ca": path(optional=True),
        "cert": path(optional=True),
        "key": path(optional=True),
        "token_file": path(optional=True),
    },
    "store.limits": {
        field.name: _number(field.default, *LIMITS[field.name])
        for field in fields(StoreLimits)
        if field.name != "lease_seconds"  # that is store.lease_seconds
    },
    "source": {
        "name": text(
            r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", "1 to 64 letters, digits, dots, dashes and underscores, a letter or digit first"
        ),
        "place": text(r".{1,8192}", "KIND:PLACE, such as file:/etc/minuteman/vips.d"),
        "publish": word("all", "own", "none"),
        "on_silence": word("keep", "withdraw"),
        "silence_seconds": decimal(1, _YEAR),
    },
    "source.health": _HEALTH,
    "policy": {"denied": many(network), "guarded_ports": many(whole(1, 65535))},
    "policy.rule": {
        "source": text(r".{1,255}", "the name of a source, or *"),
        "principal": text(r".{0,255}", "a principal, or *"),
        "vip_networks": many(network),
        "names": switch,
        "ports": many(port_range),
        "backend_networks": many(network),
    },
    "names": {
        "ipv4_range": address_range(IPV4),
        "ipv6_range": address_range(IPV6),
        "zone": host_name,
        "dns_bind": endpoint(53, optional=True),
    },
    "ipvs": {
        "managed": many(network),
        "exclude": many(network),
        "adopt": word("no", "desired", "everything"),
        "max_loss_percent": decimal(0, 100),
        "audit_seconds": decimal(1, _DAY),
        "drain_seconds": decimal(0, _DAY),
        "on_exit": word("keep", "drain", "flush"),
        "min_interval_seconds": decimal(0, 60),
    },
    "health": {**_HEALTH, "concurrency": whole(1, 10_000)},
    "host": {
        "setup": switch,
        "device": text(
            r"(?!\.{1,2}$)[!-.0-9;-~]{1,15}", "the name of a network device: 1 to 15 characters without blanks, / and :"
        ),
        "announce": word("address", "route", "none"),
        "masquerade": word("auto", "nft", "iptables", "none"),
        "guard": switch,
        "portmap_bypass": switch,
        "sysctls": switch,
    },
    "namespaces": {"directory": path(optional=True)},
    "api": {
        "socket": path(optional=True),
        "group": text(r"[A-Za-z0-9_.$-]{0,32}", "the name of a group"),
        "tcp": endpoint(API_PORT, optional=True),
        "token_file": path(optional=True),
        "cert": path(optional=True),
        "key": path(optional=True),
        "client_ca": path(optional=True),
        "hosts": many(host_name),
        "metrics_labels": many(word(*METRICS_LABELS)),
    },
    "log": {"level": word("debug", "info", "warning", "error"), "format": word("auto", "text", "json", "journal")},
}
"""The keys of each kind of table, with their readers; ``source`` and ``policy.rule`` are those of one element."""

_INNER: Final = {"store": ("etcd", "limits"), "source": ("health",), "policy": ("rule",)}
_SECTIONS: Final = tuple(name for name in KEYS if "." not in name)


def scalar_keys() -> dict[str, Reader]:
    """What can be said outside a file: dotted keys, without those of lists of tables."""
    return {
        f"{section}.{key}": reader
        for section, readers in KEYS.items()
        if not section.startswith(("source", "policy.rule"))
        for key, reader in readers.items()
    }


def read_config(document: object) -> DaemonConfig:
    """What a document says.

    Raises:
        Invalid: It does not say what it must.
    """
    top = as_table(document, (), _SECTIONS)
    health = _section(HealthConfig, "health", top)
    config = DaemonConfig(
        node=_node(top),
        cluster=_section(ClusterConfig, "cluster", top),
        store=_store(top),
        sources=tuple(_source(row, place, health) for row, place in _rows(top, "source", (), _SOURCES_MAX)),
        policy=_policy(top),
        names=_section(NamesConfig, "names", top),
        ipvs=_section(IPVSConfig, "ipvs", top),
        health=health,
        host=_section(HostConfig, "host", top),
        namespaces=_section(NamespacesConfig, "namespaces", top),
        api=_section(APIConfig, "api", top),
        log=_section(LogConfig, "log", top),
    )
    if not config.ipvs.managed:
        if "managed" in top.get("ipvs", {}):
            raise Invalid(
                ("ipvs", "managed"), "managed is empty, so no service could be ours; leave it out for what names and policy say"
            )
        managed = managed_of(config)
        if not managed:
            raise Invalid(
                ("ipvs", "managed"), "neither [names] nor the policy's vip_networks say where a VIP could be, nor does managed"
            )
        config = replace(config, ipvs=replace(config.ipvs, managed=managed))
    check(config)
    return config


def _table(top: Mapping[str, Any], place: Place, kind: str) -> Mapping[str, Any]:
    """The table at the place's end, with known keys only; empty when it is not there."""
    return as_table(top.get(str(place[-1]), {}), place, [*KEYS[kind], *_INNER.get(kind, ())])


def _values(table: Mapping[str, Any], place: Place, kind: str) -> dict[str, Any]:
    return {key: reader.read(table[key], (*place, key)) for key, reader in KEYS[kind].items() if key in table}


def _section(kind: type[T], name: str, top: Mapping[str, Any]) -> T:
    return kind(**_values(_table(top, (name,), name), (name,), name))


def _rows(table: Mapping[str, Any], name: str, base: Place, most: int) -> Iterator[tuple[Mapping[str, Any], Place]]:
    place: Place = (*base, name)
    kind = ".".join(map(str, place))
    rows = get(table, name, base, list, [])
    if len(rows) > most:
        raise Invalid(place, f"there are {len(rows)}; there can be {most}")
    for index, row in enumerate(rows):
        yield as_table(row, (*place, index), [*KEYS[kind], *_INNER.get(kind, ())]), (*place, index)


def _node(top: Mapping[str, Any]) -> NodeConfig:
    node = _section(NodeConfig, "node", top)
    profile = MembershipConfig.profile(node.profile)
    said = _values(_table(top, ("membership",), "membership"), ("membership",), "membership")
    overrides = tuple(sorted((name, value) for name, value in said.items() if value != getattr(profile, name)))
    node = replace(node, membership_overrides=overrides)
    try:
        node.membership  # noqa: B018 - it checks them
    except ConfigurationError as error:
        raise Invalid(("membership", error.key), f"{error.key} {error.reason}") from None
    return node


def _store(top: Mapping[str, Any]) -> StoreConfig:
    table = _table(top, ("store",), "store")
    place: Place = ("store", "limits")
    limits = table.get("limits")
    if isinstance(limits, dict) and "lease_seconds" in limits:
        raise Invalid((*place, "lease_seconds"), "lease_seconds is said in [store] itself")
    made = StoreLimits(**_values(_table(table, place, "store.limits"), place, "store.limits"))
    etcd = EtcdConfig(**_values(_table(table, ("store", "etcd"), "store.etcd"), ("store", "etcd"), "store.etcd"))
    return StoreConfig(**_values(table, ("store",), "store"), etcd=etcd, limits=made)


def _source(row: Mapping[str, Any], place: Place, general: HealthConfig) -> SourceConfig:
    for key in ("name", "place"):
        get(row, key, place, str)
    health = None
    if "health" in row:
        within: Place = (*place, "health")
        health = replace(general, **_values(_table(row, within, "source.health"), within, "source.health"))
    return SourceConfig(**_values(row, place, "source"), health=health)


def _policy(top: Mapping[str, Any]) -> Policy:
    table = _table(top, ("policy",), "policy")
    values = _values(table, ("policy",), "policy")
    if "denied" in values:
        values["denied"] = Networks(*values["denied"])
    if "guarded_ports" in values:
        values["guarded_ports"] = frozenset(values["guarded_ports"])
    rules = []
    for row, place in _rows(table, "rule", ("policy",), _RULES_MAX):
        rule = _values(row, place, "policy.rule")
        rule |= {key: Networks(*rule[key]) for key in ("vip_networks", "backend_networks") if key in rule}
        rules.append(Rule(**rule))
    if "rule" in table:
        values["rules"] = tuple(rules)
    return Policy(**values)


def managed_of(config: DaemonConfig) -> tuple[str, ...]:
    """``ipvs.managed`` where it is not said: where services can come to be, at the addresses of names, and where rules let VIPs be."""
    found: dict[str, None] = {}
    for addresses in config.names.ranges:
        found |= dict.fromkeys(networks_of(addresses))
    for rule in config.policy.rules:
        found |= dict.fromkeys(rule.vip_networks.texts)
    return tuple(found)
