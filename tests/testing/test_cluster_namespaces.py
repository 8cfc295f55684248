"""Clusters of network namespaces, on the real kernel. Skipped without root or iproute2."""

from __future__ import annotations

import os
import pathlib
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from pyminuteman.testing import cluster_namespaces, owned_namespaces
from pyminuteman.testing.cluster_namespaces import (
    ClusterNamespaces,
    ClusterUnavailableError,
    sweep,
    why_no_cluster_namespaces,
)
from tests.support.tools import needs

ROOT = pathlib.Path(cluster_namespaces.__file__).parents[2]
NETNS = pathlib.Path("/run/netns")
PORT = 5000
SLEEP = ["sleep", "600"]

needs_namespaces = needs(why_no_cluster_namespaces())


@pytest.fixture(scope="module")
def cluster() -> Iterator[ClusterNamespaces]:
    with ClusterNamespaces(4) as made:
        yield made


def namespaces_of(pid: int) -> list[pathlib.Path]:
    return list(NETNS.glob(f"minuteman-{pid}-*"))


def network_of(process: str) -> str:
    return str(pathlib.Path(f"/proc/{process}/ns/net").readlink())


def wait_for(condition: Callable[[], object], seconds: float = 10.0) -> None:
    deadline = time.perf_counter() + seconds
    while not condition():
        assert time.perf_counter() < deadline, f"still not so after {seconds} s"
        time.sleep(0.01)


class Sockets:
    """A UDP socket in each namespace."""

    def __init__(self, cluster: ClusterNamespaces, stack: ExitStack, *, ipv6: bool = False) -> None:
        self.cluster = cluster
        self.sockets: list[socket.socket] = []
        self.address = cluster.address6 if ipv6 else cluster.address
        for node in range(cluster.size):
            with cluster.inside(node):
                made = stack.enter_context(socket.socket(socket.AF_INET6 if ipv6 else socket.AF_INET, socket.SOCK_DGRAM))
                made.bind((str(self.address(node)), PORT))
            self.sockets.append(made)

    def passes(self, sender: int, receiver: int, text: bytes = b"hello", *, within: float = 1.0) -> bool:
        self.sockets[sender].sendto(text, (str(self.address(receiver)), PORT))
        if not select.select([self.sockets[receiver]], [], [], within)[0]:
            return False
        found, source = self.sockets[receiver].recvfrom(2000)
        return found == text and source[:2] == (str(self.address(sender)), PORT)


@pytest.fixture
def sockets(cluster: ClusterNamespaces) -> Iterator[Sockets]:
    with ExitStack() as stack:
        yield Sockets(cluster, stack)


@needs_namespaces
def test_every_node_reaches_every_other(sockets: Sockets) -> None:
    pairs = [(sender, receiver) for sender in range(4) for receiver in range(4) if sender != receiver]
    assert all(sockets.passes(*pair) for pair in pairs)


@needs_namespaces
def test_a_frame_is_as_large_as_an_ethernet_frame_may_be(sockets: Sockets) -> None:
    headers = 20 + 8
    assert sockets.passes(0, 1, bytes(1500 - headers))
    sockets.sockets[0].setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER, IP_PMTUDISC_DO
    with pytest.raises(OSError, match="Message too long"):
        sockets.passes(0, 1, bytes(1501 - headers))


@needs_namespaces
def test_a_node_whose_link_is_down_is_silent_and_nothing_answers_for_it(sockets: Sockets, cluster: ClusterNamespaces) -> None:
    before_ns = time.time_ns()
    assert before_ns <= cluster.take_down([1, 2]) <= time.time_ns()
    assert not sockets.passes(0, 1, within=0.1)
    assert not sockets.passes(0, 2, within=0.01)
    assert not sockets.passes(1, 3, within=0.01)
    assert not sockets.passes(1, 2, within=0.01)
    assert sockets.passes(0, 3)
    # A failed ARP, or an ICMP error, would show as an error of the sender's socket.
    time.sleep(1.2)
    assert sockets.sockets[0].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    assert sockets.passes(3, 0)
    cluster.bring_up([1, 2])
    assert sockets.passes(0, 1)
    assert sockets.passes(2, 1)


