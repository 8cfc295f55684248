"""What is made of a configuration."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pyminuteman.addresses import Endpoint
from pyminuteman.capabilities import Capability
from pyminuteman.daemon.composition import policy_of, rights_of
from pyminuteman.daemon.config import APIConfig, DaemonConfig, NodeConfig
from pyminuteman.daemon.config_file import load_config
from pyminuteman.vips.policy import GUARDED_PORTS, Policy, Rule


def configured(path: Path, text: str = "") -> DaemonConfig:
    path.write_text(f"[cluster]\ninsecure = true\n{text}")
    return load_config(path)


def test_the_ports_of_the_daemon_are_guarded_whatever_the_configuration_says(tmp_path: Path) -> None:
    config = configured(tmp_path / "c.toml")
    assert policy_of(config).guarded_ports == GUARDED_PORTS
    moved = replace(
        config,
        node=NodeConfig(bind=Endpoint("10.0.0.1", 7000), advertise=Endpoint("192.0.2.1", 7001)),
        api=APIConfig(tcp=Endpoint("127.0.0.1", 7002)),
    )
    assert policy_of(moved).guarded_ports == GUARDED_PORTS | {7000, 7001, 7002}
    for rules in (Policy().rules, (Rule(names=False),)):
        none = replace(moved, policy=Policy(rules, guarded_ports=frozenset()))
        assert policy_of(none).guarded_ports == {7000, 7001, 7002}
    assert 0 not in policy_of(replace(config, node=NodeConfig(bind=Endpoint("127.0.0.1", 0)))).guarded_ports


def test_the_rights_that_a_configuration_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyminuteman.daemon.composition.first_free_port", lambda: 1024)
    monkeypatch.setattr("pyminuteman.daemon.composition.takes_raw_sockets", lambda name: name == "iptables")
    nft = '[host]\nmasquerade = "nft"\n'
    for text, more in (
        ("", set()),
        ('[names]\ndns_bind = "127.0.0.1:53"\n', {Capability.NET_BIND_SERVICE}),
        ('[names]\ndns_bind = "127.0.0.1:5353"\n[node]\nbind = "127.0.0.1:0"\n', set()),
        ('[node]\nbind = "10.0.0.1:700"\n', {Capability.NET_BIND_SERVICE}),
        ('[namespaces]\ndirectory = "/run/netns"\n', {Capability.SYS_ADMIN}),
        ('[host]\nmasquerade = "iptables"\n', {Capability.NET_RAW}),
        ('[host]\nmasquerade = "iptables"\nsetup = false\n', set()),
        ('[host]\nmasquerade = "none"\n', set()),
    ):
        whole = text if "[host]" in text else text + nft
        assert rights_of(configured(tmp_path / "c.toml", whole)) == {Capability.NET_ADMIN} | more, text
    over_tcp = replace(configured(tmp_path / "c.toml", nft), api=APIConfig(tcp=Endpoint("127.0.0.1", 80)))
    assert rights_of(over_tcp) == {Capability.NET_ADMIN, Capability.NET_BIND_SERVICE}
