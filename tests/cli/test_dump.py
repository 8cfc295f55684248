"""``minuteman dump``: what is in the archive, and what becomes of parts that cannot be had."""

from __future__ import annotations

import json
import tarfile
import threading
from pathlib import Path
from typing import Any

import pytest

from pyminuteman.addresses import Endpoint
from pyminuteman.cli import dump, dump_sources
from pyminuteman.cli.dump_parts import BYTES_MOST, Absent, Part, collect, limited, scrubbed
from pyminuteman.host.diagnosis import Patient
from pyminuteman.ipvs import NotPermitted
from tests.cli.conftest import Console
from tests.daemon.test_client import Running


def contents(path: Path) -> tuple[dict[str, str], dict[str, Any]]:
    """Files of the archive without their directory, and the parts of its manifest by name."""
    with tarfile.open(path) as archive:
        assert all(entry.isfile() and entry.mode == 0o600 for entry in archive)
        found = {entry.name.partition("/")[2]: archive.extractfile(entry).read().decode() for entry in archive}  # type: ignore[union-attr]
    manifest = json.loads(found["MANIFEST.json"])
    assert set(found) - {"MANIFEST.json"} == {one["name"] for one in manifest["parts"] if one["state"] == "ok"}
    return found, manifest | {"parts": {one["name"]: one for one in manifest["parts"]}}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A /proc of our own, and a doctor that finds nothing: what it finds is tested elsewhere."""
    proc = tmp_path / "proc"
    (proc / "net").mkdir(parents=True)
    (proc / "net/ip_vs_conn").write_text("Pro FromIP\n" + "TCP 0A000001\n" * 20)
    (proc / "sys/net/ipv4/vs").mkdir(parents=True)
    (proc / "sys/net/ipv4/vs/conntrack").write_text("1\n")
    monkeypatch.setattr(dump_sources, "PROC", proc)
    monkeypatch.setattr("pyminuteman.host.diagnosis.examine", lambda _patient: [])
    return proc


@pytest.mark.usefixtures("quick")
def test_all_that_there_is(cli: Console, tmp_path: Path) -> None:
    running, config = Running(tmp_path / "api.sock"), tmp_path / "config.toml"
    config.write_text("[cluster]\ninsecure = true\n")
    cli.load("-A -t 11.0.0.1:80 -s rr\n-a -t 11.0.0.1:80 -r 10.0.0.5:8080 -m -w 2\n")
    try:
        running.double.events.add("sync", "an event")
        done = cli(
            "dump", "--output", str(tmp_path / "d.tar.gz"), "--connections", "5", "--socket", str(running.path),
            "--config", str(config), group="",
        )  # fmt: skip
    finally:
        running.end()
    assert done.stdout == f"{tmp_path}/d.tar.gz\n"
    assert (tmp_path / "d.tar.gz").stat().st_mode & 0o777 == 0o600
    files, manifest = contents(tmp_path / "d.tar.gz")
    assert manifest["daemon"] == {"answers": True, "reason": ""}
    assert json.loads(files["api/status.json"])["node"]["name"] == "one"
    assert json.loads(files["api/events.json"])["events"][0]["text"] == "an event"
    assert "minuteman_build_info" in files["api/metrics.txt"]
    for name in ("members", "topology", "backends", "statistics", "vips", "config"):
        assert json.loads(files[f"api/{name}.json"])
    assert files["ipvs/rules.txt"].splitlines() == [
        "-A -t 11.0.0.1:80 -s rr",
        "-a -t 11.0.0.1:80 -r 10.0.0.5:8080 -m -w 2",
    ]
    assert json.loads(files["ipvs/statistics.json"])["service"][0]["statistics"]["connections"] == 0
    assert files["ipvs/proc/ip_vs_conn.txt"].splitlines()[-1] == "# cut after 5 lines"
    assert len(files["ipvs/proc/ip_vs_conn.txt"].splitlines()) == 6
    assert files["sysctl/ipvs.txt"] == "net.ipv4.vs.conntrack = 1\n"
    assert manifest["parts"]["sysctl/conntrack.txt"]["state"] == "absent"
    assert manifest["parts"]["ipvs/proc/ip_vs.txt"]["state"] == "absent"
    assert json.loads(files["versions.json"])["python"]
    assert set(json.loads(files["versions.json"])["packages"]) >= {"pyminuteman", "trio", "cffi", "msgpack", "cryptography"}
    found = json.loads(files["doctor.json"])["findings"]
    assert (found[0]["id"], found[0]["severity"]) == ("config", "ok")
    assert {one["id"] for one in found[1:]} == {"config.remark"}


@pytest.fixture
def asked(quick: Path, monkeypatch: pytest.MonkeyPatch) -> list[Patient]:
    """What doctor is asked to look at."""
    del quick
    patients: list[Patient] = []
    monkeypatch.setattr("pyminuteman.host.diagnosis.examine", lambda patient: patients.append(patient) or [])
    return patients


def test_doctor_looks_as_the_configuration_says(cli: Console, tmp_path: Path, asked: list[Patient]) -> None:
    config = tmp_path / "config.toml"
    config.write_text(
        '[cluster]\nname = "east"\ninsecure = true\n[node]\nbind = "127.0.0.1:7000"\nstate_directory = "/var/lib/other"\n'
        '[host]\ndevice = "vips0"\nmasquerade = "nft"\n[api]\nsocket = "/run/other.sock"\n'
    )
    words = ("dump", "--config", str(config), "--timeout", "5")
    cli(*words, "--output", str(tmp_path / "1"), group="", expect=4)
    (patient,) = asked
    assert (patient.host.device, patient.host.masquerade, patient.cluster) == ("vips0", "nft", "east")
    assert (patient.bind, patient.insecure) == (Endpoint("127.0.0.1", 7000), True)
    assert (patient.state_directory, patient.api_socket) == (Path("/var/lib/other"), Path("/run/other.sock"))
    none = str(tmp_path / "none")
    cli(*words, "--output", str(tmp_path / "2"), "--device", "minuteman", "--socket", none, group="", expect=4)
    assert (asked[1].host.device, asked[1].cluster, asked[1].api_socket) == ("minuteman", "east", Path(none))
    files, _ = contents(tmp_path / "2")
    assert [one["id"] for one in json.loads(files["doctor.json"])["findings"] if one["severity"] == "ok"] == ["config"]


def test_a_configuration_that_is_no_good_is_a_finding_and_the_usual_is_looked_at(
    cli: Console, tmp_path: Path, asked: list[Patient], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config.toml"
    (option,) = (one for one in dump.dump_command.params if one.name == "configured")
    monkeypatch.setattr(option, "default", config)
    found = []
    for number, text in enumerate((None, "[node]\nnmae = 1\n")):
        if text is not None:
            config.write_text(text)
        target = tmp_path / f"{number}.tar.gz"
        cli("dump", "--output", str(target), "--socket", str(tmp_path / "none"), group="", expect=4)
        found += json.loads(contents(target)[0]["doctor.json"])["findings"]
    assert [(one["id"], one["severity"]) for one in found] == [("config", "info"), ("config", "error")]
    usual = Patient(state_directory=Path("/var/lib/minuteman"), api_socket=tmp_path / "none")
    assert asked == [usual, usual]


@pytest.mark.usefixtures("quick")
def test_without_the_daemon_the_rest_is_there(cli: Console, tmp_path: Path) -> None:
    target = tmp_path / "d.tar.gz"
    done = cli("dump", "--output", str(target), "--socket", str(tmp_path / "none"), group="", expect=4)
    assert "without what the daemon tells: no daemon runs here" in done.stderr
    files, manifest = contents(target)
    assert not manifest["daemon"]["answers"]
    assert manifest["parts"]["api/status.json"]["reason"].startswith("no daemon runs here")
    assert manifest["parts"]["api/metrics.txt"]["reason"].startswith("not asked for: no daemon runs here")
    assert "sysctl/ipvs.txt" in files


@pytest.mark.usefixtures("quick")
def test_what_is_not_permitted_is_told(cli: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_netns: str | None) -> Any:
        raise NotPermitted(1, "GET_INFO")

    monkeypatch.setattr(cli, "_open", refuse)
    target = tmp_path / "d.tar.gz"
    done = cli("dump", "--output", str(target), "--socket", str(tmp_path / "none"), group="", expect=4)
    assert "ipvs/rules.txt: " in done.stderr
    assert contents(target)[1]["parts"]["ipvs/rules.txt"]["reason"] == str(NotPermitted(1, "GET_INFO"))


def test_nothing_is_overwritten(cli: Console, tmp_path: Path) -> None:
    target = tmp_path / "d.tar.gz"
    target.write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for path in (target, tmp_path / "link", tmp_path / "no/such"):
        assert "name another with --output" in cli("dump", "--output", str(path), group="", expect=78).stderr
    assert target.read_text() == "mine"
    assert not (tmp_path / "elsewhere").exists()


def test_a_part_whose_time_is_up_keeps_nobody(cli: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    never = threading.Event()
    parts = [Part("slow.txt", lambda: str(never.wait()), 0.05), Part("fast.txt", lambda: "x")]
    monkeypatch.setattr(dump, "host_parts", lambda *_, **__: parts)
    monkeypatch.setattr(dump, "api_parts", lambda *_: [])
    try:
        done = cli("dump", "--output", str(tmp_path / "d"), group="", expect=4)
    finally:
        never.set()
    assert "slow.txt: not done within 0.05 s" in done.stderr
    files, _ = contents(tmp_path / "d")
    assert files["fast.txt"] == "x"


def test_parts() -> None:
    def fail(error: Exception) -> str:
        raise error

    assert collect(Part("a", lambda: fail(Absent("none here")))).state == "absent"
    assert collect(Part("a", lambda: fail(FileNotFoundError(2, "No such file")))).state == "absent"
    assert collect(Part("a", lambda: fail(PermissionError(13, "Permission denied")))).reason == "[Errno 13] Permission denied"
    assert collect(Part("a", lambda: fail(KeyError("x")))).reason == "KeyError('x')"
    cut = collect(Part("a", lambda: "x" * (BYTES_MOST + 1)))
    assert cut.truncated
    assert len(cut.content) == BYTES_MOST
    assert list(limited(["a\n", "b\n"], 2)) == ["a\n", "b\n"]
    assert scrubbed('"http://bob:secret@etcd:2379/x" tcp://11.0.0.1:80') == '"http://***@etcd:2379/x" tcp://11.0.0.1:80'


def test_programs() -> None:
    assert "LOOPBACK" in dump_sources._program(["ip", "address", "show", "dev", "lo"])
    with pytest.raises(Absent, match="there is no nonesuch on this machine"):
        dump_sources._program(["nonesuch"])
    with pytest.raises(Absent, match="does not exist"):
        dump_sources._program(["ip", "address", "show", "dev", "nonesuch0"])


def test_of_a_log_there_is_the_end(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"first\n" * 200_000 + b"last \xff\n")
    text = dump_sources._tail(log)
    head, _, rest = text.partition("\n")
    assert head == f"# without its first {log.stat().st_size - (1 << 20)} bytes"
    assert len(rest.encode("utf-8", "replace")) == (1 << 20) + 2  # what is no UTF-8 is told so
    assert rest.endswith("last \N{REPLACEMENT CHARACTER}\n")
    log.write_text("short\n")
    assert dump_sources._tail(log) == "short\n"
    assert collect(Part("a", lambda: dump_sources._tail(tmp_path / "none"))).state == "absent"
