"""Ten nodes, each in a network namespace of its own: real processes, sockets and links. Skipped without root or iproute2, but under CI.

Bounds are generous: what is asserted is that things happen, and which do not. How fast, benchmarks/membership measures.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from pyminuteman.membership import Key, save_key_file
from pyminuteman.testing.cluster_namespaces import ClusterNamespaces, ClusterUnavailableError, why_no_cluster_namespaces
from tests.support.members import NodeProcess
from tests.support.tools import missing, needs

SIZE = 10
PORT = 61420
pytestmark = needs(why_no_cluster_namespaces())

Start = Callable[..., NodeProcess]


@pytest.fixture(scope="module")
def namespaces() -> Iterator[ClusterNamespaces]:
    try:
        made = ClusterNamespaces(SIZE)
    except ClusterUnavailableError as error:
        missing(str(error))
    with made:
        yield made


@pytest.fixture(autouse=True)
def _links_are_up(namespaces: ClusterNamespaces) -> Iterator[None]:
    yield
    namespaces.bring_up(range(SIZE))


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    save_key_file(path, [Key.generate()])
    return path


@pytest.fixture
def start(namespaces: ClusterNamespaces, key_file: Path) -> Iterator[Start]:
    """Starts a node in the namespace of its number; the first two are everybody's contacts."""
    with ExitStack() as stack:

        def make(number: int, *options: str, keys: Path | None = key_file, cluster: str = "test") -> NodeProcess:
            contacts = [word for contact in (0, 1) for word in ("--contact", f"{namespaces.address(contact)}:{PORT}")]
            secret = ["--insecure"] if keys is None else ["--key-file", str(keys)]
            bind = ["--name", f"n{number}", "--bind", f"{namespaces.address(number)}:{PORT}", "--cluster", cluster]
            node = NodeProcess([*bind, *contacts, *secret, *options], partial(namespaces.start, number))
            stack.callback(node.kill)
            return node

        yield make


@pytest.fixture
def nodes(start: Start) -> list[NodeProcess]:
    """A whole cluster, in which all see all."""
    made = [start(number) for number in range(SIZE)]
    for node in made:
        node.wait_members(SIZE)
    return made


def test_all_see_all_and_what_falls_silent_is_suspect_then_down_and_comes_back(
    namespaces: ClusterNamespaces, nodes: list[NodeProcess]
) -> None:
    victim = nodes[4]
    others = [node for node in nodes if node is not victim]
    seen = [len(node.events) for node in others]
    namespaces.take_down([4])
    for node, after in zip(others, seen, strict=True):
        suspect = node.wait_event("suspect", victim.id, seconds=10, after=after)
        down = node.wait_event("down", victim.id, seconds=10, after=after)
        assert suspect["time_ns"] < down["time_ns"]
    for node, after in zip(others, seen, strict=True):
        blamed = {event["node"] for event in node.events[after:] if event["event"] == "down"}
        assert blamed == {victim.id}
    # It is the one that is cut off, which is no reason to hold the others for dead.
    victim.wait_state(lambda state: not state["active_view"])
    assert not [event for event in victim.events if event["event"] == "down"]
    namespaces.bring_up([4])
    for node in others:
        node.wait_members(SIZE, seconds=60)
    victim.wait_members(SIZE, seconds=60)


def test_a_frozen_node_is_alive_again_when_it_thaws_and_blames_nobody(nodes: list[NodeProcess]) -> None:
    frozen = nodes[3]
    others = [node for node in nodes if node is not frozen]
    seen = len(frozen.events)
    frozen.process.send_signal(signal.SIGSTOP)
    time.sleep(2)
    frozen.process.send_signal(signal.SIGCONT)
    frozen.wait_members(SIZE)
    for node in others:
        node.wait_members(SIZE)
        assert not [event for event in node.events if event["event"] == "left"]
    assert not [event for event in frozen.events[seen:] if event["event"] == "down"]
    assert frozen.process.poll() is None


def test_who_leaves_has_left_and_is_never_down(nodes: list[NodeProcess]) -> None:
    gone, *others = reversed(nodes)
    gone.end()
    for node in others:
        node.wait_event("left", gone.id)
    time.sleep(2)
    for node in others:
        assert not [event for event in node.events if event["event"] in {"suspect", "down"} and event["node"] == gone.id]
        assert node.state()["members"][gone.id]["status"] == "left"


def test_who_comes_back_with_its_state_is_the_same_in_a_new_life(start: Start, tmp_path: Path) -> None:
    state = ["--state-dir", str(tmp_path / "state")]
    others = [start(number) for number in range(3)]
    first = start(3, *state)
    for node in [*others, first]:
        node.wait_members(4)
    epoch = first.state()["epoch"]
    first.process.kill()
    again = start(3, *state)
    assert again.id == first.id
    assert again.state()["epoch"] > epoch
    for node in [*others, again]:
        found = node.wait_members(4)
        assert len(found["members"]) == 4


def test_another_key_another_cluster_and_no_key_are_not_heard(start: Start, tmp_path: Path) -> None:
    ours = [start(number) for number in range(3)]
    wrong = tmp_path / "wrong"
    save_key_file(wrong, [Key.generate()])
    strangers = [start(3, keys=wrong), start(4, cluster="another"), start(5, cluster="another"), start(6, keys=None)]
    for node in ours:
        node.wait_members(3)
    time.sleep(2)
    for node in [*ours, *strangers]:
        state = node.state()
        assert len(state["members"]) == (3 if node in ours else 1), state
    contacts = [node.state()["metrics"] for node in ours[:2]]
    for reason in ("unknown_key", "forged", "format"):
        assert sum(metrics[f"refused_{reason}_total"] for metrics in contacts) > 0, reason


def test_ipv6(key_file: Path) -> None:
    if not Path("/proc/net/if_inet6").exists():
        pytest.skip("this kernel has no IPv6")
    with ClusterNamespaces(4, ipv6=True) as namespaces, ExitStack() as stack:
        nodes = []
        for number in range(4):
            # One is bound to every address of both families, and says by which it wants to be reached.
            endpoint = f"[{namespaces.address6(number)}]:{PORT}"
            where = ["--bind", f"[::]:{PORT}", "--dual-stack", "--advertise", endpoint] if number == 3 else ["--bind", endpoint]
            options = ["--name", f"n{number}", *where, "--contact", f"[{namespaces.address6(0)}]:{PORT}"]
            node = NodeProcess([*options, "--key-file", str(key_file)], partial(namespaces.start, number))
            stack.callback(node.kill)
            nodes.append(node)
        for node in nodes:
            state = node.wait_members(4)
            assert all(member["address"].startswith("[fd61::") for member in state["members"].values())
        namespaces.take_down([2])
        for node in nodes[:2]:
            node.wait_event("down", nodes[2].id)


def test_the_address_is_found_where_every_address_is_bound(namespaces: ClusterNamespaces, start: Start, key_file: Path) -> None:
    first = start(0)
    contact = f"{namespaces.address(0)}:{PORT}"
    options = ["--bind", f"0.0.0.0:{PORT}", "--contact", contact, "--key-file", str(key_file), "--cluster", "test"]
    node = NodeProcess(options, partial(namespaces.start, 5))
    try:
        assert node.me["address"] == f"{namespaces.address(5)}:{PORT}"
        first.wait_event("up", node.id)
    finally:
        node.kill()
