"""What doctor looks at besides set-up: each thing is broken, and found."""

from __future__ import annotations

import os
import resource
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from pyminuteman.addresses import Endpoint
from pyminuteman.capabilities import Capability, Privileges
from pyminuteman.host import clock, limits
from pyminuteman.host.clock import ClockWatch, check_synchronised
from pyminuteman.host.errors import HostSetupError
from pyminuteman.host.files import check_api_socket, check_key_file, check_state_directory
from pyminuteman.host.findings import Finding, Severity
from pyminuteman.host.limits import check_conntrack, check_descriptors, check_neighbours, check_ports, connection_rate
from pyminuteman.host.managers import check_managers
from pyminuteman.host.network_settings import check_bridge, check_connection_reuse, check_reverse_path, check_uplink_mtu
from pyminuteman.host.reach import check_contact, check_gossip_port
from pyminuteman.host.rights import check_rights
from pyminuteman.host.sysctls import kernel_version, read_sysctl, settings, write_sysctl
from pyminuteman.membership import open_membership
from pyminuteman.membership.keyring import Key, Keyring, PlainRing, Ring
from tests.support.host_namespaces import Inside, own_namespace
from tests.support.kernel import ip
from tests.support.tools import tool

OK, INFO, WARNING, ERROR = Severity.OK, Severity.INFO, Severity.WARNING, Severity.ERROR


@pytest.fixture(autouse=True)
def namespace() -> Iterator[None]:
    with own_namespace():
        yield


# -- files -------------------------------------------------------------------------------------------------------------


def test_the_state_directory(tmp_path: Path) -> None:
    path = tmp_path / "state"
    (found,) = check_state_directory(path)
    assert (found.severity, found.fixable) == (ERROR, True)
    assert "No such file" in found.what
    path.touch()
    (found,) = check_state_directory(path)
    assert (found.severity, found.fixable) == (ERROR, False)
    path.unlink()
    path.mkdir(mode=0o700)
    path.chmod(0o777)
    (found,) = check_state_directory(path)
    assert (found.severity, found.fixable) == (ERROR, True)
    assert "0777" in found.what
    path.chmod(0o750)
    assert [found.severity for found in check_state_directory(path)] == [OK]


def test_the_key_file(tmp_path: Path) -> None:
    path, link = tmp_path / "key", tmp_path / "link"
    assert "minuteman keys generate" in check_key_file(path).fix
    path.touch()
    path.chmod(0o640)
    assert (check_key_file(path).severity, check_key_file(path).fixable) == (ERROR, True)
    link.symlink_to(path)
    assert "no ordinary file" in check_key_file(link).what
    path.chmod(0o600)
    assert check_key_file(path).severity == OK


def test_the_api_socket(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    assert (check_api_socket(path).severity, "does not run" in check_api_socket(path).what) == (INFO, True)
    path.touch()
    assert check_api_socket(path).severity == ERROR
    path.unlink()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        path.chmod(0o660)
        assert (check_api_socket(path).severity, "nobody answers" in check_api_socket(path).what) == (WARNING, True)
        server.listen()
        assert check_api_socket(path).severity == OK
        path.chmod(0o666)
        assert (check_api_socket(path).severity, check_api_socket(path).fixable) == (ERROR, True)
    assert stat.S_ISSOCK(path.stat().st_mode)


# -- other managers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "severity"), [("keepalived", WARNING), ("kube-proxy", WARNING), ("dockerd", INFO), ("ldirectord", WARNING)]
)
def test_another_manager_of_ipvs_that_runs(tmp_path: Path, name: str, severity: Severity) -> None:
    for pid, comm in (("1", "init"), ("77", name)):
        (tmp_path / "proc" / pid).mkdir(parents=True)
        (tmp_path / "proc" / pid / "comm").write_text(f"{comm}\n")
    (tmp_path / "proc" / "78").mkdir()  # one that ended meanwhile
    found = list(check_managers(tmp_path))
    assert (found[0].id, found[0].severity) == (f"managers.{name}", severity)
    assert (len(found) == 2) == (severity is INFO)


def test_a_process_of_such_a_name_is_found(tmp_path: Path) -> None:
    program = tmp_path / "keepalived"
    program.symlink_to(tool("sleep"))
    with subprocess.Popen([program, "60"]) as process:
        try:
            end = time.perf_counter() + 5
            while Path(f"/proc/{process.pid}/comm").read_text() != "keepalived\n" and time.perf_counter() < end:
                time.sleep(0.001)
            assert "managers.keepalived" in [found.id for found in check_managers()]
        finally:
            process.kill()


