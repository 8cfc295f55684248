"""Every packet filter there is around IPVS, with real connections of this host and of another.

User-mode-linux has iptables-legacy only; on the second kernel (`make test-qemu`) nothing of this is skipped.
"""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest

from pyminuteman.host import firewall
from pyminuteman.host.setup import HostSettings, HostSetup
from pyminuteman.host.sysctls import write_sysctl
from pyminuteman.ipvs import Destination, IPVSTable, Scope, Service
from tests.support.host_namespaces import Greeter, Inside, greeting
from tests.support.kernel import ip
from tests.support.tools import tool

pytestmark = pytest.mark.kernel

VIP, VIP6 = "11.0.0.1", "fd01::1"
WEB, WEB6 = Service.tcp(VIP, 80, scheduler="rr"), Service.tcp(VIP6, 80, scheduler="rr")
BACKENDS = [Destination("10.5.0.2", 8080), Destination("10.5.0.3", 8080)]
DESIRED = {WEB: BACKENDS, WEB6: [Destination("fd05::2", 8080)]}
TIMEOUT_SECONDS = 0.5  # of connections that cannot come about
REFUSED = "ConnectionRefusedError"

Ask = Callable[..., str]
"""As `greeting`: for this host's clients, or for another's."""


@pytest.fixture
def asks() -> Iterator[dict[str, Ask]]:
    """Two backends that know no way to anybody's clients, and who may ask for them."""
    with ExitStack() as stack:
        backend, client = stack.enter_context(Inside()), stack.enter_context(Inside())
        for place, name, net in ((backend, "b", 5), (client, "c", 6)):
            ip(f"link add {name}0 type veth peer name {name}1 netns {place.path.split('/')[4]}", f"link set {name}0 up",
               f"addr add 10.{net}.0.1/24 dev {name}0", f"addr add fd0{net}::1/64 dev {name}0 nodad")  # fmt: skip
            place.run(partial(ip, f"link set {name}1 up", f"addr add 10.{net}.0.2/24 dev {name}1",
                              f"addr add 10.{net}.0.3/24 dev {name}1", f"addr add fd0{net}::2/64 dev {name}1 nodad"))  # fmt: skip
        client.run(partial(ip, "route add default via 10.6.0.1", "route add default via fd06::1"))
        for address, text in (("10.5.0.2", b"one"), ("10.5.0.3", b"two"), ("fd05::2", b"six")):
            stack.enter_context(backend.run(partial(Greeter, address, 8080, text)))
        yield {"here": greeting, "remote": lambda *wanted: client.run(partial(greeting, *wanted))}


@pytest.fixture
def served() -> Iterator[IPVSTable]:
    """The VIPs, by hand: their addresses, their table, and what of the kernel's settings they take; no rules."""
    ip("link add vips type dummy", "link set vips up", f"addr add {VIP}/32 dev vips", f"addr add {VIP6}/128 dev vips nodad")
    for name in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding", "net.ipv4.vs.conntrack"):
        write_sysctl(name, "1")
    with IPVSTable(scope=Scope.everything()) as table:
        table.converge(DESIRED)
        yield table


def said_no(*command: str) -> str:
    """Carry out a command that makes a rule; the first line of its complaint, if it has one."""
    done = subprocess.run([tool(command[0]), *command[1:]], capture_output=True, text=True, check=False)
    return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[0] if done.returncode else ""


def add_nft_masquerade() -> str:
    """It has no match for IPVS; conntrack knows where a connection went first."""
    rules = "".join(f"ct original {kind} daddr {vip} masquerade; " for kind, vip in (("ip", VIP), ("ip6", VIP6)))
    return said_no("nft", f"table inet masq {{ chain post {{ type nat hook postrouting priority 100; {rules} }}; }}")


def add_iptables_masquerade(variant: str) -> str:
    rule = "-t nat -A POSTROUTING -m ipvs --ipvs --vdir ORIGINAL --vmethod MASQ -j MASQUERADE"
    return said_no(f"iptables-{variant}", *rule.split()) or said_no(f"ip6tables-{variant}", *rule.split())


MASQUERADES = {
    "nft": add_nft_masquerade,
    "iptables-nft": partial(add_iptables_masquerade, "nft"),
    "iptables-legacy": partial(add_iptables_masquerade, "legacy"),
}


def remove_masquerade(how: str) -> None:
    if how == "nft":
        assert not said_no("nft", "flush", "chain", "inet", "masq", "post")
        return
    for command in (how, how.replace("iptables", "ip6tables")):
        assert not said_no(command, "-t", "nat", "-F", "POSTROUTING")


@pytest.mark.parametrize("how", MASQUERADES)
def test_masquerade_lets_answers_back(asks: dict[str, Ask], served: IPVSTable, how: str) -> None:
    if reason := MASQUERADES[how]():
        pytest.skip(f"this kernel has no {how} masquerade: {reason}")
    for ask in asks.values():
        assert {ask(VIP, 80), ask(VIP, 80)} == {"one", "two"}
        assert ask(VIP6, 80) == "six"
    write_sysctl("net.ipv4.vs.conntrack", "0")
    assert [asks["remote"](vip, 80, TIMEOUT_SECONDS) for vip in (VIP, VIP6)] == ["timeout"] * 2
    write_sysctl("net.ipv4.vs.conntrack", "1")
    assert (asks["remote"](VIP6, 80), not served.plan(DESIRED)) == ("six", True)
    remove_masquerade(how)
    for ask in asks.values():
        assert [ask(vip, 80, TIMEOUT_SECONDS) for vip in (VIP, VIP6)] == ["timeout"] * 2


