"""Guard and bypass with real sockets, by each engine that works on the kernel that runs here: no IPVS is needed.

Where IPVS is, tests/kernel/test_host_setup.py has the rest. This file needs root, and nftables or iptables; nothing outside its namespaces.
"""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator

import pytest

from pyminuteman.host.errors import HostSetupError
from pyminuteman.host.filtering import Listed, Parts
from pyminuteman.host.firewall import Engine, IPTablesEngine, NftEngine, VIPFirewall, choose
from pyminuteman.ipvs import ServiceKey
from tests.support.host_namespaces import Greeter, greeting, own_namespace
from tests.support.kernel import ip
from tests.support.tools import tool

pytestmark = pytest.mark.any_kernel

VIP, VIP6, OTHER, CONTAINER = "11.0.0.1", "fd01::1", "10.9.0.1", "10.9.0.2"
WEB, WEB6 = ServiceKey.tcp(VIP, 80), ServiceKey.tcp(VIP6, 80)
PARTS = Parts(masquerade=False)  # iptables needs xt_ipvs for that, which only kernels with IPVS have
ALL = Listed.of([], [WEB, WEB6])


@pytest.fixture(autouse=True)
def namespace() -> Iterator[None]:
    with own_namespace():
        ip(f"addr add {VIP}/32 dev lo", f"addr add {OTHER}/32 dev lo", f"addr add {CONTAINER}/32 dev lo")
        ip(f"addr add {VIP6}/128 dev lo nodad")
        yield


@pytest.fixture(params=["nft", "iptables"])
def engine(request: pytest.FixtureRequest) -> Engine:
    made: Engine = NftEngine() if request.param == "nft" else IPTablesEngine()
    if reason := made.probe(PARTS):
        pytest.skip(f"{request.param} does not work on this kernel: {reason}")
    return made


@pytest.fixture
def firewall(engine: Engine) -> VIPFirewall:
    return VIPFirewall(engine, PARTS)


def test_the_probe_leaves_nothing_behind(engine: Engine) -> None:
    before = everything()
    assert engine.probe(PARTS) == ""
    assert everything() == before
    assert engine.read(PARTS) is None


@pytest.mark.parametrize("address", [VIP, VIP6])
def test_the_guard_rejects_what_is_no_vip_service(firewall: VIPFirewall, address: str) -> None:
    everywhere = "::" if ":" in address else "0.0.0.0"  # noqa: S104 - in a namespace of our own
    with Greeter(everywhere, 22, b"ssh"), Greeter(everywhere, 80, b"web"):
        assert (greeting(address, 22), greeting(address, 80)) == ("ssh", "web")
        firewall.set_to(ALL)
        assert (greeting(address, 22), greeting(address, 80)) == ("ConnectionRefusedError", "web")
        assert greeting("::1" if ":" in address else OTHER, 22) == "ssh"
        firewall.set_to(Listed.of([VIP, VIP6]))
        assert greeting(address, 80) == "ConnectionRefusedError"
        firewall.remove()
        assert (greeting(address, 22), greeting(address, 80)) == ("ssh", "web")


def test_the_guard_rejects_datagrams_and_lets_icmp_pass(firewall: VIPFirewall) -> None:
    firewall.set_to(ALL)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        server.bind(("0.0.0.0", 161))  # noqa: S104 - likewise
        client.settimeout(3)
        client.connect((VIP, 161))
        client.send(b"x")
        with pytest.raises(ConnectionRefusedError):
            client.recv(1)
        firewall.set_to(Listed.of([], [WEB, ServiceKey.udp(VIP, 161)]))
        client.send(b"y")
        server.settimeout(3)
        assert server.recv(9) == b"y"
    ping = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    with ping:
        ping.settimeout(3)
        ping.sendto(b"\x08\x00\xf7\xfe\x00\x01\x00\x00", (VIP, 0))  # an echo request, with its checksum
        kinds = {ping.recv(99)[20] for _ in range(2)}
    assert 0 in kinds  # the reply


