"""``minuteman doctor`` on a kernel with IPVS: each prerequisite is broken, found, put right by --fix, and as it was by --undo."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pyminuteman.cli.application import Application
from pyminuteman.cli.root import root
from pyminuteman.host.sysctls import read_sysctl, write_sysctl
from pyminuteman.membership import Key, save_key_file
from tests.support.host_namespaces import Inside
from tests.support.kernel import ip, ipvsadm
from tests.support.tools import tool

pytestmark = pytest.mark.kernel

CONNTRACK, NODEST, TEMPLATE = (
    f"net.ipv4.vs.{name}" for name in ("conntrack", "expire_nodest_conn", "expire_quiescent_template")
)


class Doctor:
    """Runs it in this process; findings by id."""

    def __init__(self, directory: Path) -> None:
        self.state = directory / "state"

    def __call__(self, *words: str, expect: int | None = None) -> Result:
        if not {"--config", "--no-config"} & set(words):
            words = ("--no-config", *words)  # this machine's own is none of the test's
        place = ("--state-directory", str(self.state), "--api-socket", str(self.state / "api.sock"))
        result = CliRunner().invoke(root, ["doctor", *place, *words], obj=Application())
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert expect in {None, result.exit_code}, result.output
        return result

    def findings(self, *words: str) -> dict[str, dict[str, Any]]:
        document = json.loads(self("-o", "json", *words).stdout)
        assert document["version"] == 1
        return {found["id"]: found for found in document["findings"]}


@pytest.fixture
def doctor(tmp_path: Path) -> Doctor:
    return Doctor(tmp_path)


@pytest.fixture
def healthy(doctor: Doctor) -> Iterator[Doctor]:
    doctor("--fix", expect=0)
    yield doctor
    doctor("--undo", expect=0)


def device_state() -> str:
    shown = subprocess.run(["ip", "-br", "link"], capture_output=True, text=True, check=True).stdout
    flags = [line.split("<")[1] for line in shown.splitlines() if line.startswith("minuteman ")]
    return "absent" if not flags else "up" if "UP" in flags[0].rstrip(">").split(",") else "down"


def rules() -> int:
    shown = subprocess.run([tool("iptables-legacy-save", "iptables")], capture_output=True, text=True, check=True).stdout
    nft = subprocess.run(
        [tool("nft", "nftables"), "list", "table", "inet", "minuteman"], capture_output=True, text=True, check=False
    )
    return shown.count("MINUTEMAN") + nft.stdout.count("chain")


def test_a_fresh_host_is_put_right_and_taken_back(doctor: Doctor) -> None:
    names = (CONNTRACK, NODEST, TEMPLATE)
    doctor.findings()  # has the kernel load what it is asked for
    before = [read_sysctl(name) for name in names], device_state(), rules()
    assert before == (["0", "0", "0"], "absent", 0)
    result = doctor(expect=3)
    assert "(--fix does it)" in result.stdout
    assert "error, " in result.stderr
    fixed = doctor("--fix", expect=0)
    assert "done: host.device: the device minuteman is there and up\n" in fixed.stderr
    assert ([read_sysctl(name) for name in names], device_state()) == (["1", "1", "1"], "up")
    assert rules() > 0
    again = doctor("--fix", expect=0)
    assert "done:" not in again.stderr
    undone = doctor("--undo", expect=0)
    assert "taken back: firewall" in undone.stderr
    assert ([read_sysctl(name) for name in names], device_state(), rules()) == before
    assert doctor("--undo", expect=0).stderr == "there was nothing to take back\n"


def delete_rules() -> None:
    for command in ("iptables-legacy", "ip6tables-legacy"):
        for table in ("nat", "filter"):
            subprocess.run([tool(command, "iptables"), "-t", table, "-F"], check=True)
    subprocess.run([tool("nft", "nftables"), "delete", "table", "inet", "minuteman"], check=False, capture_output=True)


BREAKAGES: dict[str, tuple[str, str, Callable[[], object]]] = {
    "no device": ("host.device", "error", partial(ip, "link del minuteman")),
    "a device that is down": ("host.device", "error", partial(ip, "link set minuteman down")),
    "no rules": ("host.firewall", "error", delete_rules),
    "no conntrack of IPVS": (f"sysctl.{CONNTRACK}", "error", partial(write_sysctl, CONNTRACK, "0")),
    "hanging clients of removed backends": (f"sysctl.{NODEST}", "warning", partial(write_sysctl, NODEST, "0")),
    "templates that outlive a drain": (f"sysctl.{TEMPLATE}", "warning", partial(write_sysctl, TEMPLATE, "0")),
    "reuse of connections": (
        "sysctl.net.ipv4.vs.conn_reuse_mode",
        "warning",
        partial(write_sysctl, "net.ipv4.vs.conn_reuse_mode", "0"),
    ),
}


@pytest.mark.parametrize("what", BREAKAGES)
def test_what_is_broken_is_found_and_put_right(healthy: Doctor, what: str) -> None:
    identity, severity, breaks = BREAKAGES[what]
    assert healthy.findings()[identity]["severity"] == "ok"
    breaks()
    found = healthy.findings()
    assert (found[identity]["severity"], found[identity]["fixable"]) == (severity, True)
    assert found[identity]["why"]
    assert found[identity]["fix"]
    assert [one for one, value in found.items() if value["severity"] == "error" and one != identity] == []
    healthy(expect=3)
    healthy("--fix", expect=0)
    assert healthy.findings()[identity]["severity"] == "ok"


def test_forwarding_is_written_only_when_that_is_asked_for(doctor: Doctor) -> None:
    write_sysctl("net.ipv4.ip_forward", "0")
    doctor("--fix", expect=0)
    assert doctor.findings()["sysctl.net.ipv4.ip_forward"]["severity"] == "info"
    assert doctor.findings("--forward")["sysctl.net.ipv4.ip_forward"]["fixable"]
    doctor("--fix", "--forward", expect=0)
    assert read_sysctl("net.ipv4.ip_forward") == "1"
    doctor("--undo", "--forward", expect=0)
    assert read_sysctl("net.ipv4.ip_forward") == "0"


def test_the_daemons_configuration_says_what_is_needed(doctor: Doctor, tmp_path: Path) -> None:
    key = tmp_path / "key"
    save_key_file(key, [Key.generate()])
    file = tmp_path / "config.toml"
    file.write_text(
        f"""
