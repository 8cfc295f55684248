"""VIPs as people and programs write them, in TOML and JSON: from plain data to VIPs and back. Pure.

Invariants:

1. What :func:`plain_vip` makes, :func:`parse_vip` takes again, and gives an equal VIP (but for its principal: that is not for the
   document to say, but for the source to know).
2. What the kernel would refuse later is refused here, at the key that says it. An unknown key is an error, not a remark.
3. A VIP that is wrong is left out whole: half of its backends would take all of its connections.

The words are those of desired IPVS tables (docs/desired-state.md), for the same things. The format: docs/sources/file.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from pyminuteman.addresses import parse_address, parse_endpoint
from pyminuteman.errors import ConfigurationError
from pyminuteman.ipvs.destination import Destination, ForwardingMethod
from pyminuteman.ipvs.errors import IPVSError
from pyminuteman.ipvs.service import Persistence, Protocol, Service, ServiceFlags, ServiceKey
from pyminuteman.plain.fields import Invalid, Place, as_table, choice, get, number, place_text, short
from pyminuteman.plain.ipvs_words import (
    FORWARDS,
    PROTOCOLS,
    flag_names,
    plain_persistence,
    read_flags,
    read_persistence,
)
from pyminuteman.plain.text import decode, parse
from pyminuteman.sources.base import SourceError, SourceProblem, SourceState
from pyminuteman.vips.model import VIP, WEIGHT_MAX, Backend, BackendKey, InvalidVIPError, VIPKey, VIPName, VIPSettings
from pyminuteman.vips.names import dns_name

__all__ = [
    "DOCUMENT_MAX_BYTES",
    "DRAIN_SECONDS_MAX",
    "FRAMEWORK_DEFAULT",
    "KEYS",
    "VIPS_MAX",
    "Fault",
    "Reading",
    "keep_last_good",
    "parse_document",
    "parse_vip",
    "plain_document",
    "plain_vip",
    "read_document",
    "read_json",
]

FRAMEWORK_DEFAULT: Final = "minuteman"
"""The framework of names in documents that name none."""
DOCUMENT_MAX_BYTES: Final = 64 << 20
"""Of a document that comes over a network."""
DRAIN_SECONDS_MAX: Final = 86400
VIPS_MAX: Final = 100_000
"""VIPs of one document: more than one kernel is asked to hold. A tenth of it, with five backends each, is read in two seconds (JSON)."""
BACKENDS_MAX: Final = 10_000
"""Backends of one VIP."""

KEYS: Final[Mapping[str, frozenset[str]]] = {
    "": frozenset({"version", "vip"}),
    "vip": frozenset(
        {
            *("listen", "name", "framework", "protocol", "port"),
            *("scheduler", "flags", "persistence", "forward", "drain", "backend"),
        }
    ),
    "backend": frozenset({"address", "port", "weight", "agent", "local"}),
}
"""The keys of each kind of table; no others are taken. Those of ``persistence`` are :data:`PERSISTENCE_KEYS`."""

_PORTS: Final = (1, 65535)
_FORWARDS: Final = {
    name: method
    for name, method in FORWARDS.items()
    if method in {ForwardingMethod.MASQUERADE, ForwardingMethod.ROUTE, ForwardingMethod.TUNNEL}
}
_ANYWHERE: Final = {True: "::", False: "0.0.0.0"}  # noqa: S104 - stands for the address that a name will get
_LISTEN: Final = "tcp://11.0.0.1:80, udp://[fd00::1]:53"
_ADDRESS_SIGNS: Final = frozenset("0123456789abcdefABCDEF.:[]")


@dataclass(frozen=True, slots=True)
class Fault:
    """A VIP that was left out.

    Attributes:
        place: Where in the document.
        reason: What is wrong with it, and what is accepted.
        key: Whose description is wrong; None when not even that can be told.
    """

    place: Place
    reason: str
    key: VIPKey | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """What a document says.

    Attributes:
        vips: In the order of their keys; no key twice.
        faults: What was left out, in the order of the document.
    """

    vips: tuple[VIP, ...] = ()
    faults: tuple[Fault, ...] = ()


def parse_vip(document: object, where: str) -> VIP:
    """One VIP; ``where`` says for errors where the document is.

    Raises:
        SourceError: It does not say what it must; the text names the key.
    """
    try:
        row = as_table(document, (), KEYS["vip"])
        return _vip(row, _key(row, ()), ())
    except Invalid as error:
        raise SourceError(": ".join(filter(None, (where, place_text(error.place), error.reason)))) from None


def parse_document(document: object, where: str) -> SourceState:
    """All VIPs of a document. One that is wrong is left out, and is among the problems.

    Raises:
        SourceError: The document as a whole is none.
    """
    try:
        reading = read_document(document)
    except Invalid as error:
        raise SourceError(": ".join(filter(None, (where, place_text(error.place), error.reason)))) from None
    problems = [SourceProblem(f"{where}: {place_text(fault.place)}", fault.reason) for fault in reading.faults]
    return SourceState(reading.vips, tuple(problems))


def read_document(document: object) -> Reading:
    """As :func:`parse_document`, with the places of what is wrong.

    Raises:
        Invalid: The document as a whole is none: no table, an unknown key at the top, another version, too many VIPs.
    """
    top = as_table(document, (), KEYS[""])
    version = get(top, "version", (), int, 1)
    if version != 1:
        raise Invalid(("version",), f"version {version} is not known here; this reads version 1")
    rows = get(top, "vip", (), list, [])
    if len(rows) > VIPS_MAX:
        raise Invalid(("vip",), f"there are {len(rows)} VIPs; a document has at most {VIPS_MAX}")
    vips: dict[VIPKey, VIP] = {}
    first: dict[VIPKey, int] = {}
    faults: list[Fault] = []
    for index, item in enumerate(rows):
        place: Place = ("vip", index)
        key = None
        try:
            row = as_table(item, place, KEYS["vip"])
            key = _key(row, place)
            if key in first:
                raise Invalid(place, f"{key} is described twice, first as vip[{first[key]}]")
            first[key] = index
            vips[key] = _vip(row, key, place)
        except Invalid as error:
            faults.append(Fault(error.place, error.reason, key))
    return Reading(tuple(sorted(vips.values(), key=lambda vip: vip.key.sort_key)), tuple(faults))


def keep_last_good(vips: Iterable[VIP], wrong: Iterable[VIPKey | None], previous: Iterable[VIP]) -> tuple[VIP, ...]:
    """What counts of a document in which something is wrong: a typing error takes nothing away that was there.

    Args:
        vips: What is right in it.
        wrong: Whose descriptions are wrong: these VIPs stay as they were. With None among them, of which nobody knows whose it is, all
            of the document stays as it was.
        previous: What the document said before; empty when it said nothing yet, and then what is right counts.
    """
    before, faulty = {vip.key: vip for vip in previous}, set(wrong)
    if before and None in faulty:
        return tuple(before.values())
    found = {key: vip for key, vip in before.items() if key in faulty}
    # What is equal is the same object again: two states of a hundred thousand VIPs are then compared in no time.
    found |= {vip.key: old if (old := before.get(vip.key)) == vip and old is not None else vip for vip in vips}
    return tuple(sorted(found.values(), key=lambda vip: vip.key.sort_key))


def read_json(body: bytes, where: str, previous: Iterable[VIP]) -> SourceState:
    """What a JSON document says, with what stood before (``previous``) where it is wrong.

    Raises:
        SourceError: It is no JSON, or as a whole no document.
    """
    try:
        reading = read_document(parse("json", decode(body, where), where))
    except Invalid as error:
        raise SourceError(": ".join(filter(None, (where, place_text(error.place), error.reason)))) from None
    except ConfigurationError as error:
        raise SourceError(str(error)) from None
    vips = keep_last_good(reading.vips, [fault.key for fault in reading.faults], previous)
    problems = [SourceProblem(f"{where}: {place_text(fault.place)}", fault.reason) for fault in reading.faults]
    return SourceState.of(vips, problems)


def _key(row: Mapping[str, Any], place: Place) -> VIPKey:
    listen = get(row, "listen", place, str, "")
    if not listen and row.get("name") is None:
        raise Invalid(place, f'it has neither listen (as in "{_LISTEN}") nor name')
    if not listen:
        protocol = choice(row, "protocol", place, PROTOCOLS, "tcp")
        label, framework = get(row, "name", place, str), get(row, "framework", place, str, FRAMEWORK_DEFAULT)
        port = number(row, "port", place, _PORTS)
        try:
            named = VIPName(label, framework)
            dns_name(named)  # whoever has none can be found by nobody
            return VIPKey(protocol, named, port)
        except InvalidVIPError as error:
            raise Invalid((*place, "name"), str(error)) from None
    for name in ("name", "framework", "protocol", "port"):
        if row.get(name) is not None:
            raise Invalid((*place, name), f"{name} does not go with listen, which says it all")
    scheme, _, rest = listen.partition("://")
    if scheme not in PROTOCOLS or not rest:
        raise Invalid((*place, "listen"), f"listen {short(listen)} is not written as {_LISTEN}")
    try:
        address, at = parse_endpoint(rest)
        if at is None:
            raise Invalid(
                (*place, "listen"), f"listen {short(listen)} has no port (one after an IPv6 address needs that in brackets)"
            )
        return VIPKey(PROTOCOLS[scheme], address, at)
    except Invalid:
        raise
    except ValueError as error:
        hint = "" if _ADDRESS_SIGNS.issuperset(rest) else "; a VIP by name has name and port instead"
        raise Invalid((*place, "listen"), f"listen {short(listen)}: {error}{hint}") from None


def _vip(row: Mapping[str, Any], key: VIPKey, place: Place) -> VIP:
    settings = _settings(row, key, place)
    rows = get(row, "backend", place, list, [])
    if len(rows) > BACKENDS_MAX:
        raise Invalid((*place, "backend"), f"there are {len(rows)} backends; a VIP has at most {BACKENDS_MAX}")
    backends: dict[BackendKey, Backend] = {}
    for index, item in enumerate(rows):
        here: Place = (*place, "backend", index)
        backend = _backend(as_table(item, here, KEYS["backend"]), key, settings.forward, here)
        if backends.setdefault(backend.key, backend) is not backend:
            raise Invalid(here, f"{key} has backend {backend.key} twice")
    return VIP(key, tuple(backends.values()), settings)


def _settings(row: Mapping[str, Any], key: VIPKey, place: Place) -> VIPSettings:
    scheduler = get(row, "scheduler", place, str, "wlc")
    flags, persistence = read_flags(row, place, scheduler), read_persistence(row, place)
    drain = row.get("drain")
    if drain is None:
        drain = 0
    if isinstance(drain, bool) or not isinstance(drain, int | float) or not 0 <= drain <= DRAIN_SECONDS_MAX:
        raise Invalid((*place, "drain"), f"drain {short(drain)} is not a number of seconds from 0 to {DRAIN_SECONDS_MAX}")
    # The address of a name is not known yet, nor its family: only a prefix length that no IPv4 mask has tells.
    six = ":" in key.host if isinstance(key.host, str) else persistence is not None and _is_for_ipv6(persistence.netmask)
    if refusal := _service_refusal(key.protocol, six, scheduler, flags, persistence):
        raise Invalid(place, refusal)
    return VIPSettings(scheduler, flags, persistence, choice(row, "forward", place, _FORWARDS, "masquerade"), float(drain))


# What the kernel takes is what an object of the data plane can be made of. Most are alike, and making one takes its time.


@lru_cache(1024)
def _service_refusal(
    protocol: Protocol, six: bool, scheduler: str, flags: ServiceFlags, persistence: Persistence | None
) -> str:
    try:
        Service(ServiceKey(protocol, _ANYWHERE[six], 1), scheduler, flags, persistence)
    except IPVSError as error:
        return str(error).partition(": ")[2]
    return ""


@lru_cache(4096)
def _address_refusal(address: str) -> str:
    try:
        Destination(address, 1)
    except IPVSError as error:
        return str(error)
    return ""


def _is_for_ipv6(netmask: str) -> bool:
    return netmask.isascii() and netmask.isdigit() and int(netmask[:4]) > 32  # noqa: PLR2004 - the bits of IPv4


def _backend(row: Mapping[str, Any], key: VIPKey, forward: ForwardingMethod, place: Place) -> Backend:
    address, port = get(row, "address", place, str), number(row, "port", place, _PORTS, key.port)
    weight = number(row, "weight", place, (0, WEIGHT_MAX), 1)
    if refusal := _address_refusal(address):
        raise Invalid((*place, "address"), refusal)
    if forward is not ForwardingMethod.MASQUERADE and port != key.port:
        word = forward.name.lower()
        raise Invalid((*place, "port"), f"forward = {word!r} cannot change the port: it is {key.port}, that of the VIP")
    if isinstance(key.host, str) and forward is not ForwardingMethod.TUNNEL and (":" in address) != (":" in key.host):
        raise Invalid((*place, "address"), f"{key} reaches {address}, of the other address family, only by a tunnel")
    agent = get(row, "agent", place, str, "")
    try:
        if agent:
            parse_address(agent)
    except ValueError as error:
        raise Invalid((*place, "agent"), f"agent {error}; it is the address of the host that the backend runs on") from None
    return Backend(address, port, weight, agent, _local(row, place))


def _local(row: Mapping[str, Any], place: Place) -> BackendKey | None:
    text = get(row, "local", place, str, "")
    if not text:
        return None
    try:
        address, port = parse_endpoint(text)
    except ValueError as error:
        raise Invalid((*place, "local"), f"local {error}") from None
    if not port:
        raise Invalid((*place, "local"), f"local {short(text)} is not ADDRESS:PORT")
    return BackendKey(address, port)


def plain_vip(vip: VIP) -> dict[str, Any]:
    """What :func:`parse_vip` reads. Only what differs from the defaults, but for what people look for first."""
    key, settings = vip.key, vip.settings
    if isinstance(key.host, VIPName):
        plain: dict[str, Any] = {"name": key.host.label, "framework": key.host.framework, "port": key.port}
        plain |= {"protocol": Protocol(key.protocol).name.lower()}
    else:
        plain = {"listen": str(key)}
    plain["scheduler"] = settings.scheduler
    if settings.flags:
        plain["flags"] = flag_names(settings.scheduler, settings.flags)
    if settings.persistence:
        plain["persistence"] = {k: v for k, v in (plain_persistence(settings.persistence) or {}).items() if v is not None}
    plain["forward"] = settings.forward.name.lower()
    if settings.drain_seconds:
        plain["drain"] = settings.drain_seconds
    plain["backend"] = [_plain_backend(backend) for backend in vip.backends]
    return plain


def _plain_backend(backend: Backend) -> dict[str, Any]:
    plain: dict[str, Any] = {"address": backend.address, "port": backend.port, "weight": backend.weight}
    if backend.agent:
        plain["agent"] = backend.agent
    if backend.local:
        plain["local"] = str(backend.local)
    return plain


def plain_document(state: SourceState) -> dict[str, Any]:
    """What :func:`parse_document` reads: a state without its problems."""
    return {"version": 1, "vip": [plain_vip(vip) for vip in state.vips]}