def test_connections_that_were_there_stay(firewall: VIPFirewall) -> None:
    with socket.create_server((VIP, 22)) as server:
        # conntrack knows connections from the moment on that anything asks for it
        firewall.set_to(Listed.of([VIP], [ServiceKey.tcp(VIP, 22)]))
        with socket.create_connection((VIP, 22), 3) as client, server.accept()[0] as ours:
            firewall.set_to(ALL)
            client.sendall(b"more")
            ours.settimeout(3)
            assert ours.recv(9) == b"more"
        assert greeting(VIP, 22) == "ConnectionRefusedError"


@pytest.mark.parametrize("others", ["iptables-legacy", "iptables-nft", "nft"])
def test_host_ports_of_others_do_not_capture_vips(firewall: VIPFirewall, others: str) -> None:
    """As CNI portmap and Docker write theirs: destination NAT of a port for every local address, of local clients here."""
    if others != firewall.engine.name and firewall.engine.name == "iptables" and others not in variant_of(firewall.engine):
        pytest.skip("iptables rules hold off rules of their own kind only, as is written in docs/host.md")
    if others == "nft":
        rule = f"ip daddr != 127.0.0.0/8 fib daddr type local tcp dport 80 dnat to {CONTAINER}:8080"
        subprocess.run([tool("nft", "nftables"), f"table ip portmap {{ chain out {{ type nat hook output priority -100; {rule}; }}; }}"], check=True)  # fmt: skip
    else:
        rule = f"-m addrtype --dst-type LOCAL -p tcp --dport 80 -j DNAT --to-destination {CONTAINER}:8080"
        subprocess.run([tool(others, "iptables"), "-t", "nat", "-A", "OUTPUT", *rule.split()], check=True)
    with Greeter(CONTAINER, 8080, b"container"), Greeter(VIP, 80, b"vip"):
        assert (greeting(VIP, 80), greeting(OTHER, 80)) == ("container", "container")
        firewall.set_to(ALL)
        assert (greeting(VIP, 80), greeting(OTHER, 80)) == ("vip", "container")
        firewall.set_to(Listed())
        assert greeting(VIP, 80) == "container"


def variant_of(engine: Engine) -> set[str]:
    """The commands whose rules are in the same tables as the engine's."""
    return {"iptables-legacy"} if getattr(engine, "_variant", "") == "-legacy" else {"iptables-nft"}


def test_what_is_as_it_should_be_is_not_written_again(firewall: VIPFirewall) -> None:
    assert firewall.set_to(ALL)
    handles = everything()
    assert not firewall.set_to(ALL)
    assert not firewall.audit(ALL)
    again = VIPFirewall(firewall.engine, PARTS)
    assert not again.set_to(ALL)
    assert not again.admit(Listed.of([VIP]))
    assert everything() == handles


def test_to_admit_keeps_what_an_earlier_life_had_listed(firewall: VIPFirewall) -> None:
    firewall.set_to(ALL)
    again = VIPFirewall(firewall.engine, PARTS)
    more = Listed.of([], [ServiceKey.udp("11.0.0.2", 53)])
    assert again.admit(more)
    assert again.engine.read(PARTS) == ALL | more


def test_rules_that_somebody_flushed_come_back_by_an_audit(firewall: VIPFirewall) -> None:
    firewall.set_to(ALL)
    flush(firewall.engine)
    assert firewall.engine.read(PARTS) is None
    assert firewall.audit(ALL)
    assert firewall.engine.read(PARTS) == ALL
    assert not firewall.audit(ALL)


def test_nft_rules_that_somebody_flushed_come_back_with_the_next_change() -> None:
    if reason := NftEngine().probe(PARTS):
        pytest.skip(reason)
    firewall = VIPFirewall(NftEngine(), PARTS)
    firewall.set_to(ALL)
    flush(firewall.engine)
    more = ALL | Listed.of([], [ServiceKey.sctp(VIP, 9)])
    assert firewall.set_to(more)
    assert firewall.engine.read(PARTS) == more


