"""VIP addresses on a device of a namespace, as addresses and as routes: a bridge here, for not every kernel has dummies."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator

import pytest

from pyminuteman.host.announcements import VIPAddresses
from pyminuteman.host.errors import HostSetupError
from pyminuteman.host.links import Announce, Links
from pyminuteman.host.sysctls import write_sysctl
from tests.support.host_namespaces import own_namespace
from tests.support.kernel import ip

ONE, TWO, SIX, MORE = "11.0.0.1", "11.0.0.2", "fd01::1", "fd01::2"


@pytest.fixture(autouse=True)
def namespace() -> Iterator[None]:
    with own_namespace():
        yield


@pytest.fixture(params=list(Announce), ids=lambda mode: mode.name.lower())
def mode(request: pytest.FixtureRequest) -> Announce:
    found: Announce = request.param
    return found


@pytest.fixture
def vips(mode: Announce) -> Iterator[VIPAddresses]:
    ip("link add minuteman type bridge", "link set minuteman up")
    if mode is Announce.INSIDE:
        give_address("10.9.0.2")
    with VIPAddresses(mode=mode) as made:
        yield made


def give_address(address: str) -> None:
    """What a container has besides: here on another bridge."""
    ip("link add eth0 type bridge", f"address add {address}/24 dev eth0", "link set eth0 up")


def routed(address: str) -> str:
    environment = os.environ | {"LD_PRELOAD": ""}  # under a sanitizer: ip has leaks of its own
    done = subprocess.run(["ip", "route", "get", address], capture_output=True, text=True, check=False, env=environment)
    return done.stdout.split()[0] if done.stdout else "unreachable"


def test_what_is_announced_is_local_until_it_is_withdrawn(vips: VIPAddresses) -> None:
    assert vips.present() == frozenset()
    assert routed(ONE) != "local"
    vips.announce([ONE, SIX])
    assert vips.present() == {ONE, SIX}
    assert (routed(ONE), routed(SIX)) == ("local", "local")
    vips.withdraw([ONE])
    assert vips.present() == {SIX}
    assert routed(ONE) != "local"


def test_what_is_there_already_or_gone_already_is_a_success(vips: VIPAddresses) -> None:
    vips.announce([ONE, SIX])
    vips.announce([ONE, TWO, SIX, MORE, "FD01:0::1"])
    assert vips.present() == {ONE, TWO, SIX, MORE}
    vips.withdraw(["11.9.9.9", "fd01::99", TWO, MORE])
    assert vips.present() == {ONE, SIX}
    vips.announce([])


def test_some_thousands_at_once(vips: VIPAddresses) -> None:
    many = {f"11.{n // 250}.1.{n % 250 + 1}" for n in range(2000)} | {f"fd01::{n:x}" for n in range(1, 500)}
    vips.announce(many)
    assert vips.present() == many
    vips.withdraw(many)
    assert vips.present() == frozenset()


def test_what_is_not_ours_is_left_alone(vips: VIPAddresses) -> None:
    ip("link add other type bridge", "link set other up", f"addr add {TWO}/32 dev other", "addr add 10.0.0.1/24 dev minuteman")
    ip("route add local 11.0.0.7 dev minuteman scope host table local")
    vips.announce([ONE])
    assert vips.present() == {ONE}
    vips.withdraw([ONE, TWO, "10.0.0.1"] if vips.mode is Announce.ROUTE else [ONE, TWO])
    shown = subprocess.run(["ip", "-o", "addr"], capture_output=True, text=True, check=True).stdout
    assert f"inet {TWO}/32" in shown
    assert "inet 10.0.0.1/24" in shown
    assert routed("11.0.0.7") == "local"


def test_a_refusal_is_told_by_address_and_the_others_are_there(vips: VIPAddresses) -> None:
    for device in ("lo", "minuteman"):
        write_sysctl(f"net.ipv6.conf.{device}.disable_ipv6", "1")
    with pytest.raises(HostSetupError, match="1 of 2 addresses could not be announced on minuteman") as caught:
        vips.announce([ONE, SIX])
    assert SIX in str(caught.value)
    assert "net.ipv6.conf.minuteman.disable_ipv6=0" in str(caught.value)
    assert vips.present() == {ONE}


def test_without_the_device_it_says_how_to_make_it(mode: Announce) -> None:
    vips = VIPAddresses(device="nothing", mode=mode)
    assert vips.present() == frozenset()
    vips.withdraw([ONE])
    with pytest.raises(HostSetupError, match="there is no device nothing; ip link add nothing type dummy"):
        vips.announce([ONE])


def test_a_device_that_is_down_is_switched_on(vips: VIPAddresses) -> None:
    ip("link set minuteman down")
    vips.announce([ONE])
    assert routed(ONE) == "local"


def test_a_device_that_was_made_anew_is_found(vips: VIPAddresses) -> None:
    vips.announce([ONE])
    ip("link del minuteman", "link add minuteman type bridge", "link set minuteman up")
    assert vips.present() == frozenset()
    vips.announce([ONE])
    assert vips.present() == {ONE}


def test_a_closed_one_opens_itself_again(vips: VIPAddresses) -> None:
    vips.announce([ONE])
    vips.close()
    vips.close()
    assert vips.present() == {ONE}


def test_several_threads_may_use_one(vips: VIPAddresses) -> None:
    sets = [{f"11.{n}.0.{m}" for m in range(1, 60)} for n in range(4)]
    threads = [threading.Thread(target=vips.announce, args=(part,)) for part in sets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert vips.present() == set().union(*sets)


def shown(address: str) -> str:
    environment = os.environ | {"LD_PRELOAD": ""}  # as in :func:`routed`
    return subprocess.run(["ip", "route", "get", address], capture_output=True, text=True, check=True, env=environment).stdout


def test_inside_connections_come_from_an_address_of_the_namespace() -> None:
    ip("link add minuteman type bridge", "link set minuteman up", "address add 10.1.0.1/24 dev minuteman")
    with VIPAddresses(mode=Announce.INSIDE) as vips:
        with pytest.raises(
            HostSetupError, match="the namespace has no IPv4 address that connections could come from; it is tried"
        ):
            vips.announce([ONE, SIX])
        assert vips.present() == {SIX}
        give_address("10.9.0.2")
        vips.announce([ONE, SIX])
        assert vips.present() == {ONE, SIX}
        assert "src 10.9.0.2" in shown(ONE)
        ip(
            "link add eth1 type bridge",
            "address add 10.8.0.2/24 dev eth1",
            "link set eth1 up",
            "route add default via 10.8.0.1",
        )
        vips.announce([TWO])
        assert "src 10.8.0.2" in shown(TWO), "the default route decides where there is one"
        assert vips.withdraw_stale() == {ONE}
        vips.announce([ONE])
        ip("address del 10.8.0.2/24 dev eth1")
        assert vips.withdraw_stale() == {ONE, TWO}, (
            "the kernel leaves routes of the table local, though nobody has the address any more"
        )
        assert vips.present() == {SIX}
        vips.announce([ONE, TWO])
        assert ("src 10.9.0.2" in shown(ONE), "src 10.9.0.2" in shown(TWO)) == (True, True)
        assert vips.withdraw_stale() == frozenset()


@pytest.mark.parametrize("name", ["", "sixteen-letters-", "a/b", "a b", "a\0b"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with Links() as links, pytest.raises(HostSetupError, match="is no device's name"):
        links.get(name)


def test_a_namespace_that_is_not_there_is_an_error() -> None:
    with pytest.raises(HostSetupError, match="/no/such cannot be opened: No such file"):
        Links("/no/such")
    with pytest.raises(HostSetupError, match="it is no network namespace"):
        Links("/proc/self/ns/mnt")
    closed = Links()
    closed.close()
    with pytest.raises(ValueError, match="closed"):
        closed.get("lo")


def test_an_address_that_is_none_is_refused(vips: VIPAddresses) -> None:
    with pytest.raises(ValueError, match=r"11\.0\.0"):
        vips.announce(["11.0.0"])


def test_a_kernel_without_such_devices_says_which_module() -> None:
    with Links() as links:
        assert links.get("nothing") is None
        with pytest.raises(HostSetupError, match="no-such-kind; load its module: modprobe no-such-kind"):
            links.add("nothing", "no-such-kind")
        assert links.add("bridge0", "bridge")
        assert not links.add("bridge0", "bridge")
        made = links.get("bridge0")
        assert made is not None
        assert (made.kind, made.is_up) == ("bridge", True)
        links.delete(made)
        links.delete(made)
        assert links.get("bridge0") is None
