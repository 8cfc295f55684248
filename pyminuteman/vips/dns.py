"""DNS for named VIPs: a query's bytes in, the answer's bytes out.

Pure, but for the names that :meth:`Responder.publish` replaces. Invariants:

1. Whatever comes in, nothing is raised: it is answered, or not worth an answer (shorter than a header, or itself an answer).
2. Outside of its zones the answer is REFUSED and holds nothing. It does not recurse, and asks nobody.
3. What a resolver remembers of an answer it remembers for seconds: addresses move when names collide, and names go.
4. A datagram is never answered by one of more than 512 bytes, or than the client takes and :data:`PAYLOAD_MAX_BYTES`.

The form is RFC 1035; negative answers are RFC 2308's (and, for names that only have names below them, RFC 8020's), EDNS is RFC 6891.
For a VIP ``foo.marathon`` in the zone ``l4lb.minuteman.internal``:

    foo.marathon.l4lb.minuteman.internal             A, AAAA   its addresses
    _vip._tcp.foo.marathon.l4lb.minuteman.internal   SRV       every TCP port that is served there (RFC 2782's form)
    _80._tcp.foo.marathon.l4lb.minuteman.internal    SRV       that port, if it is
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.NS
import dns.rdtypes.ANY.SOA
import dns.rdtypes.IN.A
import dns.rdtypes.IN.AAAA
import dns.rdtypes.IN.SRV
import dns.rrset

from pyminuteman.addresses import IPV4, parse_address
from pyminuteman.errors import ConfigurationError
from pyminuteman.ipvs.service import Protocol
from pyminuteman.vips.desired import NameRecord

__all__ = ["DEFAULT_ZONE", "PAYLOAD_MAX_BYTES", "Responder", "ZoneConfig"]

DEFAULT_ZONE: Final = "l4lb.minuteman.internal"
""".internal is reserved for private use (ICANN, 2024): no resolver finds it elsewhere."""
PAYLOAD_MAX_BYTES: Final = 1232
"""Largest datagram sent: fits the least MTU of IPv6, so it is not fragmented (the DNS flag day of 2020)."""
_PLAIN_MAX_BYTES: Final = 512  # RFC 1035, 4.2.1
_STREAM_MAX_BYTES: Final = 65535
_NAME_MAX_BYTES: Final = 255  # RFC 1035, 2.3.4: with the lengths of its labels and the root's
_ZONE_MAX_BYTES: Final = _NAME_MAX_BYTES - 64
"""So that there is room for a label of full length before it, and for the names of the zone itself."""
_HEADER: Final = struct.Struct("!6H")
_TTL_MAX_SECONDS: Final = 86400
_NUMBER_BYTES: Final = 2
"""A message begins with the number by which the client knows its answer."""
_ANSWERS_MAX: Final = 1024
"""Answers kept until the names change, of 1.7 KiB at most with their queries: making one takes some 100 times as long."""
_ADDITIONAL_MAX: Final = 2
"""EDNS's record and a signature's are all that a query has there."""
_SERIAL_MASK: Final = 0xFFFF_FFFF
_NAMESERVER: Final = "ns"
"""The one name of a zone that is of one label; a VIP's has two at least, its label and its framework."""
_OUTCOMES: Final = (
    *("noerror", "nodata", "nxdomain", "refused", "formerr", "notimp", "notauth", "badvers"),
    *("ignored", "truncated"),
)
_ANY_PORT: Final = "_vip"
_PROTOCOLS: Final = {f"_{protocol.name.lower()}": protocol for protocol in Protocol}


