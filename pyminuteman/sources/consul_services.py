"""What a Consul says of its services, and the VIPs that come of it. Pure.

A service becomes a VIP in one of two ways, and the first wins:

- **mapped**: whoever set up the source names the service and describes the VIP (all of its document but the backends);
- **tagged**: its instances carry tags, ``minuteman.vip=tcp://11.0.0.1:80`` or, for a VIP by name, ``minuteman.vip=tcp://web:80``, and
  further ones for its settings. A VIP has those instances for backends that carry its tag, so that a new version of a service can
  take up a new VIP while the old one lives. Who claims it is the service: that is the VIP's principal.

Tags and not meta, because the catalog lists only tags: a VIP must not vanish when none of its instances passes its checks.

1. What is wrong with one instance, tag or service leaves out that alone, and is among the problems.
2. An answer of another form than Consul's is an error, never an empty catalog.
3. The same answers give the same state, in whatever order they list things.

Sources: developer.hashicorp.com/consul/api-docs: catalog, health, features/blocking.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from pyminuteman.addresses import parse_address, parse_endpoint
from pyminuteman.sources.base import SourceError, SourceProblem, SourceState
from pyminuteman.sources.document import parse_vip
from pyminuteman.vips.model import VIP, WEIGHT_MAX, InvalidVIPError, VIPKey

__all__ = [
    "FRAMEWORK",
    "TAG_PREFIX",
    "Instance",
    "assemble",
    "is_claimed",
    "next_index",
    "read_catalog",
    "read_instances",
    "vip_document",
]

TAG_PREFIX: Final = "minuteman."
FRAMEWORK: Final = "consul"
"""The framework of names that tags give."""
_SETTINGS: Final = frozenset({"scheduler", "flags", "persistence", "forward", "drain"})
_INDEX_MAX: Final = 2**64 - 1
_ADDRESS_SIGNS: Final = frozenset("0123456789.:[]")
_ORDER: Final = {"passing": 0, "warning": 1, "critical": 2}


@dataclass(frozen=True, slots=True, order=True)
class Instance:
    """An instance of a service that could take connections.

    Attributes:
        where: Service, node and id, for problems, and for the order.
        weight: As Consul has it for its state; 0 for one that fails its checks.
        agent: Address of its node; empty when that is none.
        tags: Those of ours, without the prefix.
    """

    where: str
    address: str
    port: int
    weight: int
    agent: str
    tags: frozenset[str]


def next_index(asked: int, answered: str | None) -> int:
    """The index to ask with after an answer with this ``X-Consul-Index``; 0: ask without one, which answers at once.

    An index that went back is that of another history (a restored snapshot, a new leader's store); one below 1 would not block.
    """
    if answered is None or not (answered.isascii() and answered.isdigit() and len(answered) <= len(str(_INDEX_MAX))):
        return 0
    index = int(answered)
    return 0 if index < max(asked, 1) else index


def is_claimed(tags: Iterable[str]) -> bool:
    """Whether a service with these tags asks for a VIP."""
    return any(tag.startswith(f"{TAG_PREFIX}vip=") for tag in tags)


def read_catalog(answer: object) -> dict[str, frozenset[str]]:
    """The answer to ``/v1/catalog/services``: services, and the tags that any of their instances carry.

    Raises:
        SourceError: It is none; so below.
    """
    return {name: _tags(tags, f"service {name}") for name, tags in _object(answer, "the catalog").items()}


def read_instances(answer: object) -> tuple[list[Instance], list[SourceProblem]]:
    """The answer to ``/v1/health/service/NAME``: those that could take connections, and what is wrong with others."""
    instances: list[Instance] = []
    problems: list[SourceProblem] = []
    for row in _list(answer, "the answer"):
        fields = _object(row, "an instance")
        service, node = _object(fields.get("Service"), "Service"), _object(fields.get("Node"), "Node")
        where = f"{_text(service, 'Service')} {_text(service, 'ID')} on {_text(node, 'Node')}"
        agent = _text(node, "Address")
        address, port = _text(service, "Address") or agent, service.get("Port")
        if not _is_address(address):
            problems.append(SourceProblem(where, f"address {address!r:.60} is no IP address; register the service with one"))
        elif not isinstance(port, int) or isinstance(port, bool) or not 0 < port <= 65535:  # noqa: PLR2004 - a port
            problems.append(SourceProblem(where, f"it has no port ({port!r:.20}); register the service with one"))
        else:
            tags = _tags(_or(service.get("Tags"), []), where)
            ours = frozenset(tag.removeprefix(TAG_PREFIX) for tag in tags if tag.startswith(TAG_PREFIX))
            weight = _weight(service, _list(_or(fields.get("Checks"), []), "Checks"))
            instances.append(Instance(where, address, port, weight, agent if _is_address(agent) else "", ours))
    return sorted(instances, key=lambda one: (one.where, one.address, one.port)), problems


def vip_document(text: str) -> dict[str, object]:
    """The document of a VIP, without backends, that a tag writes as ``tcp://11.0.0.1:80`` or ``udp://NAME:53``."""
    scheme, _, rest = text.partition("://")
    host, _, port = rest.rpartition(":")
    if not host or _ADDRESS_SIGNS.issuperset(host) or _is_endpoint(rest):
        return {"listen": text}
    number: object = int(port) if port.isascii() and port.isdigit() and len(port) < len("100000") else port
    return {"name": host, "framework": FRAMEWORK, "protocol": scheme, "port": number}


def assemble(
    mapped: Mapping[str, Mapping[str, object]],
    catalog: Mapping[str, Iterable[str]],
    instances: Mapping[str, Sequence[Instance]],
    *,
    with_agents: bool,
) -> SourceState:
    """Everything that a Consul wants.

    Args:
        mapped: Services and the documents of their VIPs, without backends.
        catalog: Services and all their tags, with the prefix.
        instances: Of every service that is mapped or claims a VIP.
        with_agents: Whether a backend is in reach only while its node is.
    """
    vips: dict[VIPKey, VIP] = {}
    owners: dict[VIPKey, str] = {}
    problems: list[SourceProblem] = []

    def claim(service: str, document: Mapping[str, object], backends: Sequence[Instance], principal: str) -> None:
        try:
            vip = _with_backends(document, backends, problems, with_agents=with_agents)
            vip = replace(vip, principal=principal)
        except (SourceError, InvalidVIPError) as error:
            problems.append(SourceProblem(f"service {service}", str(error)))
            return
        if vip.key in owners:
            problems.append(SourceProblem(f"service {service}", f"{vip.key} is that of service {owners[vip.key]} already"))
        else:
            owners[vip.key], vips[vip.key] = service, vip

    for service in sorted(mapped):
        claim(service, mapped[service], instances.get(service, ()), "")
    for service in sorted(catalog.keys() - mapped.keys()):
        ours = {tag.removeprefix(TAG_PREFIX) for tag in catalog[service] if tag.startswith(TAG_PREFIX)}
        settings = _settings(service, ours, instances.get(service, ()), problems)
        for tag in sorted(tag for tag in ours if tag.startswith("vip=")):
            backends = [one for one in instances.get(service, ()) if tag in one.tags]
            claim(service, {**vip_document(tag.removeprefix("vip=")), **settings}, backends, service)
    ordered = tuple(sorted(vips.values(), key=lambda vip: vip.key.sort_key))
    return SourceState(ordered, tuple(sorted(problems, key=lambda one: (one.where, one.reason))))


def _settings(
    service: str, tags: Iterable[str], instances: Sequence[Instance], problems: list[SourceProblem]
) -> dict[str, object]:
    """What the tags say besides the VIP. Where instances disagree, the first of them in their order has it."""
    said: dict[str, list[str]] = {}
    for tag in sorted(tags):
        name, _, value = tag.partition("=")
        if name in _SETTINGS:
            said.setdefault(name, []).append(value)
        elif name != "vip":
            known = ", ".join(sorted(_SETTINGS | {"vip"}))
            problems.append(SourceProblem(f"service {service}", f"unknown tag {TAG_PREFIX + tag!r:.60}; there are {known}"))
    settings: dict[str, object] = {}
    for name, values in said.items():
        chosen = values[0]
        if len(values) > 1:
            by_instance = [tag.partition("=")[2] for one in instances for tag in sorted(one.tags) if tag.startswith(f"{name}=")]
            chosen = next(iter(by_instance), chosen)
            others = ", ".join(value for value in values if value != chosen)
            problems.append(
                SourceProblem(f"service {service}", f"its instances disagree on {name}: {chosen} counts, not {others}")
            )
        settings[name] = _setting(name, chosen)
    return settings


def _setting(name: str, value: str) -> object:
    """As a document has it; what is no number is left for it to refuse."""
    if name == "flags":
        return [flag for flag in value.split(",") if flag]
    if name in {"drain", "persistence"} and value.isascii() and value.isdigit() and len(value) < len("100000000"):
        return int(value) if name == "drain" else {"timeout": int(value)}
    return value


def _with_backends(
    document: Mapping[str, object], backends: Sequence[Instance], problems: list[SourceProblem], *, with_agents: bool
) -> VIP:
    rows: dict[tuple[str, int], dict[str, object]] = {}
    names: dict[tuple[str, int], str] = {}
    for one in backends:
        row = {"address": one.address, "port": one.port, "weight": one.weight}
        if (one.address, one.port) in rows:
            problems.append(SourceProblem(one.where, f"{one.address}:{one.port} is that of another instance already"))
            continue
        names[one.address, one.port] = one.where
        rows[one.address, one.port] = {**row, "agent": one.agent} if with_agents and one.agent else row
    try:
        return parse_vip({**document, "backend": list(rows.values())}, "")
    except SourceError:
        parse_vip(document, "")  # without backends: what is wrong now is wrong with the VIP
    good = []
    for where, row in rows.items():
        try:
            parse_vip({**document, "backend": [row]}, "")
        except SourceError as error:
            problems.append(SourceProblem(names[where], str(error).partition(": ")[2] or str(error)))
        else:
            good.append(row)
    return parse_vip({**document, "backend": good}, "")


def _weight(service: Mapping[str, object], checks: Iterable[object]) -> int:
    """Its weight in the worst state that any of its checks is in; an unknown state is as bad as can be."""
    worst = max((_ORDER.get(_text(_object(check, "a check"), "Status"), 2) for check in checks), default=0)
    if worst == _ORDER["critical"]:
        return 0
    weights = _object(_or(service.get("Weights"), {}), "Weights")
    weight = weights.get("Warning" if worst else "Passing", 1)
    return min(weight, WEIGHT_MAX) if isinstance(weight, int) and not isinstance(weight, bool) and weight >= 0 else 1


def _is_address(text: str) -> bool:
    try:
        parse_address(text)
    except ValueError:
        return False
    return True


def _is_endpoint(text: str) -> bool:
    try:
        parse_endpoint(text)
    except ValueError:
        return False
    return True


def _or(value: object, default: object) -> object:
    """Consul writes null for what is empty."""
    return default if value is None else value


def _object(value: object, what: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise SourceError(f"{what} is no JSON object, as it is in what a Consul answers")
    return value


def _list(value: object, what: str) -> list[object]:
    if not isinstance(value, list):
        raise SourceError(f"{what} is no list, as it is in what a Consul answers")
    return value


def _text(fields: Mapping[str, object], name: str) -> str:
    value = fields.get(name, "")
    if not isinstance(value, str):
        raise SourceError(f"{name} is no text, as it is in what a Consul answers")
    return value


def _tags(value: object, where: str) -> frozenset[str]:
    tags = _list(value, f"tags of {where}")
    if not all(isinstance(tag, str) for tag in tags):
        raise SourceError(f"tags of {where} are no text, as they are in what a Consul answers")
    return frozenset(tag for tag in tags if isinstance(tag, str))
