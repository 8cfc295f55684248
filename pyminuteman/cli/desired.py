"""Services and destinations to plain data (what JSON and TOML hold) and back. Pure.

The format is described in docs/desired-state.md and desired.schema.json. What the kernel can hold, it can say; and what
:func:`to_plain` makes, :func:`from_plain` takes again. ``statistics`` and ``kernel`` are for readers only: input passes over
them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pyminuteman.addresses import IPV4, IPV6
from pyminuteman.ipvs import (
    WEIGHT_MAX,
    Destination,
    ForwardingMethod,
    IPVSError,
    Protocol,
    Service,
    ServiceKey,
    Tunnel,
    TunnelFlags,
    TunnelType,
)
from pyminuteman.plain.fields import Invalid, Place, as_table, choice, get, number
from pyminuteman.plain.ipvs_words import (
    FORWARDS,
    PERSISTENCE_KEYS,
    PROTOCOLS,
    flag_names,
    plain_persistence,
    read_flags,
    read_persistence,
)

__all__ = ["KEYS", "DesiredTable", "from_plain", "to_plain"]

KEYS: Final[Mapping[str, frozenset[str]]] = {
    "": frozenset({"version", "scope", "service", "kernel"}),
    "scope": frozenset({"networks", "fwmarks", "everything"}),
    "service": frozenset(
        {
            *("protocol", "address", "port", "fwmark", "family", "scheduler"),
            *("flags", "persistence", "engine", "destination", "statistics"),
        }
    ),
    "persistence": PERSISTENCE_KEYS,
    "destination": frozenset(
        {
            *("address", "port", "weight", "forward", "upper_threshold", "lower_threshold", "tunnel", "statistics"),
        }
    ),
    "tunnel": frozenset({"type", "port", "checksum"}),
}
"""The keys of each kind of table; no others are taken."""

_CHECKSUMS: Final = {
    "none": TunnelFlags.NONE,
    "sum": TunnelFlags.CHECKSUM,
    "remote": TunnelFlags.REMOTE_CHECKSUM,
}
_FAMILIES: Final = {"ipv4": IPV4, "ipv6": IPV6}
_PORTS: Final = (0, 65535)
_U32_MAX: Final = 2**32 - 1


@dataclass(frozen=True)
class DesiredTable:
    """What a file says."""

    services: Mapping[Service, tuple[Destination, ...]]
    scope: tuple[str, ...] = ()
    """In the words of ``--scope``; empty when the file says nothing of it."""


def to_plain(services: Iterable[tuple[Service, Collection[Destination]]]) -> Iterator[dict[str, Any]]:
    """The elements of ``service``. Keys are always the same ones, whatever the service: absent things are None."""
    return (_plain_service(service, destinations) for service, destinations in services)


def _plain_service(service: Service, destinations: Collection[Destination]) -> dict[str, Any]:
    key, persistence = service.key, service.persistence
    plain: dict[str, Any] = {}
    if key.mark:
        plain |= {"fwmark": key.mark, "family": "ipv6" if key.family == IPV6 else "ipv4"}
    else:
        name = key.protocol.name.lower() if isinstance(key.protocol, Protocol) else str(key.protocol)
        plain |= {"protocol": name, "address": key.address, "port": key.port}
    return plain | {
        "scheduler": service.scheduler,
        "flags": flag_names(service.scheduler, service.flags),
        "persistence": plain_persistence(persistence),
        "engine": service.persistence_engine or None,
        "destination": [_plain_destination(destination) for destination in destinations],
    }


def _plain_destination(destination: Destination) -> dict[str, Any]:
    tunnel, method = destination.tunnel, destination.forward
    plain_tunnel = None
    if tunnel:
        checksum = next((name for name, flags in _CHECKSUMS.items() if flags == tunnel.flags), "none")
        plain_tunnel = {"type": TunnelType(tunnel.type).name.lower(), "port": tunnel.port or None, "checksum": checksum}
    return {
        "address": destination.address,
        "port": destination.port,
        "weight": destination.weight,
        "forward": method.name.lower() if isinstance(method, ForwardingMethod) else method,
        "upper_threshold": destination.upper_threshold,
        "lower_threshold": destination.lower_threshold,
        "tunnel": plain_tunnel,
    }


def from_plain(data: object) -> DesiredTable:
    """Read what a JSON or TOML file holds.

    Raises:
        Invalid: It does not say what it must.
    """
    table = as_table(data, (), KEYS[""])
    if get(table, "version", (), int, 1) != 1:
        raise Invalid(("version",), f"version {table['version']} is not known here; this reads version 1")
    services: dict[Service, tuple[Destination, ...]] = {}
    first: dict[ServiceKey, int] = {}
    for index, item in enumerate(get(table, "service", (), list, [])):
        place: Place = ("service", index)
        row = as_table(item, place, KEYS["service"])
        service = _service(row, place)
        if service.key in first:
            raise Invalid(place, f"{service.key} is described twice, first as service[{first[service.key]}]")
        first[service.key] = index
        services[service] = _destinations(row, service.key, place)
    return DesiredTable(services, _scope(table))


def _service(row: Mapping[str, Any], place: Place) -> Service:
    scheduler = get(row, "scheduler", place, str, "wlc")
    key = _key(row, place)
    try:
        engine = get(row, "engine", place, str, "")
        return Service(key, scheduler, read_flags(row, place, scheduler), read_persistence(row, place), engine)
    except IPVSError as error:
        raise Invalid(place, str(error)) from None


def _key(row: Mapping[str, Any], place: Place) -> ServiceKey:
    try:
        if row.get("fwmark") is not None:
            for name in ("protocol", "address", "port"):
                if row.get(name) is not None:
                    raise Invalid((*place, name), f"a service by fwmark has no {name}")
            mark = number(row, "fwmark", place, (1, _U32_MAX))
            return ServiceKey.fwmark(mark, choice(row, "family", place, _FAMILIES, "ipv4"))
        if row.get("family") is not None:
            raise Invalid((*place, "family"), "family goes with fwmark; the address tells that of other services")
        protocol = choice(row, "protocol", place, PROTOCOLS)
        address = get(row, "address", place, str)
        port = number(row, "port", place, _PORTS)
        return ServiceKey(protocol, address, port)
    except IPVSError as error:
        raise Invalid((*place, "address"), str(error)) from None


def _destinations(row: Mapping[str, Any], key: ServiceKey, place: Place) -> tuple[Destination, ...]:
    found: dict[bytes, Destination] = {}
    for index, item in enumerate(get(row, "destination", place, list, [])):
        here: Place = (*place, "destination", index)
        destination = _destination(as_table(item, here, KEYS["destination"]), here, key.port)
        if destination.key in found:
            raise Invalid(here, f"{key} has destination {destination} twice")
        if destination.family != key.family and destination.forward != ForwardingMethod.TUNNEL:
            raise Invalid(here, f"{key} reaches {destination}, of the other address family, only by a tunnel")
        found[destination.key] = destination
    return tuple(found.values())


def _destination(row: Mapping[str, Any], place: Place, port: int) -> Destination:
    tunnel = None
    try:
        if row.get("tunnel") is not None:
            inner: Place = (*place, "tunnel")
            rest = as_table(row["tunnel"], inner, KEYS["tunnel"])
            kind = choice(rest, "type", inner, {kind.name.lower(): kind for kind in TunnelType}, "ipip")
            flags = choice(rest, "checksum", inner, _CHECKSUMS, "none")
            tunnel = Tunnel(kind, number(rest, "port", inner, _PORTS, 0), flags)
        return Destination(
            get(row, "address", place, str),
            number(row, "port", place, _PORTS, port),
            number(row, "weight", place, (0, WEIGHT_MAX), 1),
            choice(row, "forward", place, FORWARDS, "masquerade"),
            number(row, "upper_threshold", place, (0, _U32_MAX), 0),
            number(row, "lower_threshold", place, (0, _U32_MAX), 0),
            tunnel,
        )
    except IPVSError as error:
        raise Invalid(place, str(error)) from None


def _scope(table: Mapping[str, Any]) -> tuple[str, ...]:
    if table.get("scope") is None:
        return ()
    place: Place = ("scope",)
    scope = as_table(table["scope"], place, KEYS["scope"])
    words: list[str] = []
    for at, network in enumerate(get(scope, "networks", place, list, [])):
        if not isinstance(network, str):
            raise Invalid((*place, "networks", at), f"network {network!r} is not a string")
        words.append(network)
    for at, mark in enumerate(get(scope, "fwmarks", place, list, [])):
        if isinstance(mark, bool) or not isinstance(mark, int | str):
            raise Invalid((*place, "fwmarks", at), f'fwmark {mark!r} is neither a number nor a range as in "1-9"')
        words.append(f"fwmark:{mark}")
    if get(scope, "everything", place, bool, default=False):
        words.append("everything")
    if not words:
        raise Invalid(place, "the scope is empty: give it networks, fwmarks or everything = true, or leave it out")
    return tuple(words)
