"""What differs between two configurations, and what of it counts without a restart."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pyminuteman.addresses import Endpoint
from pyminuteman.daemon.config import DaemonConfig, HealthConfig, NodeConfig, SourceConfig
from pyminuteman.daemon.config_changes import Change, changed, in_force, restart_needed, told
from pyminuteman.daemon.config_document import read_config
from pyminuteman.errors import ConfigurationError
from pyminuteman.vips.policy import Policy


def test_what_takes_a_restart_is_told_and_nothing_else():
    old = DaemonConfig()
    assert restart_needed(old, old) == ()
    new = replace(
        old,
        node=replace(old.node, bind=Endpoint("10.0.0.1", 1), profile="wan"),
        sources=(SourceConfig(name="a", place="push:"),),
        policy=Policy(rules=()),
        ipvs=replace(old.ipvs, drain_seconds=3.0),
        health=replace(old.health, rise=9, concurrency=9),
        api=replace(old.api, hosts=("x",), group="x"),
        log=replace(old.log, level="debug"),
    )
    assert restart_needed(old, new) == ("node.bind", "node.profile", "health.concurrency", "api.group")
    assert [change.key for change in changed(old, new) if not change.restart] == [
        *("source.a", "policy.rule", "ipvs.drain_seconds", "health.rise", "api.hosts", "log.level"),
    ]


def test_changes_are_told_key_by_key():
    old = DaemonConfig(
        sources=(SourceConfig(name="a", place="push:"), SourceConfig(name="b", place="push:")),
        node=NodeConfig(membership_overrides=(("members_max", 9),)),
    )
    new = replace(
        old,
        sources=(SourceConfig(name="c", place="push:"), old.sources[1], replace(old.sources[0], publish="own")),
        node=replace(old.node, membership_overrides=(("local_health_max", 4), ("members_max", 8))),
        store=replace(old.store, lease_seconds=9.0, limits=replace(old.store.limits, own_keys_max=5)),
    )
    assert changed(old, new) == (
        Change("membership.members_max", restart=True),
        Change("membership.local_health_max", restart=True),
        Change("store.limits.own_keys_max", restart=True),
        Change("store.lease_seconds", restart=True),
        Change("source.a", restart=False),
        Change("source.c", restart=False),
    )
    assert changed(old, replace(old, sources=old.sources[::-1])) == ()


# -- what counts then ----------------------------------------------------------------------------------------------------


def config(**sections: Any) -> DaemonConfig:
    return read_config({"cluster": {"insecure": True}, **sections})


def test_what_counts_is_the_new_one_but_for_what_takes_a_restart():
    source = {"name": "a", "place": "file:/a", "health": {"rise": 3}}
    old = config(source=[source])
    new = config(
        node={"name": "n2"},
        source=[source | {"publish": "own"}],
        ipvs={"audit_seconds": 5, "managed": ["10.9.0.0/16"]},
        health={"check": "", "fall": 9, "concurrency": 7},
        api={"hosts": ["x"], "group": "others"},
        store={"lease_seconds": 5, "limits": {"own_keys_max": 3}},
        log={"level": "debug"},
    )
    found = in_force(old, new)
    assert (found.node, found.store, found.api.group) == (old.node, old.store, old.api.group)
    assert (found.sources[0].publish, found.ipvs, found.log, found.api.hosts) == ("own", new.ipvs, new.log, ("x",))
    assert (found.health.fall, found.health.concurrency) == (9, 64)
    assert found.sources[0].health == HealthConfig(check="", rise=3, fall=9)
    assert restart_needed(found, new) == restart_needed(old, new), "it is said again until it is so"
    assert [change for change in changed(found, new) if not change.restart] == []
    assert in_force(found, old) == old, "back again"


def test_managed_networks_that_are_not_said_follow_the_names_that_count():
    old = config(names={"ipv4_range": "11.0.0.0-11.0.0.254", "ipv6_range": ""})
    new = config(names={"ipv4_range": "12.0.0.0-12.0.0.254", "ipv6_range": ""})
    assert (old.ipvs.managed, new.ipvs.managed) == (("11.0.0.0/24",), ("12.0.0.0/24",))
    assert in_force(old, new).ipvs.managed == ("11.0.0.0/24",)
    assert restart_needed(old, new) == ("names.ipv4_range",)
    nameless = config(names={"ipv4_range": "", "ipv6_range": ""}, ipvs={"managed": ["13.0.0.0/8"]})
    assert in_force(nameless, new).ipvs.managed == ("13.0.0.0/8",)


def test_what_would_need_a_restart_first_is_refused():
    old = config(api={"socket": ""})
    new = config(source=[{"name": "a", "place": "push:"}])
    with pytest.raises(
        ConfigurationError, match=r"^source\[0\].place: nothing can be sent .* after a restart, which api.socket needs"
    ):
        in_force(old, new)


# -- how it is told ------------------------------------------------------------------------------------------------------


def test_it_is_told_line_by_line_without_secrets():
    old = config(
        source=[
            {"name": "a", "place": "http://u:one@h/x"},
            {"name": "b", "place": "file:/b", "health": {"rise": 3}},
            {"name": "c", "place": "file:/c"},
            {"name": "d", "place": "file:/d", "health": {"rise": 3}},
        ]
    )
    new = config(
        node={"name": "n2"},
        source=[
            {"name": "a", "place": "http://u:two@h/x"},
            {"name": "b", "place": "file:/b2", "publish": "own", "health": {"rise": 4}},
            {"name": "d", "place": "file:/d"},
            {"name": "e", "place": "file:/e"},
        ],
        policy={"denied": ["10.0.0.0/8"], "rule": [{"source": "a"}]},
        ipvs={"drain_seconds": 5},
        health={"concurrency": 3},
    )
    lines, restart = told(old, new)
    assert lines == [
        "source.a.place: changed",
        'source.b.place: "file:/b" -> "file:/b2"',
        'source.b.publish: "all" -> "own"',
        "source.b.health.rise: 3 -> 4",
        "source.c: removed",
        "source.d.health: as in [health]",
        "source.e: added",
        "policy.rule: changed",
        'policy.denied: [] -> ["10.0.0.0/8"]',
        "ipvs.drain_seconds: 60.0 -> 5.0",
    ]
    assert restart == ['node.name: "" -> "n2"', "health.concurrency: 64 -> 3"]
    back, _ = told(new, old)
    assert "source.d.health: its own" in back
    assert told(old, old) == ([], [])