@pytest.mark.parametrize(("text", "is_found"), [('AUTO="true"', True), (" auto=TRUE\n", True), ('AUTO="false"', False), ("# AUTO=true", False)])  # fmt: skip
def test_rules_that_ipvsadm_loads_at_boot(tmp_path: Path, text: str, is_found: bool) -> None:
    (tmp_path / "etc/default").mkdir(parents=True)
    (tmp_path / "etc/default/ipvsadm").write_text(f"# Debian\n{text}\n")
    assert [found.id for found in check_managers(tmp_path)] == ["managers"]
    (tmp_path / "etc/ipvsadm.rules").write_text("-A -t 11.0.0.1:80\n")
    assert [found.id for found in check_managers(tmp_path)] == (["managers.ipvsadm"] if is_found else ["managers"])


# -- limits ------------------------------------------------------------------------------------------------------------


def test_the_rate_that_ports_allow() -> None:
    """The 235 a second of the predecessor's README: ports by the two minutes that IPVS and conntrack remember."""
    assert int(connection_rate(32768, 60999, 120)) == 235
    assert int(connection_rate(32768, 60999, 60)) == 470
    write_sysctl("net.ipv4.ip_local_port_range", "32768 60999")
    assert check_ports().severity == OK
    assert "allow 235 new connections a second" in check_ports().what
    write_sysctl("net.ipv4.ip_local_port_range", "40000 49999")
    found = check_ports()
    assert (found.severity, "83 new" in found.what, "32768 60999" in found.fix) == (WARNING, True, True)


@pytest.mark.parametrize(("most", "count", "severity"), [(262144, 9, OK), (8192, 9, WARNING), (262144, 200_000, WARNING),
                                                         (100_000, 99_000, ERROR), (0, 9, OK)])  # fmt: skip
def test_the_conntrack_table(monkeypatch: pytest.MonkeyPatch, most: int, count: int, severity: Severity) -> None:
    values = {"net.netfilter.nf_conntrack_max": str(most), "net.netfilter.nf_conntrack_count": str(count)}
    monkeypatch.setattr(limits, "read_sysctl", lambda name, _netns: values[name])
    assert check_conntrack().severity == severity


def test_the_neighbour_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "read_sysctl", lambda _name, _netns: "1024")
    assert check_neighbours(0).severity == OK
    found = check_neighbours(800)
    assert (found.severity, "the cluster has 800 nodes" in found.what) == (WARNING, True)
    assert found.fix.startswith("sysctl -w net.ipv4.neigh.default.gc_thresh3=4096")
    monkeypatch.setattr(limits, "read_sysctl", lambda _name, _netns: None)
    assert check_neighbours(0).severity == INFO


