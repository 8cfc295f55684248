"""From tasks to VIPs: one order, one owner, one family; and every claim that comes to nothing says why."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyminuteman.ipvs.service import Protocol
from pyminuteman.sources.mesos_tasks import Runtime, Task, TaskKey, TaskPhase, TaskPort
from pyminuteman.sources.mesos_vips import vips_of
from pyminuteman.vips.labels import LabelProblem, LabelVIP
from pyminuteman.vips.model import Backend, BackendKey, VIPKey, VIPName, VIPSettings

RAW = LabelVIP("11.0.0.1", 80)
RAW6 = LabelVIP("fd00::1", 80)
NAMED = LabelVIP("/a", 80, named=True)


def task(number: int = 1, *labels: LabelVIP, framework: str = "marathon", **changes: Any) -> Task:
    """A task on the network of its host, with one port."""
    port = TaskPort(Protocol.TCP, 8000 + number, vips=labels)
    key = TaskKey(changes.pop("framework_id", "f-0000"), f"t{number}")
    fields = {
        "ports": (port,),
        "addresses": ("10.0.0.1",),
        "phase": TaskPhase.RUNNING,
        "healthy": None,
        "runtime": Runtime.MESOS,
    } | changes
    return Task(key, f"n{number}", framework, "10.0.0.1", **fields)


def test_tasks_of_one_label_are_backends_of_one_vip() -> None:
    found = vips_of([task(2, NAMED), task(1, NAMED), task(3, RAW)], settings=VIPSettings(scheduler="rr"))
    assert [(str(vip.key), [backend.port for backend in vip.backends]) for vip in found.vips] == [
        ("tcp://11.0.0.1:80", [8003]),
        ("tcp:///a@marathon:80", [8001, 8002]),
    ]
    assert {vip.settings.scheduler for vip in found.vips} == {"rr"}
    assert {vip.principal for vip in found.vips} == {"marathon"}
    assert found.problems == ()


def test_names_of_two_frameworks_are_two_vips() -> None:
    found = vips_of([task(1, NAMED), task(2, NAMED, framework="other", framework_id="f-0001")])
    assert [vip.key.host for vip in found.vips] == [VIPName("/a", "marathon"), VIPName("/a", "other")]


@pytest.mark.parametrize("turned", [False, True])
def test_an_address_that_two_frameworks_claim_is_the_earlier_ones(turned: bool) -> None:
    tasks = [
        task(1, RAW, framework="alpha", framework_id="f-0002"),
        task(2, RAW, framework="omega", framework_id="f-0001"),
        task(3, RAW, framework="omega", framework_id="f-0003"),
    ]
    found = vips_of(reversed(tasks) if turned else tasks)
    assert [(vip.principal, [backend.port for backend in vip.backends]) for vip in found.vips] == [("omega", [8002, 8003])]
    (problem,) = found.problems
    assert (
        str(problem)
        == "task f-0002/t1: VIP 11.0.0.1:80: tcp://11.0.0.1:80 belongs to framework 'omega'; 'alpha' cannot have it as well"
    )


@pytest.mark.parametrize("turned", [False, True])
def test_of_two_tasks_at_one_place_the_one_that_takes_connections_counts(turned: bool) -> None:
    tasks = [task(1, NAMED), replace(task(1, NAMED, phase=TaskPhase.KILLING), key=TaskKey("f-0000", "t2"))]
    ((vip),) = vips_of(reversed(tasks) if turned else tasks).vips
    assert vip.backends == (Backend("10.0.0.1", 8001, 1, "10.0.0.1"),)


def test_tasks_that_are_not_there_count_for_nothing_not_even_their_problems() -> None:
    problem = LabelProblem("VIP_0", "nonsense")
    assert vips_of(
        [task(1, NAMED, phase=TaskPhase.PREPARING, problems=(problem,)), task(2, NAMED, phase=TaskPhase.ENDED)]
    ) == vips_of([])


def test_problems_and_warnings_of_labels_are_told_apart() -> None:
    found = vips_of([task(1, problems=(LabelProblem("VIP_0", "bad"), LabelProblem("VIP_1", "odd", warning=True)))])
    assert [str(problem) for problem in found.problems] == ["task f-0000/t1: VIP_0: bad"]
    assert [str(problem) for problem in found.warnings] == ["task f-0000/t1: VIP_1: odd"]


def test_a_mapped_port_is_at_the_agent_and_locally_at_the_container_but_not_for_docker() -> None:
    port = TaskPort(Protocol.TCP, 80, 31000, vips=(NAMED,))
    mapped = task(1, ports=(port,), addresses=("fd00::7", "9.0.0.7"))
    assert vips_of([mapped]).vips[0].backends == (Backend("10.0.0.1", 31000, 1, "10.0.0.1", BackendKey("9.0.0.7", 80)),)
    for other in (
        replace(mapped, runtime=Runtime.DOCKER),
        replace(mapped, addresses=("fd00::7",)),
        replace(mapped, addresses=()),
        replace(mapped, ports=(replace(port, port=None),)),
    ):
        assert vips_of([other]).vips[0].backends == (Backend("10.0.0.1", 31000, 1, "10.0.0.1"),)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"addresses": ()}, "it is not known where the container is"),
        ({"ports": (TaskPort(Protocol.TCP, None, vips=(RAW,)),)}, "it is not known where the container is"),
        ({"addresses": ("fd00::7", "fd00::8")}, "no address of the task is IPv4: fd00::7, fd00::8"),
        ({"ports": (TaskPort(Protocol.TCP, 80, vips=(RAW6,)),)}, "no address of the task is IPv6: 10.0.0.1"),
        ({"framework": "x" * 256}, "is not 1 to 255 bytes of printable text"),
        ({"ports": (TaskPort(Protocol.TCP, 80, vips=(LabelVIP("/", 80, named=True),)),)}, "has no DNS name"),
    ],
)
def test_a_claim_that_comes_to_nothing_says_why_and_costs_no_other(changes: dict[str, Any], reason: str) -> None:
    found = vips_of([task(1, RAW, **changes), task(2, NAMED)])
    assert [str(vip.key) for vip in found.vips] == ["tcp:///a@marathon:80"]
    (problem,) = found.problems
    assert problem.where.startswith("task f-0000/t1: VIP ")
    assert reason in problem.reason


def test_without_ipv6_a_name_has_its_ipv4_backends_and_an_ipv6_vip_is_a_problem() -> None:
    both = ("9.0.0.7", "fd00::7")
    found = vips_of(
        [task(1, NAMED, RAW6, addresses=both), task(2, LabelVIP("/b", 80, named=True), addresses=("fd00::8",))], ipv6=False
    )
    assert [[backend.address for backend in vip.backends] for vip in found.vips] == [["9.0.0.7"]]
    assert [problem.reason for problem in found.problems] == ["IPv6 is switched off", "no address of the task is IPv4: fd00::8"]
    assert len(vips_of([task(1, NAMED, RAW6, addresses=both)]).vips) == 2


TASKS = st.builds(
    lambda number, framework, labels, phase, addresses, mapped, runtime: task(
        number,
        framework=framework,
        framework_id=f"f-{framework}",
        phase=phase,
        addresses=addresses,
        runtime=runtime,
        ports=(TaskPort(Protocol.TCP, 80, 31000 if mapped else None, vips=tuple(labels)),),
    ),
    st.integers(1, 4),
    st.sampled_from(["a", "b"]),
    st.lists(st.sampled_from([RAW, RAW6, NAMED]), max_size=3),
    st.sampled_from(TaskPhase),
    st.sampled_from([(), ("9.0.0.7",), ("9.0.0.7", "fd00::7"), ("9.0.0.8",)]),
    st.booleans(),
    st.sampled_from(Runtime),
)


@given(st.lists(TASKS, max_size=8).flatmap(lambda tasks: st.tuples(st.just(tasks), st.permutations(tasks))), st.booleans())
def test_the_order_of_tasks_does_not_matter(both: tuple[list[Task], list[Task]], ipv6: bool) -> None:
    one, other = both
    found = vips_of(one, ipv6=ipv6)
    assert found == vips_of(other, ipv6=ipv6)
    assert [vip.key for vip in found.vips] == sorted({vip.key for vip in found.vips}, key=lambda key: key.sort_key)
    for vip in found.vips:
        assert vip.backends
        if not isinstance(vip.key.host, VIPName):
            assert {":" in backend.address for backend in vip.backends} == {":" in vip.key.host}
    assert VIPKey.tcp("fd00::1", 80) not in {vip.key for vip in found.vips} or ipv6
