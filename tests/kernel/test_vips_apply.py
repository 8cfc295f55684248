"""``minuteman vips apply --watch`` as a process, on a real kernel: edit a file, and the kernel follows."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.kernel import ip, ipvsadm

pytestmark = pytest.mark.kernel

FOREIGN = "-A -t 12.0.0.1:80 -s rr\n-a -t 12.0.0.1:80 -r 10.9.9.9:80 -m -w 1\n-A -f 7 -s lc\n"
DEADLINE_SECONDS = 30.0


def rules(*numbers: int, weight: int = 1, host: str = "11.0.0.1") -> str:
    rows = [f"-a -t {host}:80 -r 10.1.0.{n}:8080 -m -w {weight}\n" for n in numbers]
    return "".join([f"-A -t {host}:80 -s rr\n", *rows])


def vip(*numbers: int, drain: int = 0, host: str = "11.0.0.1") -> str:
    rows = [f'[[vip.backend]]\naddress = "10.1.0.{n}"\nport = 8080\n' for n in numbers]
    return "".join([f'[[vip]]\nlisten = "tcp://{host}:80"\nscheduler = "rr"\ndrain = {drain}\n', *rows])


def until(condition: Callable[[], object], what: Callable[[], str]) -> None:
    end = time.perf_counter() + DEADLINE_SECONDS
    while not condition():
        if time.perf_counter() > end:
            pytest.fail(f"not so within {DEADLINE_SECONDS:g} s: {what()}")
        time.sleep(0.005)


class Watcher:
    """The process, and what it says."""

    def __init__(self, *words: str) -> None:
        command = [sys.executable, "-m", "pyminuteman", "vips", "apply", "--watch", *words]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.talk = self.data = ""
        self._threads = [threading.Thread(target=read) for read in (self._read_talk, self._read_data)]
        for thread in self._threads:
            thread.start()

    def _read_talk(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.talk += line

    def _read_data(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.data += line

    def said(self, text: str) -> None:
        until(lambda: text in self.talk or self.process.poll() is not None, lambda: f"{text!r} in {self.talk!r}")
        assert text in self.talk, (text, self.talk)

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self, number: int = signal.SIGTERM) -> int:
        self.send(number)
        code = self.process.wait(DEADLINE_SECONDS)
        for thread in self._threads:
            thread.join()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()
        return code


@pytest.fixture
def watch() -> Iterator[Callable[..., Watcher]]:
    started: list[Watcher] = []

    def start(*words: str) -> Watcher:
        started.append(Watcher(*words))
        return started[-1]

    yield start
    for watcher in started:
        if watcher.process.poll() is None:
            watcher.end(signal.SIGKILL)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "vips.d"
    path.mkdir()
    return path


def becomes(*tables: str) -> None:
    until(lambda: ipvsadm("-Sn") == "".join(tables), lambda: ipvsadm("-Sn"))


def put(path: Path, text: str) -> None:
    """As careful people write a file."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(text)
    new.replace(path)


def test_edit_a_file_and_the_kernel_follows(watch: Callable[..., Watcher], directory: Path) -> None:
    ipvsadm("-R", stdin=FOREIGN)
    web, api = directory / "web.toml", directory / "api.toml"
    put(web, vip(1, 2))
    watcher = watch(f"--source=file:{directory}")
    becomes(rules(1, 2), FOREIGN)
    watcher.said("the table is as desired: 1 service")
    web.write_text(vip(1, 2, 3))
    becomes(rules(1, 2, 3), FOREIGN)
    put(api, vip(4, host="11.0.0.2"))
    becomes(rules(1, 2, 3), rules(4, host="11.0.0.2"), FOREIGN)
    api.unlink()
    becomes(rules(1, 2, 3), FOREIGN)
    assert watcher.end() == 0
    assert watcher.talk.endswith("ended; the kernel's table stays as it is\n")
    assert ipvsadm("-Sn") == rules(1, 2, 3) + FOREIGN
    assert watcher.data.splitlines()[-1] == "-D -t 11.0.0.2:80"


def test_a_broken_file_changes_nothing_and_says_why(watch: Callable[..., Watcher], directory: Path) -> None:
    web = directory / "web.toml"
    put(web, vip(1, 2))
    watcher = watch(f"--source=file:{directory}", "--scope=11.0.0.0/8", "--audit=1")
    becomes(rules(1, 2))
    put(web, vip(1, 2) + "[[vip.backend]\n")
    watcher.said(f"{web}: line 11")
    put(web, vip(1, 2).replace("drain", "drian"))
    watcher.said("did you mean 'drain'?")
    put(web, vip(1, 2).replace("10.1.0.2", "10.1.0.222222"))
    watcher.said("10.1.0.222222")
    watcher.send(signal.SIGHUP)
    watcher.said("looking at everything again")
    ipvsadm("-A", "-t", "11.0.0.9:80")  # when it is gone, there has been a look at the table since
    becomes(rules(1, 2))
    web.unlink()
    watcher.said("held back: 2 of 2 destinations (100 %)")
    assert ipvsadm("-Sn") == rules(1, 2)
    put(web, vip(1, 2, 3))
    becomes(rules(1, 2, 3))
    assert watcher.end(signal.SIGINT) == 0


