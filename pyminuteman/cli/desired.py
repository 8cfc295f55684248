"""Services and destinations to plain data (what JSON and TOML hold) and back. Pure.

The format is described in docs/desired-state.md and desired.schema.json. What the kernel can hold, it can say; and what
:func:`to_plain` makes, :func:`from_plain` takes again. ``statistics`` and ``kernel`` are for readers only: input passes over
them.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pyminuteman.addresses import IPV4, IPV6
from pyminuteman.ipvs import (
    WEIGHT_MAX,
    Destination,
    ForwardingMethod,
    IPVSError,
    Persistence,
    Protocol,
    Service,
    ServiceFlags,
    ServiceKey,
    Tunnel,
    TunnelFlags,
    TunnelType,
)

__all__ = ["KEYS", "DesiredTable", "Invalid", "Place", "flag_names", "from_plain", "place_text", "to_plain"]

Place = tuple[str | int, ...]
"""Where in the data: keys and indices, from the top."""

KEYS: Final[Mapping[str, frozenset[str]]] = {
    "": frozenset({"version", "scope", "service", "kernel"}),
    "scope": frozenset({"networks", "fwmarks", "everything"}),
    "service": frozenset(
        {
            *("protocol", "address", "port", "fwmark", "family", "scheduler"),
            *("flags", "persistence", "engine", "destination", "statistics"),
        }
    ),
    "persistence": frozenset({"timeout", "netmask"}),
    "destination": frozenset(
        {
            *("address", "port", "weight", "forward", "upper_threshold", "lower_threshold", "tunnel", "statistics"),
        }
    ),
    "tunnel": frozenset({"type", "port", "checksum"}),
}
"""The keys of each kind of table; no others are taken."""

_FORWARDS: Final = {method.name.lower(): method for method in ForwardingMethod}
_CHECKSUMS: Final = {
    "none": TunnelFlags.NONE,
    "sum": TunnelFlags.CHECKSUM,
    "remote": TunnelFlags.REMOTE_CHECKSUM,
}
_FAMILIES: Final = {"ipv4": IPV4, "ipv6": IPV6}
_ONE_PACKET: Final = "ops"
_PORTS: Final = (0, 65535)
_U32_MAX: Final = 2**32 - 1
_MISSING: Final = object()
_TYPES: Final = {str: "a string", int: "a whole number", bool: "true or false", list: "a list", dict: "a table"}


class Invalid(ValueError):
    """The data does not say what it must, at ``place``."""

    def __init__(self, place: Place, reason: str) -> None:
        """Keep both."""
        super().__init__(place, reason)
        self.place = place
        self.reason = reason


@dataclass(frozen=True)
class DesiredTable:
    """What a file says."""

    services: Mapping[Service, tuple[Destination, ...]]
    scope: tuple[str, ...] = ()
    """In the words of ``--scope``; empty when the file says nothing of it."""


def place_text(place: Place) -> str:
    """``service[1].destination[0].weight``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")


def flag_names(service: Service) -> list[str]:
    """``["ops", "mh-port"]``: every flag, unlike ipvsadm's listing, which leaves out a third one of ``sh`` and ``mh``."""
    return [name for name, flag in _flags_of(service.scheduler).items() if service.flags & flag]


def _flags_of(scheduler: str) -> dict[str, ServiceFlags]:
    first, second = ("flag-1", "flag-2")
    if scheduler in {"sh", "mh"}:
        first, second = f"{scheduler}-fallback", f"{scheduler}-port"
    return {
        _ONE_PACKET: ServiceFlags.ONE_PACKET,
        first: ServiceFlags.SCHEDULER_1,
        second: ServiceFlags.SCHEDULER_2,
        "flag-3": ServiceFlags.SCHEDULER_3,
    }


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
        "flags": flag_names(service),
        "persistence": {"timeout": persistence.timeout_seconds, "netmask": persistence.netmask or None}
        if persistence
        else None,
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
    table = _table(data, (), "")
    if _get(table, "version", (), int, 1) != 1:
        raise Invalid(("version",), f"version {table['version']} is not known here; this reads version 1")
    services: dict[Service, tuple[Destination, ...]] = {}
    first: dict[ServiceKey, int] = {}
    for index, item in enumerate(_get(table, "service", (), list, [])):
        place: Place = ("service", index)
        row = _table(item, place, "service")
        service = _service(row, place)
        if service.key in first:
            raise Invalid(place, f"{service.key} is described twice, first as service[{first[service.key]}]")
        first[service.key] = index
        services[service] = _destinations(row, service.key, place)
    return DesiredTable(services, _scope(table))


def _service(row: Mapping[str, Any], place: Place) -> Service:
    scheduler = _get(row, "scheduler", place, str, "wlc")
    persistence = None
    if row.get("persistence") is not None:
        inner: Place = (*place, "persistence")
        rest = _table(row["persistence"], inner, "persistence")
        netmask = rest.get("netmask")
        if isinstance(netmask, int) and not isinstance(netmask, bool):
            netmask = str(netmask)  # a prefix length needs no quotes
        netmask = _get({"netmask": netmask}, "netmask", inner, str, "")
        persistence = Persistence(_number(rest, "timeout", inner, (1, 31 * 86400), 360), netmask)
    key = _key(row, place)
    flags = ServiceFlags.NONE
    known = _flags_of(scheduler)
    for at, name in enumerate(_get(row, "flags", place, list, [])):
        if name not in known:
            raise Invalid((*place, "flags", at), f"flag {name!r} is none of those of scheduler {scheduler}: {', '.join(known)}")
        flags |= known[name]
    try:
        return Service(key, scheduler, flags, persistence, _get(row, "engine", place, str, ""))
    except IPVSError as error:
        raise Invalid(place, str(error)) from None


