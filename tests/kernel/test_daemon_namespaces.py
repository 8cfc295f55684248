"""A daemon with a directory of containers' namespaces, each joined to the host by a veth: connections from inside them to VIPs."""

from __future__ import annotations

import ctypes
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from pyminuteman.daemon.client import DaemonClient
from pyminuteman.host.namespaces import in_namespace
from pyminuteman.host.sysctls import write_sysctl
from pyminuteman.ipvs import IPVSTable, Scope
from tests.support.kernel import ip

pytestmark = pytest.mark.kernel(timeout=120)

DEADLINE_SECONDS = 60.0
HOST, HOST6 = "10.9.0.1", "fd09::1"
VIP, OWN, VIP6 = "11.0.0.1", "11.0.0.2", "fd01::1"
CAP_SYS_ADMIN, PR_CAPBSET_DROP = 21, 24


def until(true: Callable[[], Any], what: str) -> None:
    end = time.perf_counter() + DEADLINE_SECONDS
    while not true():
        if time.perf_counter() > end:
            pytest.fail(f"not so within {DEADLINE_SECONDS:g} s: {what}")
        time.sleep(0.02)


class Container:
    """A named network namespace with an address of its own, which is the host's only way to it."""

    def __init__(self, number: int) -> None:
        self.name = f"container{number}"
        self.path = f"/run/netns/{self.name}"
        self.address, gateway = f"10.9.{number}.2", f"10.9.{number}.1"
        ip(
            f"netns add {self.name}",
            f"link add veth{number} type veth peer name eth0 netns {self.name}",
            f"address add {gateway}/24 dev veth{number}",
            f"address add fd09:{number}::1/64 dev veth{number} nodad",
            f"link set veth{number} up",
        )
        lines = ["link set lo up", f"address add {self.address}/24 dev eth0", f"address add fd09:{number}::2/64 dev eth0 nodad"]
        lines += ["link set eth0 up", f"route add default via {gateway}", f"route add default via fd09:{number}::1"]
        subprocess.run(["ip", "-n", self.name, "-batch", "-"], input="\n".join(lines), text=True, check=True)

    def close(self) -> None:
        ip(f"netns del {self.name}")

    def ask(self, vip: str) -> tuple[str, str]:
        """Who answers there, and whom that one takes for the client; from inside."""

        def connect() -> socket.socket:
            return socket.create_connection((vip, 80), timeout=5)

        try:
            with in_namespace(self.path, connect) as client:
                who, _, peer = client.recv(200).decode().partition(" ")
                return who, peer
        except OSError as error:
            return repr(error), ""

    def rows(self) -> set[str]:
        return rows(self.path)


def rows(netns: str | None = None) -> set[str]:
    with IPVSTable(scope=Scope.services(()), netns=netns) as table:
        snapshot = table.snapshot()
        return {f"{row.address}:{row.port}" for one in snapshot for row in snapshot.destinations(one.key)}


class Answerer(threading.Thread):
    """Says who it is, and who is asking."""

    def __init__(self, name: str, address: str, port: int = 8000, netns: str | None = None) -> None:
        super().__init__(daemon=True)
        self.word = name
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.listener = in_namespace(netns, lambda: socket.create_server((address, port), family=family))
        self.start()

    def run(self) -> None:
        while True:
            try:
                connection, peer = self.listener.accept()
            except OSError:
                return
            with connection:
                connection.sendall(f"{self.word} {peer[0]}".encode())

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.join()
        self.listener.close()


class Daemon:
    """It, in the namespace of the test, which is the host."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.entries = directory, directory / "l4lb"
        self.entries.mkdir(mode=0o755)
        self.socket, self.log = directory / "api.sock", directory / "log"
        self.process: subprocess.Popen[bytes] | None = None
        self.vips({f"tcp://{VIP}:80": [f"{HOST}:8000"]})
        (directory / "config.toml").write_text(
            f"""
