"""Names of VIPs in DNS: bytes in, bytes out. dnspython writes the queries and reads the answers."""

from __future__ import annotations

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.tsig
import dns.update
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pyminuteman.errors import ConfigurationError
from pyminuteman.ipvs.service import Protocol
from pyminuteman.vips.desired import NameRecord
from pyminuteman.vips.dns import DEFAULT_ZONE, Responder, ZoneConfig

DCOS = "l4lb.thisdcos.directory"
CONFIG = ZoneConfig(aliases=(DCOS,), nameserver_addresses=("198.51.100.1", "fd01:d::1"))
FOO = f"foo.marathon.{DEFAULT_ZONE}"
NAMES = {
    "foo.marathon": NameRecord(("11.0.0.35", "fd01:c::35"), ((Protocol.TCP, 80), (Protocol.TCP, 443), (Protocol.UDP, 53))),
    "api.hello-world.marathon": NameRecord(("11.0.0.7",), ((Protocol.TCP, 80),)),
    "six.ipv6": NameRecord(("fd01:c::6",), ((Protocol.SCTP, 99),)),
    "empty.marathon": NameRecord((), ((Protocol.TCP, 80),)),
    "many.ports": NameRecord(("11.0.0.9",), tuple((Protocol.TCP, port) for port in range(1, 101))),
}


def responder(config: ZoneConfig = CONFIG) -> Responder:
    found = Responder(config)
    assert found.publish(NAMES) == []
    return found


def ask(query: dns.message.Message, *, stream: bool = False, on: Responder | None = None) -> dns.message.Message:
    wire = (on or responder()).answer(query.to_wire(), stream=stream)
    assert wire is not None
    answer = dns.message.from_wire(wire)
    assert query.is_response(answer)
    return answer


def query(name: str, rdtype: str, **options: object) -> dns.message.Message:
    return dns.message.make_query(name, rdtype, **options)  # type: ignore[arg-type]


def rows(answer: dns.message.Message) -> list[str]:
    return sorted(str(rdata) for rrset in answer.answer for rdata in rrset)


# -- what there is -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "rdtype", "expected"),
    [
        (FOO, "A", ["11.0.0.35"]),
        (FOO, "AAAA", ["fd01:c::35"]),
        (FOO, "ANY", ["11.0.0.35", "fd01:c::35"]),
        (f"api.hello-world.marathon.{DEFAULT_ZONE}", "A", ["11.0.0.7"]),
        (f"foo.marathon.{DCOS}", "A", ["11.0.0.35"]),
        (f"ns.{DEFAULT_ZONE}", "A", ["198.51.100.1"]),
        (f"ns.{DCOS}", "AAAA", ["fd01:d::1"]),
        (DEFAULT_ZONE, "NS", [f"ns.{DEFAULT_ZONE}."]),
        (DCOS, "NS", [f"ns.{DCOS}."]),
        (f"_vip._tcp.{FOO}", "SRV", [f"0 0 443 {FOO}.", f"0 0 80 {FOO}."]),
        (f"_vip._udp.{FOO}", "SRV", [f"0 0 53 {FOO}."]),
        (f"_80._tcp.{FOO}", "SRV", [f"0 0 80 {FOO}."]),
        (f"_80._tcp.{FOO}", "ANY", [f"0 0 80 {FOO}."]),
        (f"_vip._sctp.six.ipv6.{DEFAULT_ZONE}", "SRV", [f"0 0 99 six.ipv6.{DEFAULT_ZONE}."]),
    ],
)
def test_names_have_their_addresses_and_ports(name: str, rdtype: str, expected: list[str]) -> None:
    answer = ask(query(name, rdtype))
    assert (answer.rcode(), rows(answer)) == (dns.rcode.NOERROR, expected)
    assert answer.flags & dns.flags.AA
    assert not answer.flags & (dns.flags.RA | dns.flags.TC)
    assert answer.authority == []


def test_ports_bring_their_addresses_along() -> None:
    answer = ask(query(f"_80._tcp.{FOO}", "SRV"))
    assert sorted((str(rrset.name), str(rrset[0])) for rrset in answer.additional) == [
        (f"{FOO}.", "11.0.0.35"),
        (f"{FOO}.", "fd01:c::35"),
    ]