def test_jumps_that_others_pushed_down_are_first_again() -> None:
    engine = IPTablesEngine()
    if reason := engine.probe(PARTS):
        pytest.skip(reason)
    firewall = VIPFirewall(engine, PARTS)
    firewall.set_to(ALL)
    command = "iptables" + (engine._variant or "")
    subprocess.run([tool(command), "-t", "nat", "-I", "OUTPUT", "-p", "tcp", "--dport", "9", "-j", "ACCEPT"], check=True)
    assert engine.read(PARTS) is None
    assert firewall.audit(ALL)
    rules = subprocess.run([tool(command), "-t", "nat", "-S", "OUTPUT"], check=True, capture_output=True, text=True).stdout
    assert "MINUTEMAN-BYPASS" in rules.splitlines()[1]
    assert rules.count("MINUTEMAN") == 1


def test_rules_of_others_stay_when_ours_go(firewall: VIPFirewall) -> None:
    others(firewall.engine)
    before = everything()
    firewall.set_to(ALL)
    assert firewall.remove()
    assert everything() == before
    assert not firewall.remove()


def test_parts_that_are_not_wanted_any_more_go(firewall: VIPFirewall) -> None:
    firewall.set_to(ALL)
    less = VIPFirewall(firewall.engine, Parts(masquerade=False, guard=False))
    less.set_to(Listed.of([VIP]))
    assert "guard" not in everything().lower()
    with Greeter("0.0.0.0", 22, b"ssh"):  # noqa: S104 - likewise
        assert greeting(VIP, 22) == "ssh"


def test_thousands_are_listed_in_one_transaction(firewall: VIPFirewall) -> None:
    keys = [ServiceKey.tcp(f"11.0.{n // 250}.{n % 250 + 1}", port) for n in range(1000) for port in (80, 443)]
    many = Listed.of([], keys)
    firewall.set_to(many)
    assert firewall.engine.read(PARTS) == many
    firewall.set_to(Listed())
    assert firewall.engine.read(PARTS) == Listed()


def test_without_a_tool_that_works_the_error_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyminuteman.host.tools.find", lambda _name: None)
    monkeypatch.setattr("pyminuteman.host.firewall.find", lambda _name: None)
    with pytest.raises(HostSetupError, match=r"(?s)there is no nft.*no iptables-restore.*apt-get install nftables"):
        choose("auto")


def everything() -> str:
    """All rules of all kinds. Not the empty tables and chains that iptables-nft leaves behind, which are everybody's."""
    texts = []
    for command in (["nft", "-j", "list", "ruleset"], ["iptables-legacy-save"], ["ip6tables-legacy-save"]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        texts.append(
            done.stdout if command[0] == "nft" else "\n".join(line for line in done.stdout.splitlines() if line[:1] in "-:*")
        )
    try:
        items = [item for item in json.loads(texts[0])["nftables"] if "rule" in item or "minuteman" in json.dumps(item).lower()]
        texts[0] = json.dumps(items)
    except ValueError:
        pass
    return "\n".join(texts)


def flush(engine: Engine) -> None:
    if engine.name == "nft":
        subprocess.run(["nft", "flush", "ruleset"], check=True)
    else:
        for command in ("iptables", "ip6tables"):
            for table in ("nat", "filter"):
                subprocess.run([f"{command}{getattr(engine, '_variant', '')}", "-t", table, "-F"], check=True)


def others(engine: Engine) -> None:
    if engine.name == "nft":
        subprocess.run(
            ["nft", "table inet theirs { chain input { type filter hook input priority 0; tcp dport 7 drop; }; }"], check=True
        )
    else:
        for chain in ("INPUT", "FORWARD"):
            command = [f"iptables{getattr(engine, '_variant', '')}", "-A", chain, "-p", "tcp", "--dport", "7", "-j", "DROP"]
            subprocess.run(command, check=True)