def test_a_restart_with_nothing_changed_writes_nothing(watch: Callable[..., Watcher], directory: Path) -> None:
    """Nor does it set counters back, or cut a connection."""
    ip("link set lo up", "addr add 11.0.0.1/32 dev lo", "addr add 10.1.0.1/32 dev lo")
    put(directory / "web.toml", vip(1, drain=30))
    watcher = watch(f"--source=file:{directory}")
    becomes(rules(1))
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("10.1.0.1", 8080)))
        client = stack.enter_context(socket.create_connection(("11.0.0.1", 80), timeout=10))
        peer = stack.enter_context(server.accept()[0])
        assert watcher.end() == 0
        # The kernel adds its counters up every two seconds: one connection, three packets.
        until(lambda: re.search(r"10\.1\.0\.1:8080 +1 +2 +1 ", ipvsadm("-Ln", "--stats")), lambda: ipvsadm("-Ln", "--stats"))
        before = ipvsadm("-Ln", "--stats", "--exact")
        again = watch(f"--source=file:{directory}")
        again.said("the table was as desired: 1 service")
        assert again.end() == 0
        assert again.data == ""
        assert ipvsadm("-Ln", "--stats", "--exact") == before
        client.sendall(b"still")
        assert peer.recv(5) == b"still"


def test_killed_in_the_middle_of_its_work_the_next_one_finishes(watch: Callable[..., Watcher], directory: Path) -> None:
    many = "".join(vip(1, 2, 3, host=f"11.0.{n // 200}.{n % 200 + 1}") for n in range(1000))
    put(directory / "many.toml", many)
    watcher = watch(f"--source=file:{directory}")
    until(lambda: ipvsadm("-Sn"), lambda: watcher.talk)
    watcher.end(signal.SIGKILL)
    again = watch(f"--source=file:{directory}")
    again.said("as desired: 1000 services")
    assert len(ipvsadm("-Sn").splitlines()) == 4000
    assert again.end() == 0


def test_what_goes_drains_while_it_has_connections(watch: Callable[..., Watcher], directory: Path) -> None:
    ip("link set lo up", *(f"addr add {address}/32 dev lo" for address in ("11.0.0.1", "10.1.0.1", "10.1.0.2")))
    web = directory / "web.toml"
    put(web, vip(1, 2, drain=600))
    watcher = watch(f"--source=file:{directory}")
    becomes(rules(1, 2))
    with ExitStack() as stack:
        servers = [stack.enter_context(socket.create_server((f"10.1.0.{n}", 8080))) for n in (1, 2)]
        clients = [socket.create_connection(("11.0.0.1", 80), timeout=10) for _ in range(2)]
        peers = [server.accept()[0] for server in servers]
        put(web, vip(1, drain=600))
        becomes(rules(1), rules(2, weight=0).splitlines(keepends=True)[1])
        for one in (*clients, *peers):
            one.close()
        becomes(rules(1))
    assert watcher.end() == 0


def test_what_would_lose_too_much_waits_for_a_signal(watch: Callable[..., Watcher], directory: Path) -> None:
    web = directory / "web.toml"
    put(web, vip(1, 2, 3))
    watcher = watch(f"--source=file:{directory}")
    becomes(rules(1, 2, 3))
    put(web, vip(1))
    watcher.said("held back: 2 of 3 destinations (67 %) would be lost")
    assert ipvsadm("-Sn") == rules(1, 2, 3)
    found = re.search(r"kill -USR1 (\d+)", watcher.talk)
    assert found
    os.kill(int(found[1]), signal.SIGUSR1)
    becomes(rules(1))
    assert watcher.end() == 0


def test_a_backend_whose_server_ends_gets_no_new_connections(watch: Callable[..., Watcher], directory: Path) -> None:
    ip("link set lo up", *(f"addr add {address}/32 dev lo" for address in ("11.0.0.1", "10.1.0.1", "10.1.0.2")))
    put(directory / "web.toml", vip(1, 2))
    with ExitStack() as stack:
        one, two = (stack.enter_context(socket.create_server((f"10.1.0.{n}", 8080))) for n in (1, 2))
        watcher = watch(f"--source=file:{directory}", "--check=tcp", "--check-interval=0.1")
        becomes(rules(1, 2))
        two.close()
        becomes(rules(1), rules(2, weight=0).splitlines(keepends=True)[1])
        watcher.said("10.1.0.2:8080 is unhealthy: 10.1.0.2:8080: Connection refused")
        for _ in range(4):
            stack.enter_context(socket.create_connection(("11.0.0.1", 80), timeout=10))
        stack.enter_context(socket.create_server(("10.1.0.2", 8080)))
        becomes(rules(1, 2))
        assert one.fileno() >= 0
    assert watcher.end() == 0