def test_addresses_are_remembered_for_5_seconds_and_the_server_for_an_hour() -> None:
    assert [ask(query(name, rdtype)).answer[0].ttl for name, rdtype in ((FOO, "A"), (f"_vip._tcp.{FOO}", "SRV"))] == [5, 5]
    assert [ask(query(name, rdtype)).answer[0].ttl for name, rdtype in ((f"ns.{DCOS}", "A"), (DCOS, "NS"))] == [3600, 3600]


def test_a_zone_begins_with_its_soa() -> None:
    (rrset,) = ask(query(DCOS, "SOA")).answer
    assert (rrset.ttl, str(rrset[0])) == (5, f"ns.{DCOS}. hostmaster.{DCOS}. 2 5 5 5 1")
    assert sorted(rrset.rdtype.name for rrset in ask(query(DCOS, "ANY")).answer) == ["NS", "SOA"]


def test_letters_are_of_any_case_and_come_back_as_they_were_written() -> None:
    answer = ask(query("FoO.mArathon.L4LB.minuteman.Internal", "A"))
    assert answer.answer[0].name.to_text() == "FoO.mArathon.L4LB.minuteman.Internal."
    assert rows(answer) == ["11.0.0.35"]
    assert rows(ask(query(f"_VIP._TCP.{FOO.upper()}", "SRV"))) == [f"0 0 {port} {FOO.upper()}." for port in (443, 80)]


def test_the_inner_of_two_zones_is_asked() -> None:
    on = responder(ZoneConfig("internal", aliases=(f"marathon.{DEFAULT_ZONE}",)))
    assert ask(query(FOO, "SOA"), on=on).authority[0].name.to_text() == f"marathon.{DEFAULT_ZONE}."
    assert rows(ask(query("foo.marathon.internal", "A"), on=on)) == ["11.0.0.35"]


# -- what there is not -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "rdtype"),
    [
        (FOO, "TXT"),
        (FOO, "SRV"),
        (f"six.ipv6.{DEFAULT_ZONE}", "A"),
        (f"empty.marathon.{DEFAULT_ZONE}", "A"),
        (DEFAULT_ZONE, "A"),
        (f"ns.{DEFAULT_ZONE}", "SRV"),
        (f"marathon.{DEFAULT_ZONE}", "A"),  # names are below it
        (f"hello-world.marathon.{DEFAULT_ZONE}", "A"),
        (f"_tcp.{FOO}", "SRV"),
        (f"_vip._tcp.{FOO}", "A"),
    ],
)
def test_a_name_without_such_records_is_there_all_the_same(name: str, rdtype: str) -> None:
    answer = ask(query(name, rdtype))
    assert (answer.rcode(), answer.answer) == (dns.rcode.NOERROR, [])
    (soa,) = answer.authority
    assert (soa.name.to_text(), soa.rdtype, soa.ttl) == (f"{DEFAULT_ZONE}.", dns.rdatatype.SOA, 1)


@pytest.mark.parametrize(
    "name",
    [
        f"bar.marathon.{DEFAULT_ZONE}",
        f"foo.{DEFAULT_ZONE}",
        f"x.foo.marathon.{DEFAULT_ZONE}",
        f"_tcp.{DEFAULT_ZONE}",
        f"_vip._tcp.{DEFAULT_ZONE}",
        f"_sctp.{FOO}",
        f"_81._tcp.{FOO}",
        f"_080._tcp.{FOO}",
        f"_80._udp.{FOO}",
        f"_http._tcp.{FOO}",
        f"_vip._icmp.{FOO}",
        f"_vip._tcp.bar.marathon.{DEFAULT_ZONE}",
        f"_vip._tcp.marathon.{DEFAULT_ZONE}",
        f"x._vip._tcp.{FOO}",
        f"foo\\.marathon.{DEFAULT_ZONE}",
        f"f\\195\\182o.marathon.{DEFAULT_ZONE}",
        f"*.marathon.{DEFAULT_ZONE}",
    ],
)
def test_a_name_that_is_not_there_is_denied_for_a_second(name: str) -> None:
    answer = ask(query(name, "SRV"))
    assert (answer.rcode(), answer.answer) == (dns.rcode.NXDOMAIN, [])
    (soa,) = answer.authority
    assert (soa.name.to_text(), soa.ttl, answer.flags & dns.flags.AA) == (f"{DEFAULT_ZONE}.", 1, dns.flags.AA)


