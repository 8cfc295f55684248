"""``minuteman doctor``: from where it has what it asks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pyminuteman.addresses import Endpoint
from pyminuteman.cli import doctor
from pyminuteman.cli.application import Application
from pyminuteman.cli.root import root
from pyminuteman.host.diagnosis import Patient
from pyminuteman.host.reach import is_own
from pyminuteman.host.setup import HostSettings

WHOLE = """
node = {bind = "127.0.0.1:7000", state_directory = "/var/lib/other"}
cluster = {name = "east", contacts = ["127.0.0.1:7000", "127.0.0.1:7001", "192.0.2.1:7000"], insecure = true}
names = {dns_bind = "127.0.0.1"}
ipvs = {managed = ["11.0.0.0/8", "fd01::/16"]}
host = {device = "vips0", announce = "route", masquerade = "nft", guard = false, portmap_bypass = false, sysctls = false}
namespaces = {directory = "/run/pods"}
api = {socket = "/run/other.sock", tcp = "127.0.0.1:61421", token_file = "TOKEN"}
"""
USUAL = Patient(state_directory=Path("/var/lib/minuteman"), api_socket=Path("/run/minuteman/api.sock"))


class Doctor:
    """Runs the verb; nothing is looked at, and what would be is kept."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
        self.file = directory / "config.toml"
        self.asked: list[Patient] = []
        monkeypatch.setattr(doctor, "examine", lambda patient: self.asked.append(patient) or ())
        monkeypatch.setattr(doctor, "fix", lambda _: pytest.fail("nothing is to be put right"))
        monkeypatch.setattr(doctor, "undo", lambda _: pytest.fail("nothing is to be taken back"))

    def run(self, *words: str, expect: int = 0) -> Result:
        result = CliRunner().invoke(root, ["doctor", *words], obj=Application())
        assert result.exit_code == expect, result.output
        return result

    def __call__(self, *words: str, text: str = WHOLE) -> Patient:
        token = self.file.with_name("token")
        token.write_text("0123456789abcdef-write")
        token.chmod(0o600)
        self.file.write_text(text.replace("TOKEN", str(token)))
        self.run("--config", str(self.file), *words)
        return self.asked.pop()


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Doctor:
    return Doctor(monkeypatch, tmp_path)


def test_each_setting_that_bears_on_it_is_taken(ask: Doctor) -> None:
    assert ask() == Patient(
        host=HostSettings(
            device="vips0",
            announce="route",
            masquerade="nft",
            guard=False,
            portmap_bypass=False,
            sysctls=False,
            ipv6=True,
        ),
        bind=Endpoint("127.0.0.1", 7000),
        contacts=(Endpoint("127.0.0.1", 7001), Endpoint("192.0.2.1", 7000)),  # but for this node itself
        cluster="east",
        insecure=True,
        state_directory=Path("/var/lib/other"),
        api_socket=Path("/run/other.sock"),
        api_tcp=Endpoint("127.0.0.1", 61421),
        dns_bind=Endpoint("127.0.0.1", 53),
        namespaces=Path("/run/pods"),
    )


def test_options_say_otherwise(ask: Doctor, tmp_path: Path) -> None:
    usual = ask()
    patient = ask(
        "--device", "minuteman", "--guard", "--contact", "192.0.2.9", "--key-file", str(tmp_path / "k"), "--nodes", "7"
    )
    assert patient == replace(
        usual,
        host=replace(usual.host, device="minuteman", guard=True),
        contacts=(Endpoint("192.0.2.9", 61420),),
        key_file=tmp_path / "k",
        insecure=False,
        nodes=7,
    )
    assert ask("--set", "node.bind=127.0.0.1:7001").contacts == (Endpoint("127.0.0.1", 7000), Endpoint("192.0.2.1", 7000))


def test_where_the_daemon_sets_up_nothing_nothing_is_asked_of_that(ask: Doctor) -> None:
    host = ask(text='cluster = {insecure = true}\nhost = {setup = false}\nnode = {bind = "0.0.0.0:0"}').host
    assert (host.announce, host.masquerade, host.guard, host.portmap_bypass, host.sysctls) == (
        "none",
        "none",
        False,
        False,
        False,
    )
    assert ask(text='cluster = {insecure = true}\nnode = {bind = "0.0.0.0:0"}').bind is None


def test_a_port_of_another_host_is_not_ours() -> None:
    assert is_own(Endpoint("127.0.0.1", 1))
    assert is_own(Endpoint("::1", 0))
    assert not is_own(Endpoint("192.0.2.1", 1))


def test_the_usual_place_counts_if_something_is_there(ask: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    there = ask()
    (option,) = (one for one in doctor.doctor_command.params if one.name == "path")
    monkeypatch.setattr(option, "default", ask.file)
    ask.run()
    assert ask.asked.pop() == there
    ask.run("--no-config")
    assert ask.asked.pop() == USUAL
    ask.file.unlink()
    done = ask.run("--all")
    assert ask.asked.pop() == USUAL
    assert "there is no configuration: the usual is looked at" in done.output
    for words in (["--config", "x"], ["--set", "node.name=x"]):
        assert "--no-config goes with neither" in ask.run("--no-config", *words, expect=2).output


def test_one_that_is_no_good_is_found_and_nothing_is_done_by_it(ask: Doctor) -> None:
    ask.file.write_text("[node]\nnmae = 'x'\n")
    done = ask.run("--config", str(ask.file), expect=1)
    assert "line 2" in done.output
    assert "did you mean 'name'" in done.output
    assert ask.asked == [USUAL]
    for word in ("--fix", "--undo"):
        assert "unknown key 'nmae'" in ask.run("--config", str(ask.file), word, expect=78).output
    assert "nowhere.toml: it cannot be read" in ask.run("--config", str(ask.file.with_name("nowhere.toml")), expect=1).output


def test_what_is_odd_is_told(ask: Doctor) -> None:
    ask.file.write_text(WHOLE.replace("TOKEN", "/nonexistent/token"))
    done = ask.run("--config", str(ask.file), "-o", "json")
    found = json.loads(done.stdout)["findings"]
    assert [(one["id"], one["severity"]) for one in found if "token" in one["what"]] == [("config.remark", "warning")]