def test_descriptors_of_a_process() -> None:
    with subprocess.Popen([tool("sleep"), "60"]) as process:
        try:
            for most, severity in ((1024, WARNING), (4096, OK)):
                resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (most, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
                found = check_descriptors(process.pid)
                assert (found.severity, f"up to {most}" in found.what) == (severity, True)
        finally:
            process.kill()
    assert "this process" in check_descriptors().what


# -- network settings --------------------------------------------------------------------------------------------------


def test_the_reverse_path_filter() -> None:
    write_sysctl("net.ipv4.conf.all.rp_filter", "1")
    assert [check_reverse_path(routed=routed).severity for routed in (True, False)] == [WARNING, INFO]
    write_sysctl("net.ipv4.conf.all.rp_filter", "2")
    assert check_reverse_path(routed=True).severity == OK


def test_the_bridge_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    severities = []
    for value in (None, "0", "1"):
        monkeypatch.setattr("pyminuteman.host.network_settings.read_sysctl", lambda _name, value=value: value)
        severities.append(check_bridge().severity)
    assert severities == [OK, OK, INFO]


def test_an_uplink_with_a_small_mtu() -> None:
    assert [found.severity for found in check_uplink_mtu()] == [INFO]
    ip("link add up0 type bridge", "link set up0 up mtu 1500", "addr add 10.0.0.1/24 dev up0", "route add default via 10.0.0.2")
    assert [found.severity for found in check_uplink_mtu()] == [OK]
    ip("link set up0 mtu 1000")
    (found,) = check_uplink_mtu()
    assert (found.severity, found.what) == (ERROR, "up0 has an MTU of 1000 bytes")


@pytest.mark.parametrize(
    ("release", "is_old"), [("5.8.0-63-generic", True), ("5.9.0", False), ("6.1.176", False), ("odd", True)]
)
def test_old_kernels_have_no_good_conn_reuse_mode(monkeypatch: pytest.MonkeyPatch, release: str, is_old: bool) -> None:
    monkeypatch.setattr("platform.release", lambda: release)
    assert (check_connection_reuse() is not None) == is_old
    assert ("net.ipv4.vs.conn_reuse_mode" in [setting.name for setting in settings()]) != is_old
    assert (kernel_version() < (5, 9)) == is_old


def test_settings_follow_from_what_is_wanted() -> None:
    least = {setting.name for setting in settings(conntrack=False, persistent=False)}
    most = {setting.name for setting in settings(forward=True, ipv6=True)}
    assert most - least == {"net.ipv4.vs.conntrack", "net.ipv4.vs.expire_quiescent_template", "net.ipv6.conf.all.forwarding"}
    assert [one.is_written for one in settings() if one.name == "net.ipv4.ip_forward"] == [False]
    assert [one.is_written for one in settings(forward=True) if one.name == "net.ipv4.ip_forward"] == [True]


@pytest.mark.parametrize("name", ["", "net..x", "../x", "net/ipv4", "A"])
def test_a_name_that_is_no_settings_is_refused(name: str) -> None:
    with pytest.raises(HostSetupError, match="is no setting's name"):
        read_sysctl(name)


def test_a_setting_that_is_not_there_or_refuses() -> None:
    assert read_sysctl("net.ipv4.no_such_thing") is None
    with pytest.raises(HostSetupError, match="cannot be set to 1: No such file"):
        write_sysctl("net.ipv4.no_such_thing", "1")
    with pytest.raises(HostSetupError, match="cannot be set to much: Invalid argument"):
        write_sysctl("net.ipv4.ip_forward", "much")


# -- rights and clock --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        (Capability.NET_ADMIN, {"rights.net_admin": OK, "rights.net_raw": ERROR, "rights.sys_admin": ERROR}),
        (Capability.SYS_ADMIN, {"rights.net_admin": ERROR, "rights.net_raw": ERROR, "rights.sys_admin": OK}),
    ],
)
def test_rights(monkeypatch: pytest.MonkeyPatch, held: Capability, expected: dict[str, Severity]) -> None:
    now = replace(Privileges.now(), effective=1 << held)
    monkeypatch.setattr(Privileges, "now", lambda: now)
    assert {found.id: found.severity for found in check_rights(iptables=True, namespaces=True)} == expected
    least = {found.id: found.severity for found in check_rights()}
    assert least.keys() == {"rights.net_admin", "rights.sys_admin"}
    assert least["rights.sys_admin"] in {OK, INFO}


