"""What operators ask of real daemons on a real kernel: the verbs that look, those that change something, and the archive for a diagnosis."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from pyminuteman.testing.daemon_cluster import DaemonCluster
from tests.support.tools import tool

pytestmark = pytest.mark.kernel(timeout=180)

VIP, PORT = "11.0.0.1", 8080
SECRET = "s3cr3t-of-this-test"  # noqa: S105
COMMAND = [sys.executable, "-m", "pyminuteman"]


def vips(cluster: DaemonCluster, node: int, *names: str) -> str:
    return "".join(
        f'[[vip]]\nlisten = "tcp://{name}:80"\nscheduler = "rr"\n[[vip.backend]]\naddress = "{cluster.address(node)}"\nport = {PORT}\n'
        for name in names
    )


def rows(cluster: DaemonCluster, node: int) -> dict[str, int]:
    """What a kernel has behind the VIPs."""
    with cluster.table(node) as table:
        snapshot = table.snapshot()
        return {
            f"{one.key.address} {row.address}:{row.port}": row.weight
            for one in snapshot
            for row in snapshot.destinations(one.key)
        }


def minuteman(
    cluster: DaemonCluster, node: int, *words: str, expect: int = 0, extra: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """An operator's verb, in a node's namespace."""
    command = cluster.namespaces.command_inside(node, [*COMMAND, *words, "--socket", str(cluster.socket(node))])
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=os.environ | (extra or {}),
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == expect, done.stdout + done.stderr
    return done


def asked(cluster: DaemonCluster, node: int, *words: str) -> Any:
    return json.loads(minuteman(cluster, node, *words, "-o", "json").stdout)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonCluster]:
    """Two nodes with a backend each behind one VIP; a change that takes away more than two fifths of them is held back."""
    settings = {"ipvs.max_loss_percent": "40"}
    with DaemonCluster(2, tmp_path_factory.mktemp("verbs"), settings=settings) as made:
        for node in range(2):
            made.say(node, vips(made, node, VIP))
            with (made.directory(node) / "config.toml").open("a") as file:
                file.write(
                    f'[[source]]\nname = "web"\nplace = "http://bob:{SECRET}@127.0.0.1:9/vips"\npublish = "none"\n'
                    '[names]\nipv4_range = ""\nipv6_range = ""\n'
                )
        made.start(range(2))
        for node in range(2):
            made.wait_until(lambda node=node: rows(made, node) == whole(made), f"n{node} has all backends")  # type: ignore[misc]
        yield made


def whole(cluster: DaemonCluster) -> dict[str, int]:
    return {f"{VIP} {cluster.address(node)}:{PORT}": 1 for node in range(2)}


def settled(cluster: DaemonCluster) -> None:
    for node in range(2):
        cluster.wait_until(lambda node=node: rows(cluster, node) == whole(cluster), f"n{node} is as before")  # type: ignore[misc]


def test_members_and_vips(cluster: DaemonCluster) -> None:
    members = asked(cluster, 1, "members", "list")["members"]
    assert [(one["name"], one["me"], one["status"], one["backends"]) for one in members] == [
        ("n1", True, "alive", 1),
        ("n0", False, "alive", 1),
    ]
    head, *lines = minuteman(cluster, 1, "members", "list").stdout.splitlines()
    assert head.split()[:2] == ["NAME", "STATUS"]
    assert [line.split()[:2] for line in lines] == [["n1*", "alive"], ["n0", "alive"]]
    (vip,) = asked(cluster, 0, "vips", "list")["vips"]
    assert (vip["vip"], {row["address"] for row in vip["backends"]}) == (
        f"tcp://{VIP}:80",
        {cluster.address(0), cluster.address(1)},
    )
    line = minuteman(cluster, 0, "vips", "list").stdout.splitlines()[1].split()
    assert line == [f"tcp://{VIP}:80", VIP, "rr", "2", "0", "0", "files", "n0,n1"]


def test_a_weight_is_obeyed_by_all_and_taken_back(cluster: DaemonCluster) -> None:
    backend = f"{cluster.address(1)}:{PORT}"
    told = minuteman(cluster, 0, "weight", backend, "7", "--reason", "half its disks", "--dry-run").stdout
    assert told == f"would give weight 7 to backend {backend}\n"
    assert rows(cluster, 0) == whole(cluster)
    minuteman(cluster, 0, "weight", backend, "7", "--reason", "half its disks")
    for node in range(2):
        cluster.wait_until(lambda node=node: rows(cluster, node)[f"{VIP} {backend}"] == 7, f"n{node} obeys")  # type: ignore[misc]
    assert "(half its disks)" in minuteman(cluster, 1, "backends").stdout
    minuteman(cluster, 1, "weight", backend, "--clear")
    settled(cluster)
    # The last one is not taken away without a word: nobody is there to be asked.
    minuteman(cluster, 0, "weight", f"{cluster.address(0)}:{PORT}", "0")
    cluster.wait_until(lambda: rows(cluster, 0)[f"{VIP} {cluster.address(0)}:{PORT}"] == 0, "one is out")
    refusal = minuteman(cluster, 0, "weight", backend, "0", expect=2).stderr
    assert "no other takes connections" in refusal
    assert "--yes" in refusal
    minuteman(cluster, 0, "weight", f"{cluster.address(0)}:{PORT}", "--clear")
    settled(cluster)
    assert "there is no backend 192.0.2.1:1" in minuteman(cluster, 0, "weight", "192.0.2.1:1", "2", expect=1).stderr


def test_what_happens_is_watched_as_it_happens(cluster: DaemonCluster) -> None:
    last = cluster.ask(1, "/v1/events?format=json&since=0")["events"][-1]["id"]
    words = ["watch", "--since", str(last), "--kind", "backend_out", "--kind", "backend_in", "--count", "2", "-o", "json"]
    command = cluster.namespaces.command_inside(1, [*COMMAND, *words, "--socket", str(cluster.socket(1))])
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watch:
        assert watch.stdout is not None
        killer = threading.Timer(90, watch.kill)  # a line that never comes
        killer.start()
        minuteman(cluster, 0, "drain", "node", "n0", "--reason", "a new disk", "--yes")
        first = json.loads(watch.stdout.readline())
        minuteman(cluster, 0, "undrain", "node", "n0", "--yes")
        second = json.loads(watch.stdout.readline())
        assert watch.wait(60) == 0
        killer.cancel()
    assert (first["kind"], first["data"]["reason"], second["kind"]) == ("backend_out", "drained", "backend_in")
    assert f"{cluster.address(0)}:{PORT}" in first["text"]
    assert last < first["id"] < second["id"]
    settled(cluster)


def test_a_reload_says_what_has_changed_and_a_bad_one_changes_nothing(cluster: DaemonCluster) -> None:
    file = cluster.directory(1) / "config.toml"
    good = file.read_text()
    assert minuteman(cluster, 1, "reload").stderr.endswith("nothing has changed\n")
    file.write_text(good + '[policy]\ndenied = ["11.0.0.9/32"]\n')
    assert "policy" in minuteman(cluster, 1, "reload").stdout
    cluster.say(1, vips(cluster, 1, VIP, "11.0.0.9"))
    cluster.wait_until(lambda: "refused: " in minuteman(cluster, 1, "backends").stdout, "the new policy counts")
    file.write_text(good + '[policy]\ndenied = ["everybody"]\n')
    complaint = minuteman(cluster, 1, "reload", expect=1).stderr
    assert str(file) in complaint
    assert "policy.denied" in complaint
    assert "refused: " in minuteman(cluster, 1, "backends").stdout
    cluster.say(1, vips(cluster, 1, VIP))
    file.write_text(good)
    assert "policy" in minuteman(cluster, 1, "reload").stdout
    settled(cluster)


def test_what_is_held_back_is_shown(cluster: DaemonCluster) -> None:
    assert minuteman(cluster, 0, "confirm", "--yes").stderr == "nothing is held back\n"
    more = [f"11.0.0.{number}" for number in (2, 3)]
    cluster.say(0, vips(cluster, 0, VIP, *more))
    cluster.wait_until(lambda: len(rows(cluster, 1)) == 4, "two more VIPs are there")
    before = rows(cluster, 1)
    cluster.say(0, vips(cluster, 0, VIP))
    cluster.wait_until(lambda: asked(cluster, 1, "confirm", "--dry-run")["held_back"], "it is held back")
    assert rows(cluster, 1) == before
    shown = minuteman(cluster, 1, "confirm", "--dry-run").stdout
    assert all(f"tcp://{name}:80" in shown or f"{name}:80" in shown for name in more)
    assert "minuteman confirm" in minuteman(cluster, 1, "status").stdout
    minuteman(cluster, 1, "confirm", expect=2)  # nobody is there to be asked
    assert rows(cluster, 1) == before
    for node in range(2):
        minuteman(cluster, node, "confirm", "--yes")
    settled(cluster)


def connected(cluster: DaemonCluster, node: int) -> socket.socket:
    """A connection to the VIP, which a backend of this node or of the other has taken."""
    with cluster.namespaces.inside(node):
        return socket.create_connection((VIP, 80), timeout=20)


def counted(cluster: DaemonCluster, node: int) -> int:
    """Connections to the VIP, as the kernel has counted them: it adds its counters up every two seconds (ip_vs_est.c)."""
    command = cluster.namespaces.command_inside(node, [tool("ipvsadm"), "-Ln", "--stats", "--exact", "-t", f"{VIP}:80"])
    rows = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return next(int(row.split()[2]) for row in rows if row.startswith("TCP "))


def contents(path: Path) -> tuple[dict[str, str], dict[str, dict[str, Any]]]:
    """The members of an archive, without their directory, and the parts of its manifest by name."""
    with tarfile.open(path) as archive:
        files = {entry.name.partition("/")[2]: archive.extractfile(entry).read().decode() for entry in archive}  # type: ignore[union-attr]
    return files, {one["name"]: one for one in json.loads(files["MANIFEST.json"])["parts"]}


@pytest.fixture
def backends(cluster: DaemonCluster) -> Iterator[Sequence[socket.socket]]:
    listeners = []
    for node in range(2):
        with cluster.namespaces.inside(node):
            listeners.append(socket.create_server((cluster.address(node), PORT)))
    yield listeners
    for listener in listeners:
        listener.close()


@pytest.mark.usefixtures("backends")
def test_the_archive_has_what_a_diagnosis_needs(cluster: DaemonCluster, tmp_path: Path) -> None:
    target = tmp_path / "dump.tar.gz"
    words = ["dump", "--output", str(target), "--log", str(cluster.directory(0) / "log"), "--timeout", "60"]
    with connected(cluster, 0):
        cluster.wait_until(lambda: counted(cluster, 0) >= 1, "the kernel has counted the connection", 20)
        minuteman(cluster, 0, *words)
    files, parts = contents(target)
    failed = {name: one["reason"] for name, one in parts.items() if one["state"] == "failed"}
    assert failed == {}
    assert {name for name, one in parts.items() if one["state"] == "ok"} == set(files) - {"MANIFEST.json"}

    lines = [f"-A -t {VIP}:80 -s rr", *(f"-a -t {VIP}:80 -r {cluster.address(node)}:{PORT} -m -w 1" for node in range(2))]
    assert files["ipvs/rules.txt"].splitlines() == lines
    ipvsadm = cluster.namespaces.command_inside(0, [tool("ipvsadm"), "-Sn"])
    assert files["ipvs/rules.txt"] == subprocess.run(ipvsadm, capture_output=True, text=True, check=True).stdout
    (service,) = json.loads(files["ipvs/statistics.json"])["service"]
    assert service["statistics"]["connections"] >= 1
    connections = [line.split() for line in files["ipvs/proc/ip_vs_conn.txt"].splitlines()]
    assert any(line[3:5] == ["0B000001", "0050"] and line[7] == "ESTABLISHED" for line in connections[1:]), connections
    assert "0B000001:0050" in files["ipvs/proc/ip_vs.txt"]

    assert "net.ipv4.vs.conntrack = 1\n" in files["sysctl/ipvs.txt"]
    assert "net.ipv4.ip_forward = " in files["sysctl/ipv4.txt"]
    assert f"inet {VIP}/32" in files["network/device.txt"]
    assert "eth0" in files["network/addresses.txt"]
    assert VIP in files["network/device_routes.txt"]
    assert str(cluster.namespaces.address(0)).rpartition(".")[0].rpartition(".")[0] in files["network/routes.txt"]
    assert "MINUTEMAN" in files["rules/iptables_legacy.txt"]

    status = json.loads(files["api/status.json"])
    assert (status["node"]["name"], status["members"]["alive"]) == ("n0", 2)
    assert {one["name"] for one in json.loads(files["api/members.json"])["members"]} == {"n0", "n1"}
    assert json.loads(files["api/topology.json"])["version"] == 1
    assert json.loads(files["api/backends.json"])["vips"][0]["vip"] == f"tcp://{VIP}:80"
    assert json.loads(files["api/statistics.json"])["version"] == 1
    assert json.loads(files["api/vips.json"])
    assert any(one["kind"] == "sync" for one in json.loads(files["api/events.json"])["events"])
    assert "minuteman_members{" in files["api/metrics.txt"]
    configuration = json.loads(files["api/config.json"])["config"]
    assert configuration["node"]["name"] == "n0"
    assert [one["name"] for one in configuration["source"]] == ["files", "web"]
    assert "127.0.0.1:9/vips" in files["api/config.json"]
    assert [name for name, text in files.items() if SECRET in text] == []

    assert files["logs/file.txt"].splitlines()[-1] in cluster.log(0).splitlines()
    found = {one["id"]: one["severity"] for one in json.loads(files["doctor.json"])["findings"]}
    assert (found["kernel.ipvs"], found["host.device"], found["files.api_socket"]) == ("ok", "ok", "ok")
    assert json.loads(files["versions.json"])["kernel"]["release"] == os.uname().release


def test_a_tool_that_is_missing_is_noted_and_costs_nothing_else(cluster: DaemonCluster, tmp_path: Path) -> None:
    """ipset is on no list of what is needed; nft is covered, as if it were not there."""
    nft, nothing = tool("nft", "nftables"), tmp_path / "nothing"
    nothing.write_text("")
    target = tmp_path / "dump.tar.gz"
    covered = ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" "$1" && shift && exec "$@"', str(nothing), nft]
    inner = [*COMMAND, "dump", "--output", str(target), "--socket", str(cluster.socket(0)), "--timeout", "60"]
    command = cluster.namespaces.command_inside(0, [*covered, *inner])
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    files, parts = contents(target)
    assert (parts["rules/nft.txt"]["state"], parts["rules/nft.txt"]["reason"]) == ("absent", "there is no nft on this machine")
    assert "rules/nft.txt" not in files
    assert "ipvs/rules.txt" in files
    assert "api/status.json" in files