[node]
name = "one"
bind = "127.0.0.1:61420"
state_directory = "{directory / "state"}"
realtime = false
[cluster]
insecure = true
[[source]]
name = "files"
place = "file:{directory / "vips.toml"}"
[ipvs]
managed = ["11.0.0.0/8", "fd01::/16"]
drain_seconds = 0
[namespaces]
directory = "{self.entries}"
[health]
check = ""
[host]
masquerade = "none"
guard = false
portmap_bypass = false
[api]
socket = "{self.socket}"
group = ""
"""
        )
        (directory / "state").mkdir(mode=0o700)

    def vips(self, wanted: dict[str, list[str]]) -> None:
        text = ""
        for listen, backends in wanted.items():
            text += f'[[vip]]\nlisten = "{listen}"\nscheduler = "rr"\n'
            for address, _, port in (backend.rpartition(":") for backend in backends):
                text += f'[[vip.backend]]\naddress = "{address}"\nport = {port}\n'
        (self.directory / "vips.new").write_text(text)
        (self.directory / "vips.new").replace(self.directory / "vips.toml")

    def start(self, **options: Any) -> None:
        command = [sys.executable, "-m", "pyminuteman", "run", "--config", str(self.directory / "config.toml")]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, **options)

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def get(self, path: str) -> Any:
        with DaemonClient(self.socket) as client:
            return client.get(path)

    def kernels(self) -> dict[str, Any]:
        return {row["namespace"]: row for row in self.get("/v1/status")["kernel"]}

    def events(self, kind: str) -> list[str]:
        return [one["text"] for one in self.get("/v1/events?format=json&since=0")["events"] if one["kind"] == kind]

    def command(self, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "pyminuteman", *words, "--socket", str(self.socket)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    made = Daemon(tmp_path)
    write_sysctl("net.ipv4.ip_forward", "1")  # from one container to the other
    ip(
        "link add host0 type dummy",
        f"address add {HOST}/32 dev host0",
        f"address add {HOST6}/128 dev host0 nodad",
        "link set host0 up",
    )
    try:
        yield made
    except BaseException:
        sys.stderr.write(made.log.read_text()[-4000:])
        raise
    finally:
        made.end()


@pytest.fixture
def containers() -> Iterator[tuple[Container, Container]]:
    with ExitStack() as stack:
        made = []
        for number in (1, 2):
            made.append(Container(number))
            stack.callback(made[-1].close)
        yield made[0], made[1]


def test_containers_reach_vips_from_inside(daemon: Daemon, containers: tuple[Container, Container]) -> None:
    blue, red = containers
    answerers = [Answerer("host", HOST), Answerer("host6", HOST6), Answerer("red", red.address, netns=red.path)]
    (daemon.entries / "blue").write_text(blue.path)
    (daemon.entries / "broken").write_text("/run/netns/nothing")
    daemon.start()
    until(lambda: blue.ask(VIP) == ("host", blue.address), "connections come from the container's own address")
    assert rows() == {f"{HOST}:8000"} == blue.rows()
    assert red.rows() == set()

    # One is mounted while the daemon runs. It is a backend itself, and reaches itself by a VIP.
    (daemon.entries / "red").touch()
    subprocess.run(["mount", "--bind", red.path, daemon.entries / "red"], check=True)
    wanted = {f"tcp://{VIP}:80": [f"{HOST}:8000"], f"tcp://{OWN}:80": [f"{red.address}:8000"]}
    wanted[f"tcp://[{VIP6}]:80"] = [f"{HOST6}:8000"]
    daemon.vips(wanted)
    try:
        until(lambda: red.ask(VIP) == ("host", red.address), "the mounted one is served")
        until(lambda: red.ask(OWN) == ("red", red.address), "it reaches itself")
        until(lambda: blue.ask(OWN) == ("red", blue.address), "and others reach it")
        until(lambda: {blue.ask(VIP6), red.ask(VIP6)} == {("host6", "fd09:1::2"), ("host6", "fd09:2::2")}, "IPv6 as well")
        everything = rows()
        assert blue.rows() == red.rows() == everything
        assert len(everything) == len(wanted)

        # It is shown.
        until(lambda: {one["services"] for one in daemon.kernels().values()} == {3}, "all are told to have all services")
        assert daemon.kernels().keys() == {"", "blue", "red"}
        step = next(one for one in daemon.get("/v1/status")["host"] if one["step"] == "namespaces")
        assert (step["ok"], step["reason"]) == (False, "broken: /run/netns/nothing: No such file or directory")
        printed = daemon.command("status")
        assert {"blue", "red"} <= {line.split()[0] for line in printed.splitlines() if " services" in line}
        assert daemon.events("sync_failed") == daemon.events("host") == []
        assert len([text for text in daemon.events("namespace") if text.startswith("broken")]) == 1

        # What would take most away is held back in each, and confirmed for one.
        daemon.vips({f"tcp://{VIP}:80": [f"{HOST}:8000"]})
        until(lambda: all(one["held_back"] for one in daemon.kernels().values()), "held back everywhere")
        daemon.command("confirm", "--namespace", "red", "--yes")
        until(lambda: red.rows() == {f"{HOST}:8000"}, "red gives in")
        assert blue.rows() == rows() == everything
        daemon.vips(wanted)
        until(lambda: red.rows() == everything, "red has all again")

        # One goes, and its table is let alone; so is what is left at the end.
        (daemon.entries / "blue").unlink()
        until(lambda: daemon.kernels().keys() == {"", "red"}, "blue is not served any more")
        assert blue.rows() == everything
        daemon.vips({f"tcp://{VIP}:80": [f"{HOST}:8000"], f"tcp://{OWN}:80": [f"{red.address}:8000", f"{red.address}:8001"]})
        until(
            lambda: red.rows() == rows() == {f"{HOST}:8000", f"{red.address}:8000", f"{red.address}:8001"}, "the others go on"
        )
        assert blue.rows() == everything
        assert daemon.events("sync_failed") == []
        assert daemon.stop() == 0
    finally:
        subprocess.run(["umount", daemon.entries / "red"], check=True)
        for answerer in answerers:
            answerer.close()


def test_without_the_right_it_says_what_to_do_and_serves_the_host(
    daemon: Daemon, containers: tuple[Container, Container]
) -> None:
    blue, _ = containers
    (daemon.entries / "blue").write_text(blue.path)

    def drop() -> None:
        ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_SYS_ADMIN, 0, 0, 0)

    daemon.start(preexec_fn=drop)
    until(lambda: daemon.socket.exists() and daemon.kernels()[""]["services"] == 1, "the host has its table")
    assert rows() == {f"{HOST}:8000"}
    until(lambda: daemon.events("namespace"), "it is told")
    (text,) = daemon.events("namespace")
    assert text.startswith(f"blue: network namespace {blue.path} cannot be entered: Operation not permitted")
    assert "CAP_SYS_ADMIN" in text
    assert "minuteman.service.d/namespaces.conf" in text
    assert blue.rows() == set()
    found = subprocess.run(
        [sys.executable, "-m", "pyminuteman", "doctor", "--config", daemon.directory / "config.toml"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        preexec_fn=drop,
    )
    assert "CAP_SYS_ADMIN is missing" in found.stdout
    assert "minuteman.service.d/namespaces.conf" in found.stdout
