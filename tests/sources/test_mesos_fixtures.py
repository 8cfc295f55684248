"""What the predecessors' own recordings come to: the tasks and VIPs that their tests assert, and what differs and why."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pyminuteman.ipvs.service import Protocol
from pyminuteman.sources.mesos_state import MesosState
from pyminuteman.sources.mesos_tasks import Task, TaskKey, TaskPhase
from pyminuteman.sources.mesos_vips import TaskVIPs, vips_of
from pyminuteman.vips.model import VIP, Backend, BackendKey, VIPKey, VIPName

DATA = Path(__file__).parents[1] / "data"
EXPECTED_TASKS = json.loads((DATA / "dcos-net-master" / "expected_tasks.json").read_text())
EXPECTED_VIPS = json.loads((DATA / "minuteman" / "expected_vips.json").read_text())
TASK_FILES = sorted(name for name in EXPECTED_TASKS if not name.startswith("_"))
STATE_FILES = sorted(name for name in EXPECTED_VIPS["minuteman"])


def read(directory: str, name: str) -> list[Any]:
    """The documents of a file: one, or a line each."""
    content = (DATA / directory / name).read_text()
    try:
        return [json.loads(content)]
    except json.JSONDecodeError:
        return [json.loads(line) for line in content.splitlines() if line.strip()]


def operator_state(name: str) -> MesosState:
    """A file of the operator API, whichever kind it is; the one agent that has a name has the address that its test gives it."""
    first, *events = read("dcos-net-master", name)
    if first["type"] == "GET_STATE":
        assert not events
        state = MesosState.of_operator_api(first)
    else:
        state = MesosState.of_stream(first)
        for event in events:
            state.apply(event)
    state.resolve({"localhost": "127.0.0.1"})
    return state


def as_expected(task: Task) -> dict[str, Any]:
    """A task in the words of the expectations."""
    ports = [
        {"name": port.name, "protocol": port.protocol.name.lower()}
        | ({} if port.port is None else {"port": port.port})
        | ({} if port.host_port is None else {"host_port": port.host_port})
        | ({"vip": [f"{vip.host}:{vip.port}" for vip in port.vips]} if port.vips else {})
        for port in task.ports
    ]
    return (
        {
            "name": task.name,
            "runtime": task.runtime.value,
            "framework": task.framework,
            "agent_ip": task.agent,
            "task_ip": list(task.addresses),
            "state": task.phase.value,
        }
        | ({"ports": in_order(ports)} if ports else {})
        | ({} if task.healthy is None else {"healthy": task.healthy})
    )


def in_order(ports: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(ports, key=lambda port: (port["protocol"], port.get("port", 0), port.get("host_port", 0)))


@pytest.mark.parametrize("name", TASK_FILES)
def test_tasks_are_what_dcos_net_makes_of_them(name: str) -> None:
    expected = EXPECTED_TASKS[name]
    found = {f"{task.key.framework_id}|{task.key.task_id}": as_expected(task) for task in operator_state(name).tasks()}
    for task in expected["tasks"].values():
        if "ports" in task:
            task["ports"] = in_order(task["ports"])
    if expected["_partial"]:
        found = {key: task for key, task in found.items() if key in expected["tasks"]}
    assert found == expected["tasks"]


@pytest.mark.parametrize("name", TASK_FILES)
def test_nothing_of_a_recording_is_a_problem_or_parked(name: str) -> None:
    state = operator_state(name)
    assert state.waiting == 0
    assert state.unresolved == set()
    assert vips_of(state.tasks()).problems == ()


def test_a_stream_comes_to_what_get_state_says_at_its_end() -> None:
    first, *events = read("dcos-net-master", "operator-api.json")
    state = MesosState.of_stream(first)
    tasks: dict[str, Any] = {}
    statuses: dict[str, list[Any]] = {}
    frameworks = list(first["subscribed"]["get_state"]["get_frameworks"]["frameworks"])
    for event in events:
        state.apply(event)
        if event["type"] == "TASK_ADDED":
            task = event["task_added"]["task"]
            tasks[task["task_id"]["value"]] = task
        elif event["type"] == "TASK_UPDATED":
            update = event["task_updated"]
            statuses.setdefault(update["status"]["task_id"]["value"], []).insert(0, update["status"])  # in no order
            tasks[update["status"]["task_id"]["value"]]["state"] = update["state"]
        else:
            frameworks.append(event["framework_updated"]["framework"])
    whole = {
        "type": "GET_STATE",
        "get_state": {
            "get_agents": first["subscribed"]["get_state"]["get_agents"],
            "get_frameworks": {"frameworks": frameworks},
            "get_tasks": {"tasks": [task | {"statuses": statuses[name]} for name, task in tasks.items()]},
        },
    }
    assert len(tasks) == 12
    assert MesosState.of_operator_api(whole).tasks() == state.tasks()


# -- VIPs --------------------------------------------------------------------------------------------------------------


def rows(found: TaskVIPs) -> list[Any]:
    """VIPs in the words of the expectations."""
    return [
        [
            vip.key.protocol.name.lower(),
            [vip.key.host.label, vip.key.host.framework] if isinstance(vip.key.host, VIPName) else vip.key.host,
            vip.key.port,
            [[backend.agent, backend.address, backend.port] for backend in vip.backends],
        ]
        for vip in found.vips
    ]


def state_vips(directory: str, name: str, *, legacy: bool = False, ipv6: bool = True) -> TaskVIPs:
    (document,) = read(directory, name)
    state = MesosState.of_state(document, legacy=legacy)
    assert state.waiting == 0
    return vips_of(state.tasks(), ipv6=ipv6)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("name", STATE_FILES)
def test_vips_of_a_state_are_what_minuteman_makes_of_it_by_either_rules(name: str, legacy: bool) -> None:
    expected = [[protocol, host, port, sorted(backends)] for protocol, host, port, backends in EXPECTED_VIPS["minuteman"][name]]
    assert rows(state_vips("minuteman", name, legacy=legacy)) == expected


def test_a_bridged_container_of_docker_is_found_at_its_host_port() -> None:
    for legacy in (False, True):
        found = state_vips("minuteman", "docker.json", legacy=legacy)
        assert rows(found) == [["tcp", "1.2.3.4", 5000, [["10.0.2.4", "10.0.2.4", 28027]]]]
        assert found.vips[0].backends[0].local is None


def test_a_cluster_without_tasks_wants_nothing() -> None:
    assert state_vips("minuteman", "empty.json") == TaskVIPs()


@pytest.mark.parametrize(
    ("name", "reason"), [("missing-port.json", "is not HOST:PORT"), ("invalid-port.json", "invalid-port:")]
)
def test_a_label_that_is_none_is_told_with_its_task_and_key(name: str, reason: str) -> None:
    for legacy in (False, True):
        found = state_vips("minuteman", name, legacy=legacy)
        assert found.vips == ()
        (problem,) = found.problems
        assert "catsmeow.1d28d7c0" in problem.where
        assert problem.where.endswith("VIP_0")
        assert reason in problem.reason or (legacy and "is not a port" in problem.reason)


@pytest.mark.parametrize("name", ["state6.json", "state_ipv6.json"])
def test_vips_of_a_state_are_what_dcos_net_makes_of_it(name: str) -> None:
    assert rows(state_vips("dcos-net-1.11.x", name)) == EXPECTED_VIPS["dcos-net-1.11.x"][name]


@pytest.mark.parametrize("name", ["state_ipv6.json", "state2_ipv6.json"])
def test_without_ipv6_its_vips_and_backends_are_left_out(name: str) -> None:
    found = state_vips("dcos-net-1.11.x", name, ipv6=False)
    assert rows(found) == EXPECTED_VIPS["dcos-net-1.11.x"][f"{name} (enable_ipv6=false)"]


def test_an_ipv6_vip_takes_ipv6_backends_only_as_later_dcos_net_has_it() -> None:
    """dcos-net 1.11 gave it the IPv4 backend as well, which IPVS cannot reach by NAT."""
    ((protocol, host, port, backends),) = EXPECTED_VIPS["dcos-net-1.11.x"]["state2_ipv6.json"]
    found = state_vips("dcos-net-1.11.x", "state2_ipv6.json")
    assert rows(found) == [[protocol, host, port, [backend for backend in backends if ":" in backend[1]]]]
    assert [warning.reason for warning in found.warnings] == [
        "'fd01:d::1:80' is taken for [fd01:d::1]:80; write it with brackets"
    ]


def test_a_port_mapping_is_passed_by_on_the_containers_own_host() -> None:
    expected = EXPECTED_VIPS["dcos-net-1.11.x"]["state.json"]
    ((_, host_port, address, port),) = expected["local_port_mappings"]
    (vip,) = state_vips("dcos-net-1.11.x", "state.json").vips
    (agent, backend, number) = expected["kv_backends"][0]
    assert vip.key == VIPKey.tcp(VIPName("/test", "marathon"), 80)
    assert vip.backends == (Backend(backend, number, 1, agent, BackendKey(address, port)),)
    assert host_port == number


def test_five_vips_are_in_the_labels_of_one_task() -> None:
    found = vips_of(operator_state("vip-labels.json").tasks())
    agent = "172.17.0.3"
    assert {str(vip.key): [str(backend.key) for backend in vip.backends] for vip in found.vips} == {
        "tcp:///abc@marathon:80": [f"{agent}:9999"],
        "tcp:///cbd@marathon:80": [f"{agent}:9999"],
        "tcp:///xyz@marathon:443": [f"{agent}:10001"],
        "tcp://def@marathon:80": [f"{agent}:9999"],
        "tcp://jkl@marathon:80": [f"{agent}:10000"],
    }


def test_one_number_on_tcp_and_udp_is_two_vips() -> None:
    found = vips_of(operator_state("tcp-and-udp.json").tasks())
    assert [vip.key.protocol for vip in found.vips] == [Protocol.TCP, Protocol.UDP]


def test_a_task_that_is_not_healthy_keeps_its_connections_and_gets_no_new_ones() -> None:
    (vip,) = vips_of(operator_state("unhealthy.json").tasks()).vips
    assert vip.backends == (Backend("9.0.1.6", 80, 0, "172.17.0.4"),)


def test_a_container_behind_a_mapping_is_found_at_the_agent_and_locally_at_itself() -> None:
    (vip,) = vips_of(operator_state("recovered-agents.json").tasks()).vips
    expected = (Backend("172.17.0.4", 16424, 1, "172.17.0.4", BackendKey("172.31.254.10", 10080)),)
    assert vip == VIP(VIPKey.tcp(VIPName("/web", "marathon"), 10080), expected, principal="marathon")


# -- what the poller publishes, as dcos_l4lb_mesos_poller_SUITE has it -----------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "weight"),
    [
        ({}, 1),
        ({"healthy": True}, 1),
        ({"healthy": False}, 0),
        ({"phase": TaskPhase.KILLING}, 0),
        ({"phase": TaskPhase.ENDED}, None),
    ],
)
def test_a_backend_lives_and_ends_with_its_task(changes: dict[str, Any], weight: int | None) -> None:
    (task,) = MesosState.of_state(read("minuteman", "named-base-vips.json")[0]).tasks()
    (port,) = task.ports
    task = replace(task, addresses=("9.0.1.29",), ports=(replace(port, port=80, host_port=12049),), **changes)
    found = vips_of([task]).vips
    key = VIPKey.tcp(VIPName("merp", "marathon"), 5000)
    expected = Backend("10.0.0.243", 12049, weight or 0, "10.0.0.243", BackendKey("9.0.1.29", 80))
    assert found == (() if weight is None else (VIP(key, (expected,), principal="marathon"),))


@pytest.mark.parametrize(
    ("vip", "backend", "off", "on"),
    [
        ("merp", "9.0.1.29", True, True),
        ("merp", "fd01::1", False, True),
        ("1.2.3.4", "9.0.1.29", True, True),
        ("1.2.3.4", "fd01::1", False, False),
        ("[fd00::1]", "9.0.1.29", False, False),
        ("[fd00::1]", "fd01::1", False, True),
    ],
)
def test_which_backends_a_vip_takes_is_dcos_nets_table(vip: str, backend: str, off: bool, on: bool) -> None:
    (document,) = read("minuteman", "named-base-vips.json")
    port = document["frameworks"][0]["executors"][0]["tasks"][0]["discovery"]["ports"]["ports"][0]
    port["labels"]["labels"][0]["value"] = f"{vip}:5000"
    (task,) = MesosState.of_state(document).tasks()
    assert task.key == TaskKey("f4770901-e0bf-4e93-ada6-8a824fd22844-0000", "catsmeow.6e53a5c1-1f27-11e6-bc04-4e40412869d8")
    task = replace(task, addresses=(backend,))
    for ipv6, expected in ((False, off), (True, on)):
        found = vips_of([task], ipv6=ipv6)
        assert bool(found.vips) is expected
        assert bool(found.problems) is not expected


@pytest.mark.parametrize(
    ("healthy", "health_check", "weight"), [(None, True, 0), (None, False, 1), (True, True, 1), (False, True, 0)]
)
def test_a_task_with_a_health_check_waits_for_its_first_result(healthy: bool | None, health_check: bool, weight: int) -> None:
    """The four tasks of ``healthy.term``: slowstart and unhealthy have a check without a result, nohealthcheck has none."""
    (document,) = read("dcos-net-1.11.x", "state6.json")
    task = document["frameworks"][0]["executors"][0]["tasks"][0]
    newest = max(task["statuses"], key=lambda status: status["timestamp"])
    newest.pop("healthy")
    if healthy is not None:
        newest["healthy"] = healthy
    if health_check:
        task["health_check"] = {"type": "HTTP"}
    (vip,) = vips_of(MesosState.of_state(document).tasks()).vips
    assert [backend.weight for backend in vip.backends] == [weight]