@needs_namespaces
def test_links_that_are_already_so_and_no_links_at_all(sockets: Sockets, cluster: ClusterNamespaces) -> None:
    cluster.bring_up([0, 1, 2, 3])
    cluster.take_down([])
    cluster.bring_up([])
    assert sockets.passes(0, 1)


@needs_namespaces
def test_counters_are_of_whole_frames(sockets: Sockets, cluster: ClusterNamespaces) -> None:
    before = cluster.counters()
    for _ in range(10):
        assert sockets.passes(0, 1, bytes(100))
    sent, received, bystander = (after - earlier for after, earlier in zip(cluster.counters()[:3], before[:3], strict=True))
    frame = 14 + 20 + 8 + 100
    assert (sent.sent_packets, sent.sent_bytes, sent.received_packets) == (10, 10 * frame, 0)
    assert (received.received_packets, received.received_bytes, received.sent_packets) == (10, 10 * frame, 0)
    assert (bystander.received_packets, bystander.sent_packets) == (0, 0)


@needs_namespaces
def test_processes_run_in_the_node_and_under_the_id_that_one_gets(cluster: ClusterNamespaces) -> None:
    here = network_of("self")
    started = cluster.start(2, ["readlink", "/proc/self/ns/net"], stdout=subprocess.PIPE, text=True)
    there = started.communicate(timeout=10)[0].strip()
    assert there != here
    show = ["sh", "-c", "echo $$; readlink /proc/self/ns/net"]
    with subprocess.Popen(cluster.command_inside(2, show), stdout=subprocess.PIPE, text=True) as launched:
        assert launched.communicate(timeout=10)[0].split() == [str(launched.pid), there]
    assert network_of("self") == here


@needs_namespaces
def test_the_thread_comes_back_whatever_happens_inside(cluster: ClusterNamespaces) -> None:
    here = network_of("self")
    descriptors = len(list(pathlib.Path("/proc/self/fd").iterdir()))
    with pytest.raises(KeyError), cluster.inside(0):  # noqa: PT012 - the raise is what is tried
        assert network_of("thread-self") != here
        raise KeyError
    assert network_of("thread-self") == here
    assert len(list(pathlib.Path("/proc/self/fd").iterdir())) == descriptors


@needs_namespaces
def test_ipv6_is_off_unless_asked_for(cluster: ClusterNamespaces) -> None:
    with cluster.inside(0):
        assert not pathlib.Path("/proc/thread-self/net/if_inet6").read_text()


@needs_namespaces
def test_ipv6() -> None:
    if not pathlib.Path("/proc/net/if_inet6").exists():
        pytest.skip("this kernel has no IPv6")
    with ClusterNamespaces(3, ipv6=True) as cluster, ExitStack() as stack:
        assert Sockets(cluster, stack).passes(0, 1)
        over_ipv6 = Sockets(cluster, stack, ipv6=True)
        assert over_ipv6.passes(0, 1)
        cluster.take_down([1])
        assert not over_ipv6.passes(0, 1, within=0.05)
        cluster.bring_up([1])
        assert over_ipv6.passes(0, 1)


@needs_namespaces
def test_more_nodes_than_an_octet_has_values() -> None:
    with ClusterNamespaces(1) as cluster:
        cluster.size = 1000
        assert len({cluster.address(node) for node in range(1000)}) == 1000
        assert str(cluster.address(255)) == "10.61.1.0"