@dataclass(frozen=True, slots=True)
class ZoneConfig:
    """The zones that names are in, and what is said of them.

    Raises:
        ConfigurationError: Something that is no domain, no address, or no time.
    """

    zone: str = DEFAULT_ZONE
    aliases: tuple[str, ...] = ()
    """Zones in which the same names are, such as dcos-net's ``l4lb.thisdcos.directory``."""
    ttl_seconds: int = 5
    """How long an address may be remembered: 0 to 86400. The predecessors' 5."""
    negative_ttl_seconds: int = 1
    """How long it may be remembered that there is nothing: 0 to 86400. Short, for a name is asked for before it is there."""
    nameserver_ttl_seconds: int = 3600
    """How long the name of the server itself may be remembered: 0 to 86400."""
    nameserver_addresses: tuple[str, ...] = ()
    """Where this server is asked: the addresses of ``ns`` in each zone."""

    def __post_init__(self) -> None:
        """Validate."""
        for key, zones in (("zone", (self.zone,)), ("aliases", self.aliases)):
            for zone in zones:
                _domain(key, zone)
        for key in ("ttl_seconds", "negative_ttl_seconds", "nameserver_ttl_seconds"):
            seconds = getattr(self, key)
            if isinstance(seconds, bool) or not isinstance(seconds, int) or not 0 <= seconds <= _TTL_MAX_SECONDS:
                raise ConfigurationError(None, f"dns.{key}", f"{seconds!r} is not a time (0 to {_TTL_MAX_SECONDS} seconds)")
        for address in self.nameserver_addresses:
            try:
                parse_address(address)
            except ValueError as error:
                raise ConfigurationError(None, "dns.nameserver_addresses", str(error)) from None


def _domain(key: str, text: str) -> dns.name.Name:
    try:
        name = dns.name.from_text(text)
    except (dns.exception.DNSException, UnicodeError) as error:
        raise ConfigurationError(None, f"dns.{key}", f"{text!r} is not a domain: {error}") from None
    if name == dns.name.root:
        raise ConfigurationError(None, f"dns.{key}", f"{text!r} is not a domain: a zone of names has a name")
    if _wire_bytes(name) > _ZONE_MAX_BYTES:
        raise ConfigurationError(
            None, f"dns.{key}", f"{text!r} is too long: {_ZONE_MAX_BYTES - 2} characters leave room for names"
        )
    return name


def _wire_bytes(name: dns.name.Name) -> int:
    return sum(len(label) + 1 for label in name.labels)


@dataclass(slots=True)
class _Found:
    """What there is at a name, of the type that was asked for."""

    exists: bool
    answer: Sequence[dns.rdata.Rdata] = ()
    ttl_seconds: int = 0
    additional: Sequence[tuple[dns.name.Name, dns.rdata.Rdata]] = ()


