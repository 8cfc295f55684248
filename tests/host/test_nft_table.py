"""The JSON of our table: what stands in which hook, and that a listing is read back, however odd."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from pyminuteman.host import nft_table
from pyminuteman.host.filtering import NOTHING, Listed, Parts, Port, family_of
from pyminuteman.ipvs import ServiceKey

WANTED = Listed.of(
    ["11.0.0.9"],
    [ServiceKey.tcp("11.0.0.1", 80), ServiceKey.udp("fd01::1", 53), ServiceKey.sctp("11.0.0.1", 9), ServiceKey.fwmark(7)],
)
NUMBERS = {"tcp": 6, "udp": 17, "sctp": 132}


def listing(commands: list[Any], *, numeric: bool = False) -> dict[str, Any]:
    """What nft would list after these commands."""
    items: list[dict[str, Any]] = [{"metainfo": {"version": "1.0.6"}}]
    for command in commands:
        ((verb, inside),) = command.items()
        ((kind, what),) = inside.items()
        if verb == "delete":
            items = items[:1]
        elif kind == "element":
            (found,) = [item["set"] for item in items if item.get("set", {}).get("name") == what["name"]]
            elements = what["elem"]
            if numeric:
                elements = [
                    {"concat": [e["concat"][0], NUMBERS[e["concat"][1]], e["concat"][2]]} if isinstance(e, dict) else e
                    for e in elements
                ]
            found["elem"] = [*found.get("elem", []), *elements]
        else:
            items.append({kind: dict(what)})
    return {"nftables": items}


def test_services_become_addresses_and_ports() -> None:
    assert WANTED.addresses == {"11.0.0.1", "11.0.0.9", "fd01::1"}
    assert WANTED.ports == {Port("11.0.0.1", "tcp", 80), Port("11.0.0.1", "sctp", 9), Port("fd01::1", "udp", 53)}
    assert WANTED - WANTED == NOTHING == WANTED - (WANTED | NOTHING)
    assert (bool(WANTED), bool(NOTHING), bool(Listed(frozenset({"11.0.0.1"})))) == (True, False, True)
    assert (family_of("11.0.0.1"), family_of("fd01::1")) == (4, 6)


@pytest.mark.parametrize("numeric", [False, True])
@pytest.mark.parametrize(("masquerade", "guard", "bypass"), list(product([False, True], repeat=3)))
def test_what_is_installed_is_read_back(masquerade: bool, guard: bool, bypass: bool, numeric: bool) -> None:
    parts = Parts(masquerade, guard, bypass)
    assert bool(parts) == (masquerade or guard or bypass)
    shown = listing(nft_table.install(WANTED, parts), numeric=numeric)
    assert nft_table.listed(shown) == WANTED
    for other in (Parts(*choice) for choice in product([False, True], repeat=3)):
        assert nft_table.is_whole(shown, other) == (other == parts)


def test_changes_lead_to_the_same_as_writing_anew() -> None:
    less = Listed.of(["11.0.0.1"], [ServiceKey.tcp("11.0.0.1", 80)])
    commands = [*nft_table.install(less, Parts()), *nft_table.update(WANTED - less, less - WANTED)]
    assert nft_table.listed(listing(commands)) == WANTED
    assert nft_table.update(NOTHING, NOTHING) == []
    removed = nft_table.update(NOTHING, WANTED)
    assert {verb for command in removed for verb in command} == {"delete"}


def test_the_hooks_are_where_they_must_be() -> None:
    """The numbers are explained at the top of nft_table.py."""
    chains = {
        item["add"]["chain"]["name"]: item["add"]["chain"]
        for item in nft_table.install(NOTHING, Parts())
        if "chain" in item.get("add", {})
    }
    places = {name: (chain.get("type"), chain.get("hook"), chain.get("prio")) for name, chain in chains.items()}
    assert places == {
        "bypass_prerouting": ("nat", "prerouting", -101),
        "bypass_output": ("nat", "output", -101),
        "masquerade": ("nat", "postrouting", 100),
        "guarded": (None, None, None),
        "guard": ("filter", "input", 101),
    }
    assert {chain["policy"] for name, chain in chains.items() if name != "guarded"} == {"accept"}


def test_it_is_all_in_our_own_table() -> None:
    for commands, table in ((nft_table.install(WANTED, Parts()), "minuteman"), (nft_table.probe(Parts()), "minuteman_probe")):
        for command in commands:
            for inside in command.values():
                for kind, what in inside.items():
                    assert (what["family"], what["name" if kind == "table" else "table"]) == ("inet", table)


def test_the_probe_removes_what_it_adds() -> None:
    assert list(nft_table.probe(Parts())[-1]) == ["delete"]


@pytest.mark.parametrize("broken", ["rule gone", "rule more", "order", "priority", "comment gone"])
def test_a_table_that_somebody_changed_is_not_whole(broken: str) -> None:
    shown = listing(nft_table.install(WANTED, Parts()))
    items = shown["nftables"]
    rules = [at for at, item in enumerate(items) if item.get("rule", {}).get("chain") == "guarded"]
    match broken:
        case "rule gone":
            del items[rules[-1]]
        case "rule more":
            items.append({"rule": {"chain": "guard", "expr": []}})
        case "order":
            items[rules[0]], items[rules[1]] = items[rules[1]], items[rules[0]]
        case "priority":
            next(item["chain"] for item in items if item.get("chain", {}).get("name") == "guard")["prio"] = 0
        case _:
            del items[rules[0]]["rule"]["comment"]
    assert not nft_table.is_whole(shown, Parts())


def test_an_odd_listing_is_read_as_far_as_it_makes_sense() -> None:
    shown = {"nftables": [{"set": {"name": "vip4", "elem": [7, {"range": []}, "11.0.0.1"]}}, {"set": {"name": "vip6"}}]}
    assert nft_table.listed(shown) == Listed(frozenset({"11.0.0.1"}))
    assert nft_table.listed({}) == NOTHING
    assert not nft_table.is_whole({}, Parts())
