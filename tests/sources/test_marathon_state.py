"""What Marathon says of its apps: ports of every kind of network, of old and new versions; health; and what is wrong."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyminuteman.errors import MinutemanError
from pyminuteman.sources import marathon_state
from pyminuteman.sources.base import SourceError
from pyminuteman.sources.marathon_state import MarathonState
from pyminuteman.sources.mesos_tasks import Task, TaskPhase
from pyminuteman.sources.mesos_vips import TaskVIPs, vips_of

AGENT = "10.0.0.1"
CONTAINER = "9.0.0.7"


def task(**changes: Any) -> dict[str, Any]:
    return {
        "id": "web.1",
        "appId": "/web",
        "host": AGENT,
        "ports": [31000, 31001],
        "state": "TASK_RUNNING",
        "slaveId": "S0",
    } | changes


def app(*tasks: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"id": "/web", "tasks": list(tasks or (task(),)), "labels": {}, "healthChecks": []} | changes


def read(*apps: dict[str, Any], **options: Any) -> list[Task]:
    return MarathonState({"apps": list(apps)}, framework="marathon", **options).tasks({})


def vips(*apps: dict[str, Any]) -> TaskVIPs:
    return vips_of(read(*apps))


def told(found: TaskVIPs) -> dict[str, list[str]]:
    return {str(vip.key): [str(backend.key) for backend in vip.backends] for vip in found.vips}


def definition(label: str = "", **changes: Any) -> dict[str, Any]:
    return {"port": 10000, "protocol": "tcp"} | ({"labels": {"VIP_0": label}} if label else {}) | changes


def mapping(label: str = "", **changes: Any) -> dict[str, Any]:
    return (
        {"containerPort": 80, "hostPort": 0, "servicePort": 10000, "protocol": "tcp"}
        | ({"labels": {"VIP_0": label}} if label else {})
        | changes
    )


BRIDGE: dict[str, Any] = {"networks": [{"mode": "container/bridge"}]}
OVERLAY: dict[str, Any] = {"networks": [{"mode": "container", "name": "dcos"}]}
IN_CONTAINER = {"ipAddresses": [{"ipAddress": CONTAINER, "protocol": "IPv4"}]}


@pytest.mark.parametrize("document", [None, [], {}, {"apps": {}}, {"message": "no leader"}])
def test_what_is_no_list_of_apps_raises(document: Any) -> None:
    with pytest.raises(SourceError, match="is no list of apps of Marathon"):
        MarathonState(document, framework="marathon")


def test_an_app_without_vips_wants_nothing() -> None:
    assert vips(app(portDefinitions=[definition()])) == TaskVIPs()
    assert vips() == TaskVIPs()


# -- ports -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "network", [{}, {"networks": [{"mode": "host"}]}, {"container": {"type": "DOCKER", "docker": {"network": "HOST"}}}]
)
@pytest.mark.parametrize("addresses", [{}, {"ipAddresses": [{"ipAddress": AGENT}]}])
def test_on_the_hosts_network_the_numbers_of_the_task_are_those_of_its_definitions(network: Any, addresses: Any) -> None:
    found = vips(app(task(**addresses), portDefinitions=[definition("/a:80"), definition("1.2.3.4:81")], **network))
    assert told(found) == {"tcp://1.2.3.4:81": [f"{AGENT}:31001"], "tcp:///a@marathon:80": [f"{AGENT}:31000"]}
    assert [backend.local for vip in found.vips for backend in vip.backends] == [None, None]


def test_a_port_on_tcp_and_udp_is_two_vips() -> None:
    found = vips(app(portDefinitions=[definition("/a:80", protocol="udp,tcp")]))
    assert told(found) == {"tcp:///a@marathon:80": [f"{AGENT}:31000"], "udp:///a@marathon:80": [f"{AGENT}:31000"]}


@pytest.mark.parametrize(
    "old_or_new",
    [
        BRIDGE
        | {
            "container": {"type": "MESOS", "portMappings": [mapping("/a:80"), mapping("/b:80", containerPort=0, hostPort=None)]}
        },
        {
            "container": {
                "type": "MESOS",
                "docker": {
                    "network": "BRIDGE",
                    "portMappings": [mapping("/a:80"), mapping("/b:80", containerPort=0, hostPort=None)],
                },
            }
        },
    ],
)
def test_behind_a_bridge_a_port_is_at_the_agent_and_locally_at_the_container(old_or_new: Any) -> None:
    found = vips(app(task(**IN_CONTAINER), **old_or_new))
    assert told(found) == {"tcp:///a@marathon:80": [f"{AGENT}:31000"], "tcp:///b@marathon:80": [f"{AGENT}:31001"]}
    assert [str(backend.local) for vip in found.vips for backend in vip.backends] == [f"{CONTAINER}:80", f"{CONTAINER}:31001"]


def test_containers_of_docker_have_no_way_past_their_mapping() -> None:
    found = vips(app(task(**IN_CONTAINER), container={"type": "DOCKER", "portMappings": [mapping("/a:80")]}, **BRIDGE))
    assert [backend.local for vip in found.vips for backend in vip.backends] == [None]


def test_on_an_overlay_a_port_is_the_containers_unless_it_asks_for_one_of_the_host() -> None:
    mappings = [mapping("/a:80", hostPort=None), mapping("/b:80", containerPort=81, hostPort=0)]
    found = vips(app(task(ports=[31000], **IN_CONTAINER), container={"type": "MESOS", "portMappings": mappings}, **OVERLAY))
    assert told(found) == {"tcp:///a@marathon:80": [f"{CONTAINER}:80"], "tcp:///b@marathon:80": [f"{AGENT}:31000"]}


def test_before_marathon_1_5_the_ports_of_an_address_are_those_to_be_discovered() -> None:
    discovery = {
        "ports": [
            {"number": 80, "name": "http", "protocol": "tcp", "labels": {"VIP_0": "/a:80"}},
            {"number": 0, "labels": {"VIP_0": "/b:80"}},
        ]
    }
    found = vips(app(task(ports=[], **IN_CONTAINER), ipAddress={"networkName": "dcos", "discovery": discovery}))
    assert told(found) == {"tcp:///a@marathon:80": [f"{CONTAINER}:80"]}
    assert [problem.reason for problem in found.problems] == ["the task has no number for it: its VIPs lead nowhere"]
    user = {"type": "DOCKER", "docker": {"network": "USER", "portMappings": [mapping("/a:80", hostPort=None)]}}
    assert told(vips(app(task(ports=[], **IN_CONTAINER), container=user))) == {"tcp:///a@marathon:80": [f"{CONTAINER}:80"]}


def test_a_task_with_fewer_numbers_than_ports_loses_the_ports_without_one() -> None:
    found = vips(app(task(ports=[31000]), portDefinitions=[definition("/a:80"), definition("/b:80"), definition()]))
    assert told(found) == {"tcp:///a@marathon:80": [f"{AGENT}:31000"]}
    assert [problem.where for problem in found.problems] == ["task marathon/web.1: port 1"]


def test_labels_of_an_app_are_those_of_its_tasks() -> None:
    labels = {"VIP_PORT1": "udp://1.2.3.4:53", "vip_PORT0": "tcp:///a:80", "HAPROXY_GROUP": "external"}
    assert told(vips(app(labels=labels, ports=[10000, 10001]))) == {
        "tcp:///a@marathon:80": [f"{AGENT}:31000"],
        "udp://1.2.3.4:53": [f"{AGENT}:31001"],
    }


def test_what_is_wrong_with_a_label_or_a_protocol_costs_that_alone() -> None:
    found = vips(
        app(
            portDefinitions=[definition("nonsense"), definition("/b:80", protocol="sctp")],
            labels={"vip_port0": "tcp:///c:80", "vip_port9": "tcp:///d:80"},
        )
    )
    assert told(found) == {"tcp:///c@marathon:80": [f"{AGENT}:31000"]}
    assert [problem.where for problem in found.problems] == [
        f"task marathon/web.1: {key}" for key in ("VIP_0", "port 1", "vip_port9")
    ]


def test_the_rules_for_labels_may_be_the_legacy_ones() -> None:
    document = app(portDefinitions=[definition(labels={"MY_VIP": "10.1:80"})])
    assert told(vips_of(read(document, legacy=True))) == {"tcp://10.0.0.1:80": [f"{AGENT}:31000"]}
    assert vips(document) == TaskVIPs()


# -- tasks -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "phase"),
    [
        ({}, TaskPhase.RUNNING),
        ({"state": "TASK_KILLING"}, TaskPhase.KILLING),
        ({"state": "TASK_STAGING"}, TaskPhase.PREPARING),
        ({"state": None, "startedAt": "2015-01-01T00:00:00.000Z"}, TaskPhase.RUNNING),
        ({"state": None, "startedAt": None}, TaskPhase.PREPARING),
    ],
)
def test_how_far_a_task_is_comes_from_its_state_or_before_1_2_from_its_start(changes: Any, phase: TaskPhase) -> None:
    assert [found.phase for found in read(app(task(**changes)))] == [phase]


@pytest.mark.parametrize(
    ("checks", "results", "weight"),
    [
        ([], None, 1),
        ([{"protocol": "HTTP"}], None, 0),
        ([{"protocol": "HTTP"}], [], 0),
        ([{"protocol": "HTTP"}], [{"alive": True}], 1),
        ([{}, {}], [{"alive": True}, {"alive": False}], 0),
        ([{}], [{"alive": "yes"}], 0),
    ],
)
def test_a_task_with_checks_takes_connections_once_all_of_them_say_that_it_lives(
    checks: Any, results: Any, weight: int
) -> None:
    (found,) = read(app(task(healthCheckResults=results), healthChecks=checks))
    assert found.weight == weight


def test_a_task_counts_once_its_agents_name_is_looked_up() -> None:
    state = MarathonState(
        {"apps": [app(task(host="a.example"), task(id="web.2"), task(id=""), task(host=None))]}, framework="m"
    )
    assert (state.unresolved, len(state), state.odd) == ({"a.example"}, 2, 2)
    assert [found.key.task_id for found in state.tasks({})] == ["web.2"]
    assert [found.agent for found in state.tasks({"a.example": "10.0.0.9"})] == ["10.0.0.9", AGENT]


def test_there_is_a_limit_to_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(marathon_state, "TASKS_MAX", 2)
    tasks = [task(id=f"web.{number}") for number in range(3)]
    assert len(read(app(*tasks[:2]))) == 2
    with pytest.raises(SourceError, match="more than 2 tasks"):
        read(app(*tasks))


# -- anything ----------------------------------------------------------------------------------------------------------

WHOLE = {
    "apps": [
        app(
            task(**IN_CONTAINER, healthCheckResults=[{"alive": True}]),
            container={"type": "MESOS", "portMappings": [mapping("/a:80")]},
            **BRIDGE,
        ),
        app(portDefinitions=[definition("/b:80")], labels={"vip_port0": "tcp://1.2.3.4:80"}),
        app(ipAddress={"discovery": {"ports": [{"number": 80, "labels": {"VIP_0": "/c:80"}}]}}),
    ]
}
JUNK = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=3)
    | st.just([])
    | st.just({})
    | st.just([{}])
    | st.just("\ud800")
)


def spots(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    return [path, *(spot for key, value in inner for spot in spots(value, (*path, key)))]


@given(data=st.data())
def test_whatever_is_wrong_with_an_answer_it_is_a_clear_error_or_costs_a_part(data: st.DataObject) -> None:
    document: Any = {"whole": copy.deepcopy(WHOLE)}
    for _ in range(data.draw(st.integers(1, 3))):
        *path, last = data.draw(st.sampled_from(spots(document)[1:]))
        place = document
        for key in path:
            place = place[key]
        place[last] = data.draw(JUNK)
    try:
        state = MarathonState(document["whole"], framework="marathon")
    except MinutemanError as error:
        assert str(error)  # noqa: PT017 - most do no harm
    else:
        vips_of(state.tasks(dict.fromkeys(state.unresolved, AGENT)))
