"""Host set-up with the kernel's IPVS behind it: real connections from this host and from another, before, during and after."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pyminuteman.host.errors import HostSetupError
from pyminuteman.host.filtering import Parts
from pyminuteman.host.firewall import NftEngine
from pyminuteman.host.journal import Journal
from pyminuteman.host.setup import HostSettings, HostSetup
from pyminuteman.host.sysctls import read_sysctl, write_sysctl
from pyminuteman.ipvs import Destination, ForwardingMethod, IPVSTable, Scope, Service
from tests.conftest import ROOT
from tests.support.host_namespaces import Greeter, Inside, greeting
from tests.support.kernel import ip
from tests.support.tools import tool

pytestmark = pytest.mark.kernel

VIP, VIP6 = "11.0.0.1", "fd01::1"
WEB, WEB6 = Service.tcp(VIP, 80, scheduler="rr"), Service.tcp(VIP6, 80, scheduler="rr")
DESIRED = {WEB: [Destination("10.5.0.2", 8080)], WEB6: [Destination("fd05::2", 8080)]}
KEYS = [WEB.key, WEB6.key]
SETTINGS = HostSettings(ipv6=True, forward=True)


def wire(place: Inside, name: str, net: int) -> None:
    """A wire to that namespace: 10.NET.0.1 and fd0NET::1 here, .2 and ::2 there. A thread's id names its namespace as a process's does."""
    ip(f"link add {name}0 type veth peer name {name}1 netns {place.path.split('/')[4]}", f"link set {name}0 up",
       f"addr add 10.{net}.0.1/24 dev {name}0", f"addr add fd0{net}::1/64 dev {name}0 nodad")  # fmt: skip
    place.run(partial(ip, f"link set {name}1 up", f"addr add 10.{net}.0.2/24 dev {name}1", f"addr add fd0{net}::2/64 dev {name}1 nodad"))  # fmt: skip


@pytest.fixture
def client() -> Iterator[Inside]:
    """A client's host, that reaches this one, which reaches a backend's; the backend knows no way to the client."""
    with ExitStack() as stack:
        backend, client = stack.enter_context(Inside()), stack.enter_context(Inside())
        wire(backend, "b", 5)
        wire(client, "c", 6)
        client.run(partial(ip, "route add default via 10.6.0.1", "route add default via fd06::1"))
        for address in ("10.5.0.2", "fd05::2"):
            stack.enter_context(backend.run(partial(Greeter, address, 8080, b"backend")))
        yield client


@pytest.fixture
def table() -> Iterator[IPVSTable]:
    with IPVSTable(scope=Scope.everything()) as made:
        yield made


def serve(setup: HostSetup, table: IPVSTable, desired: dict[Service, list[Destination]]) -> None:
    """As the daemon does it."""
    addresses, keys = {service.key.address for service in desired}, [service.key for service in desired]
    setup.before_ipvs(addresses, keys)
    table.converge(desired)
    setup.after_ipvs(addresses, keys)


@pytest.mark.parametrize("announce", ["address", "route"])
def test_vips_work_for_this_host_and_for_others_and_host_ports_do_not(
    client: Inside, table: IPVSTable, tmp_path: Path, announce: Any
) -> None:
    with HostSetup(replace(SETTINGS, announce=announce), journal=Journal(tmp_path)) as setup:
        assert [found for found in setup.set_up() if not found.ok] == []
        serve(setup, table, DESIRED)
        with Greeter("0.0.0.0", 22, b"ssh"), Greeter("::", 222, b"ssh"):  # noqa: S104 - that is the point
            for ask in (greeting, lambda address, port: client.run(lambda: greeting(address, port))):
                assert [ask(address, 80) for address in (VIP, VIP6, VIP, VIP6)] == ["backend"] * 4
                assert (ask(VIP, 22), ask(VIP6, 222)) == ("ConnectionRefusedError", "ConnectionRefusedError")
                assert (ask("10.6.0.1", 22), ask("fd06::1", 222)) == ("ssh", "ssh")
            serve(setup, table, {WEB6: DESIRED[WEB6]})
            assert client.run(lambda: greeting(VIP6, 80)) == "backend"
            assert greeting(VIP, 22, 0.3) != "ssh"
            assert setup.addresses is not None
            assert setup.addresses.present() == {VIP6}
            serve(setup, table, {})
            assert setup.addresses.present() == frozenset()


def test_a_host_port_of_others_does_not_capture_a_vip(client: Inside, table: IPVSTable) -> None:
    """As CNI portmap writes it, for local clients and for others; the bypass passes VIPs over."""
    for chain in ("PREROUTING", "OUTPUT"):
        rule = f"-t nat -A {chain} -m addrtype --dst-type LOCAL -p tcp --dport 80 -j DNAT --to-destination 10.6.0.1:8081"
        subprocess.run([tool("iptables-legacy", "iptables"), *rule.split()], check=True)
    remote = lambda: client.run(lambda: greeting(VIP, 80))  # noqa: E731 - said twice
    with Greeter("10.6.0.1", 8081, b"container"):
        with HostSetup(replace(SETTINGS, portmap_bypass=False)) as setup:
            setup.set_up()
            serve(setup, table, DESIRED)
            assert (greeting(VIP, 80), remote()) == ("container", "container")
        with HostSetup(SETTINGS) as setup:
            setup.set_up()
            serve(setup, table, DESIRED)
            assert (greeting(VIP, 80), remote()) == ("backend", "backend")
            assert client.run(lambda: greeting("10.6.0.1", 80)) == "container"


def test_what_is_routed_to_a_backend_keeps_its_sender(table: IPVSTable) -> None:
    dns = Service.udp(VIP, 53, scheduler="rr")
    with Inside() as backend, Inside() as client, HostSetup(SETTINGS) as setup:
        wire(backend, "b", 5)
        wire(client, "c", 6)
        client.run(partial(ip, "route add default via 10.6.0.1"))
        backend.run(partial(ip, f"addr add {VIP}/32 dev lo", "route add default via 10.5.0.1"))
        setup.set_up()
        serve(setup, table, {dns: [Destination("10.5.0.2", 53, forward=ForwardingMethod.ROUTE)]})

        def listen() -> socket.socket:
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            made.bind((VIP, 53))
            made.settimeout(5)
            return made

        with backend.run(listen) as server, client.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as asker:
            asker.sendto(b"who is it?", (VIP, 53))
            assert server.recvfrom(99)[1] == ("10.6.0.2", asker.getsockname()[1])


def test_behind_ipvs_the_guard_needs_no_list(client: Inside, table: IPVSTable) -> None:
    """With nftables a set that is late, or lost, rejects nothing that IPVS serves; iptables has to stand in front of IPVS."""
    if reason := NftEngine().probe(Parts()):
        pytest.skip(f"this kernel's nftables cannot do it: {reason}")
    with HostSetup(SETTINGS) as setup, Greeter("0.0.0.0", 22, b"ssh"):  # noqa: S104 - that is the point
        setup.set_up()
        setup.before_ipvs([VIP], [])
        table.converge({WEB: DESIRED[WEB]})
        setup.after_ipvs([VIP], [])
        assert (greeting(VIP, 80), client.run(lambda: greeting(VIP, 80))) == ("backend", "backend")
        assert (greeting(VIP, 22), client.run(lambda: greeting(VIP, 22))) == ("ConnectionRefusedError",) * 2


def test_masquerade_and_its_sysctl_are_what_makes_it_work(client: Inside, table: IPVSTable) -> None:
    with HostSetup(SETTINGS) as setup:
        setup.set_up()
        serve(setup, table, DESIRED)
        write_sysctl("net.ipv4.vs.conntrack", "0")
        assert client.run(lambda: greeting(VIP, 80, 0.5)) == "timeout"
        assert setup.audit([VIP, VIP6], KEYS)
        assert client.run(lambda: greeting(VIP, 80)) == "backend"
    with HostSetup(replace(SETTINGS, masquerade="none")) as without:
        without.set_up()
        without.after_ipvs([VIP, VIP6], KEYS)
        assert client.run(lambda: greeting(VIP, 80, 0.5)) == "timeout"


def test_a_second_start_writes_nothing_and_an_audit_repairs(table: IPVSTable, tmp_path: Path) -> None:
    with HostSetup(SETTINGS, journal=Journal(tmp_path)) as first:
        first.set_up()
        serve(first, table, DESIRED)
        before = rules(), links(), (tmp_path / "host-undo.json").read_bytes()
        with HostSetup(SETTINGS, journal=Journal(tmp_path)) as second:
            second.set_up()
            serve(second, table, DESIRED)
            assert not second.audit([VIP, VIP6], KEYS)
            assert (rules(), links(), (tmp_path / "host-undo.json").read_bytes()) == before
            ip("link del minuteman")
            subprocess.run([tool("iptables-legacy"), "-F"], check=True)
            write_sysctl("net.ipv4.vs.expire_nodest_conn", "0")
            assert second.audit([VIP, VIP6], KEYS)
            assert rules() == before[0]
            assert second.addresses is not None
            assert second.addresses.present() == {VIP, VIP6}
            assert read_sysctl("net.ipv4.vs.expire_nodest_conn") == "1"
            assert not second.audit([VIP, VIP6], KEYS)
        assert {status.step for status in first.status() if not status.ok} == set()


def test_undo_leaves_the_host_as_it_was(table: IPVSTable, tmp_path: Path) -> None:
    write_sysctl("net.ipv4.vs.expire_nodest_conn", "1")
    names = ["net.ipv4.vs.conntrack", "net.ipv4.vs.expire_nodest_conn", "net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"]
    subprocess.run([tool("iptables-legacy"), "-A", "INPUT", "-p", "tcp", "--dport", "7", "-j", "DROP"], check=True)
    subprocess.run(
        [tool("ip6tables-legacy"), "-t", "nat", "-A", "OUTPUT", "-p", "tcp", "--dport", "7", "-j", "ACCEPT"], check=True
    )
    subprocess.run(["iptables-legacy", "-t", "nat", "-S"], check=True, stdout=subprocess.DEVNULL)
    before = rules(), links(), [read_sysctl(name) for name in names]
    with HostSetup(SETTINGS, journal=Journal(tmp_path)) as setup:
        setup.set_up()
        serve(setup, table, DESIRED)
        assert (rules(), links()) != before[:2]
    with HostSetup(SETTINGS, journal=Journal(tmp_path)) as later:
        assert {"device", "firewall", "addresses"} < set(later.undo())
        assert (rules(), links(), [read_sysctl(name) for name in names]) == before
        assert later.undo() == []


def test_undo_leaves_what_was_there_before_us(tmp_path: Path) -> None:
    ip("link add minuteman type dummy", "link set minuteman up", "addr add 11.0.0.7/32 dev minuteman")
    with HostSetup(SETTINGS, journal=Journal(tmp_path)) as setup:
        setup.set_up()
        setup.before_ipvs([VIP], [WEB.key])
        setup.after_ipvs([VIP], [WEB.key])
        assert setup.addresses is not None
        assert setup.addresses.present() == {VIP}
        write_sysctl("net.ipv4.vs.conntrack", "0")  # somebody else's word, after ours
        setup.undo()
        assert setup.addresses.present() == {"11.0.0.7"}
        assert read_sysctl("net.ipv4.vs.conntrack") == "0"


def test_a_step_that_fails_leaves_the_host_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = rules(), links(), read_sysctl("net.ipv4.vs.conntrack")

    def refuse(*_: object) -> None:
        raise HostSetupError("firewall", "no")

    monkeypatch.setattr("pyminuteman.host.firewall.IPTablesEngine.install", refuse)
    monkeypatch.setattr("pyminuteman.host.firewall.NftEngine.install", refuse)
    with HostSetup(SETTINGS, journal=Journal(tmp_path)) as setup:
        with pytest.raises(HostSetupError, match="firewall: no"):
            setup.set_up()
        assert (rules(), links(), read_sysctl("net.ipv4.vs.conntrack")) == before
        assert [status.reason for status in setup.status() if not status.ok] == ["firewall: no"]


def test_another_namespace_is_set_up_from_outside(tmp_path: Path) -> None:
    mine = rules(), links()
    with Inside() as there, HostSetup(SETTINGS, netns=there.path, journal=Journal(tmp_path)) as setup:
        setup.set_up()
        with IPVSTable(scope=Scope.everything(), netns=there.path) as table:
            there.run(lambda: ip("addr add 10.5.0.2/32 dev lo"))
            serve(setup, table, {WEB: DESIRED[WEB]})
        with there.run(lambda: Greeter("10.5.0.2", 8080, b"inside")):
            assert there.run(lambda: greeting(VIP, 80)) == "inside"
        assert (rules(), links()) == mine
        assert there.run(lambda: read_sysctl("net.ipv4.vs.conntrack")) == "1"
        setup.undo()
        assert "minuteman" not in there.run(links)
        assert "MINUTEMAN" not in there.run(rules)


WORK = """
from pathlib import Path
from typing import Any
from pyminuteman.host.journal import Journal
from pyminuteman.host.setup import HostSettings, HostSetup
from pyminuteman.ipvs import ServiceKey
import os, sys
with HostSetup(HostSettings(ipv6=True, forward=True), netns=sys.argv[2] or None, journal=Journal(Path(sys.argv[1]))) as setup:
    print([found.what for found in setup.set_up() if not found.ok])
    setup.before_ipvs(["11.0.0.1"], [ServiceKey.tcp("11.0.0.1", 80)])
    setup.after_ipvs(["11.0.0.1"], [ServiceKey.tcp("11.0.0.1", 80)])
    print(sorted(setup.addresses.present()), setup.audit(["11.0.0.1"], [ServiceKey.tcp("11.0.0.1", 80)]), os.getuid())
    print(len(setup.undo()) > 3)