def test_a_clock_that_jumps(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = ClockWatch()
    assert watch.check().severity == OK
    offset = clock._offset()
    monkeypatch.setattr(clock, "_offset", lambda: offset - 3.5)
    assert (watch.check().severity, "-3.500 s" in watch.check().what) == (WARNING, True)


def test_the_kernel_is_asked_whether_its_clock_is_kept() -> None:
    found = check_synchronised()
    asked = subprocess.run([tool("python3"), "-c", "import ctypes; print(ctypes.CDLL(None).adjtimex(bytes(400)))"], capture_output=True, text=True, check=True)  # fmt: skip
    assert (found.severity is WARNING) == (asked.stdout.strip() == "5")


# -- gossip ------------------------------------------------------------------------------------------------------------


def test_the_gossip_port() -> None:
    def look(address: str, port: int) -> Finding:
        return check_gossip_port(Endpoint(address, port))

    assert (look("127.0.0.1", 61420).severity, look("::1", 61420).severity) == (OK, OK)
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        with socket.socket(socket.AF_INET, kind) as taken:
            taken.bind(("127.0.0.1", 0))
            found = look(*taken.getsockname())
            assert (found.severity, "is taken" in found.what) == (INFO, True)
    assert (look("10.1.2.3", 61420).severity, "address of this host" in look("10.1.2.3", 61420).fix) == (ERROR, True)


KEY = Key(b"k" * 32)


def members(work: Callable[[Endpoint], object], *, ring: Ring, address: str = "127.0.0.1") -> None:
    """Do the work beside a member; it is told where the member listens."""

    async def main() -> None:
        async with open_membership(
            name="one", bind=Endpoint(address, 0), keyring=ring if isinstance(ring, Keyring) else None
        ) as one:
            over, token = trio.Event(), trio.lowlevel.current_trio_token()

            def go() -> None:
                try:
                    work(one.me.endpoint)
                finally:
                    token.run_sync_soon(over.set)

            # Not a worker of trio's: those are used again, and may be of another test's namespace.
            thread = threading.Thread(target=go)
            thread.start()
            await over.wait()
            thread.join()

    trio.run(main)


def asked(contact: Endpoint, ring: Ring | None) -> dict[str, tuple[Severity, str]]:
    return {found.id: (found.severity, found.what) for found in check_contact(contact, ring, timeout_seconds=0.3)}


@pytest.mark.parametrize("ring", [Keyring([KEY], cluster="minuteman"), PlainRing(cluster="minuteman")], ids=["sealed", "plain"])
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_member_answers(ring: Ring, address: str) -> None:
    found: dict[str, tuple[Severity, str]] = {}
    again = Keyring([KEY], cluster="minuteman") if isinstance(ring, Keyring) else PlainRing(cluster="minuteman")
    members(lambda contact: found.update(asked(contact, again)), ring=ring, address=address)
    assert {key: severity for key, (severity, _) in found.items()} == {"gossip.tcp": OK, "gossip.udp": OK, "gossip.mtu": OK}
    assert "with a datagram of 1200 bytes, in " in found["gossip.mtu"][1]


def test_a_member_does_not_answer_who_has_another_key_or_cluster_or_none() -> None:
    found: list[dict[str, tuple[Severity, str]]] = []

    def work(contact: Endpoint) -> None:
        found.append(asked(contact, Keyring([Key(b"x" * 32)], cluster="minuteman")))
        found.append(asked(contact, Keyring([KEY], cluster="other")))
        found.append(asked(contact, None))

    members(work, ring=Keyring([KEY], cluster="minuteman"))
    for one in found:
        assert one["gossip.tcp"][0] == OK
        assert "gossip.mtu" not in one
    assert [one["gossip.udp"][0] for one in found] == [ERROR, ERROR, INFO]


def test_it_is_told_which_of_udp_and_tcp_fails() -> None:
    found: dict[str, dict[str, tuple[Severity, str]]] = {}

    def work(contact: Endpoint) -> None:
        for protocol in ("udp", "tcp"):
            rule = ["INPUT", "-p", protocol, "--dport", str(contact.port), "-j", "DROP"]
            subprocess.run([tool("iptables-legacy", "iptables"), "-A", *rule], check=True)
            found[protocol] = asked(contact, Keyring([KEY], cluster="minuteman"))
            subprocess.run([tool("iptables-legacy", "iptables"), "-D", *rule], check=True)

    members(work, ring=Keyring([KEY], cluster="minuteman"))
    assert [found["udp"][key] for key in ("gossip.udp",)] == [(ERROR, found["udp"]["gossip.udp"][1])]
    assert (found["udp"]["gossip.tcp"][0], found["tcp"]["gossip.tcp"][0], found["tcp"]["gossip.udp"][0]) == (OK, ERROR, OK)
    assert "over TCP: no answer" in found["tcp"]["gossip.tcp"][1]


def test_nobody_there_is_told_apart_from_no_answer() -> None:
    found = asked(Endpoint("127.0.0.1", 61420), Keyring([KEY], cluster="minuteman"))
    assert {key: ("refused" in what) for key, (_, what) in found.items()} == {"gossip.tcp": True, "gossip.udp": True}


def test_a_way_that_lets_no_full_datagram_pass() -> None:
    """Small ones do: the member is alive, and hears no news."""
    found: dict[str, tuple[Severity, str]] = {}
    with Inside() as there:
        ip(
            f"link add n0 type veth peer name n1 netns {there.path.split('/')[4]}",
            "link set n0 up mtu 1000",
            "addr add 10.3.0.1/24 dev n0",
        )
        there.run(lambda: ip("link set n1 up mtu 1000", "addr add 10.3.0.2/24 dev n1"))
        members(lambda contact: found.update(there.run(lambda: asked(contact, Keyring([KEY], cluster="minuteman")))),
                ring=Keyring([KEY], cluster="minuteman"), address="10.3.0.1")  # fmt: skip
    assert {key: severity for key, (severity, _) in found.items()} == {"gossip.tcp": OK, "gossip.udp": OK, "gossip.mtu": ERROR}
    assert "larger than the way there lets pass" in found["gossip.mtu"][1]


def test_asking_leaves_no_descriptor_behind() -> None:
    before = os.listdir("/proc/self/fd")  # noqa: PTH208
    asked(Endpoint("127.0.0.1", 61420), PlainRing(cluster="minuteman"))
    check_gossip_port(Endpoint("127.0.0.1", 61420))
    assert os.listdir("/proc/self/fd") == before  # noqa: PTH208
