"""The text for iptables-restore, and reading iptables-save: without a kernel."""

from __future__ import annotations

from itertools import product

import pytest

from pyminuteman.host import iptables_rules as rules
from pyminuteman.host.filtering import NOTHING, Listed, Parts
from pyminuteman.ipvs import ServiceKey

WANTED = Listed.of(["11.0.0.9"], [ServiceKey.tcp("11.0.0.1", 80), ServiceKey.sctp("11.0.0.1", 9), ServiceKey.udp("fd01::1", 0)])
OTHERS = {
    "nat": {
        "PREROUTING": ["-j DOCKER"],
        "OUTPUT": [],
        "POSTROUTING": ["-s 172.17.0.0/16 -j MASQUERADE"],
        "DOCKER": ["-j RETURN"],
    },
    "filter": {"INPUT": ["-p tcp -j ACCEPT"], "FORWARD": []},
}


def carried_out(saved: rules.SavedRules, text: str) -> dict[str, dict[str, list[str]]]:
    """What iptables-restore --noflush makes of it."""
    tables = {table: {chain: list(lines) for chain, lines in chains.items()} for table, chains in saved.items()}
    chains: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("*"):
            chains = tables.setdefault(line[1:], {})
        elif line.startswith(":"):
            chains[line[1:].split()[0]] = []
        elif line != "COMMIT":
            verb, chain, rule = [*line.split(" ", 2), ""][:3]
            match verb:
                case "-A":
                    chains[chain].append(rule)
                case "-I":
                    chains[chain].insert(0, rule.removeprefix("1 "))
                case "-D":
                    chains[chain].remove(rule)
                case "-F":
                    chains[chain].clear()
                case "-X":
                    assert not chains.pop(chain)
                    jumps = [rule for lines in chains.values() for rule in lines if rule.endswith(f"-j {chain}")]
                    assert not jumps
    return tables


def of_version(content: Listed, version: int) -> Listed:
    kind = "." if version == 4 else ":"
    return Listed(
        frozenset(address for address in content.addresses if kind in address),
        frozenset(port for port in content.ports if kind in port.address),
    )


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(("masquerade", "guard", "bypass"), list(product([False, True], repeat=3)))
def test_what_is_installed_is_whole_and_goes_without_a_trace(version: int, masquerade: bool, guard: bool, bypass: bool) -> None:
    parts = Parts(masquerade, guard, bypass)
    saved = carried_out(OTHERS, rules.install(version, WANTED, parts, OTHERS))
    for other in (Parts(*choice) for choice in product([False, True], repeat=3)):
        assert rules.is_whole(version, saved, other) == (other == parts)
    if guard:
        found = rules.listed(saved)
        assert found == of_version(WANTED, version)
    again = carried_out(saved, rules.install(version, WANTED, parts, saved))
    assert {table: {k: sorted(v) for k, v in c.items()} for table, c in again.items()} == {
        table: {k: sorted(v) for k, v in c.items()} for table, c in saved.items()
    }
    assert carried_out(saved, rules.remove(saved)) == OTHERS


def test_parts_that_are_not_wanted_any_more_go() -> None:
    saved = carried_out(OTHERS, rules.install(4, WANTED, Parts(), OTHERS))
    saved = carried_out(saved, rules.install(4, WANTED, Parts(guard=False, bypass=False), saved))
    assert {chain for chains in saved.values() for chain in chains if "MINUTEMAN" in chain} == {"MINUTEMAN-MASQUERADE"}
    saved = carried_out(saved, rules.install(4, WANTED, Parts(masquerade=False), saved))
    assert rules.is_whole(4, saved, Parts(masquerade=False))


def test_changes_lead_to_the_same_as_writing_anew() -> None:
    less = Listed.of(["11.0.0.1"], [ServiceKey.tcp("11.0.0.1", 81)])
    saved = carried_out(OTHERS, rules.install(4, less, Parts(), OTHERS))
    saved = carried_out(saved, rules.update(4, WANTED - less, less - WANTED, Parts()))
    assert rules.listed(saved) == of_version(WANTED, 4)
    assert rules.is_whole(4, saved, Parts())
    assert rules.update(4, NOTHING, NOTHING, Parts()) == ""
    assert rules.update(4, WANTED, NOTHING, Parts(guard=False, bypass=False)) == ""


def test_a_jump_that_is_not_first_any_more_is_put_there_again() -> None:
    saved = carried_out(OTHERS, rules.install(4, WANTED, Parts(), OTHERS))
    saved["nat"]["OUTPUT"].insert(0, "-j DOCKER")
    assert not rules.is_whole(4, saved, Parts())
    saved = carried_out(saved, rules.install(4, WANTED, Parts(), saved))
    assert rules.is_whole(4, saved, Parts())
    assert saved["nat"]["OUTPUT"][1:] == ["-j DOCKER"]


def test_rules_that_somebody_changed_are_not_whole() -> None:
    saved = carried_out(OTHERS, rules.install(4, WANTED, Parts(), OTHERS))
    saved["nat"]["MINUTEMAN-MASQUERADE"] = []
    assert not rules.is_whole(4, saved, Parts())
    saved = carried_out(OTHERS, rules.install(4, WANTED, Parts(), OTHERS))
    saved["filter"]["MINUTEMAN-SERVICES"].pop()
    assert not rules.is_whole(4, saved, Parts())
    assert not rules.is_whole(4, {}, Parts())


def test_what_iptables_legacy_save_prints_is_read() -> None:
    text = """# Generated by iptables-save
*nat
:PREROUTING ACCEPT [12:720]
:MINUTEMAN-MASQUERADE - [0:0]
-A PREROUTING -m comment --comment minuteman -j MINUTEMAN-BYPASS
-A MINUTEMAN-MASQUERADE -m ipvs --vdir ORIGINAL --vmethod MASQ -j MASQUERADE
COMMIT
"""
    assert rules.parse_saved(text) == {
        "nat": {
            "PREROUTING": ["-m comment --comment minuteman -j MINUTEMAN-BYPASS"],
            "MINUTEMAN-MASQUERADE": ["-m ipvs --vdir ORIGINAL --vmethod MASQ -j MASQUERADE"],
        }
    }


@pytest.mark.parametrize(("masquerade", "guard", "bypass"), list(product([False, True], repeat=3)))
def test_the_probe_adds_what_is_wanted_and_takes_it_away(masquerade: bool, guard: bool, bypass: bool) -> None:
    add, remove = rules.probe(4, Parts(masquerade, guard, bypass))
    assert ("-m ipvs" in add, "REJECT" in add, "*nat" in add) == (masquerade, guard, masquerade or bypass)
    assert carried_out(carried_out(OTHERS, add), remove) == OTHERS


def test_a_service_on_every_port_has_a_rule_without_one() -> None:
    assert "-A MINUTEMAN" not in (text := rules.update(6, WANTED, NOTHING, Parts()))
    assert "-I MINUTEMAN-SERVICES -d fd01::1/128 -p udp -j RETURN\n" in text
