"""What settings mean together: what cannot work, or would be open to others, is refused; what is odd is told. Pure.

Of one setting alone, its reader sees to it (:mod:`pyminuteman.daemon.config_document`); of the files that settings name,
:mod:`pyminuteman.daemon.config_secrets`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from pyminuteman.addresses import IPV4, Endpoint, parse_address
from pyminuteman.daemon.config import APIConfig, DaemonConfig, EtcdConfig, HostConfig, SourceConfig, StoreConfig
from pyminuteman.errors import ConfigurationError
from pyminuteman.membership.own_record import checked_tags
from pyminuteman.plain.fields import Invalid, Place, closest, short
from pyminuteman.sources.options import parse_source
from pyminuteman.vips.allocation import AddressRange
from pyminuteman.vips.policy import ANYBODY, Rule

__all__ = ["Remark", "check", "is_loopback", "networks_of", "remarks"]

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_ANYWHERE: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 - to be told apart
_PASSWORD: Final = re.compile(r"//[^/?#@\s]*:[^/?#@\s]+@")


class Remark(NamedTuple):
    """What is odd, and yet no error."""

    key: str
    text: str

    def __str__(self) -> str:
        """``KEY: TEXT``."""
        return f"{self.key}: {self.text}"


def check(config: DaemonConfig) -> None:
    """Look at settings together.

    Raises:
        Invalid: They cannot be meant so; the place is that of the one that is to be changed, most likely.
    """
    _check_node(config)
    _check_store(config.store)
    _check_sources(config)
    _check_api(config.api)
    _check_ports(config)
    _check_networks(config)


def remarks(config: DaemonConfig) -> tuple[Remark, ...]:
    """What is odd, in no order that matters."""
    about = (_about_cluster, _about_names, _about_managed, _about_rules, _about_what_is_idle)
    return tuple(remark for one in about for remark in one(config))


def is_loopback(address: str) -> bool:
    """Whether only this host can reach it."""
    return ipaddress.ip_address(address).is_loopback


# -- what is refused -----------------------------------------------------------------------------------------------------


def _check_node(config: DaemonConfig) -> None:
    node, cluster = config.node, config.cluster
    if cluster.insecure and cluster.key_file is not None:
        raise Invalid(("cluster", "insecure"), "insecure does not go with key_file: a cluster has a key, or does without")
    for key, at in (("bind", node.bind), ("advertise", node.advertise)):
        if at is not None and not is_loopback(at.address) and cluster.key_file is None and not cluster.insecure:
            raise Invalid(
                ("node", key),
                f"{key} {at} can be reached by others, and there is no key: say cluster.key_file (`minuteman keys generate` makes one), "
                "or cluster.insecure = true and mean it",
            )
    if node.advertise is not None:
        if node.advertise.address in _ANYWHERE or node.advertise.port == 0:
            raise Invalid(("node", "advertise"), f"advertise {node.advertise} is nowhere that others could reach")
        if parse_address(node.advertise.address)[0] != parse_address(node.bind.address)[0]:
            raise Invalid(
                ("node", "advertise"), f"advertise {node.advertise} is of another address family than bind {node.bind}"
            )
    try:
        checked_tags(dict(node.tags), node.membership.tags_max_bytes)
    except ConfigurationError as error:
        raise Invalid(("node", "tags"), f"{error.key}: {error.reason}") from None


def _check_store(store: StoreConfig) -> None:
    _check_pair(store.etcd, ("store", "etcd"))
    if store.engine == "etcd" and not store.etcd.endpoints:
        raise Invalid(("store", "engine"), 'engine "etcd" needs store.etcd.endpoints, such as ["http://10.0.0.1:2379"]')


def _check_sources(config: DaemonConfig) -> None:
    first: dict[str, int] = {}
    for index, source in enumerate(config.sources):
        if source.name in first:
            raise Invalid(
                ("source", index, "name"),
                f"name {source.name!r} is that of another source, the {first[source.name] + 1}. of all",
            )
        first[source.name] = index
        _check_place(source, ("source", index, "place"), config.api)


def _check_place(source: SourceConfig, place: Place, api: APIConfig) -> None:
    if source.place.startswith("push:"):
        if not source.is_pushed:
            raise Invalid(
                place, f"place is push: with nothing behind it; what it is sent goes to PUT /v1/sources/{source.name}"
            )
        if api.socket is None and api.tcp is None:
            raise Invalid(place, "nothing can be sent to this source: the API has neither api.socket nor api.tcp")
        return
    try:
        parse_source(source.place)
    except ConfigurationError as error:
        raise Invalid(place, ": ".join(filter(None, (error.key, error.reason)))) from None


def _check_api(api: APIConfig) -> None:
    _check_pair(api, ("api",))
    if api.client_ca is not None and api.cert is None:
        raise Invalid(("api", "client_ca"), "client_ca needs cert and key: clients show certificates by TLS only")
    if api.tcp is None:
        return
    if api.token_file is None and api.client_ca is None:
        raise Invalid(("api", "tcp"), "tcp needs token_file or client_ca: whoever connects could command the node")
    if api.cert is None and not is_loopback(api.tcp.address):
        raise Invalid(("api", "tcp"), f"tcp {api.tcp} can be reached by others: it needs cert and key, for TLS")


def _check_pair(config: EtcdConfig | APIConfig, place: Place) -> None:
    if (config.cert is None) != (config.key is None):
        given, missing = ("key", "cert") if config.cert is None else ("cert", "key")
        raise Invalid((*place, given), f"{given} does not go without {missing}")


def _check_ports(config: DaemonConfig) -> None:
    """No two listen at one place: all of them speak TCP."""
    taken: list[tuple[str, Endpoint]] = []
    for key, at in (("node.bind", config.node.bind), ("api.tcp", config.api.tcp), ("names.dns_bind", config.names.dns_bind)):
        if at is None or at.port == 0:
            continue
        for other, there in taken:
            if at.port == there.port and (at.address == there.address or not _ANYWHERE.isdisjoint({at.address, there.address})):
                raise Invalid(tuple(key.split(".")), f"{key} {at} is taken: {other} is {there}")
        taken.append((key, at))


def _check_networks(config: DaemonConfig) -> None:
    ours = [_network(address) for address in _own_addresses(config)]
    for key, addresses in (("ipv4_range", config.names.ipv4_range), ("ipv6_range", config.names.ipv6_range)):
        for own in ours:
            if addresses is not None and addresses.slot(str(own.network_address)) is not None:
                raise Invalid(("names", key), f"{key} holds {own.network_address}, which is an address of this node")
    for index, rule in enumerate(config.policy.rules):
        for at, text in enumerate(rule.vip_networks.texts):
            for own in ours:
                address = str(own.network_address)
                if _is_within(own, [_network(text)]) and address not in config.policy.denied:
                    raise Invalid(
                        ("policy", "rule", index, "vip_networks", at),
                        f"{text} holds {address}, which is an address of this node: choose another, or have policy.denied name the hosts' network",
                    )
    excluded = [_network(text) for text in config.ipvs.exclude]
    if config.ipvs.managed and all(_is_within(_network(text), excluded) for text in config.ipvs.managed):
        raise Invalid(("ipvs", "exclude"), "all that is managed is excluded, so no service could be ours")


def _own_addresses(config: DaemonConfig) -> Iterator[str]:
    """This node's, as far as it was said."""
    node = config.node
    said = (node.bind, node.advertise, config.api.tcp, config.names.dns_bind)
    yield from dict.fromkeys(
        address
        for address in (*node.addresses, *(at.address for at in said if at is not None))
        if address not in _ANYWHERE and not is_loopback(address)
    )


