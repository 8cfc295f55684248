"""Plain data and back: laws, and what is refused in which words."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from pyminuteman.cli import desired as module
from pyminuteman.cli.desired import KEYS, from_plain, to_plain
from pyminuteman.cli.toml_writer import format_toml
from pyminuteman.ipvs import Destination, Service, Snapshot, Tunnel
from pyminuteman.plain.fields import Invalid, place_text
from tests.support.strategies import tables

Table = dict[Service, tuple[Destination, ...]]


@given(table=tables())
def test_json_round_trip(table: Table) -> None:
    text = json.dumps({"version": 1, "service": list(to_plain(table.items()))})
    again = from_plain(json.loads(text))
    assert again.services == table
    assert again.scope == ()


@given(table=tables())
def test_toml_round_trip(table: Table) -> None:
    text = format_toml(list(to_plain(table.items())))
    assert from_plain(tomllib.loads(text)).services == table


@given(table=tables())
def test_only_known_keys_are_written(table: Table) -> None:
    for service in to_plain(Snapshot.of(table).items()):
        assert service.keys() <= KEYS["service"]
        assert all(row.keys() == KEYS["destination"] - {"statistics"} for row in service["destination"])


def test_schema_has_the_same_keys() -> None:
    schema = json.loads(Path(module.__file__).with_name("desired.schema.json").read_text())
    kinds = schema["$defs"]
    assert schema["properties"].keys() == KEYS[""]
    for kind in KEYS.keys() - {""}:
        assert kinds[kind]["properties"].keys() == KEYS[kind], kind
        assert kinds[kind]["additionalProperties"] is False


def test_defaults() -> None:
    plain = {"service": [{"protocol": "tcp", "address": "11.0.0.1", "port": 80, "destination": [{"address": "10.0.0.5"}]}]}
    assert from_plain(plain).services == {Service.tcp("11.0.0.1", 80): (Destination("10.0.0.5", 80),)}
    tunnelled = {"address": "10.0.0.5", "forward": "tunnel", "tunnel": {"type": "gue", "port": 6080}}
    plain["service"][0]["destination"] = [tunnelled]  # type: ignore[index]
    ((row,),) = from_plain(plain).services.values()
    assert row.tunnel == Tunnel(type=row.tunnel.type, port=6080) if row.tunnel else False


def test_statistics_are_passed_over() -> None:
    row = {"address": "10.0.0.5", "statistics": {"active_connections": 3}}
    service = {"fwmark": 7, "family": "ipv6", "statistics": {"anything": [1]}, "destination": [{**row, "address": "fd00::5"}]}
    assert len(from_plain({"version": 1, "kernel": {"x": 1}, "service": [service]}).services) == 1


TCP = {"protocol": "tcp", "address": "11.0.0.1", "port": 80}
ROW = {"address": "10.0.0.5"}


@pytest.mark.parametrize(
    ("service", "place", "reason"),
    [
        ({**TCP, "wieght": 1}, "service[0].wieght", "unknown key 'wieght'; there are address, "),
        ({**TCP, "schduler": "rr"}, "service[0].schduler", "did you mean 'scheduler'?"),
        ({**TCP, "destination": [{**ROW, "wieght": 1}]}, "service[0].destination[0].wieght", "did you mean 'weight'?"),
        (
            {**TCP, "destination": [ROW, {**ROW, "weight": "x"}]},
            "service[0].destination[1].weight",
            "weight 'x' is not a whole",
        ),
        ({**TCP, "destination": [{**ROW, "weight": True}]}, "service[0].destination[0].weight", "weight True is not a whole"),
        ({**TCP, "destination": [{**ROW, "weight": 2**31}]}, "service[0].destination[0].weight", "from 0 to 2147483647"),
        ({**TCP, "destination": [ROW, {**ROW, "port": 80}]}, "service[0].destination[1]", "10.0.0.5:80 twice"),
        ({**TCP, "destination": [{"address": "fd00::5"}]}, "service[0].destination[0]", "only by a tunnel"),
        ({**TCP, "destination": [{"address": "10.0.5"}]}, "service[0].destination[0]", "is not an IP address"),
        ({**TCP, "destination": [{"port": 5}]}, "service[0].destination[0]", "address is missing"),
        (
            {**TCP, "destination": [{**ROW, "forward": "masq"}]},
            "service[0].destination[0].forward",
            "did you mean 'masquerade'?",
        ),
        ({**TCP, "destination": [{**ROW, "tunnel": {}}]}, "service[0].destination[0]", "goes with the TUNNEL method"),
        (
            {**TCP, "destination": [{**ROW, "forward": "tunnel", "tunnel": {"type": "gue"}}]},
            "service[0].destination[0]",
            "a GUE tunnel needs a port",
        ),
        ({**TCP, "destination": ROW}, "service[0].destination", "is not a list"),
        ({**TCP, "destination": [5]}, "service[0].destination[0]", "is a whole number; expected a table"),
        ({**TCP, "address": 5}, "service[0].address", "address 5 is not a string"),
        ({**TCP, "address": "11.0.0"}, "service[0].address", "is not an IP address"),
        ({**TCP, "port": "80"}, "service[0].port", "port '80' is not a whole number from 0 to 65535"),
        ({**TCP, "port": 0}, "service[0]", "needs persistence"),
        ({**TCP, "protocol": "TCP"}, "service[0].protocol", "is none of tcp, udp, sctp"),
        ({**TCP, "family": "ipv4"}, "service[0].family", "family goes with fwmark"),
        ({**TCP, "fwmark": 7}, "service[0].protocol", "a service by fwmark has no protocol"),
        ({"fwmark": 0}, "service[0].fwmark", "from 1 to 4294967295"),
        ({"fwmark": 7, "family": "ip6"}, "service[0].family", "did you mean 'ipv6'?"),
        ({**TCP, "flags": ["sh-port"]}, "service[0].flags[0]", "none of those of scheduler wlc"),
        ({**TCP, "flags": ["ops"]}, "service[0]", "one-packet"),
        ({**TCP, "scheduler": "a b"}, "service[0]", "is not a name"),
        ({**TCP, "persistence": {"timeout": 0}}, "service[0].persistence.timeout", "from 1 to 2678400"),
        ({**TCP, "persistence": {"netmask": "x"}}, "service[0]", "expected a mask"),
        ({**TCP, "persistence": {"netmask": []}}, "service[0].persistence.netmask", "is not a string"),
        ({**TCP, "persistence": 300}, "service[0].persistence", "expected a table"),
        ({"address": "11.0.0.1", "port": 5}, "service[0]", "protocol is missing"),
    ],
)
def test_refusals(service: dict[str, Any], place: str, reason: str) -> None:
    with pytest.raises(Invalid) as caught:
        from_plain({"service": [service]})
    assert place_text(caught.value.place) == place
    assert reason in caught.value.reason


@pytest.mark.parametrize(
    ("data", "place", "reason"),
    [
        ([], "", "expected a table"),
        ({"services": []}, "services", "did you mean 'service'?"),
        ({"service": [TCP, {**TCP, "scheduler": "rr"}]}, "service[1]", "is described twice, first as service[0]"),
        ({"version": 2}, "version", "this reads version 1"),
        ({"scope": {}}, "scope", "the scope is empty"),
        ({"scope": {"networks": [5]}}, "scope.networks[0]", "is not a string"),
        ({"scope": {"fwmarks": [True]}}, "scope.fwmarks[0]", "neither a number nor a range"),
        ({"scope": {"everything": 1}}, "scope.everything", "is not true or false"),
        ({"scope": ["11.0.0.0/8"]}, "scope", "expected a table"),
    ],
)
def test_refusals_of_the_whole(data: object, place: str, reason: str) -> None:
    with pytest.raises(Invalid) as caught:
        from_plain(data)
    assert place_text(caught.value.place) == place
    assert reason in caught.value.reason


def test_scope_words() -> None:
    scope = {"networks": ["11.0.0.0/8"], "fwmarks": [7, "8-9"], "everything": True}
    assert from_plain({"scope": scope}).scope == ("11.0.0.0/8", "fwmark:7", "fwmark:8-9", "everything")