"""


def unprivileged(directory: Path, capabilities: str, netns: str = "") -> subprocess.CompletedProcess[str]:
    directory.chmod(0o777)
    for parent in directory.parents[:3]:
        parent.chmod(parent.stat().st_mode | 0o055)
    command = [tool("setpriv", "util-linux"), "--reuid=65534", "--regid=65534", "--clear-groups", f"--inh-caps={capabilities}",
               f"--ambient-caps={capabilities}", f"--bounding-set={capabilities}", sys.executable, "-c", WORK, str(directory), netns]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def test_one_capability_is_enough(tmp_path: Path) -> None:
    """CAP_NET_ADMIN; and CAP_NET_RAW where only iptables-legacy works."""
    needed = "+net_admin" if not NftEngine().probe(Parts()) else "+net_admin,+net_raw"
    done = unprivileged(tmp_path, f"-all,{needed}")
    assert (done.stdout, done.stderr) == (f"[]\n['{VIP}'] False 65534\nTrue\n", "")


def test_without_it_the_error_says_what_is_missing(tmp_path: Path) -> None:
    done = unprivileged(tmp_path, "-all")
    assert "HostSetupError" in done.stderr
    assert "CAP_NET_ADMIN" in done.stderr


def test_entering_another_namespace_takes_more_and_says_so(tmp_path: Path) -> None:
    with Inside() as there:
        path = tmp_path / "netns"
        path.touch()
        subprocess.run([tool("mount"), "--bind", there.path, str(path)], check=True)
        try:
            done = unprivileged(tmp_path, "-all,+net_admin,+net_raw", str(path))
        finally:
            subprocess.run([tool("umount"), str(path)], check=True)
    assert "that takes CAP_SYS_ADMIN; CAP_NET_ADMIN alone is enough for our own namespace only" in done.stderr


def rules() -> str:
    """All rules, of iptables and of nft, without counters."""
    texts = []
    for command in ("iptables-legacy-save", "ip6tables-legacy-save"):
        for table in ("nat", "filter"):
            done = subprocess.run([tool(command, "iptables"), "-t", table], capture_output=True, text=True, check=True)
            texts += [line.split(" [")[0] for line in done.stdout.splitlines() if not line.startswith("#")]
    nft = subprocess.run(
        [tool("nft", "nftables"), "list", "table", "inet", "minuteman"], capture_output=True, text=True, check=False
    )
    return "\n".join([*texts, nft.stdout])


def links() -> str:
    """All devices and their IPv4 addresses."""
    done = subprocess.run(["ip", "-o", "-4", "addr"], capture_output=True, text=True, check=True).stdout
    names = subprocess.run(["ip", "-br", "link"], capture_output=True, text=True, check=True).stdout
    kept = [line.split()[0] for line in names.splitlines() if line.split()[1] != "DOWN"]
    return "\n".join([*kept, *(" ".join(line.split()[1:4]) for line in done.splitlines())])