class Responder:
    """Answers queries about named VIPs.

    Attributes:
        counters: Queries by what came of them: ``noerror``, ``nodata``, ``nxdomain``, ``refused``, ``formerr``, ``notimp``,
            ``notauth``, ``badvers``; ``ignored`` got no answer; ``truncated`` are among the others.
    """

    def __init__(self, config: ZoneConfig | None = None) -> None:
        self.config: Final = ZoneConfig() if config is None else config
        zones = [_domain("zone", zone) for zone in (self.config.zone, *self.config.aliases)]
        self._zones = sorted(set(zones), key=lambda zone: (-len(zone.labels), zone))  # the innermost one is the one asked
        self._names: Mapping[str, NameRecord] = {}
        self._above: frozenset[str] = frozenset()
        self._serial = 1
        self._answers: dict[tuple[bytes, bool], tuple[bytes, str]] = {}
        self.counters: Final = dict.fromkeys(_OUTCOMES, 0)

    def publish(self, names: Mapping[str, NameRecord]) -> list[str]:
        """These are the names, without their zone, in lower case. The zones' serial goes up if that is anything new.

        Returns:
            Names that cannot be asked for, since with the zone they are longer than a DNS name may be; in order.
        """
        if names != self._names:
            self._names = dict(names)
            self._above = frozenset(parent for name in names for parent in _parents(name))
            self._serial = self._serial + 1 & _SERIAL_MASK
            self._answers.clear()
        room = _NAME_MAX_BYTES - min(_wire_bytes(zone) for zone in self._zones)
        return sorted(name for name in names if len(name) + 1 > room)

    def answer(self, query: bytes, *, stream: bool = False) -> bytes | None:
        """The answer to one message; None when it is to be ignored.

        Args:
            query: As it came, without TCP's length.
            stream: It came over TCP: the answer may be 65535 bytes. Otherwise it is as large as the client takes, and is cut short
                (and marked so) where that is too little.
        """
        if len(query) < _HEADER.size or query[2] & 0x80:  # who answers answers answers for ever
            self.counters["ignored"] += 1
            return None
        question = query[_NUMBER_BYTES:], stream
        known = self._answers.get(question)
        if known is None:
            known = self._make(query, stream=stream)
            if len(query) <= _PLAIN_MAX_BYTES and len(known[0]) <= PAYLOAD_MAX_BYTES:
                if len(self._answers) >= _ANSWERS_MAX:
                    del self._answers[next(iter(self._answers))]
                self._answers[question] = known
        wire, outcome = known
        self.counters[outcome] += 1
        self.counters["truncated"] += bool(wire[2] & 0x02)
        return query[:_NUMBER_BYTES] + wire[_NUMBER_BYTES:]

    def _make(self, query: bytes, *, stream: bool) -> tuple[bytes, str]:
        """An answer that is not remembered, and what came of the query."""
        _, flags, questions, answers, authorities, additionals = _HEADER.unpack_from(query)
        if dns.opcode.from_flags(flags) != dns.opcode.QUERY:
            return _bare(flags, dns.rcode.NOTIMP)
        if (questions, answers, authorities) != (1, 0, 0) or additionals > _ADDITIONAL_MAX:
            return _bare(flags, dns.rcode.FORMERR)
        try:
            message = dns.message.from_wire(query)
        except dns.message.UnknownTSIGKey:
            return _bare(flags, dns.rcode.NOTAUTH)
        except (dns.exception.DNSException, ValueError):
            return _bare(flags, dns.rcode.FORMERR)
        response = dns.message.make_response(message, our_payload=PAYLOAD_MAX_BYTES, pad=0)
        outcome = "badvers"
        if message.edns > 0:
            response.set_rcode(dns.rcode.BADVERS)
        else:
            outcome = self._fill(response, message.question[0])
        size = _STREAM_MAX_BYTES if stream else max(_PLAIN_MAX_BYTES, min(message.payload, PAYLOAD_MAX_BYTES))
        return response.to_wire(max_size=size, prefer_truncation=True), outcome

    def _fill(self, response: dns.message.Message, question: dns.rrset.RRset) -> str:
        name = question.name
        zone = next((zone for zone in self._zones if name.is_subdomain(zone)), None)
        transfer = question.rdtype in {dns.rdatatype.AXFR, dns.rdatatype.IXFR}
        if zone is None or question.rdclass != dns.rdataclass.IN or transfer:
            response.set_rcode(dns.rcode.REFUSED)
            return "refused"
        response.flags |= dns.flags.AA
        found = self._find(zone, name, question.rdtype)
        if found.answer:
            for rdata in found.answer:
                _add(response.answer, name, found.ttl_seconds, rdata)
            for owner, rdata in found.additional:
                _add(response.additional, owner, self.config.ttl_seconds, rdata)
            return "noerror"
        if not found.exists:
            response.set_rcode(dns.rcode.NXDOMAIN)
        _add(response.authority, zone, self.config.negative_ttl_seconds, self._soa(zone))
        return "nodata" if found.exists else "nxdomain"

    def _find(self, zone: dns.name.Name, name: dns.name.Name, rdtype: dns.rdatatype.RdataType) -> _Found:
        labels = [label.decode("latin-1").lower() for label in name.labels[: -len(zone.labels)]]
        path = ".".join(labels)
        config = self.config
        if not labels:
            nameserver = dns.name.Name((_NAMESERVER.encode(), *zone.labels))
            apex = (self._soa(zone), dns.rdtypes.ANY.NS.NS(dns.rdataclass.IN, dns.rdatatype.NS, nameserver))
            wanted = _of_type(apex, rdtype)
            ttl = config.nameserver_ttl_seconds if rdtype == dns.rdatatype.NS else config.ttl_seconds
            return _Found(exists=True, answer=wanted, ttl_seconds=ttl)
        if any("." in label for label in labels):  # within a label, that is: it is none of ours
            return _Found(exists=False)
        if path == _NAMESERVER:
            rdatas = _of_type(_address_rdatas(config.nameserver_addresses), rdtype)
            return _Found(exists=True, answer=rdatas, ttl_seconds=config.nameserver_ttl_seconds)
        record = self._names.get(path)
        if record is not None:
            rdatas = _of_type(_address_rdatas(record.addresses), rdtype)
            return _Found(exists=True, answer=rdatas, ttl_seconds=config.ttl_seconds)
        if path in self._above:
            return _Found(exists=True)
        return self._find_ports(name, labels, rdtype)

    def _find_ports(self, name: dns.name.Name, labels: list[str], rdtype: dns.rdatatype.RdataType) -> _Found:
        """``_vip._tcp.NAME``, ``_80._tcp.NAME``, and ``_tcp.NAME``, at which there is nothing but which has names below it."""
        depth = 1 if labels[0] in _PROTOCOLS else 2
        protocol = _PROTOCOLS.get(labels[depth - 1]) if len(labels) > depth else None
        record = self._names.get(".".join(labels[depth:])) if protocol is not None else None
        ports = [] if record is None else [port for other, port in record.ports if other is protocol]
        if depth > 1:
            ports = [port for port in ports if labels[0] in {_ANY_PORT, f"_{port}"}]
        if record is None or not ports:
            return _Found(exists=False)
        if depth == 1 or rdtype not in {dns.rdatatype.SRV, dns.rdatatype.ANY}:
            return _Found(exists=True)
        target = dns.name.Name(name.labels[depth:])
        rdatas = [dns.rdtypes.IN.SRV.SRV(dns.rdataclass.IN, dns.rdatatype.SRV, 0, 0, port, target) for port in ports]
        additional = [(target, rdata) for rdata in _address_rdatas(record.addresses)]
        return _Found(exists=True, answer=rdatas, ttl_seconds=self.config.ttl_seconds, additional=additional)

    def _soa(self, zone: dns.name.Name) -> dns.rdata.Rdata:
        # Nobody transfers the zone: refresh, retry and expire are what the predecessors had.
        seconds = self.config.ttl_seconds
        nameserver = dns.name.Name((_NAMESERVER.encode(), *zone.labels))
        return dns.rdtypes.ANY.SOA.SOA(
            dns.rdataclass.IN,
            dns.rdatatype.SOA,
            nameserver,
            dns.name.Name((b"hostmaster", *zone.labels)),
            self._serial,
            seconds,
            seconds,
            seconds,
            self.config.negative_ttl_seconds,
        )


