"""The daemon's configuration: what is said counts, what is wrong is told with file, line and key, and nothing else ever happens."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import tomllib
from contextlib import suppress
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from pyminuteman.addresses import Endpoint
from pyminuteman.cli.root import root
from pyminuteman.daemon.api.options import METRICS_LABELS as API_METRICS_LABELS
from pyminuteman.daemon.config import (
    METRICS_LABELS,
    DaemonConfig,
    HealthConfig,
    NodeConfig,
    SourceConfig,
)
from pyminuteman.daemon.config_changes import changed, takes_restart
from pyminuteman.daemon.config_checks import remarks
from pyminuteman.daemon.config_document import KEYS, read_config, scalar_keys
from pyminuteman.daemon.config_file import all_remarks, describe, load_config, variable_name
from pyminuteman.errors import ConfigurationError
from pyminuteman.kv.store import StoreLimits
from pyminuteman.membership.config import MembershipConfig
from pyminuteman.plain.fields import Invalid
from pyminuteman.vips.policy import Networks, Policy, Rule

REPOSITORY = Path(__file__).parents[2]
EXAMPLES = sorted((REPOSITORY / "examples" / "config").glob("*.toml"))
KEYED = '[cluster]\nkey_file = "/k"\n'


@pytest.fixture
def file(tmp_path: Path):
    def write(text: str, name: str = "config.toml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    return write


def refused(path: Path, **more: Any) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        load_config(path, **more)
    return caught.value


# -- examples, completeness ----------------------------------------------------------------------------------------------


def test_there_are_examples():
    assert [path.stem for path in EXAMPLES] == ["etcd", "full", "mesos", "minimal"]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_loaded_and_described(path: Path):
    config = load_config(path)
    assert read_config(describe(config)) == config
    assert json.loads(json.dumps(describe(config))) == describe(config)


def dotted(table: dict[str, Any], within: str = "") -> set[str]:
    """Keys of all kinds of tables, as KEYS has them."""
    found: set[str] = set()
    for key, value in table.items():
        name = f"{within}.{key}".removeprefix(".")
        rows = value if isinstance(value, list) else [value]
        if name != "node.tags" and rows and all(isinstance(row, dict) for row in rows):
            found = found.union(*(dotted(row, name) for row in rows))
        else:
            found.add(name)
    return found


ALL_KEYS = {f"{section}.{key}" for section, keys in KEYS.items() for key in keys}


def test_every_field_has_a_key_and_every_key_is_in_the_full_example():
    named: set[str] = set()
    for section in fields(DaemonConfig):
        if section.name in {"sources", "policy"}:
            continue
        value = getattr(DaemonConfig(), section.name)
        for field in fields(value):
            inner = getattr(value, field.name)
            if is_dataclass(inner):
                named |= {f"{section.name}.{field.name}.{one.name}" for one in fields(inner)}
            else:
                named.add(f"{section.name}.{field.name}")
    named -= {"store.limits.lease_seconds", "node.membership_overrides"}
    named |= {f"membership.{field.name}" for field in fields(MembershipConfig)}
    named |= {f"source.{field.name}" for field in fields(SourceConfig)} - {"source.health"}
    named |= {f"source.health.{field.name}" for field in fields(HealthConfig)} - {"source.health.concurrency"}
    named |= {f"policy.{field.name}" for field in fields(Policy)} - {"policy.rules"}
    named |= {f"policy.rule.{field.name}" for field in fields(Rule)}
    assert named == ALL_KEYS
    assert dotted(tomllib.loads((REPOSITORY / "examples/config/full.toml").read_text())) == ALL_KEYS


def test_the_reference_has_every_key_and_no_other():
    text = (REPOSITORY / "docs/reference/configuration.md").read_text()
    section, said = "", set()
    for line in text.splitlines():
        if header := re.match(r"## `\[+([a-z.]+)\]+`", line):
            section = header[1]
        elif row := re.match(r"\| `([a-z0-9_]+)` \|", line):
            said.add(f"{section}.{row[1]}")
            cells = re.split(r"(?<!\\)\|", line)
            assert len(cells) == 7, line
            assert all(cell.strip() for cell in cells[1:6]), line
            assert (cells[4].strip() == "restart") == takes_restart(f"{section}.{row[1]}")
    assert said == ALL_KEYS


def test_what_is_written_of_it_is_up_to_date():
    done = subprocess.run(
        [sys.executable, REPOSITORY / "tools/config_reference.py", "--check"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_every_key_of_the_full_example_has_its_comment():
    commented: set[str] = set()
    section, before = "", ""
    for line in (REPOSITORY / "examples/config/full.toml").read_text().splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif before.startswith("# ") and " = " in line:
            commented.add(f"{section}.{line.partition(' = ')[0]}")
        before = line
    assert commented == ALL_KEYS


SCHEMA = jsonschema_rs.validator_for(json.loads((REPOSITORY / "pyminuteman/daemon/config.schema.json").read_text()))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_as_the_schema_says(path: Path):
    SCHEMA.validate(tomllib.loads(path.read_text()))
    SCHEMA.validate(describe(load_config(path)))


@pytest.mark.parametrize(
    "document",
    [
        {"nod": {}},
        {"node": {"profile": "wlan"}},
        {"node": {"tags": {"a": 1}}},
        {"node": {"name": "x" * 65}},
        {"node": {"state_directory": "here"}},
        {"membership": {"active_view_size": "7"}},
        {"source": [{"name": "a"}]},
        {"source": [{"name": "a", "place": "push:", "health": {"concurrency": 3}}]},
        {"policy": {"rule": [{"ports": [0]}]}},
        {"policy": {"rule": [{"ports": ["x"]}]}},
        {"ipvs": {"max_loss_percent": 101}},
        {"store": {"limits": {"lease_seconds": 3}}},
        {"host": {"setup": "yes"}},
    ],
    ids=str,
)
def test_what_the_schema_refuses_is_refused(document: dict[str, Any]):
    assert not SCHEMA.is_valid(document)
    with pytest.raises(Invalid):
        read_config({"cluster": {"insecure": True}} | document)


def test_defaults_of_a_file_are_those_of_the_objects(file):
    config = load_config(file(KEYED))
    plain = replace(config, ipvs=replace(config.ipvs, managed=()), cluster=replace(config.cluster, key_file=None))
    assert plain == DaemonConfig()
    assert config.ipvs.managed == ("11.0.0.0/8", "fd01:c::/64")


# -- what is said counts -------------------------------------------------------------------------------------------------


def test_the_full_example_says_what_it_says():
    config = load_config(REPOSITORY / "examples/config/full.toml")
    assert config.node.bind == Endpoint("10.0.0.5", 61420)
    assert config.node.tags == (("rack", "a1"), ("role", "web"))
    assert config.health_of("web").check == "http:/healthz"
    assert config.health_of("deployments") == config.health_of("nobody") == config.health
    assert config.sources[1].is_pushed
    assert config.policy.rules[0].ports == ((80, 80), (443, 443), (8000, 8999))
    assert config.policy.rules[0].vip_networks == Networks("198.18.0.0/16", "fd00:18::/64")
    assert config.policy.guarded_ports == {22, 61420, 61421}
    assert config.store.limits == StoreLimits()
    assert config.health.policy.interval_seconds == 2
    assert config.node.membership.members_max > 0


def test_a_lease_is_the_stores_limit(file):
    config = load_config(file(KEYED + "[store]\nlease_seconds = 7\n"))
    assert config.store.limits.lease_seconds == config.store.lease_seconds == 7


def test_managed_networks_are_those_of_names_and_policy(file):
    config = load_config(
        file(
            KEYED + '[names]\nipv4_range = "10.9.0.10-10.9.0.13"\nipv6_range = ""\n'
            '[[policy.rule]]\nvip_networks = ["198.18.0.0/16"]\n'
        )
    )
    assert config.ipvs.managed == ("10.9.0.10/31", "10.9.0.12/31", "198.18.0.0/16")


def test_more_files_are_joined_in_the_order_of_their_names(file):
    main = file(KEYED + '[[source]]\nname = "a"\nplace = "push:"\n[[policy.rule]]\nsource = "a"\n')
    file('[[source]]\nname = "c"\nplace = "push:"\n[policy]\ndenied = ["10.0.0.0/8"]\n', "conf.d/20.toml")
    file('[node]\nname = "n"\n[[source]]\nname = "b"\nplace = "push:"\n[[policy.rule]]\nsource = "b"\n', "conf.d/10.toml")
    file("= no", "conf.d/.hidden.toml")
    file("= no", "conf.d/20.toml~")
    config = load_config(main)
    assert [source.name for source in config.sources] == ["a", "b", "c"]
    assert [rule.source for rule in config.policy.rules] == ["a", "b"]
    assert (config.node.name, config.policy.denied) == ("n", Networks("10.0.0.0/8"))


def test_the_environment_is_above_files_and_options_are_above_it(file):
    path = file(KEYED + '[node]\nname = "file"\nprofile = "wan"\nrealtime = true\ntags = { a = "b" }\n')
    environment = {
        "MINUTEMAN_NODE_NAME": "environment",
        "MINUTEMAN_NODE_REALTIME": "no",
        "MINUTEMAN_NODE_TAGS": "x=1, y=2=3",
        "MINUTEMAN_NODE_ADDRESSES": "10.0.0.1, fd00::1",
        "MINUTEMAN_POLICY_GUARDED_PORTS": "22,80",
        "MINUTEMAN_STORE_ETCD_PREFIX": "/x/",
        "MINUTEMAN_HEALTH_INTERVAL_SECONDS": "2.5",
        "MINUTEMAN_API_SOCKET": "",
        "MINUTEMAN_OTHER": "not ours",
        "HOME": "/root",
    }
    config = load_config(path, environment=environment, overrides={"node.name": "option"})
    assert config.node == NodeConfig(
        name="option", profile="wan", realtime=False, tags=(("x", "1"), ("y", "2=3")), addresses=("10.0.0.1", "fd00::1")
    )
    assert config.policy.guarded_ports == {22, 80}
    assert config.store.etcd.prefix == "/x/"
    assert config.health.interval_seconds == 2.5
    assert config.api.socket is None


def test_every_scalar_key_can_be_said_in_the_environment_as_it_is_described(file):
    config = load_config(REPOSITORY / "examples/config/full.toml")
    plain = describe(config)
    environment = {}
    for key in scalar_keys():
        value: Any = plain
        for part in key.split("."):
            value = value[part]
        if isinstance(value, dict):
            value = [f"{name}={tag}" for name, tag in value.items()]
        environment[variable_name(key)] = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    made = load_config(file(""), environment=environment)
    assert replace(made, sources=config.sources, policy=replace(made.policy, rules=config.policy.rules)) == config


def test_no_secret_is_described(file):
    path = file(
        KEYED + '[[source]]\nname = "a"\nplace = "https://joe:hunter2@example.org/x?token=hunter2#interval=3"\n'
        '[store.etcd]\nendpoints = ["http://joe:hunter2@10.0.0.1:2379"]\n'
    )
    plain = describe(load_config(path))
    assert "hunter2" not in json.dumps(plain)
    assert plain["source"][0]["place"] == "https://***@example.org/x?***#interval=3"
    whole = describe(load_config(path), secrets=True)
    assert whole["source"][0]["place"] == "https://joe:hunter2@example.org/x?token=hunter2#interval=3"
    assert whole["store"]["etcd"]["endpoints"] == ["http://joe:hunter2@10.0.0.1:2379"]


def test_constants_of_membership_are_the_profiles_but_for_those_that_are_said(file):
    config = load_config(
        file(KEYED + '[node]\nprofile = "wan"\n[membership]\ndown_after_seconds = 9\nheartbeat_interval_seconds = 0.5\n'),
        environment={"MINUTEMAN_MEMBERSHIP_MEMBERS_MAX": "77"},
    )
    assert config.node.membership == replace(MembershipConfig.wan(), down_after_seconds=9.0, members_max=77)
    assert config.node.membership_overrides == (("down_after_seconds", 9.0), ("members_max", 77))
    assert describe(config)["membership"]["timeout_max_seconds"] == MembershipConfig.wan().timeout_max_seconds


def test_without_a_file_the_environment_and_options_say_it_all():
    config = load_config(None, environment={"MINUTEMAN_CLUSTER_INSECURE": "yes"}, overrides={"node.name": "a"})
    assert (config.node.name, config.cluster.insecure) == ("a", True)
    error = refused(None)
    assert (error.path, error.key) == (None, "node.bind")


def test_the_labels_are_those_of_the_api():
    assert METRICS_LABELS == API_METRICS_LABELS


# -- what is wrong is told -----------------------------------------------------------------------------------------------

WRONG = {
    "[nod]": ("line 1 (nod)", "did you mean 'node'"),
    '[node]\nnmae = "x"': ("line 2 (node.nmae)", "did you mean 'name'"),
    "node = 3": ("line 1 (node)", "expected a table"),
    "source = 3": ("line 1 (source)", "is not a list"),
    "source = [3]": ("line 1 (source[0])", "expected a table"),
    '[[source]]\nname = "a"': ("line 1 (source[0])", "place is missing"),
    '[[source]]\nplace = "push:"': ("line 1 (source[0])", "name is missing"),
    '[[source]]\nname = "a b"\nplace = "push:"': ("line 2 (source[0].name)", "letters"),
    '[[source]]\nname = "a"\nplace = "push:x"': ("line 3 (source[0].place)", "PUT /v1/sources/a"),
    '[[source]]\nname = "a"\nplace = "flie:/x"': ("line 3 (source[0].place)", "did you mean 'file'"),
    '[[source]]\nname = "a"\nplace = "file:/x?fromat=json"': ("line 3 (source[0].place)", "did you mean 'format'"),
    '[[source]]\nname = "a"\nplace = "push:"\n[[source]]\nname = "a"\nplace = "push:"': (
        "line 5 (source[1].name)",
        "another source",
    ),
    '[[source]]\nname = "a"\nplace = "push:"\n[source.health]\nconcurrency = 3': (
        "line 5 (source[0].health.concurrency)",
        "unknown key",
    ),
    '[[source]]\nname = "a"\nplace = "push:"\n[source.health]\nfall = 0': ("line 5 (source[0].health.fall)", "from 1 to 100"),
    '[node]\nbind = "somewhere"': ("line 2 (node.bind)", "ADDRESS:PORT"),
    '[node]\nadvertise = "[fd00::1]:1"': ("line 2 (node.advertise)", "another address family"),
    '[node]\nadvertise = "0.0.0.0:1"': ("line 2 (node.advertise)", "nowhere that others could reach"),
    '[node]\nadvertise = "10.0.0.1:0"': ("line 2 (node.advertise)", "nowhere that others could reach"),
    '[node]\ntags = { a = "' + "b" * 1100 + '" }': ("line 2 (node.tags)", "at most 1024 are allowed"),
    "[membership]\nactive_view_size = 0": ("line 2 (membership.active_view_size)", "a whole number from 1 to 32"),
    "[membership]\nactive_view_size = 1.5": ("line 2 (membership.active_view_size)", "a whole number"),
    "[membership]\nactive_veiw_size = 7": ("line 2 (membership.active_veiw_size)", "did you mean 'active_view_size'"),
    "[membership]\ntimeout_min_seconds = 9": ("line 2 (membership.timeout_min_seconds)", "is above timeout_max_seconds"),
    '[[source]]\nname = "a"\nplace = "push:"\n[api]\nsocket = ""': (
        "line 3 (source[0].place)",
        "neither api.socket nor api.tcp",
    ),
    '[api]\ntcp = "0.0.0.0:61420"\ntoken_file = "/t"\ncert = "/c"\nkey = "/k"': (
        "line 2 (api.tcp)",
        "node.bind is 0.0.0.0:61420",
    ),
    '[names]\ndns_bind = "127.0.0.1:53"\n[node]\nbind = "127.0.0.1:53"': ("line 2 (names.dns_bind)", "is taken"),
    '[names]\nipv4_range = "10.0.0.1-10.0.0.9"\n[node]\naddresses = ["10.0.0.5"]': (
        "line 2 (names.ipv4_range)",
        "10.0.0.5, which",
    ),
    '[node]\nbind = "10.0.0.5"\n[[policy.rule]]\nvip_networks = ["198.18.0.0/16", "10.0.0.0/8"]': (
        "line 4 (policy.rule[0].vip_networks[1])",
        "10.0.0.5, which is an address of this node",
    ),
    '[ipvs]\nmanaged = ["11.0.0.0/8"]\nexclude = ["10.0.0.0/7"]': ("line 3 (ipvs.exclude)", "no service could be ours"),
    '[node]\naddresses = ["10.0.0.1", "x"]': ("line 2 (node.addresses[1])", "not an IP address"),
    '[node]\nname = "' + "é" * 40 + '"': ("line 2 (node.name)", "up to 64 bytes"),
    '[node]\nprofile = "wlan"': ("line 2 (node.profile)", "none of lan, wan, local; did you mean 'wan'"),
    '[node]\nstate_directory = "here"': ("line 2 (node.state_directory)", "absolute path"),
    '[node]\nrealtime = "yes"': ("line 2 (node.realtime)", "true or false"),
    "[node]\ntags = { a = 1 }": ("line 2 (node.tags.a)", "not a string"),
    '[node]\ntags = { "" = "b" }': ("line 2 (node.tags)", "tags"),
    '[cluster]\ninsecure = true\nkey_file = "/k"': ("line 2 (cluster.insecure)", "does not go with key_file"),
    '[node]\nbind = "10.0.0.1:1"\n[cluster]\nkey_file = ""': ("line 2 (node.bind)", "cluster.insecure = true"),
    '[node]\nbind = "127.0.0.1"\nadvertise = "10.0.0.1"\n[cluster]\nkey_file = ""': ("line 3 (node.advertise)", "no key"),
    '[store]\nengine = "etcd"': ("line 2 (store.engine)", "store.etcd.endpoints"),
    '[store.etcd]\nendpoints = ["10.0.0.1"]': ("line 2 (store.etcd.endpoints[0])", "a URL"),
    '[store.etcd]\nendpoints = ["http://[::1"]': ("line 2 (store.etcd.endpoints[0])", "a URL"),
    '[[policy.rule]]\nports = ["x"]': ("line 2 (policy.rule[0].ports[0])", "8000-8999"),
    '[store.etcd]\ncert = "/c"': ("line 2 (store.etcd.cert)", "without key"),
    '[store.etcd]\nprefix = "//"': ("line 2 (store.etcd.prefix)", "a prefix"),
    "[store.limits]\nlease_seconds = 3": ("line 2 (store.limits.lease_seconds)", "in [store] itself"),
    "[store.limits]\nvalue_max_bytes = 0": ("line 2 (store.limits.value_max_bytes)", "from 1 to 65536"),
    "[store]\nlease_seconds = nan": ("line 2 (store.lease_seconds)", "a number from 0 to 86400"),
    "[policy]\nguarded_ports = [0]": ("line 2 (policy.guarded_ports[0])", "from 1 to 65535"),
    '[policy]\ndenied = ["10.0.0.1/8"]': ("line 2 (policy.denied[0])", "bits set beyond"),
    '[[policy.rule]]\nports = ["9-8"]': ("line 2 (policy.rule[0].ports[0])", "8000-8999"),
    "[[policy.rule]]\nports = [80, true]": ("line 2 (policy.rule[0].ports[1])", "not a string"),
    "[policy]\nrules = []": ("line 2 (policy.rules)", "did you mean 'rule'"),
    '[names]\nipv4_range = "fd00::-fd00::9"': ("line 2 (names.ipv4_range)", "LOW-HIGH"),
    '[names]\nipv4_range = "9-8"': ("line 2 (names.ipv4_range)", "LOW-HIGH"),
    '[names]\nzone = "a..b"': ("line 2 (names.zone)", "DNS name"),
    '[names]\nipv4_range = ""\nipv6_range = ""\n[ipvs]': ("line 4 (ipvs.managed)", "where a VIP could be"),
    "[ipvs]\nmanaged = []": ("line 2 (ipvs.managed)", "leave it out"),
    "[ipvs]\nmax_loss_percent = 101": ("line 2 (ipvs.max_loss_percent)", "from 0 to 100"),
    '[health]\ncheck = "exec:x"': ("line 2 (health.check)", "absolute path"),
    '[health]\ncheck = "http:x"': ("line 2 (health.check)", "path"),
    '[health]\ncheck = "tcp:x"': ("line 2 (health.check)", "exec:/PROGRAM"),
    '[host]\ndevice = "a/b"': ("line 2 (host.device)", "network device"),
    '[api]\ntcp = "127.0.0.1"': ("line 2 (api.tcp)", "token_file or client_ca"),
    '[api]\ntcp = "10.0.0.1"\ntoken_file = "/t"': ("line 2 (api.tcp)", "TLS"),
    '[api]\nclient_ca = "/c"': ("line 2 (api.client_ca)", "cert and key"),
    '[api]\nkey = "/k"': ("line 2 (api.key)", "without cert"),
    '[api]\nmetrics_labels = ["prot"]': ("line 2 (api.metrics_labels[0])", "did you mean 'proto'"),
    "[log]\nlevel = 1979-05-27": ("line 2 (log.level)", "not a string"),
    "[log]\nlevel =": ("line 2, column 8", "Invalid value"),
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_is_told_with_its_line_and_what_is_accepted(file, text: str):
    key, reason = WRONG[text]
    path = file(text + ("" if "[cluster]" in text or "=" not in text or "source =" in text else "\n" + KEYED))
    error = refused(path)
    assert (error.path, error.key) == (str(path), key)
    assert reason in error.reason
    assert "\n" not in str(error)


def test_no_key_at_all_is_told_with_the_default(file):
    path = file("")
    error = refused(path)
    assert (error.path, error.key) == (str(path), "node.bind")
    assert load_config(path, overrides={"node.bind": "127.0.0.1"}).node.bind.port == 61420
    assert load_config(path, overrides={"cluster.insecure": "true"}).cluster.insecure


def test_a_key_in_two_files_is_told_with_both(file):
    main = file(KEYED + '[node]\nname = "a"\n')
    second = file('\n[node]\nname = "b"\n', "conf.d/1.toml")
    error = refused(main)
    assert (error.path, error.key) == (str(second), "line 3 (node.name)")
    assert f"{main}, line 4 (node.name)" in error.reason
    second.write_text("node = 3\n")
    assert "line 3 (node)" in refused(main).reason
    second.write_text("[node.name]\nx = 3\n")
    assert refused(main).key == "line 1 (node.name)"


def test_an_element_of_a_later_file_is_told_with_its_place_there(file):
    main = file(KEYED + '[[source]]\nname = "a"\nplace = "push:"\n')
    second = file('[[source]]\nname = "b"\nplace = "nope:"\n', "conf.d/1.toml")
    error = refused(main)
    assert (error.path, error.key) == (str(second), "line 3 (source[0].place)")


def test_what_is_wrong_outside_of_files_is_told_with_its_name(file):
    path = file(KEYED)
    for name, value, reason in (
        ("MINUTEMAN_NODE_BIND", "x", "ADDRESS:PORT"),
        ("MINUTEMAN_NODE_TAGS", "x", "a table"),
        ("MINUTEMAN_HEALTH_RISE", "x", "whole number"),
        ("MINUTEMAN_NODE_REALTIME", "maybe", "true or false"),
        ("MINUTEMAN_NODE_BNID", "x", "did you mean MINUTEMAN_NODE_BIND"),
        ("MINUTEMAN_SOURCE_0_NAME", "x", ""),
    ):
        error = refused(path, environment={name: value})
        assert (error.path, error.key) == ("environment", name)
        assert reason in error.reason
    assert "did you mean 'node.bind'" in refused(path, overrides={"node.bnid": ""}).reason
    assert refused(path, overrides={"node.bind": ""}).key == "node.bind"
    wrong = file("node = 3")
    assert refused(wrong, overrides={"node.bind": "127.0.0.1"}).key == "line 1 (node)"


def test_files_that_cannot_be_read_are_told(file, tmp_path: Path):
    assert "No such file" in refused(tmp_path / "none.toml").reason
    assert "cannot be read" in refused(Path("\0")).reason
    assert "regular file" in refused(Path("/dev/null")).reason
    assert refused(tmp_path).path == str(tmp_path)
    assert "larger" in refused(file("#" * (1 << 20) + "#")).reason
    assert "too deeply" in refused(file("a" + ".a" * 5000 + " = 1")).reason
    assert "too deeply" in refused(file("[node]\nname = " + "[" * 40 + "]" * 40)).reason
    (tmp_path / "bytes.toml").write_bytes(b"\xff")
    assert "UTF-8" in refused(tmp_path / "bytes.toml").reason
    main = file(KEYED)
    (tmp_path / "conf.d").write_text("")
    assert refused(main).path == str(tmp_path / "conf.d")


def test_what_there_is_too_much_of_is_refused(file, tmp_path: Path):
    main = file(KEYED + "[policy]\nrule = [" + "{}," * 10_001 + "]\n")
    assert "there can be 10000" in refused(main).reason
    main = file(KEYED + "[policy]\nguarded_ports = [" + "1," * 10_001 + "]\n")
    assert "at most 10000" in refused(main).reason
    main = file(KEYED)
    file("", "conf.d/0.toml")
    for number in range(1, 1001):
        (tmp_path / "conf.d" / f"{number}.toml").touch()
    assert "there are 1001 files" in refused(main).reason


def test_files_of_secrets_that_others_can_read_are_refused(file, tmp_path: Path):
    secret = tmp_path / "secret"
    for text, key, good in (
        (f'[cluster]\nkey_file = "{secret}"', "line 2 (cluster.key_file)", 0o600),
        (KEYED + f'[api]\ntcp = "127.0.0.1:1"\ntoken_file = "{secret}"', "line 5 (api.token_file)", 0o600),
        (KEYED + f'[api]\ncert = "/c"\nkey = "{secret}"', "line 5 (api.key)", 0o640),
        (
            KEYED + f'[store]\nengine = "etcd"\netcd = {{ endpoints = ["http://e:1"], token_file = "{secret}" }}',
            "line 5",
            0o640,
        ),
    ):
        path = file(text)
        load_config(path)  # it is not there: that is a remark
        assert any(str(secret) in remark.text for remark in all_remarks(load_config(path)))
        secret.write_text("x")
        secret.chmod(good)
        load_config(path)
        assert not any(str(secret) in remark.text for remark in all_remarks(load_config(path)))
        for mode in (0o644, 0o660, 0o602, *((0o640,) if good == 0o600 else ())):
            secret.chmod(mode)
            error = refused(path)
            assert (error.path, error.key.startswith(key)) == (str(path), True), error
            assert f"chmod {good:o} {secret}" in error.reason
        secret.unlink()
        secret.mkdir()
        assert "is no file" in refused(path).reason
        secret.rmdir()


def test_a_link_to_a_key_file_is_refused_and_one_to_a_key_of_tls_is_not(file, tmp_path: Path):
    (tmp_path / "real").write_text("x")
    (tmp_path / "real").chmod(0o600)
    link = tmp_path / "link"
    link.symlink_to("real")
    assert "symbolic link" in refused(file(f'[cluster]\nkey_file = "{link}"')).reason
    load_config(file(KEYED + f'[api]\ncert = "/c"\nkey = "{link}"'))


def test_the_hosts_network_may_be_within_that_of_vips_where_it_is_denied(file):
    text = (
        KEYED
        + '[node]\nbind = "10.0.0.5"\n[policy]\ndenied = ["10.0.0.0/24"]\n[[policy.rule]]\nvip_networks = ["10.0.0.0/8"]\n'
    )
    assert load_config(file(text)).policy.rules[0].vip_networks == Networks("10.0.0.0/8")


# -- what is odd is told -------------------------------------------------------------------------------------------------

FILES = '[[source]]\nname = "files"\nplace = "file:/x"\n'
ODD = {
    FILES: [],
    FILES + '[api]\ntoken_file = "/t"': ["api.tcp: it is not there, so token_file"],
    "[log]": ["source: there is none"],
    FILES + '[api]\nsocket = ""': ["api.socket: with neither socket nor tcp"],
    FILES + '[node]\nprofile = "local"': ["node.profile: "],
    FILES + '[node]\nprofile = "local"\nbind = "127.0.0.1"': [],
    '[[source]]\nname = "a"\nplace = "https://joe:x@e.org/"': ["source[0].place: a password"],
    FILES + '[ipvs]\nmanaged = ["11.0.0.0/9", "11.128.0.0/9", "fd01:c::/64"]': [],
    FILES + '[ipvs]\nmanaged = ["11.0.0.0/9", "fd01:c::/64"]': ["ipvs.managed: it does not hold all of names.ipv4_range"],
    FILES + '[ipvs]\nexclude = ["11.0.0.0/24"]': ["ipvs.exclude: it holds addresses of names.ipv4_range"],
    FILES + '[ipvs]\nadopt = "everything"': ["ipvs.adopt: "],
    FILES + '[node]\nbind = "10.0.0.5"\n[ipvs]\nmanaged = ["10.0.0.0/8", "11.0.0.0/8", "fd01:c::/64"]': [
        "ipvs.managed: it holds 10.0.0.5"
    ],
    FILES + '[node]\nbind = "10.0.0.5"\n[ipvs]\nmanaged = ["10.0.0.0/7", "fd01:c::/64"]\nexclude = ["10.0.0.0/24"]': [],
    FILES + '[[policy.rule]]\nvip_networks = ["198.18.0.0/16"]\n[ipvs]\nmanaged = ["11.0.0.0/8", "fd01:c::/64"]': [
        "policy.rule[0].vip_networks: 198.18.0.0/16 is not within"
    ],
    FILES + '[[policy.rule]]\nvip_networks = ["11.9.0.0/16"]': ["policy.rule[0].vip_networks: it meets names.ipv4_range"],
    FILES + '[[policy.rule]]\n[[policy.rule]]\nsource = "files"': ["policy.rule[1]: it never counts: rule[0]"],
    FILES + '[[policy.rule]]\nprincipal = "x"\n[[policy.rule]]\nsource = "files"': [],
    FILES + '[[policy.rule]]\nsource = "flies"': [
        "policy.rule[0].source: no source here is named 'flies'; did you mean 'files'?"
    ],
    FILES + '[[policy.rule]]\nsource = "mesos"': [],
    FILES + '[host]\nsetup = false\ndevice = "x"\nannounce = "route"': [
        "host.setup: it is false, so device and announce are idle"
    ],
    FILES + '[host]\nsetup = false\ndevice = "x"': ["host.setup: it is false, so device is idle"],
    FILES + "[host]\nsetup = false": [],
    FILES + "[host]\nsysctls = false": ["host.sysctls: connections are masqueraded only where"],
    FILES + '[host]\nsysctls = false\nmasquerade = "none"\nannounce = "none"\nguard = false\nportmap_bypass = false': [
        "host.setup: nothing is left"
    ],
    FILES + '[host]\nmasquerade = "none"\nannounce = "none"': [],
    FILES + '[names]\nipv6_range = ""': [],
}


@pytest.mark.parametrize("text", ODD)
def test_what_is_odd_is_told_and_no_error(file, text: str):
    found = [str(remark) for remark in remarks(load_config(file(f"{text}\n{KEYED}")))]
    assert len(found) == len(ODD[text]), found
    assert all(one.startswith(expected) for one, expected in zip(found, ODD[text], strict=True)), found


def test_a_cluster_without_a_key_is_told():
    config = load_config(None, overrides={"cluster.insecure": "true"})
    assert "cluster.insecure" in {remark.key for remark in remarks(config)}


# -- anything at all -----------------------------------------------------------------------------------------------------

WORDS = st.sampled_from(
    [
        *{part for key in ALL_KEYS for part in key.split(".")},
        "push:",
        "file:/x",
        "http://[",
        "10.0.0.1",
        "::1",
        "1-2",
        "tcp",
        "gossip",
        "x",
    ]
)
SCALARS = st.one_of(
    st.booleans(),
    st.integers(-(1 << 70), 1 << 70),
    st.floats(),
    WORDS,
    st.text(max_size=12),
    st.dates(),
    st.sampled_from([math.nan]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
SECTIONS = st.sampled_from([section for section in KEYS if "." not in section])
DOCUMENTS = st.dictionaries(SECTIONS | st.text(max_size=5), VALUES, max_size=4) | SECTIONS.flatmap(
    lambda section: st.fixed_dictionaries(
        {section: st.dictionaries(st.sampled_from([*KEYS[section], "etcd", "limits", "rule"]), VALUES, max_size=4)}
    )
)


@given(DOCUMENTS)
def test_any_document_is_read_or_refused_with_a_place(document: dict[str, Any]):
    with suppress(Invalid):  # and nothing else
        config = read_config({"cluster": {"insecure": True}, **document})
        assert read_config(describe(config) | {"source": []}) == replace(config, sources=())
        json.dumps(describe(config))
        assert all(remark.text for remark in remarks(config))
        assert changed(config, config) == ()
        assert SCHEMA.is_valid(document), "the schema refuses nothing that is taken"


@given(SECTIONS, st.text(max_size=300))
def test_any_place_of_a_source_is_read_or_refused(section: str, rest: str):
    for kind in ("", "file:", "http://", "etcd:", "mesos:", f"marathon:{section}", "consul:"):
        with suppress(Invalid):  # and nothing else
            read_config({"cluster": {"insecure": True}, "source": [{"name": "a", "place": kind + rest}]})


@given(st.text(alphabet=st.sampled_from("[]{}=.,\"'\n #node.bdix1-"), max_size=60))
def test_any_text_of_a_file_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str):
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_text(text)
    with suppress(ConfigurationError):  # and nothing else
        load_config(path, environment={"MINUTEMAN_CLUSTER_INSECURE": "yes"})


# -- check-config --------------------------------------------------------------------------------------------------------


def test_check_config_says_that_all_is_well_or_what_is_not(file):
    path = REPOSITORY / "examples/config/full.toml"
    result = CliRunner().invoke(root, ["check-config", "--config", str(path)], env={"MINUTEMAN_NODE_NAME": "other"})
    assert result.exit_code == 0, result.output
    assert "all is well" in result.stdout
    assert "node other" in result.stdout
    result = CliRunner().invoke(root, ["check-config", "--config", str(path), "-o", "json"])
    shown = json.loads(result.stdout)
    assert (shown["version"], shown["config"]) == (1, describe(load_config(path)))
    assert {
        "key": "cluster.key_file",
        "text": "/etc/minuteman/cluster.key cannot be looked at: No such file or directory",
    } in shown["remarks"]
    result = CliRunner().invoke(
        root, ["check-config", "--config", str(path), "--set", "node.name=third"], env={"MINUTEMAN_NODE_NAME": "other"}
    )
    assert "node third" in result.stdout
    assert f"{path}: cluster.key_file: /etc/minuteman/cluster.key cannot be looked at" in result.stderr
    assert CliRunner().invoke(root, ["check-config", "--set", "nonsense"]).exit_code == 2
    result = CliRunner().invoke(root, ["check-config", "--config", str(path), "--set", "node.nmae=x"])
    assert (result.exit_code, "did you mean 'node.name'" in result.stderr) == (78, True)
    wrong = file('[node]\nnmae = "x"\n')
    result = CliRunner().invoke(root, ["check-config", "--config", str(wrong)])
    assert result.exit_code == 78
    assert result.stderr == f"minuteman: {wrong}: line 2 (node.nmae): unknown key 'nmae'; did you mean 'name'?\n"