@pytest.mark.parametrize("name", ["example.org", ".", "minuteman.internal", f"x{DEFAULT_ZONE}"])
def test_outside_of_the_zones_nothing_is_said(name: str) -> None:
    answer = ask(query(name, "A"))
    assert answer.rcode() == dns.rcode.REFUSED
    assert (answer.answer, answer.authority, answer.additional, answer.flags & dns.flags.AA) == ([], [], [], 0)


@pytest.mark.parametrize("rdtype", ["AXFR", "IXFR"])
def test_zones_are_not_transferred(rdtype: str) -> None:
    assert ask(query(DEFAULT_ZONE, rdtype), stream=True).rcode() == dns.rcode.REFUSED


def test_there_is_only_the_internet() -> None:
    assert ask(query(FOO, "A", rdclass=dns.rdataclass.CH)).rcode() == dns.rcode.REFUSED


# -- size --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("payload", "limit"), [(None, 512), (100, 512), (1000, 1000), (1232, 1232), (65535, 1232)])
def test_a_datagram_is_as_large_as_the_client_takes_and_no_larger_than_ours(payload: int | None, limit: int) -> None:
    asked = query(f"_vip._tcp.many.ports.{DEFAULT_ZONE}", "SRV", use_edns=payload is not None, payload=payload or 0)
    on = responder()
    wire = on.answer(asked.to_wire())
    assert wire is not None
    assert len(wire) <= limit
    answer = dns.message.from_wire(wire)
    assert answer.flags & dns.flags.TC
    assert answer.answer == []
    assert on.counters["truncated"] == 1
    if payload is not None:
        assert answer.payload == 1232


def test_over_a_stream_an_answer_is_whole() -> None:
    answer = ask(query(f"_vip._tcp.many.ports.{DEFAULT_ZONE}", "SRV"), stream=True)
    assert not answer.flags & dns.flags.TC
    assert len(rows(answer)) == 100


def test_addresses_that_come_along_are_left_out_where_there_is_no_room_and_nobody_has_to_ask_again() -> None:
    on = Responder()
    on.publish({"many.ports": NameRecord(("11.0.0.9", "fd01:c::9"), tuple((Protocol.TCP, port) for port in range(1, 11)))})
    found = set()
    for payload in range(512, 1232, 12):
        answer = ask(query(f"_vip._tcp.many.ports.{DEFAULT_ZONE}", "SRV", use_edns=0, payload=payload), on=on)
        found.add((bool(answer.flags & dns.flags.TC), len(rows(answer)), len(answer.additional)))
    assert found == {(True, 0, 0), (False, 10, 0), (False, 10, 1), (False, 10, 2)}


def test_a_client_without_edns_gets_none() -> None:
    assert ask(query(FOO, "A", use_edns=False)).edns == -1
    assert ask(query(FOO, "A", use_edns=0)).edns == 0


def test_padding_that_is_asked_for_makes_no_answer_longer() -> None:
    plain, padded = query(FOO, "A", use_edns=0), query(FOO, "A", use_edns=0, pad=128)
    assert len(padded.to_wire()) > len(plain.to_wire())
    on = responder()
    answers = [on.answer(asked.to_wire()) for asked in (plain, padded)]
    assert answers[0] is not None
    assert answers[1] is not None
    assert len(answers[0]) == len(answers[1])


# -- what is no query --------------------------------------------------------------------------------------------------


def bare(wire: bytes | None) -> tuple[int, int]:
    """The number and the code of an answer without anything else."""
    assert wire is not None
    assert len(wire) == 12
    answer = dns.message.from_wire(wire)
    assert answer.flags & dns.flags.QR
    return answer.id, answer.rcode()


def test_another_version_of_edns_is_told_ours() -> None:
    answer = ask(query(FOO, "A", use_edns=1))
    assert (answer.rcode(), answer.edns, answer.answer) == (dns.rcode.BADVERS, 0, [])