node = {{bind = "127.0.0.1:61420", state_directory = "{tmp_path}"}}
cluster = {{name = "east", contacts = ["127.0.0.1:61420", "127.0.0.1:61999"], key_file = "{key}"}}
names = {{dns_bind = "127.0.0.1:53"}}
ipvs = {{managed = ["11.0.0.0/8", "fd01::/16"]}}
host = {{device = "vips0", masquerade = "none", guard = false, portmap_bypass = false}}
namespaces = {{directory = "{tmp_path}"}}
api = {{tcp = "127.0.0.1:61421", token_file = "{key}"}}
"""
    )
    with socket.create_server(("127.0.0.1", 61421)):
        found = doctor.findings("--config", str(file))
    assert (found["config"]["severity"], found["config"]["what"]) == ("ok", f"{file} is good")
    assert found["host.device"]["what"] == "there is no device vips0"
    assert "host.firewall" not in found
    assert "sysctl.net.ipv6.conf.all.forwarding" in found
    assert "udp and tcp port 127.0.0.1:53 are free" in found["dns.port"]["what"]
    assert (found["api.port"]["severity"], "is taken" in found["api.port"]["what"]) == ("info", True)
    assert found["rights.net_bind_service"]["severity"] == "ok"
    assert found["rights.sys_admin"]["severity"] == "ok"
    assert found["files.key"]["severity"] == "ok"
    assert "127.0.0.1:61999 is not reached" in found["gossip.tcp"]["what"]  # and this host itself is not asked
    # What is said here counts; the rest is as the file has it.
    other = doctor.findings("--config", str(file), "--device", "lo", "--contact", "127.0.0.2:7")
    assert other["host.device"]["severity"] == "ok"
    assert "127.0.0.2:7 is not reached" in other["gossip.tcp"]["what"]
    doctor("--fix", "--config", str(file))
    assert "vips0" in subprocess.run(["ip", "-br", "link"], capture_output=True, text=True, check=True).stdout
    doctor("--undo", "--config", str(file), expect=0)
    assert "vips0" not in subprocess.run(["ip", "-br", "link"], capture_output=True, text=True, check=True).stdout


def test_a_scheduler_that_the_kernel_does_not_have(healthy: Doctor) -> None:
    found = healthy.findings("--scheduler", "wlc", "--scheduler", "nosuch", "--scheduler", "mh")
    assert {name: found[f"kernel.scheduler.{name}"]["severity"] for name in ("wlc", "nosuch", "mh")} == {
        "wlc": "ok",
        "nosuch": "error",
        "mh": "ok",
    }
    assert "modprobe ip_vs_nosuch" in found["kernel.scheduler.nosuch"]["fix"]
    assert ipvsadm("-Sn") == ""  # what it tried them with is gone
    healthy("--scheduler", "nosuch", expect=1)


def test_a_service_of_somebody_at_the_place_for_trying_is_left_alone(doctor: Doctor) -> None:
    ipvsadm("-A", "-t", "192.0.2.255:1", "-s", "sh")
    assert doctor.findings("--scheduler", "rr")["kernel.scheduler.rr"]["severity"] == "info"
    assert ipvsadm("-Sn") == "-A -t 192.0.2.255:1 -s sh\n"


def test_a_look_changes_nothing(healthy: Doctor) -> None:
    ipvsadm("-A", "-t", "11.0.0.1:80", "-s", "rr")
    before = ipvsadm("-Sn"), rules(), healthy.state.joinpath("host-undo.json").read_bytes()
    healthy()
    assert (ipvsadm("-Sn"), rules(), healthy.state.joinpath("host-undo.json").read_bytes()) == before


def test_rights_of_files_are_put_right(healthy: Doctor, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.touch()
    key.chmod(0o644)
    healthy.state.chmod(0o777)
    words = ("--key-file", str(key))
    found = healthy.findings(*words)
    assert (found["files.key"]["severity"], found["files.state_directory"]["severity"]) == ("error", "error")
    assert "done: files.key: put right" in healthy("--fix", *words, expect=0).stderr
    assert (key.stat().st_mode & 0o777, healthy.state.stat().st_mode & 0o777) == (0o600, 0o755)


@pytest.mark.usefixtures("healthy")
def test_another_namespace(tmp_path: Path) -> None:
    with Inside() as there:
        other = Doctor(tmp_path)
        assert other.findings("--netns", there.path)["host.device"]["severity"] == "error"
        other("--fix", "--netns", there.path, expect=0)
        assert (device_state(), there.run(device_state)) == ("up", "up")
        other("--undo", "--netns", there.path, expect=0)
        assert (device_state(), there.run(device_state)) == ("up", "absent")


def test_a_journal_that_cannot_be_read_stops_it_before_anything_is_changed(doctor: Doctor) -> None:
    doctor.state.mkdir(mode=0o700)
    doctor.state.joinpath("host-undo.json").write_text("nonsense")
    result = doctor("--fix", expect=1)
    assert "host-undo.json is not as it should be" in result.stderr
    assert device_state() == "absent"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--fix", "--undo"], "not both"),
        (["--bind", "nonsense:x"], "--bind"),
        (["--contact", "10.0.0.1:99999"], "--contact"),
        (["--insecure", "--key-file", "x"], "a cluster has a key"),
        (["--announce", "loudly"], "--announce"),
        (["--timeout", "0"], "--timeout"),
    ],
)
def test_wrong_usage(doctor: Doctor, words: list[str], message: str) -> None:
    assert message in doctor(*words, expect=2).stderr


def test_bad_values_are_findings_or_errors_and_no_tracebacks(doctor: Doctor) -> None:
    assert "is no device's name" in doctor("--device", "no/name", "--fix", expect=1).stderr
    assert "cannot be opened" in doctor("--netns", "/no/such", "--fix", expect=1).stderr
    assert "could not be looked at" in doctor("--netns", "/no/such").stdout