def _key(row: Mapping[str, Any], place: Place) -> ServiceKey:
    try:
        if row.get("fwmark") is not None:
            for name in ("protocol", "address", "port"):
                if row.get(name) is not None:
                    raise Invalid((*place, name), f"a service by fwmark has no {name}")
            mark = _number(row, "fwmark", place, (1, _U32_MAX))
            return ServiceKey.fwmark(mark, _choice(row, "family", place, _FAMILIES, "ipv4"))
        if row.get("family") is not None:
            raise Invalid((*place, "family"), "family goes with fwmark; the address tells that of other services")
        protocol = _choice(row, "protocol", place, {kind.name.lower(): kind for kind in Protocol})
        address = _get(row, "address", place, str)
        port = _number(row, "port", place, _PORTS)
        return ServiceKey(protocol, address, port)
    except IPVSError as error:
        raise Invalid((*place, "address"), str(error)) from None


def _destinations(row: Mapping[str, Any], key: ServiceKey, place: Place) -> tuple[Destination, ...]:
    found: dict[bytes, Destination] = {}
    for index, item in enumerate(_get(row, "destination", place, list, [])):
        here: Place = (*place, "destination", index)
        destination = _destination(_table(item, here, "destination"), here, key.port)
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
            rest = _table(row["tunnel"], inner, "tunnel")
            kind = _choice(rest, "type", inner, {kind.name.lower(): kind for kind in TunnelType}, "ipip")
            flags = _choice(rest, "checksum", inner, _CHECKSUMS, "none")
            tunnel = Tunnel(kind, _number(rest, "port", inner, _PORTS, 0), flags)
        return Destination(
            _get(row, "address", place, str),
            _number(row, "port", place, _PORTS, port),
            _number(row, "weight", place, (0, WEIGHT_MAX), 1),
            _choice(row, "forward", place, _FORWARDS, "masquerade"),
            _number(row, "upper_threshold", place, (0, _U32_MAX), 0),
            _number(row, "lower_threshold", place, (0, _U32_MAX), 0),
            tunnel,
        )
    except IPVSError as error:
        raise Invalid(place, str(error)) from None


def _scope(table: Mapping[str, Any]) -> tuple[str, ...]:
    if table.get("scope") is None:
        return ()
    place: Place = ("scope",)
    scope = _table(table["scope"], place, "scope")
    words: list[str] = []
    for at, network in enumerate(_get(scope, "networks", place, list, [])):
        if not isinstance(network, str):
            raise Invalid((*place, "networks", at), f"network {network!r} is not a string")
        words.append(network)
    for at, mark in enumerate(_get(scope, "fwmarks", place, list, [])):
        if isinstance(mark, bool) or not isinstance(mark, int | str):
            raise Invalid((*place, "fwmarks", at), f'fwmark {mark!r} is neither a number nor a range as in "1-9"')
        words.append(f"fwmark:{mark}")
    if _get(scope, "everything", place, bool, default=False):
        words.append("everything")
    if not words:
        raise Invalid(place, "the scope is empty: give it networks, fwmarks or everything = true, or leave it out")
    return tuple(words)


def _table(value: object, place: Place, kind: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        what = place_text(place) or "the file"
        raise Invalid(place, f"{what} is {_kind(value)}; expected a table")
    for key in value.keys() - KEYS[kind] if not value.keys() <= KEYS[kind] else ():
        close = _closest(str(key), KEYS[kind])
        hint = f"did you mean {close!r}?" if close else f"there are {', '.join(sorted(KEYS[kind]))}"
        raise Invalid((*place, key), f"unknown key {key!r}; {hint}")
    return value


def _kind(value: object) -> str:
    return next((text for kind, text in _TYPES.items() if type(value) is kind), "something else")


def _get(row: Mapping[str, Any], name: str, place: Place, kind: type, default: Any = _MISSING) -> Any:
    """The value; null is as good as absent."""
    value = row.get(name)
    if value is None:
        if default is _MISSING:
            raise Invalid(place, f"{name} is missing")
        return default
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise Invalid((*place, name), f"{name} {_short(value)} is not {_TYPES[kind]}")
    return value


def _number(row: Mapping[str, Any], name: str, place: Place, allowed: tuple[int, int], default: Any = _MISSING) -> int:
    value = row.get(name)
    low, high = allowed
    if type(value) is int and low <= value <= high:
        return value
    if value is None and default is not _MISSING:
        return int(default)
    if value is None:
        raise Invalid(place, f"{name} is missing")
    raise Invalid((*place, name), f"{name} {_short(value)} is not a whole number from {low} to {high}")


def _choice(row: Mapping[str, Any], name: str, place: Place, choices: Mapping[str, Any], default: Any = _MISSING) -> Any:
    value = _get(row, name, place, str, default)
    if value not in choices:
        close = _closest(value, choices)
        hint = f"; did you mean {close!r}?" if close else ""
        raise Invalid((*place, name), f"{name} {_short(value)} is none of {', '.join(choices)}{hint}")
    return choices[value]


def _closest(word: str, choices: Iterable[str]) -> str | None:
    """What was probably meant: what begins so (``masq``), or looks much like it."""
    begin = [choice for choice in sorted(choices) if word and choice.startswith(word)]
    return next(iter(begin or difflib.get_close_matches(word, sorted(choices), 1)), None)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."  # noqa: PLR2004 - what fits a line of an error