@pytest.mark.parametrize("opcode", [dns.opcode.IQUERY, dns.opcode.STATUS, dns.opcode.NOTIFY, dns.opcode.UPDATE, 9])
def test_other_operations_are_not_known(opcode: int) -> None:
    wire = bytearray(query(FOO, "A", id=77).to_wire())
    wire[2] |= opcode << 3
    on = responder()
    answer = on.answer(bytes(wire))
    assert bare(answer) == (77, dns.rcode.NOTIMP)
    assert answer is not None
    assert answer[2] >> 3 & 15 == opcode
    assert on.counters["notimp"] == 1


def test_nothing_is_answered_to_an_answer_or_to_less_than_a_header() -> None:
    on = responder()
    asked = query(FOO, "A")
    assert on.answer(dns.message.make_response(asked).to_wire()) is None
    assert on.answer(asked.to_wire()[:11]) is None
    assert on.answer(b"") is None
    assert on.counters["ignored"] == 3


def with_counts(*counts: int) -> bytes:
    wire = bytearray(query(FOO, "A", id=77).to_wire())
    for at, count in enumerate(counts):
        wire[4 + 2 * at : 6 + 2 * at] = count.to_bytes(2, "big")
    return bytes(wire)


@pytest.mark.parametrize(
    "wire",
    [
        with_counts(0),
        with_counts(2),
        with_counts(1, 1),
        with_counts(1, 0, 1),
        with_counts(1, 0, 0, 65535),
        with_counts(1, 0, 0, 1),
        with_counts(1)[:-1],
        with_counts(1) + b"x",
        with_counts(1)[:12] + b"\xc0\x0c\0\1\0\1",  # a name that is itself
        with_counts(1)[:12] + b"\x80\0\0\1\0\1",  # a label of a kind that is none
    ],
)
def test_what_is_malformed_is_told_so_and_no_more(wire: bytes) -> None:
    on = responder()
    assert bare(on.answer(wire)) == (77, dns.rcode.FORMERR)
    assert on.counters["formerr"] == 1


def test_who_signs_is_told_that_we_hold_no_key() -> None:
    asked = query(FOO, "A", id=77)
    asked.use_tsig({dns.name.from_text("key."): dns.tsig.Key("key.", b"secret")})
    assert bare(responder().answer(asked.to_wire())) == (77, dns.rcode.NOTAUTH)


@given(st.binary(max_size=80))
@example(b"\0\1\0\0\0\1\0\0\0\0\0\1\0\0\1\0\1\0\0\x29")
def test_whatever_comes_in_nothing_is_raised(junk: bytes) -> None:
    on = responder()
    for wire in (junk, query(FOO, "A", id=1).to_wire()[:12] + junk, b"\0\1\0\0\0\1\0\0\0\0\0\2" + junk):
        answer = on.answer(wire)
        assert answer is None or len(answer) <= 1232
        assert on.answer(wire, stream=True) is None or answer is not None


@given(st.integers(0, 200), st.integers(0, 255))
def test_a_query_with_one_byte_changed_is_answered_or_ignored(at: int, value: int) -> None:
    wire = bytearray(query(f"_vip._tcp.{FOO}", "SRV", use_edns=0, payload=4096, pad=64).to_wire())
    wire[at % len(wire)] = value
    answer = responder().answer(bytes(wire))
    assert answer is None or answer[:2] == wire[:2]


# -- the table ---------------------------------------------------------------------------------------------------------


def serial(on: Responder) -> int:
    return int(str(ask(query(DEFAULT_ZONE, "SOA"), on=on).answer[0][0]).split()[2])


def test_the_serial_goes_up_with_what_is_new_and_wraps() -> None:
    on = responder()
    before = serial(on)
    on.publish(dict(NAMES))
    assert serial(on) == before
    on.publish({})
    assert serial(on) == before + 1
    assert ask(query(FOO, "A"), on=on).rcode() == dns.rcode.NXDOMAIN
    on._serial = 2**32 - 1
    on.publish(NAMES)  # begins again
    assert serial(on) == 0