def _bare(flags: int, rcode: dns.rcode.Rcode) -> tuple[bytes, str]:
    """A header and no more, for what is not understood; and what came of the query."""
    kept = flags & 0x7800 | flags & dns.flags.RD  # the opcode, and whether recursion was wished for
    return _HEADER.pack(0, dns.flags.QR | kept | rcode, 0, 0, 0, 0), rcode.name.lower()


def _parents(name: str) -> list[str]:
    labels = name.split(".")
    return [".".join(labels[at:]) for at in range(1, len(labels))]


def _address_rdatas(addresses: Sequence[str]) -> list[dns.rdata.Rdata]:
    found: list[dns.rdata.Rdata] = []
    for address in addresses:
        if parse_address(address)[0] == IPV4:
            found.append(dns.rdtypes.IN.A.A(dns.rdataclass.IN, dns.rdatatype.A, address))
        else:
            found.append(dns.rdtypes.IN.AAAA.AAAA(dns.rdataclass.IN, dns.rdatatype.AAAA, address))
    return found


def _of_type(rdatas: Sequence[dns.rdata.Rdata], rdtype: dns.rdatatype.RdataType) -> list[dns.rdata.Rdata]:
    return [rdata for rdata in rdatas if rdtype in {rdata.rdtype, dns.rdatatype.ANY}]


def _add(section: list[dns.rrset.RRset], owner: dns.name.Name, ttl: int, rdata: dns.rdata.Rdata) -> None:
    for rrset in section:
        if rrset.rdtype == rdata.rdtype and rrset.name == owner:
            rrset.add(rdata)
            return
    section.append(dns.rrset.from_rdata(owner, ttl, rdata))
