"""The command as users run it, beside the real ipvsadm, on a real kernel."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.kernel

EVERYTHING = """\
-A -t 10.0.0.1:80 -s mh -b mh-fallback,mh-port
-a -t 10.0.0.1:80 -r 10.1.0.1:8080 -m -w 3
-a -t 10.0.0.1:80 -r 10.1.0.2 -i -w 0 --tun-type gue --tun-port 6080 --tun-csum
-a -t 10.0.0.1:80 -r 10.1.0.3 -i --tun-type gue --tun-port 6081 --tun-remcsum
-a -t 10.0.0.1:80 -r 10.1.0.4 -i --tun-type gre --tun-nocsum
-a -t 10.0.0.1:80 -r 10.1.0.5 -i
-a -t 10.0.0.1:80 -r 127.0.0.1 -g -w 65535
-A -t 192.168.0.1:443 -s sh -b sh-fallback,sh-port -p 77 -M 255.255.0.0
-A -t 10.0.0.3:0 -s wlc -p 360
-A -u 10.0.0.1:53 -s rr -o
-A -u 10.0.0.9:5060 -s rr -p 60 --pe sip -o
-a -u 10.0.0.9:5060 -r 10.1.0.1:5060 -m
-A --sctp-service 10.0.0.1:99 -s lblcr -b flag-2
-A -t [fd00::1]:443 -s wlc -p 300 -M 64
-a -t [fd00::1]:443 -r [fd00:1234:5678:9abc:def0:1234:5678:9abc]:8443 -m
-a -t [fd00::1]:443 -r 10.1.0.1 -i
-A -f 7 -s rr -p 360 -M 255.255.255.0
-a -f 7 -r 10.4.0.1 -i --tun-type gre --tun-csum
-A -f 8 -6 -s rr
-a -f 8 -6 -r [fd00::9]:0 -g
-A -f 4000000000 -s wrr -b flag-1,flag-3
"""


def run(*words: str, stdin: str = "", **extra: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, input=stdin, capture_output=True, text=True, check=False, timeout=60, **extra)  # type: ignore[call-overload,no-any-return]


def ipvsadm(*words: str, stdin: str = "") -> str:
    done = run("ipvsadm", *words, stdin=stdin)
    assert (done.returncode, done.stderr) == (0, "")
    return str(done.stdout)


def minuteman(*words: str, stdin: str = "", expect: int = 0) -> subprocess.CompletedProcess[str]:
    done = run(sys.executable, "-m", "pyminuteman", "ipvs", *words, stdin=stdin)
    assert done.returncode == expect, done.stderr
    return done


@pytest.fixture
def everything() -> str:
    """A table with all that ipvsadm can say, made by ipvsadm; its ``-Sn``."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    ipvsadm("-R", stdin=EVERYTHING)
    saved = ipvsadm("-Sn")
    assert saved.count("\n") == EVERYTHING.count("\n")
    return saved


def test_export_is_what_ipvsadm_saves_and_import_what_it_restores(everything: str) -> None:
    assert minuteman("export").stdout == everything
    ipvsadm("-C")
    assert minuteman("import", "-", stdin=everything).stdout == ""
    assert ipvsadm("-Sn") == everything
    # Once more, over what is there, and with the names of ports that -S writes. Those of hosts are not looked up.
    named = ipvsadm("-S")
    assert ":https " in named
    assert "nothing to do" in minuteman("import", "-", stdin=named.replace("localhost", "127.0.0.1")).stderr
    data = minuteman("list", "-o", "json").stdout
    assert "nothing to do" in minuteman("plan", "-", "--scope", "everything", stdin=data).stderr
    ipvsadm("-C")
    minuteman("apply", "-", stdin=data)
    assert ipvsadm("-Sn") == everything


def test_list_is_what_ipvsadm_lists(everything: str) -> None:
    """All but the order of rows, and a firewall mark that ipvsadm shows as negative."""
    assert everything
    for words in ([], ["--stats"], ["--rate"], ["--thresholds"], ["--persistent-conn"]):
        theirs = ipvsadm("-Ln", *words).replace("FWM  -294967296", "FWM  4000000000")
        ours = minuteman("list", *words).stdout
        assert sorted(ours.splitlines()) == sorted(theirs.splitlines())
        assert ours.splitlines()[:3] == theirs.splitlines()[:3]


def test_exit_codes(everything: str, tmp_path: Path) -> None:
    rules = tmp_path / "x.rules"
    rules.write_text(everything.replace("-w 3", "-w 4"))
    assert minuteman("plan", str(rules), expect=3).stdout == "-e -t 10.0.0.1:80 -r 10.1.0.1:8080 -m -w 4\n"
    minuteman("flush", "--scope", "everything", expect=2)
    rules.write_text("-A -t 10.0.0.1:80 -s mh -b mh-fallback,mh-port\n-A -t 10.0.0.2:80 -s nonesuch\n")
    failed = minuteman("import", str(rules), expect=4)
    assert f"failed: {rules}: line 2: -A -t 10.0.0.2:80 -s nonesuch: No such file or directory" in failed.stderr
    assert "modprobe ip_vs_nonesuch" in failed.stderr
    minuteman("--netns", "/nonexistent", "list", expect=69)
    drop = ["setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin", "--reuid", "65534", "--clear-groups"]
    denied = run(*drop, sys.executable, "-m", "pyminuteman", "ipvs", "list")
    assert denied.returncode == 77, denied.stderr
    assert "CAP_NET_ADMIN" in denied.stderr
    assert ipvsadm("-Sn") == everything


