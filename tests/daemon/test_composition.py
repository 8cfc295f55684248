"""What is made of a configuration."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pyminuteman.addresses import Endpoint
from pyminuteman.daemon.composition import policy_of
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
