"""Tasks: their states, where their containers and ports are, and what is wrong with their labels."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyminuteman.ipvs.service import Protocol
from pyminuteman.sources.mesos_tasks import (
    Runtime,
    Task,
    TaskKey,
    TaskPhase,
    TaskPort,
    TaskStatus,
    describe,
    newest_status,
    resolve,
    task_phase,
)
from pyminuteman.vips.labels import LabelVIP

AGENT = "10.0.0.1"
CONTAINER = "9.0.0.7"
A = LabelVIP("/a", 80, named=True)


def task(**changes: Any) -> dict[str, Any]:
    """A task of the operator API."""
    return {
        "task_id": {"value": "t"},
        "framework_id": {"value": "f"},
        "agent_id": {"value": "s"},
        "name": "n",
        "state": "TASK_RUNNING",
    } | changes


def port(number: object, *labels: str, **changes: Any) -> dict[str, Any]:
    """A discovery port, with labels ``KEY=VALUE``."""
    pairs = [label.partition("=") for label in labels]
    return {
        "number": number,
        "protocol": "tcp",
        "labels": {"labels": [{"key": key, "value": value} for key, _, value in pairs]},
    } | changes


def with_ports(*ports: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return task(discovery={"name": "d", "ports": {"ports": list(ports)}}, **changes)


def ucr(*mappings: tuple[int, int], **changes: Any) -> dict[str, Any]:
    """A container of Mesos on a network with those mappings, from the container's port to the host's."""
    found = [{"container_port": container, "host_port": host, "protocol": "tcp"} | changes for container, host in mappings]
    return {"type": "MESOS", "network_infos": [{"name": "dcos", "port_mappings": found}]}


def status(timestamp: float, address: str | None = None, **changes: Any) -> dict[str, Any]:
    infos = [] if address is None else [{"ip_addresses": [{"ip_address": address}]}]
    return {"timestamp": timestamp, "container_status": {"network_infos": infos}} | changes


def resolved(document: dict[str, Any], *, legacy: bool = False) -> Task:
    description = describe(document, legacy=legacy)
    assert description is not None
    found = newest_status(document.get("statuses", []))
    return resolve(description, found, task_phase(document.get("state")), "marathon", AGENT)


def ports_of(document: dict[str, Any], *, legacy: bool = False) -> list[tuple[int | None, int | None]]:
    return [(entry.port, entry.host_port) for entry in resolved(document, legacy=legacy).ports]


# -- states ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "phase"),
    [
        ("TASK_RUNNING", TaskPhase.RUNNING),
        ("TASK_KILLING", TaskPhase.KILLING),
        *((f"TASK_{name}", TaskPhase.PREPARING) for name in ("STAGING", "STARTING", "UNREACHABLE", "UNKNOWN", "NEW_ONE")),
        *(
            (f"TASK_{name}", TaskPhase.ENDED)
            for name in ["FINISHED", "FAILED", "KILLED", "LOST", "ERROR", "DROPPED", "GONE", "GONE_BY_OPERATOR"]
        ),
        (None, TaskPhase.PREPARING),
        (7, TaskPhase.PREPARING),
    ],
)
def test_a_task_is_preparing_running_being_killed_or_ended(state: object, phase: TaskPhase) -> None:
    assert task_phase(state) is phase


@pytest.mark.parametrize(
    ("phase", "healthy", "present", "weight"),
    [
        (TaskPhase.RUNNING, None, True, 1),
        (TaskPhase.RUNNING, True, True, 1),
        (TaskPhase.RUNNING, False, True, 0),
        (TaskPhase.KILLING, True, True, 0),
        (TaskPhase.KILLING, None, True, 0),
        (TaskPhase.PREPARING, True, False, 0),
        (TaskPhase.ENDED, True, False, 0),
    ],
)
def test_only_a_task_that_runs_and_is_not_known_to_be_ill_takes_connections(
    phase: TaskPhase, healthy: bool | None, present: bool, weight: int
) -> None:
    found = Task(TaskKey("f", "t"), "n", "m", AGENT, Runtime.MESOS, phase, healthy, (), ())
    assert (found.is_present, found.weight) == (present, weight)


# -- statuses ----------------------------------------------------------------------------------------------------------


@given(st.permutations([status(1.0, "10.0.0.9", healthy=True), status(3.0, healthy=False), status(2.0, CONTAINER)]))
def test_of_statuses_in_any_order_the_newest_counts_and_addresses_are_of_the_newest_that_has_some(statuses: list[Any]) -> None:
    assert newest_status(statuses) == TaskStatus(3.0, healthy=False, addresses=(CONTAINER,))


def test_a_late_status_that_is_older_changes_nothing_but_what_was_not_known() -> None:
    held = newest_status([status(5.0, healthy=True)])
    assert held.followed_by(newest_status([status(4.0, CONTAINER, healthy=False)])) == TaskStatus(5.0, True, (CONTAINER,))
    known = newest_status([status(5.0, CONTAINER, healthy=True)])
    assert known.followed_by(newest_status([status(4.0, "9.9.9.9", healthy=False)])) == known


def test_addresses_of_old_and_new_mesos_and_of_both_families_are_found() -> None:
    infos = [
        {"ip_addresses": [{"ip_address": CONTAINER}, {"ip_address": "FD00::7"}, {"ip_address": "none"}, {}]},
        {"ip_address": "10.0.0.9"},
        {"ip_address": "1.1.1.1", "ip_addresses": [{"ip_address": CONTAINER}]},
        {},
    ]
    found = newest_status([{"timestamp": 1, "healthy": "yes", "container_status": {"network_infos": infos}}])
    assert found == TaskStatus(1.0, None, (CONTAINER, "fd00::7", "10.0.0.9"))


# -- descriptions ------------------------------------------------------------------------------------------------------


def test_a_task_without_ids_is_none() -> None:
    assert describe({}) is None
    assert describe(task(task_id={})) is None
    assert describe(task(framework_id=None)) is None


def test_both_ways_to_write_a_task_mean_the_same() -> None:
    old = {"id": "t", "framework_id": "f", "slave_id": "s", "name": "n", "state": "TASK_RUNNING"}
    assert describe(
        old | {"resources": {"ports": "[1-2, 5-5]"}, "labels": [{"key": "vip_PORT2", "value": "tcp://a:80"}]}
    ) == describe(
        task(
            resources=[
                {"name": "cpus", "scalar": {"value": 1}},
                {"name": "ports", "ranges": {"range": [{"begin": 1, "end": 2}]}},
                {"name": "ports", "scalar": {"value": 5.0}},
            ],
            labels={"labels": [{"key": "VIP_PORT2", "value": "tcp://a:80"}]},
        )
    )


@pytest.mark.parametrize(
    ("kind", "runtime"),
    [("MESOS", Runtime.MESOS), ("DOCKER", Runtime.DOCKER), ("RKT", Runtime.UNKNOWN), (None, Runtime.UNKNOWN)],
)
def test_what_runs_a_container_is_mesos_docker_or_not_known(kind: str | None, runtime: Runtime) -> None:
    assert resolved(task(container={"type": kind})).runtime is runtime


def test_a_task_is_called_as_it_is_to_be_discovered() -> None:
    assert resolved(with_ports()).name == "d"
    assert resolved(task()).name == "n"


# -- where it is -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("container", "addresses"),
    [
        ({}, (AGENT,)),
        ({"type": "DOCKER", "docker": {"network": "HOST"}}, (AGENT,)),
        ({"type": "DOCKER", "docker": {"network": "BRIDGE"}}, ()),
        ({"type": "MESOS", "network_infos": [{"name": "dcos"}]}, ()),
    ],
)
def test_a_container_that_says_nothing_is_on_its_host_unless_it_has_a_network(
    container: Any, addresses: tuple[str, ...]
) -> None:
    assert resolved(task(container=container)).addresses == addresses
    assert resolved(task(container=container, statuses=[status(1.0, CONTAINER)])).addresses == (CONTAINER,)


@pytest.mark.parametrize(
    ("entry", "container", "found"),
    [
        (port(80), {}, (80, None)),
        (port(80, "network-scope=container"), ucr(), (80, None)),
        (port(80, "network-scope=container"), ucr((80, 31000)), (80, 31000)),
        (port(80), ucr((80, 31000)), (80, 31000)),
        (port(31000, "network-scope=host"), ucr((80, 31000)), (80, 31000)),
        (port(31000, "network-scope=host"), ucr((80, 31001)), (None, 31000)),
        (port(31000), ucr((80, 31000)), (80, 31000)),
        (port(31000, "network-scope=container"), ucr((80, 31000)), (31000, None)),
        (port(80), ucr((8080, 80), (80, 31000)), (80, 31000)),
        (port(80, protocol="udp"), ucr((80, 31000)), (80, None)),
        (port(80), ucr((80, 31000), protocol="sctp"), (80, None)),
        (port(80), ucr((80, 0)), (80, None)),
        (
            port(80),
            {"type": "DOCKER", "docker": {"network": "BRIDGE", "port_mappings": [{"container_port": 80, "host_port": 31000}]}},
            (80, 31000),
        ),
        (port(80), ucr((80, 31000)) | {"type": "DOCKER", "docker": {"network": "USER"}}, (80, None)),
    ],
)
def test_a_port_is_the_containers_or_the_hosts_that_leads_there(
    entry: Any, container: Any, found: tuple[int | None, int | None]
) -> None:
    assert ports_of(with_ports(entry, container=container, statuses=[status(1.0, CONTAINER)])) == [found]


def test_the_mappings_of_a_pod_are_in_its_status() -> None:
    info = {
        "ip_addresses": [{"ip_address": CONTAINER}],
        "port_mappings": [{"container_port": 80, "host_port": 31000, "protocol": "TCP"}],
    }
    document = with_ports(
        port(31000, "network-scope=host"), statuses=[{"timestamp": 1, "container_status": {"network_infos": [info]}}]
    )
    assert ports_of(document) == [(80, 31000)]
    assert ports_of(document | {"container": {"type": "DOCKER"}}) == [(None, 31000)]


def test_on_the_hosts_network_the_hosts_port_is_the_ports_number() -> None:
    for address in (AGENT, None):
        document = with_ports(port(31000, "network-scope=host"), port(80), statuses=[status(1.0, address)])
        assert ports_of(document) == [(31000, None), (80, None)]


def test_by_the_legacy_rules_a_number_is_the_hosts_unless_the_containers_scope_is_said() -> None:
    document = with_ports(port(80), port(81, "network-scope=container"), statuses=[status(1.0, CONTAINER)])
    assert ports_of(document, legacy=True) == [(None, 80), (81, None)]
    assert ports_of(document) == [(80, None), (81, None)]


def test_a_port_without_a_number_is_none_and_is_told_if_it_has_a_vip() -> None:
    found = resolved(with_ports(port(0), port(0, "VIP_0=/a:80"), port(None), port(80, "VIP_0=/a:80", protocol="sctp")))
    assert found.ports == ()
    assert [problem.key for problem in found.problems] == ["number", "port 80"]


# -- labels of the task ------------------------------------------------------------------------------------------------


def labelled(value: str, resources: Any, *ports: dict[str, Any], key: str = "vip_PORT0", **changes: Any) -> dict[str, Any]:
    return with_ports(*ports, labels={"labels": [{"key": key, "value": value}]}, resources=resources, **changes)


def test_a_task_label_adds_its_vip_to_the_port_of_that_number_and_protocol() -> None:
    found = resolved(labelled("tcp://a:80", {"ports": "[9999-10000]"}, port(9999, "VIP_0=/a:80"), port(10000), key="vip_port1"))
    assert [entry.vips for entry in found.ports] == [(A,), (LabelVIP("a", 80, named=True),)]
    found = resolved(labelled("tcp:///a:80", {"ports": "[9999-9999]"}, port(9999, "VIP_0=/a:80")))
    assert [entry.vips for entry in found.ports] == [(A,)]


def test_a_task_label_makes_a_port_where_nothing_else_tells_of_one() -> None:
    document = labelled("udp:///a:80", {"ports": "[9999-9999]"}, port(9999), statuses=[status(1.0, CONTAINER)])
    assert resolved(document).ports[1] == TaskPort(Protocol.UDP, None, 9999, vips=(A,))
    bridged = {
        "type": "DOCKER",
        "docker": {"network": "BRIDGE", "port_mappings": [{"container_port": 80, "host_port": 9999, "protocol": "udp"}]},
    }
    assert resolved(document | {"container": bridged}).ports[1] == TaskPort(Protocol.UDP, 80, 9999, vips=(A,))


def test_a_task_label_finds_a_port_that_is_said_to_be_the_hosts() -> None:
    document = labelled("tcp:///a:80", {"ports": "[9999]"}, port(9999, "network-scope=host"), statuses=[status(1.0, CONTAINER)])
    assert resolved(document).ports == (TaskPort(Protocol.TCP, None, 9999, vips=(A,)),)


@pytest.mark.parametrize(
    "resources",
    [
        None,
        {},
        {"ports": ""},
        {"ports": "[x-y]"},
        {"ports": "[5-1]"},
        {"ports": "[1-99999999]"},
        [{"name": "ports"}],
        [{"name": "ports", "scalar": {"value": "x"}}],
    ],
)
def test_a_task_label_for_a_port_that_is_not_there_is_told(resources: Any) -> None:
    found = resolved(labelled("tcp:///a:80", resources))
    assert found.ports == ()
    assert [(problem.key, problem.reason) for problem in found.problems] == [
        ("vip_port0", "the task has no port 0 (counted from 0)")
    ]


@given(st.lists(st.tuples(st.integers(1, 300), st.integers(0, 40)), max_size=6), st.integers(0, 120))
def test_the_nth_port_is_that_of_all_ranges_one_after_another(spans: list[tuple[int, int]], index: int) -> None:
    flat = [number for begin, more in spans for number in range(begin, begin + more + 1)]
    text = "[" + ", ".join(f"{begin}-{begin + more}" for begin, more in spans) + "]"
    found = resolved(labelled("tcp:///a:80", {"ports": text}, key=f"vip_port{index}"))
    assert [entry.port for entry in found.ports] == (flat[index : index + 1])


def test_problems_of_labels_are_kept_with_the_task() -> None:
    found = resolved(labelled("nonsense", {"ports": "[1-1]"}, port(80, "VIP_0=nonsense", "VIP_1=/a:80")))
    assert [problem.key for problem in found.problems] == ["VIP_0", "vip_PORT0"]
    assert [entry.vips for entry in found.ports] == [(A,)]
    assert str(found.key) == "f/t"