# -- what is told --------------------------------------------------------------------------------------------------------


def _about_cluster(config: DaemonConfig) -> Iterator[Remark]:
    node, cluster = config.node, config.cluster
    if cluster.insecure:
        yield Remark("cluster.insecure", "whoever can send a datagram here can speak as any member")
    if node.profile == "local" and not is_loopback(node.bind.address):
        yield Remark("node.profile", '"local" is for trying many nodes on one machine, and slower than "lan"')
    for index, source in enumerate(config.sources):
        if _PASSWORD.search(source.place):
            yield Remark(
                f"source[{index}].place", "a password in a URL can be read by whoever reads this file; there is token-file"
            )
    if not config.sources:
        yield Remark("source", "there is none: this node serves the VIPs that others tell of, and tells of none")
    if config.api.socket is None and config.api.tcp is None:
        yield Remark("api.socket", "with neither socket nor tcp, nobody can ask this node anything")


def _about_names(config: DaemonConfig) -> Iterator[Remark]:
    managed, excluded = _joined(config.ipvs.managed), _joined(config.ipvs.exclude)
    claimed = [(index, _network(text)) for index, rule in enumerate(config.policy.rules) for text in rule.vip_networks.texts]
    for key, addresses in (("ipv4_range", config.names.ipv4_range), ("ipv6_range", config.names.ipv6_range)):
        networks = [] if addresses is None else [_network(text) for text in networks_of(addresses)]
        if not all(_is_within(network, managed) for network in networks):
            yield Remark(
                "ipvs.managed",
                f"it does not hold all of names.{key}: VIPs there are known, and not served (without managed they are; an empty {key} gives none)",
            )
        if any(_overlap(network, other) for network in networks for other in excluded):
            yield Remark("ipvs.exclude", f"it holds addresses of names.{key}: VIPs there are known, and not served")
        for index in dict.fromkeys(index for index, claim in claimed if any(_overlap(claim, network) for network in networks)):
            yield Remark(
                f"policy.rule[{index}].vip_networks",
                f"it meets names.{key}: a VIP there makes the name move on that had its address",
            )