def test_the_longest_zone_answers_for_itself() -> None:
    zone = ".".join(["a" * 63, "a" * 63, "a" * 61])
    assert len(zone) == 189
    on = Responder(ZoneConfig(zone))
    on.publish({"a.b": NAMES["foo.marathon"]})
    assert rows(ask(query(f"a.b.{zone}", "A"), on=on)) == ["11.0.0.35"]
    assert ask(query(f"b.b.{zone}", "A"), on=on).rcode() == dns.rcode.NXDOMAIN


def test_names_too_long_to_be_asked_for_are_told() -> None:
    on = Responder(ZoneConfig(aliases=("vip",)))
    label = "a" * 61
    longest = f"a{label}.{label}.{label}.{'b' * 62}"  # 249, and .vip are the 253 that can be written
    assert on.publish({longest: NAMES["foo.marathon"]}) == []
    assert rows(ask(query(f"{longest}.vip", "A"), on=on)) == ["11.0.0.35"]
    assert on.publish({longest + "b": NAMES["foo.marathon"], "foo.marathon": NAMES["foo.marathon"]}) == [longest + "b"]


def test_an_answer_that_is_remembered_is_the_one_that_was_made_but_for_its_number() -> None:
    on = responder()
    for _ in range(2):
        for name in (FOO, f"bar.{DEFAULT_ZONE}", "example.org", f"_vip._tcp.many.ports.{DEFAULT_ZONE}"):
            for stream in (False, True):
                asked = query(name, "SRV")
                fresh = ask(asked, stream=stream)
                assert ask(asked, stream=stream, on=on) == fresh
                assert ask(asked, stream=stream, on=on).id == asked.id
    assert (on.counters["nodata"], on.counters["nxdomain"], on.counters["refused"], on.counters["truncated"]) == (8, 8, 8, 4)
    on.publish({})
    assert ask(query(FOO, "SRV"), on=on).rcode() == dns.rcode.NXDOMAIN


def test_so_many_answers_are_remembered_and_none_that_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyminuteman.vips.dns._ANSWERS_MAX", 16)
    on = responder()
    for number in range(20):
        ask(query(f"a{number}.{DEFAULT_ZONE}", "A"), on=on)
    assert len(on._answers) == 16
    on.publish({})
    on.publish(NAMES)
    ask(query(f"_vip._tcp.many.ports.{DEFAULT_ZONE}", "SRV"), on=on, stream=True)
    ask(query(FOO, "A", use_edns=0, pad=600), on=on)
    assert len(on._answers) == 0


def test_what_came_of_queries_is_counted() -> None:
    on = responder()
    for name in (FOO, f"marathon.{DEFAULT_ZONE}", f"bar.{DEFAULT_ZONE}", "example.org"):
        ask(query(name, "A"), on=on)
    ask(query(FOO, "A", use_edns=1), on=on)
    assert {name: count for name, count in on.counters.items() if count} == dict.fromkeys(
        ("noerror", "nodata", "nxdomain", "refused", "badvers"), 1
    )


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"zone": "a..b"}, "dns.zone: 'a..b' is not a domain"),
        ({"zone": ""}, "dns.zone: '' is not a domain"),
        ({"aliases": ("ok", "b" * 64)}, "dns.aliases: 'bbb.* is not a domain"),
        ({"zone": ".".join(["a" * 63] * 3)}, "dns.zone: .* is too long: 189 characters leave room for names"),
        ({"ttl_seconds": -1}, "dns.ttl_seconds: -1 is not a time"),
        ({"negative_ttl_seconds": 86401}, r"dns.negative_ttl_seconds: 86401 is not a time \(0 to 86400 seconds\)"),
        ({"nameserver_ttl_seconds": True}, "dns.nameserver_ttl_seconds: True"),
        ({"ttl_seconds": 1.5}, "dns.ttl_seconds: 1.5"),
        ({"nameserver_addresses": ("ns1",)}, "dns.nameserver_addresses: 'ns1' is not an IP address"),
    ],
)
def test_a_zone_that_cannot_be_is_refused(settings: dict[str, object], reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        ZoneConfig(**settings)  # type: ignore[arg-type]