@needs_namespaces
def test_closing_ends_processes_and_their_children_and_deletes_the_namespaces() -> None:
    cluster = ClusterNamespaces(2)
    parent = cluster.start(0, ["sh", "-c", "sleep 600 & echo $!; trap '' TERM; wait"], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    names = [cluster.hub, cluster.namespace(0), cluster.namespace(1)]
    assert all((NETNS / name).exists() for name in names)
    cluster.close()
    assert parent.returncode == -signal.SIGKILL
    parent.stdout.close()
    wait_for(lambda: owned_namespaces._start_ticks(child) is None)
    assert not any((NETNS / name).exists() for name in names)
    cluster.close()


@needs_namespaces
def test_two_clusters_of_one_process_are_apart() -> None:
    with ClusterNamespaces(1) as one, ClusterNamespaces(1) as other:
        assert one.namespace(0) != other.namespace(0)
        one.close()
        assert (NETNS / other.namespace(0)).exists()


OWNER = """
import sys, time
from pyminuteman.testing.cluster_namespaces import ClusterNamespaces
cluster = ClusterNamespaces(2)
print(cluster.start(1, ["sleep", "600"]).pid, flush=True)
time.sleep(600)
"""


@needs_namespaces
def test_what_a_killed_owner_left_is_swept_and_what_a_live_one_has_is_not(cluster: ClusterNamespaces) -> None:
    command = [sys.executable, "-c", OWNER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as owner:
        assert owner.stdout is not None
        orphan = int(owner.stdout.readline())
        left = sorted(entry.name for entry in namespaces_of(owner.pid))
        assert len(left) == 3
        assert not set(left) & set(sweep())
        os.kill(orphan, 0)
        owner.kill()
    with ClusterNamespaces(1):  # sweeps
        assert not namespaces_of(owner.pid)
    wait_for(lambda: owned_namespaces._start_ticks(orphan) is None)
    assert (NETNS / cluster.namespace(0)).exists()


@needs_namespaces
def test_a_process_id_that_was_taken_again_does_not_protect_what_is_left() -> None:
    stem = f"minuteman-{os.getpid()}-1-0"  # of a process with our id that started just after boot
    subprocess.run(["ip", "netns", "add", f"{stem}-hub"], check=True)
    foreign = f"minuteman-of-somebody-else-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", foreign], check=True)
    try:
        assert f"{stem}-hub" in sweep()
        assert (NETNS / foreign).exists()
    finally:
        subprocess.run(["ip", "netns", "delete", foreign], check=True)


@needs_namespaces
def test_a_cluster_that_cannot_be_built_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before = set(namespaces_of(os.getpid()))
    monkeypatch.setattr(cluster_namespaces, "_mac", lambda _node: "nonsense")
    with pytest.raises(ClusterUnavailableError, match="nonsense"):
        ClusterNamespaces(2)
    assert set(namespaces_of(os.getpid())) == before


@needs_namespaces
def test_a_port_that_never_forwards_is_an_error_with_its_name(
    cluster: ClusterNamespaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_namespaces, "_LINK_TIMEOUT_SECONDS", 0.05)
    cluster.take_down([3])
    with pytest.raises(TimeoutError, match="n3"):
        cluster._wait_until_forwarding([0, 3])
    monkeypatch.undo()
    cluster.bring_up([3])


@pytest.mark.parametrize("size", [0, -1, 1001])
def test_sizes_that_a_bridge_cannot_have(size: int) -> None:
    with pytest.raises(ValueError, match="1 to 1000"):
        ClusterNamespaces(size)


@needs_namespaces
@pytest.mark.parametrize("node", [-1, 4])
def test_nodes_that_there_are_not(cluster: ClusterNamespaces, node: int) -> None:
    for call in (cluster.address, cluster.address6, cluster.namespace, lambda number: cluster.take_down([number])):
        with pytest.raises(IndexError, match="numbered 0 to 3"):
            call(node)


def test_the_reason_why_there_can_be_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ClusterUnavailableError, match="root"):
        ClusterNamespaces(1)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(owned_namespaces, "PATH", "/nowhere")
    assert why_no_cluster_namespaces() == "no ip and no bridge command: install iproute2"
