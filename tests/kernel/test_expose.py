"""The examples that expose VIPs outside: HAProxy and keepalived themselves, on their example files, and a client that is outside.

Servers and the client are threads of this process: a socket stays in the namespace that it was opened in.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pyminuteman.ipvs import IPVSTable, Scope
from pyminuteman.testing import owned_namespaces
from pyminuteman.testing.owned_namespaces import run_command, run_lines, thread_inside
from tests.support.kernel import ipvsadm
from tests.support.tools import missing, tool

pytestmark = pytest.mark.kernel(timeout=60)

EXPOSE = Path(__file__).parents[2] / "examples/expose"
SYSCTLS = Path(__file__).parents[2] / "contrib/systemd/sysctl.d/50-minuteman.conf"
PUBLIC = "192.0.2.10"
PATIENCE = 20.0
"""Seconds until something must have come to be; usually it takes one or two."""
TAKEOVER_SECONDS = 6.0
"""Until requests pass again after the director was cut off. 1.0 to 1.9 s were seen; the rest is for a machine that does other things too."""
AT_ONCE = 1.0
"""A request that takes longer has failed."""


class Site:
    """Namespaces on two segments, eth0 on the public one and eth1 on the private one, and what runs in them."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stem = owned_namespaces.unused_stem()
        self._stack = stack
        stack.callback(lambda: owned_namespaces.delete(owned_namespaces.of_stem(self._stem)))
        self._processes: list[subprocess.Popen[str]] = []
        stack.callback(self._stop)
        self._hub = self._made("hub")
        run_lines([f"link add {name} type bridge forward_delay 0" for name in ("public", "private")], namespace=self._hub)
        run_lines(["link set public up", "link set private up"], namespace=self._hub)

    def _made(self, name: str) -> str:
        full = self.name(name)
        run_lines([f"netns add {full}"])
        run_lines(["link set lo up"], namespace=full)
        return full

    def name(self, node: str) -> str:
        return f"{self._stem}-{node}"

    def add(self, node: str, *, public: str = "", private: str = "") -> None:
        name = self._made(node)
        for device, segment, address in (("eth0", "public", public), ("eth1", "private", private)):
            if address:
                port = f"{node}-{device}"
                run_lines(
                    [f"link add {port} type veth peer name {device} netns {name}", f"link set {port} master {segment} up"],
                    namespace=self._hub,
                )
                run_lines([f"address add {address}/24 dev {device}", f"link set {device} up"], namespace=name)

    def inside(self, node: str) -> contextlib.AbstractContextManager[None]:
        return thread_inside(self.name(node))

    def cut(self, node: str) -> None:
        """As if it had died: nothing comes from it, and nobody is told."""
        run_lines([f"link set {node}-{device} down" for device in self._devices(node)], namespace=self._hub)

    def mend(self, node: str) -> None:
        run_lines([f"link set {node}-{device} up" for device in self._devices(node)], namespace=self._hub)

    def _devices(self, node: str) -> list[str]:
        return [
            device for device in ("eth0", "eth1") if f"{node}-{device}" in run_command(["ip", "-n", self._hub, "-br", "link"])
        ]

    def addresses(self, node: str) -> str:
        return run_command(["ip", "-n", self.name(node), "-4", "-br", "address"])

    def write_sysctls(self, node: str, *more: str) -> None:
        """Those that are shipped, and some."""
        shipped = [line for line in SYSCTLS.read_text().splitlines() if line and line[0] != "#"]
        with self.inside(node):
            for line in (*shipped, *more):
                name, _, value = line.partition(" = ")
                Path("/proc/sys", name.replace(".", "/")).write_text(value)

    def start(self, node: str, *words: str | Path) -> subprocess.Popen[str]:
        """A program there, which ends with the test; what it says is shown when the test fails."""
        with self.inside(node):
            process = subprocess.Popen(
                [str(word) for word in words], stdin=subprocess.DEVNULL, stdout=sys.stderr, stderr=sys.stderr, text=True
            )
        self._processes.append(process)
        return process

    def _stop(self) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait(10)

    def serve(self, node: str, name: str, address: str, port: int) -> socket.socket:
        """Answer HTTP with a name and the client's address; connections are kept open for as long as the client likes."""
        with self.inside(node):
            server = self._stack.enter_context(socket.create_server((address, port), backlog=64))
        threading.Thread(target=_accept, args=(server, name), daemon=True).start()
        return server

    def converge(self, node: str, vips: Path) -> None:
        """As an operator would: the command, on the example's file."""
        with self.inside(node):
            words = ["vips", "apply", f"--source=file:{vips}", "--yes", "--timeout=20"]
            done = subprocess.run([sys.executable, "-m", "pyminuteman", *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done


def _accept(server: socket.socket, name: str) -> None:
    with contextlib.suppress(OSError):  # the test is over
        while True:
            connection, peer = server.accept()
            threading.Thread(target=_answer, args=(connection, f"{name} {peer[0]}"), daemon=True).start()


def _answer(connection: socket.socket, text: str) -> None:
    with contextlib.suppress(OSError), connection:
        while request := connection.recv(4096):
            found = re.search(rb"x-forwarded-for: (\S+)", request, re.IGNORECASE)
            body = text + (f" for {found[1].decode()}" if found else "")
            connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())


class Client:
    """Outside: it knows the public address."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def connect(self) -> socket.socket:
        with self._site.inside("client"):
            return socket.create_connection((PUBLIC, 80), timeout=AT_ONCE)

    def ask(self, host: str = "www.example.com", connection: socket.socket | None = None) -> str:
        """The body of the answer.

        Raises:
            OSError: there was none in time, or another than 200.
        """
        with contextlib.ExitStack() as stack:
            if connection is None:
                connection = stack.enter_context(self.connect())
            connection.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            head, gap, body = connection.recv(4096).decode().partition("\r\n\r\n")
            if not gap or " 200 " not in head:
                raise OSError(f"answered {head.splitlines()[:1]}")
            return body

    def until_it_passes(self, host: str = "www.example.com") -> float:
        """Ask until an answer comes; the seconds that took."""
        return until(lambda: succeeds(lambda: self.ask(host)), "a request passes")


def succeeds(work: Callable[[], object]) -> bool:
    try:
        work()
    except OSError:
        return False
    return True


def until(condition: Callable[[], object], what: str) -> float:
    began = time.perf_counter()
    while not condition():
        assert time.perf_counter() < began + PATIENCE, f"not within {PATIENCE:g} s: {what}"
        time.sleep(0.02)
    return time.perf_counter() - began


def masquerade(site: Site, node: str, network: str) -> None:
    """Replies are to come back, which the daemon's host set-up sees to; this kernel may know one way or the other."""
    legacy = "-w -t nat -A POSTROUTING -m ipvs --ipvs --vdir ORIGINAL --vmethod MASQ -j MASQUERADE"
    rules = f"add table ip test\nadd chain ip test post {{ type nat hook postrouting priority 100; }}\nadd rule ip test post ct original ip daddr {network} masquerade\n"
    complaints = []
    with site.inside(node):
        for words, text in ((f"iptables-legacy {legacy}", ""), ("nft -f -", rules)):
            if shutil.which(words.partition(" ")[0]):
                done = subprocess.run(words.split(), input=text, capture_output=True, text=True, check=False)
                if done.returncode == 0:
                    return
                complaints.append(done)
    missing(f"a way to masquerade (apt-get install iptables, or nftables): {complaints}")


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as made:
        yield made


@pytest.fixture
def site(stack: contextlib.ExitStack) -> Site:
    made = Site(stack)
    made.add("client", public="192.0.2.2")
    return made


@pytest.fixture
def client(site: Site) -> Client:
    return Client(site)


def test_haproxy_on_an_edge_host(site: Site, client: Client, tmp_path: Path) -> None:
    example = EXPOSE / "haproxy"
    site.add("edge", public=PUBLIC, private="10.0.0.1")
    site.add("b1", private="10.0.0.11")
    site.add("b2", private="10.0.0.12")
    site.serve("b1", "web1", "10.0.0.11", 8080)
    second = site.serve("b2", "web2", "10.0.0.12", 8080)
    site.serve("b2", "api", "10.0.0.12", 8081)
    site.write_sysctls("edge")
    run_lines(
        [
            "link add minuteman type dummy",
            "link set minuteman up",
            "address add 11.0.0.1/32 dev minuteman",
            "address add 11.0.0.2/32 dev minuteman",
        ],
        namespace=site.name("edge"),
    )
    masquerade(site, "edge", "11.0.0.0/8")
    site.converge("edge", example / "vips.toml")
    checked = subprocess.run(
        [tool("haproxy"), "-c", "-f", example / "haproxy.cfg"], capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stderr) == (0, ""), checked
    site.start("edge", tool("haproxy"), "-db", "-f", example / "haproxy.cfg")
    client.until_it_passes()

    # Requests are balanced, by the kernel of the edge host; the client's address goes with them.
    answers = Counter(client.ask() for _ in range(20))
    assert answers == {"web1 10.0.0.1 for 192.0.2.2": 10, "web2 10.0.0.1 for 192.0.2.2": 10}
    assert client.ask("api.example.com") == "api 10.0.0.1 for 192.0.2.2"
    with client.connect() as kept:
        assert {client.ask(connection=kept).split()[0] for _ in range(4)} == {"web1", "web2"}

    # One that dies costs no request, before its weight is 0 or after.
    second.shutdown(socket.SHUT_RDWR)
    second.close()
    assert {client.ask().split()[0] for _ in range(10)} == {"web1"}
    without = tmp_path / "vips.toml"
    without.write_text(
        (example / "vips.toml").read_text().replace('"10.0.0.12"\n  port = 8080', '"10.0.0.12"\n  port = 8080\n  weight = 0')
    )
    site.converge("edge", without)
    with site.inside("edge"), IPVSTable(scope=Scope.everything()) as table:
        assert "-a -t 11.0.0.1:80 -r 10.0.0.12:8080 -m -w 0" in table.export()
    assert {client.ask().split()[0] for _ in range(10)} == {"web1"}


class Directors:
    """Two directors with keepalived as in the example, and two backends."""

    def __init__(self, site: Site, stack: contextlib.ExitStack, form: str, directory: Path) -> None:
        self._site = site
        self._example = EXPOSE / "keepalived"
        for node, public, private in (("a", "192.0.2.3", "10.0.0.1"), ("b", "192.0.2.4", "10.0.0.2")):
            site.add(node, public=public, private=private)
            site.write_sysctls(node, {"masquerade": "net.ipv4.ip_forward = 1", "route": "net.ipv4.vs.sloppy_tcp = 1"}[form])
            if form == "masquerade":
                masquerade(site, node, PUBLIC)
        for number in (1, 2):
            self._add_backend(form, number)
        # Where "nobody", as whom keepalived runs the check, may go.
        etc = Path(tempfile.mkdtemp(dir="/run"))
        stack.callback(shutil.rmtree, etc)
        etc.chmod(0o755)
        shutil.copy(self._example / "check-vip", etc)
        for node in ("a", "b"):
            self._start(node, etc, directory)

    def _add_backend(self, form: str, number: int) -> None:
        site, node = self._site, f"b{number}"
        site.add(node, public=f"192.0.2.2{number}", private=f"10.0.0.1{number}")
        if form == "route":
            with site.inside(node):
                subprocess.run([self._example / "quiet-vip.sh"], check=True)
            site.serve(node, f"web{number}", PUBLIC, 80)
        else:
            site.serve(node, f"web{number}", f"10.0.0.1{number}", 8080)

    def _start(self, node: str, etc: Path, directory: Path) -> None:
        text = (self._example / f"keepalived-{node}.conf").read_text()
        assert text.count("/etc/keepalived/") == 1
        configuration = directory / f"{node}.conf"
        configuration.write_text(text.replace("/etc/keepalived", str(etc)))
        own = ["-f", configuration, "-p", directory / f"{node}.pid", "-r", directory / f"{node}.vrrp.pid"]
        self._site.start(node, tool("keepalived"), "--dont-fork", "--log-console", "--vrrp", *own)

    def holders(self) -> list[str]:
        return [node for node in ("a", "b") if PUBLIC in self._site.addresses(node)]


@pytest.mark.parametrize("form", ["masquerade", "route"])
def test_keepalived_moves_the_address(
    form: str, site: Site, client: Client, stack: contextlib.ExitStack, tmp_path: Path
) -> None:
    vips = EXPOSE / f"keepalived/vips-{form}.toml"
    directors = Directors(site, stack, form, tmp_path)
    holders = directors.holders
    sources = {"masquerade": "10.0.0.2", "route": "192.0.2.2"}

    # Nobody takes the address before the table is filled; three advertisements and a bit, 1.2 s, is when one would.
    time.sleep(2.0)
    assert holders() == []
    site.converge("b", vips)
    until(lambda: holders() == ["b"], "b, whose table is the only one, has the address")
    client.until_it_passes()
    site.converge("a", vips)
    assert {client.ask() for _ in range(40)} == {f"web1 {sources[form]}", f"web2 {sources[form]}"}
    assert holders() == ["b"], "a has the greater priority, and does not take the address from one that works"

    # The one that holds it falls silent.
    kept = stack.enter_context(client.connect())
    before = client.ask(connection=kept)
    site.cut("b")
    seconds = until(lambda: "a" in holders(), "a has the address") + client.until_it_passes()
    assert seconds < TAKEOVER_SECONDS
    if form == "route":
        assert client.ask(connection=kept) == before, "the same connection goes on, through the other director"
    else:
        sources[form] = "10.0.0.1"
    assert {client.ask() for _ in range(40)} == {f"web1 {sources[form]}", f"web2 {sources[form]}"}

    # It comes back, and leaves the address where it is; until the other one has no backends any more.
    until(lambda: holders() == ["a"], "b has noticed that its cable is out")
    site.mend("b")
    with site.inside("a"), IPVSTable(scope=Scope.everything()) as table:
        table.converge({})
    until(lambda: holders() == ["b"], "b has the address again")
    client.until_it_passes()


@pytest.mark.parametrize(
    ("lines", "words", "works"),
    [
        ("-A -t 192.0.2.10:80 -s rr\n-a -t 192.0.2.10:80 -r 10.0.0.1:80 -m -w 1\n", [f"{PUBLIC}:80"], True),
        ("-A -t 192.0.2.10:80 -s rr\n-a -t 192.0.2.10:80 -r 10.0.0.1:80 -m -w 0\n", [f"{PUBLIC}:80"], False),
        (
            "-A -t 192.0.2.10:80 -s rr\n-A -t 192.0.2.10:81 -s rr\n-a -t 192.0.2.10:81 -r 10.0.0.1:80 -m -w 1\n",
            [f"{PUBLIC}:80"],
            False,
        ),
        ("-A -u 192.0.2.10:80 -s rr\n-a -u 192.0.2.10:80 -r 10.0.0.1:80 -m -w 1\n", [f"{PUBLIC}:80"], False),
        ("-A -u 192.0.2.10:80 -s rr\n-a -u 192.0.2.10:80 -r 10.0.0.1:80 -m -w 1\n", [f"{PUBLIC}:80", "UDP"], True),
        ("", [f"{PUBLIC}:80"], False),
    ],
)
def test_what_keepalived_asks_is_answered_by_the_kernel(lines: str, words: list[str], works: bool) -> None:
    ipvsadm("-R", stdin=lines)
    done = subprocess.run([EXPOSE / "keepalived/check-vip", *words], check=False)
    assert (done.returncode == 0) == works