@pytest.mark.parametrize("how", MASQUERADES)
def test_many_clients_at_once(asks: dict[str, Ask], served: IPVSTable, how: str) -> None:
    """On several CPUs, where there are some: nobody's connection gets lost, and each is counted once."""
    if reason := MASQUERADES[how]():
        pytest.skip(f"this kernel has no {how} masquerade: {reason}")
    with ThreadPoolExecutor(4) as pool:
        answers = Counter(pool.map(lambda _: asks["here"](VIP, 80, 10.0), range(100)))
    assert answers == {"one": 50, "two": 50}
    kept = served.statistics(WEB.key)[WEB.key].destinations
    assert [kept[each].connections.active + kept[each].connections.inactive for each in BACKENDS] == [50, 50]


@pytest.fixture
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A packet filter that host set-up is made to use; its probe says whether this kernel has it."""
    kind: str = request.param
    if kind != "nft":
        monkeypatch.setattr(firewall, "_VARIANTS", (kind.removeprefix("iptables"),))
    chosen = firewall.NftEngine() if kind == "nft" else firewall.IPTablesEngine()
    if reason := chosen.probe(HostSettings().parts):
        pytest.skip(f"host set-up cannot use {kind} on this kernel: {reason}")
    return kind


def set_up(stack: ExitStack, engine: str, **more: bool) -> HostSetup:
    """What the daemon does, with the VIPs' table."""
    masquerade: Any = engine.partition("-")[0]
    setup = stack.enter_context(HostSetup(HostSettings(masquerade=masquerade, ipv6=True, forward=True, **more)))
    table = stack.enter_context(IPVSTable(scope=Scope.everything()))
    assert [found for found in setup.set_up() if not found.ok] == []
    addresses, keys = [VIP, VIP6], [service.key for service in DESIRED]
    setup.before_ipvs(addresses, keys)
    table.converge(DESIRED)
    setup.after_ipvs(addresses, keys)
    return setup


@pytest.mark.parametrize("engine", MASQUERADES, indirect=True)
def test_host_set_up_masquerades_and_guards_by_each(engine: str, asks: dict[str, Ask]) -> None:
    with ExitStack() as stack:
        setup = set_up(stack, engine)
        stack.enter_context(Greeter("0.0.0.0", 22, b"ssh"))  # noqa: S104 - that is the point
        stack.enter_context(Greeter("::", 222, b"ssh"))
        for ask in asks.values():
            assert ({ask(VIP, 80), ask(VIP, 80)}, ask(VIP6, 80)) == ({"one", "two"}, "six")
            assert (ask(VIP, 22), ask(VIP6, 222)) == (REFUSED, REFUSED)
            assert (ask("10.6.0.1", 22), ask("fd06::1", 222)) == ("ssh", "ssh")
        assert not setup.audit([VIP, VIP6], [service.key for service in DESIRED])


def add_host_port(kind: str) -> str:
    """As CNI portmap and Docker do: port 80 of every local address is a container's."""
    to, answer = "10.6.0.1:8081", ""
    if kind == "nft":
        rule = f"ip daddr != 127.0.0.0/8 fib daddr type local tcp dport 80 dnat to {to};"
        chains = "".join(
            f"chain {hook} {{ type nat hook {hook} priority -100; {rule} }}; " for hook in ("prerouting", "output")
        )
        return said_no("nft", f"table ip portmap {{ {chains} }}")
    for chain in ("PREROUTING", "OUTPUT"):
        rule = f"-t nat -A {chain} -m addrtype --dst-type LOCAL -p tcp --dport 80 -j DNAT --to-destination {to}"
        answer = answer or said_no(kind, *rule.split())
    return answer


# Rules of iptables hold off those of their own kind only, as is written in docs/host.md.
OTHERS = [*(("nft", others) for others in MASQUERADES), *((kind, kind) for kind in MASQUERADES if kind != "nft")]


@pytest.mark.parametrize(("engine", "others"), OTHERS, indirect=["engine"])
def test_the_bypass_keeps_host_ports_of_others_from_vips(engine: str, others: str, asks: dict[str, Ask]) -> None:
    if reason := add_host_port(others):
        pytest.skip(f"this kernel has no {others} NAT: {reason}")
    with Greeter("10.6.0.1", 8081, b"container"):
        with ExitStack() as stack:
            set_up(stack, engine, portmap_bypass=False)
            assert [ask(VIP, 80) for ask in asks.values()] == ["container"] * 2
        with ExitStack() as stack:
            set_up(stack, engine)
            for ask in asks.values():
                assert {ask(VIP, 80), ask(VIP, 80)} == {"one", "two"}
                assert ask("10.6.0.1", 80) == "container"
