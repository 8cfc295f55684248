"""VIPs as documents: laws, and what is refused in which words."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyminuteman.ipvs import ForwardingMethod, Persistence, Protocol, ServiceFlags
from pyminuteman.plain import ipvs_words
from pyminuteman.sources import document as module
from pyminuteman.sources.base import SourceError, SourceState
from pyminuteman.sources.document import (
    Fault,
    keep_last_good,
    parse_document,
    parse_vip,
    plain_document,
    plain_vip,
    read_document,
    read_json,
)
from pyminuteman.vips.model import VIP, Backend, BackendKey, VIPKey, VIPName, VIPSettings

WEB = {"listen": "tcp://11.0.0.1:80"}
NAMED = {"name": "/web", "port": 80}
BACKEND = {"address": "10.0.0.5", "port": 8080}

ports = st.integers(1, 65535)
octets = st.integers(1, 223)
addresses4 = st.builds("{}.{}.{}.{}".format, octets, octets, octets, octets)
addresses6 = st.builds("fd00::{:x}:{:x}".format, st.integers(1, 65535), st.integers(1, 65535))
words = st.from_regex(r"[a-z0-9][a-z0-9/._ -]{0,20}", fullmatch=True).filter(lambda text: text.isprintable())
parts = st.from_regex(r"/?[a-z][a-z0-9/-]{0,20}", fullmatch=True)


@st.composite
def vips(draw: st.DrawFn) -> VIP:
    """Any VIP that a document can say."""
    six = draw(st.booleans())
    addresses = addresses6 if six else addresses4
    named = draw(st.booleans())
    protocol, port = draw(st.sampled_from(Protocol)), draw(ports)
    key = VIPKey(protocol, VIPName(draw(parts), draw(parts)) if named else draw(addresses), port)
    scheduler = draw(st.sampled_from(["wlc", "rr", "mh", "sh"]))
    flags = ServiceFlags(draw(st.integers(0, 7)) * 8 | (4 * draw(st.booleans()) if protocol is Protocol.UDP else 0))
    masks = ["", "128", "64"] if six else ["", "255.255.255.0"]
    persistence = draw(st.none() | st.builds(Persistence, st.integers(1, 2678400), st.sampled_from(masks)))
    forward = draw(st.sampled_from([ForwardingMethod.MASQUERADE, ForwardingMethod.ROUTE, ForwardingMethod.TUNNEL]))
    drain = draw(st.floats(0, 86400) | st.integers(0, 86400).map(float))
    to = ports if forward is ForwardingMethod.MASQUERADE else st.just(port)
    local = st.none() | st.builds(BackendKey, addresses, ports)
    backend = st.builds(Backend, addresses, to, st.integers(0, 65535), st.just("") | addresses4 | addresses6, local)
    backends = draw(st.lists(backend, max_size=4, unique_by=lambda made: made.key))
    return VIP(key, tuple(backends), VIPSettings(scheduler, flags, persistence, forward, drain))


@given(st.lists(vips(), max_size=4, unique_by=lambda vip: vip.key))
def test_what_is_written_is_read_again(made: list[VIP]) -> None:
    state = SourceState(tuple(sorted(made, key=lambda vip: vip.key.sort_key)))
    assert parse_document(json.loads(json.dumps(plain_document(state))), "x") == state
    for vip in made:
        assert parse_vip(json.loads(json.dumps(plain_vip(vip))), "x") == vip


ROOT = Path(__file__).parents[2]
PAGES = sorted(ROOT.glob("docs/sources/*.md"))


def test_the_example_of_the_documentation_says_what_it_should() -> None:
    text = (ROOT / "docs/sources/file.md").read_text().partition("```toml")[2].partition("```")[0]
    state = parse_document(tomllib.loads(text), "x")
    first = Backend("10.0.0.5", 8080, 2, "10.0.0.5", BackendKey("172.17.0.2", 80))
    settings = VIPSettings("mh", ServiceFlags.MH_PORT, Persistence(300, "24"), drain_seconds=30.0)
    assert state == SourceState(
        (
            VIP(VIPKey.tcp("11.0.0.1", 80), (first, Backend("10.0.0.6", 80)), settings),
            VIP(VIPKey.tcp(VIPName("/web", "minuteman"), 443), (), VIPSettings(forward=ForwardingMethod.ROUTE)),
        )
    )


@pytest.mark.parametrize(
    ("row", "place", "reason"),
    [
        ([], "", "it is a list; expected a table"),
        ("x", "", "it is a string; expected a table"),
        (None, "", "it is something else; expected a table"),
        ({}, "", "has neither listen (as in"),
        ({**WEB, "schedular": "rr"}, "schedular", "unknown key 'schedular'; did you mean 'scheduler'?"),
        ({**WEB, "zzzz": 1}, "zzzz", "unknown key 'zzzz'; there are backend, drain, "),
        ({**WEB, "\x1b[31m": 1}, "'\\x1b[31m'", "unknown key '\\x1b[31m'"),
        ({"listen": 80}, "listen", "listen 80 is not a string"),
        ({"listen": "11.0.0.1:80"}, "listen", "is not written as tcp://11.0.0.1:80, udp://[fd00::1]:53"),
        ({"listen": "http://11.0.0.1:80"}, "listen", "is not written as"),
        ({"listen": "tcp://"}, "listen", "is not written as"),
        ({"listen": "tcp://11.0.0.1"}, "listen", "has no port"),
        ({"listen": "tcp://fd00::1:80"}, "listen", "needs that in brackets"),
        ({"listen": "tcp://11.0.0.1:0"}, "listen", "0 is not a port (1 to 65535)"),
        ({"listen": "tcp://11.0.0.1:65536"}, "listen", "'65536' is not a port"),
        ({"listen": "tcp://11.0.0.1:" + "1" * 5000}, "listen", "listen 'tcp://11.0.0.1:1111"),
        ({"listen": "tcp://web:80"}, "listen", "a VIP by name has name and port instead"),
        ({"listen": "tcp://11.0.0.1.2:80"}, "listen", "'11.0.0.1.2' is not an IP address"),
        ({**WEB, "port": 80}, "port", "port does not go with listen, which says it all"),
        ({**WEB, "name": "/web"}, "name", "name does not go with listen"),
        ({**NAMED, "protocol": "TCP"}, "protocol", "is none of tcp, udp, sctp"),
        ({"name": "/web"}, "", "port is missing"),
        ({**NAMED, "port": True}, "port", "port True is not a whole number from 1 to 65535"),
        ({**NAMED, "name": 5}, "name", "name 5 is not a string"),
        ({**NAMED, "name": "w\x1bb"}, "name", "printable text"),
        ({**NAMED, "name": "\ud800"}, "name", "printable text"),
        ({**NAMED, "name": "x" * 256}, "name", "is not 1 to 255 bytes"),
        ({**NAMED, "name": "/"}, "name", "has no DNS name"),
        ({**NAMED, "framework": "+"}, "name", "has no DNS name"),
        ({**WEB, "scheduler": "a b"}, "", "is not a name"),
        ({**WEB, "scheduler": 5}, "scheduler", "is not a string"),
        ({**WEB, "flags": "ops"}, "flags", "is not a list"),
        ({**WEB, "flags": ["mh-port"]}, "flags[0]", "none of those of scheduler wlc: ops, flag-1, flag-2, flag-3"),
        ({**WEB, "flags": [[]]}, "flags[0]", "none of those of scheduler wlc"),
        ({**WEB, "flags": ["ops"]}, "", "one-packet scheduling is for UDP"),
        ({**NAMED, "flags": ["ops"]}, "", "one-packet scheduling is for UDP"),
        ({**WEB, "persistence": 300}, "persistence", "expected a table"),
        ({**WEB, "persistence": {"time": 3}}, "persistence.time", "did you mean 'timeout'?"),
        ({**WEB, "persistence": {"timeout": 0}}, "persistence.timeout", "from 1 to 2678400"),
        ({**WEB, "persistence": {"netmask": "64"}}, "", "expected a mask or 0 to 32"),
        ({**NAMED, "persistence": {"netmask": "129"}}, "", "expected a prefix length, 1 to 128"),
        ({**NAMED, "persistence": {"netmask": "9" * 5000}}, "persistence.netmask", "neither a mask nor"),
        ({**NAMED, "persistence": {"netmask": "x"}}, "", "expected a mask"),
        ({**WEB, "forward": "masq"}, "forward", "did you mean 'masquerade'?"),
        ({**WEB, "forward": "local"}, "forward", "is none of masquerade, tunnel, route"),
        ({**WEB, "drain": "30s"}, "drain", "is not a number of seconds from 0 to 86400"),
        ({**WEB, "drain": -1}, "drain", "is not a number of seconds"),
        ({**WEB, "drain": True}, "drain", "is not a number of seconds"),
        ({**WEB, "drain": float("nan")}, "drain", "is not a number of seconds"),
        ({**WEB, "drain": 1 << 100_000}, "drain", "drain (too long to show) is not a number of seconds"),
        ({**WEB, "backend": {}}, "backend", "is not a list"),
        ({**WEB, "backend": ["10.0.0.5:80"]}, "backend[0]", "backend[0] is a string; expected a table"),
        ({**WEB, "backend": [{}]}, "backend[0]", "address is missing"),
        ({**WEB, "backend": [BACKEND, {**BACKEND, "weigth": 3}]}, "backend[1].weigth", "did you mean 'weight'?"),
        (
            {**WEB, "backend": [{**BACKEND, "weight": "3"}]},
            "backend[0].weight",
            "weight '3' is not a whole number from 0 to 65535",
        ),
        ({**WEB, "backend": [{**BACKEND, "weight": 65536}]}, "backend[0].weight", "from 0 to 65535"),
        ({**WEB, "backend": [{**BACKEND, "port": 0}]}, "backend[0].port", "from 1 to 65535"),
        ({**WEB, "backend": [{"address": "db1"}]}, "backend[0].address", "'db1' is not an IP address"),
        ({**WEB, "backend": [{"address": "224.0.0.1"}]}, "backend[0].address", "is not a unicast address"),
        ({**WEB, "backend": [{"address": "fd00::5"}]}, "backend[0].address", "of the other address family, only by a tunnel"),
        ({**WEB, "forward": "route", "backend": [BACKEND]}, "backend[0].port", "forward = 'route' cannot change the port"),
        ({**WEB, "backend": [BACKEND, BACKEND]}, "backend[1]", "tcp://11.0.0.1:80 has backend 10.0.0.5:8080 twice"),
        (
            {**WEB, "backend": [{**BACKEND, "agent": "node7"}]},
            "backend[0].agent",
            "agent 'node7' is not an IP address; it is the",
        ),
        ({**WEB, "backend": [{**BACKEND, "local": "172.17.0.2"}]}, "backend[0].local", "is not ADDRESS:PORT"),
        ({**WEB, "backend": [{**BACKEND, "local": "172.17.0.2:0"}]}, "backend[0].local", "is not ADDRESS:PORT"),
        ({**WEB, "backend": [{**BACKEND, "local": "x:80"}]}, "backend[0].local", "local 'x' is not an IP address"),
    ],
)
def test_refusals(row: object, place: str, reason: str) -> None:
    with pytest.raises(SourceError) as caught:
        parse_vip(row, "/vips/web")
    said = str(caught.value)
    assert said.startswith(f"/vips/web: {place}: " if place else "/vips/web: ")
    assert reason in said
    assert said.isprintable()
    assert len(said) < 500


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ([], "x: it is a list; expected a table"),
        ({"vips": []}, "x: vips: unknown key 'vips'; did you mean 'vip'?"),
        ({"version": 2}, "x: version: version 2 is not known here; this reads version 1"),
        ({"vip": {}}, "x: vip: vip {} is not a list"),
    ],
)
def test_refusals_of_the_whole(data: object, reason: str) -> None:
    with pytest.raises(SourceError) as caught:
        parse_document(data, "x")
    assert str(caught.value) == reason


def test_a_vip_that_is_wrong_is_left_out_and_told_and_the_others_count() -> None:
    bad = {**WEB, "backend": [BACKEND, {**BACKEND, "weight": -1}]}
    state = parse_document({"vip": [NAMED, bad, 5, {"listen": "udp://11.0.0.1:53"}]}, "FILE")
    assert [str(vip.key) for vip in state.vips] == ["tcp:///web@minuteman:80", "udp://11.0.0.1:53"]
    assert [str(problem) for problem in state.problems] == [
        "FILE: vip[1].backend[1].weight: weight -1 is not a whole number from 0 to 65535",
        "FILE: vip[2]: vip[2] is a whole number; expected a table",
    ]


def test_whose_description_is_wrong_is_known_when_its_key_can_be_read() -> None:
    key = VIPKey.tcp("11.0.0.1", 80)
    twice = read_document({"vip": [WEB, {**WEB, "scheduler": "rr"}, {"listen": "x"}]})
    assert twice.vips == (VIP(key),)
    assert [(fault.place, fault.key) for fault in twice.faults] == [(("vip", 1), key), (("vip", 2, "listen"), None)]
    assert twice.faults[0].reason == "tcp://11.0.0.1:80 is described twice, first as vip[0]"
    wrong = read_document({"vip": [{**WEB, "x": 1}, {**WEB, "drain": -1}]})
    assert wrong.faults == (
        Fault(("vip", 0, "x"), wrong.faults[0].reason, None),
        Fault(("vip", 1, "drain"), wrong.faults[1].reason, key),
    )


def test_a_typing_error_takes_nothing_away_that_was_there() -> None:
    one, two, three = (VIP(VIPKey.tcp("11.0.0.1", port)) for port in (1, 2, 3))
    new = VIP(one.key, settings=VIPSettings("rr"))
    assert keep_last_good([new, three], [], []) == (new, three)
    assert keep_last_good([three], [one.key], []) == (three,)
    assert keep_last_good([three], [None], []) == (three,)
    assert keep_last_good([three], [one.key], [one, two]) == (one, three)
    assert keep_last_good([new, three], [one.key], [one, two]) == (new, three)  # described twice: the right one counts
    assert keep_last_good([three], [None, one.key], [one, two]) == (one, two)


def test_what_is_equal_is_the_same_object_again() -> None:
    before = parse_document({"vip": [WEB, NAMED]}, "x").vips
    after = parse_document({"vip": [{**WEB, "scheduler": "rr"}, NAMED]}, "x").vips
    kept = keep_last_good(after, [], before)
    assert kept == after
    assert [vip is old for vip, old in zip(kept, before, strict=True)] == [
        vip == old for vip, old in zip(after, before, strict=True)
    ]
    assert sum(vip is old for vip, old in zip(kept, before, strict=True)) == 1


def test_vips_are_in_the_order_of_their_keys_whatever_the_documents() -> None:
    rows = [{"listen": f"tcp://11.0.0.{last}:{port}"} for last in (9, 10, 2) for port in (443, 80)] + [NAMED]
    forwards, backwards = parse_document({"vip": rows}, "x"), parse_document({"vip": rows[::-1]}, "x")
    assert forwards == backwards
    assert [vip.key for vip in forwards.vips] == sorted((vip.key for vip in forwards.vips), key=lambda key: key.sort_key)
    assert len(forwards.vips) == 7


def test_null_is_as_good_as_absent() -> None:
    row = {**WEB, "name": None, "scheduler": None, "flags": None, "persistence": None, "drain": None, "forward": None}
    backend = {**BACKEND, "weight": None, "agent": None, "local": None}
    assert parse_vip({**row, "backend": [backend]}, "x") == parse_vip({**WEB, "backend": [BACKEND]}, "x")
    assert parse_document({"vip": None, "version": None}, "x") == SourceState()


def test_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "VIPS_MAX", 2)
    monkeypatch.setattr(module, "BACKENDS_MAX", 1)
    with pytest.raises(SourceError, match="there are 3 VIPs; a document has at most 2"):
        parse_document({"vip": [WEB, NAMED, {}]}, "x")
    with pytest.raises(SourceError, match="there are 2 backends; a VIP has at most 1"):
        parse_vip({**WEB, "backend": [BACKEND, {**BACKEND, "port": 1}]}, "x")


def test_the_schema_has_the_same_keys_and_limits() -> None:
    schema = json.loads(Path(module.__file__).with_name("vips.schema.json").read_text())
    kinds = schema["$defs"]
    assert schema["properties"].keys() == module.KEYS[""]
    assert schema["properties"]["vip"]["maxItems"] == module.VIPS_MAX
    assert kinds["vip"]["properties"]["backend"]["maxItems"] == module.BACKENDS_MAX
    assert kinds["vip"]["properties"]["drain"]["maximum"] == module.DRAIN_SECONDS_MAX
    assert kinds["persistence"]["properties"].keys() == ipvs_words.PERSISTENCE_KEYS
    for kind in module.KEYS.keys() - {""}:
        assert kinds[kind]["properties"].keys() == module.KEYS[kind], kind
        assert kinds[kind]["additionalProperties"] is False


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_tests_that_the_pages_name_are_there(page: Path) -> None:
    known = set(re.findall(r"def (test_\w+)", "".join(path.read_text() for path in ROOT.glob("tests/**/*.py"))))
    text = page.read_text()
    for name, more in re.findall(r"`(test_[a-z]\w*?)(\.{3})?`", text):
        assert any(other.startswith(name) if more else other == name for other in known), name


def test_the_words_are_those_of_desired_tables() -> None:
    from pyminuteman.cli.desired import KEYS as TABLE_KEYS  # noqa: PLC0415 - only here: no source needs the command line

    table, vip = TABLE_KEYS["service"], module.KEYS["vip"]
    assert vip - {"listen", "name", "framework", "forward", "drain", "backend"} <= table
    assert module.KEYS["backend"] - {"agent", "local"} <= TABLE_KEYS["destination"]
    assert TABLE_KEYS["persistence"] == ipvs_words.PERSISTENCE_KEYS


any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10) | st.sampled_from(["tcp://1.2.3.4:5", "rr"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(sorted({*module.KEYS["vip"], *module.KEYS["backend"], "vip", "timeout"})), inner, max_size=6
        )
    ),
    max_leaves=20,
)


def said(parse: Callable[[object, str], object], row: object) -> str:
    """What is wrong with it, if anything is."""
    try:
        parse(row, "x")
    except SourceError as error:
        return str(error)
    return "x: "


@given(any_json)
def test_whatever_is_there_it_is_a_vip_or_an_error_of_ours(data: Any) -> None:
    for row in (data, {"vip": data}, {"vip": [data, {**WEB, "backend": [data]}]}):
        assert said(parse_document, row).startswith("x: ")
    for row in (data, {**WEB, "backend": data}, {**NAMED, "persistence": data, "flags": data}):
        assert said(parse_vip, row).startswith("x: ")


def test_a_body_is_read_with_what_stood_before_where_it_is_wrong() -> None:
    good = read_json(json.dumps({"vip": [WEB]}).encode(), "there", ())
    assert [str(found.key) for found in good.vips] == ["tcp://11.0.0.1:80"]
    state = read_json(json.dumps({"vip": [WEB | {"scheduler": 7}]}).encode(), "there", good.vips)
    assert state.vips == good.vips
    assert [problem.where for problem in state.problems] == ["there: vip[0].scheduler"]
    for body, reason in ((b"{", "there: line 1"), (b"[]", "there: "), (b'{"version": 2}', "there: version: version 2")):
        with pytest.raises(SourceError, match=re.escape(reason)):
            read_json(body, "there", good.vips)