def _about_managed(config: DaemonConfig) -> Iterator[Remark]:
    managed, excluded = _joined(config.ipvs.managed), _joined(config.ipvs.exclude)
    for index, rule in enumerate(config.policy.rules):
        for text in rule.vip_networks.texts:
            if not _is_within(_network(text), managed):
                yield Remark(
                    f"policy.rule[{index}].vip_networks",
                    f"{text} is not within ipvs.managed: VIPs there are known, and not served",
                )
    for own in map(_network, _own_addresses(config)):
        if _is_within(own, managed) and not _is_within(own, excluded):
            yield Remark(
                "ipvs.managed",
                f"it holds {own.network_address}, an address of this node: services there may be somebody else's; see ipvs.exclude",
            )


def _about_rules(config: DaemonConfig) -> Iterator[Remark]:
    names = [source.name for source in config.sources]
    rules: Sequence[Rule] = config.policy.rules
    for index, rule in enumerate(rules):
        before = next((at for at, earlier in enumerate(rules[:index]) if _covers(earlier, rule)), None)
        if before is not None:
            yield Remark(f"policy.rule[{index}]", f"it never counts: rule[{before}] fits all that it fits, and comes first")
        if rule.source not in {ANYBODY, *names} and (close := closest(rule.source, names)):
            yield Remark(
                f"policy.rule[{index}].source", f"no source here is named {short(rule.source)}; did you mean {close!r}?"
            )


def _covers(earlier: Rule, rule: Rule) -> bool:
    return earlier.source in {ANYBODY, rule.source} and earlier.principal in {ANYBODY, rule.principal}


def _about_what_is_idle(config: DaemonConfig) -> Iterator[Remark]:
    api, host = config.api, config.host
    if api.tcp is None and (api.token_file or api.cert or api.client_ca or api.hosts):
        yield Remark("api.tcp", "it is not there, so token_file, cert, client_ca and hosts are idle")
    if not host.setup:
        idle = [key for key in ("device", "announce", "masquerade") if getattr(host, key) != getattr(_HOST, key)]
        if idle:
            yield Remark("host.setup", f"it is false, so {' and '.join(idle)} {'is' if len(idle) == 1 else 'are'} idle")
    elif host.masquerade != "none" and not host.sysctls:
        yield Remark("host.sysctls", "connections are masqueraded only where net.ipv4.vs.conntrack is 1: see to it yourself")
    elif host.announce == host.masquerade == "none" and not (host.guard or host.portmap_bypass or host.sysctls):
        yield Remark("host.setup", "nothing is left to set up; false says so")
    if config.namespaces.directory is not None:
        yield Remark(
            "namespaces.directory",
            "to enter them takes CAP_SYS_ADMIN: of a service, minuteman.service.d/namespaces.conf grants it",
        )
    if config.ipvs.adopt == "everything":
        yield Remark("ipvs.adopt", "managed services that nobody wants are removed, whosesoever they are; for moving in only")


_HOST: Final = HostConfig()


# -- networks ------------------------------------------------------------------------------------------------------------


def networks_of(addresses: AddressRange) -> Iterator[str]:
    """Those that hold the range; but for its last address, which is not given, and the one behind it, which nobody has, nothing else."""
    kind = ipaddress.IPv4Address if addresses.family == IPV4 else ipaddress.IPv6Address
    low, high = addresses.low, addresses.high
    last = next((end for end in (high + 1, high, high - 1) if _is_network(low, end)), high)
    return map(str, ipaddress.summarize_address_range(kind(low), kind(last)))


def _is_network(low: int, last: int) -> bool:
    size = last - low + 1
    return size & (size - 1) == 0 and low % size == 0


def _network(text: str) -> _Network:
    return ipaddress.ip_network(text)


def _joined(texts: Sequence[str]) -> list[_Network]:
    """Adjacent ones as one."""
    found = [_network(text) for text in texts]
    four = ipaddress.collapse_addresses(one for one in found if isinstance(one, ipaddress.IPv4Network))
    six = ipaddress.collapse_addresses(one for one in found if isinstance(one, ipaddress.IPv6Network))
    return [*four, *six]


def _is_within(inner: _Network, outer: Sequence[_Network]) -> bool:
    return any(_contains(network, inner) for network in outer)


def _contains(outer: _Network, inner: _Network) -> bool:
    return outer.version == inner.version and outer.prefixlen <= inner.prefixlen and inner.network_address in outer


def _overlap(one: _Network, other: _Network) -> bool:
    return _contains(one, other) or _contains(other, one)