def test_another_network_namespace(everything: str) -> None:
    subprocess.run(["ip", "netns", "add", "blue"], check=True)
    try:
        words = ("--netns", "/run/netns/blue")
        minuteman(*words, "import", "-", stdin="-A -t 10.9.0.1:80 -s rr\n")
        assert minuteman(*words, "export").stdout == "-A -t 10.9.0.1:80 -s rr\n"
        assert ipvsadm("-Sn") == everything
    finally:
        subprocess.run(["ip", "netns", "del", "blue"], check=True)


@pytest.fixture
def sockets() -> Iterator[contextlib.ExitStack]:
    """Closes them."""
    with contextlib.ExitStack() as stack:
        yield stack


def test_traffic_and_drain(tmp_path: Path, sockets: contextlib.ExitStack) -> None:
    for words in (
        ["link", "set", "lo", "up"],
        *(["addr", "add", f"10.{n}/32", "dev", "lo"] for n in ("0.0.1", "1.0.1", "1.0.2")),
    ):
        subprocess.run(["ip", *words], check=True)
    for address in ("10.1.0.1", "10.1.0.2"):
        sockets.enter_context(socket.create_server((address, 8080), backlog=100))
    table = tmp_path / "web.toml"
    service = '[[service]]\nprotocol = "tcp"\naddress = "10.0.0.1"\nport = 80\nscheduler = "rr"\n'
    one, two = (f'[[service.destination]]\naddress = "10.1.0.{n}"\nport = 8080\n' for n in (1, 2))
    table.write_text(service + one + two)
    minuteman("apply", str(table))
    for _ in range(4):
        sockets.enter_context(socket.create_connection(("10.0.0.1", 80)))
    strip = re.compile(r" \d\d:\d\d ")
    ours, theirs = minuteman("connections").stdout, ipvsadm("-Lnc")
    assert sorted(strip.sub("", ours).splitlines()) == sorted(strip.sub("", theirs).splitlines())
    assert len(ours.splitlines()) == 6

    watching = subprocess.Popen(
        [sys.executable, "-m", "pyminuteman", "ipvs", "watch", "-o", "json"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert watching.stdout is not None
    watching.stdout.readline()
    for _ in range(10):
        sockets.enter_context(socket.create_connection(("10.0.0.1", 80)))
    seen = 0.0
    while seen < 9.9:
        sample = json.loads(watching.stdout.readline())
        rates = [row["rates"]["connections"] for row in sample["service"][0]["destination"]]
        assert sum(rates) == pytest.approx(sample["service"][0]["rates"]["connections"], abs=0.01)
        seen += sum(rates) * sample["interval_seconds"]
    assert seen == pytest.approx(10, rel=0.01)
    watching.send_signal(signal.SIGINT)
    assert watching.wait(10) == 0
    watching.stdout.close()

    drained = minuteman("drain", "-t", "10.0.0.1:80", "-r", "10.1.0.2:8080", "--timeout", "0.2", "--keep", expect=5)
    assert "7 active and 0 inactive connections left" in drained.stderr
    minuteman("drain", "-t", "10.0.0.1:80", "-r", "10.1.0.2:8080", "--undo", "--weight", "1")
    table.write_text(service + one)
    began = time.monotonic()  # noqa: TID251 - the kernel's time
    done = minuteman("apply", str(table), "--drain", "2")
    assert 2 <= time.monotonic() - began < 8  # noqa: TID251
    assert "draining: 1 destination, 7 connections" in done.stderr
    assert "10.1.0.2" not in ipvsadm("-Sn")


def on_a_terminal(*words: str, keys: bytes) -> tuple[int, str]:
    """Run with a terminal, type ``keys`` at once, and take down what is shown."""
    pid, fd = pty.fork()
    if pid == 0:
        os.environ["TERM"] = "xterm"
        os.execv(sys.executable, [sys.executable, "-m", "pyminuteman", "ipvs", *words])  # noqa: S606
    os.write(fd, keys)
    shown = b""
    while True:
        try:
            piece = os.read(fd, 65536)
        except OSError:
            break
        if not piece:
            break
        shown += piece
    os.close(fd)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown.decode()


def test_on_a_terminal(everything: str, tmp_path: Path) -> None:
    many = tmp_path / "many.rules"
    rows = (f"-a -t 10.2.0.1:80 -r 10.3.{n // 250}.{n % 250 + 1}:80 -m -w 1\n" for n in range(5000))
    many.write_text("-A -t 10.2.0.1:80 -s rr\n" + "".join(rows))
    code, shown = on_a_terminal("apply", str(many), "--scope", "everything", keys=b"n\n")
    assert code == 2
    assert "remove 10 services?" in shown, shown
    assert ipvsadm("-Sn") == everything
    code, shown = on_a_terminal("apply", str(many), "--scope", "everything", keys=b"y\n")
    assert code == 0, shown
    assert "and 4971 more" in shown
    assert "applying" in shown
    assert ipvsadm("-Sn").count("\n") == 5001
    code, shown = on_a_terminal("watch", "--count", "1", "--interval", "0.1", keys=b"")
    assert code == 0
    assert "more lines" in shown
