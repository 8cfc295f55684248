"""What comes of a Consul's services: VIPs by mapping and by tags, and what is wrong with one instance costs that one alone."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyminuteman.ipvs.destination import ForwardingMethod
from pyminuteman.ipvs.service import ServiceFlags
from pyminuteman.sources.base import SourceError, SourceState
from pyminuteman.sources.consul_services import (
    Instance,
    assemble,
    is_claimed,
    next_index,
    read_catalog,
    read_instances,
    vip_document,
)
from pyminuteman.vips.model import Backend, VIPKey, VIPName

VIP_TAG = "minuteman.vip=tcp://11.0.0.1:80"


def row(**changes: Any) -> dict[str, Any]:
    service = {"ID": "web-1", "Service": "web", "Tags": [VIP_TAG, "v2"], "Address": "10.0.0.5", "Port": 8080}
    service |= {"Weights": {"Passing": 10, "Warning": 2}} | changes.pop("service", {})
    node = {"Node": "n1", "Address": "10.9.0.1"} | changes.pop("node", {})
    return {"Node": node, "Service": service, "Checks": [{"Status": "passing"}], **changes}


def one(row: dict[str, Any]) -> Instance:
    (instance,), problems = read_instances([row])
    assert problems == []
    return instance


def instance(number: int, *tags: str, **changes: Any) -> Instance:
    fields: dict[str, Any] = {"where": f"web {number}", "address": f"10.0.0.{number}", "port": 8080, "weight": 1, "agent": ""}
    return Instance(**(fields | {"tags": frozenset(tags or ("vip=tcp://11.0.0.1:80",))} | changes))


def tagged(*instances: Instance, service: str = "web", tags: tuple[str, ...] = ()) -> SourceState:
    seen = {f"minuteman.{tag}" for one in instances for tag in one.tags}
    return assemble({}, {service: seen | set(tags)}, {service: list(instances)}, with_agents=False)


def reasons(state: SourceState) -> str:
    return "\n".join(map(str, state.problems))


# -- the index --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "answered", "following"),
    [
        (0, "7", 7),
        (7, "7", 7),
        (7, "8", 8),
        (7, "6", 0),
        (0, "0", 0),
        (5, "0", 0),
        (7, None, 0),
        (7, "", 0),
        (7, "x", 0),
        (7, "-1", 0),
        (7, "\u0667", 0),
        (7, "9" * 30, 0),
    ],
)
def test_the_index_only_goes_on_or_begins_anew(asked: int, answered: str | None, following: int) -> None:
    assert next_index(asked, answered) == following


# -- reading ----------------------------------------------------------------------------------------------------------------


def test_an_instance_is_read_with_its_weight_and_tags() -> None:
    assert one(row()) == Instance("web web-1 on n1", "10.0.0.5", 8080, 10, "10.9.0.1", frozenset({"vip=tcp://11.0.0.1:80"}))


def test_an_instance_without_an_address_has_that_of_its_node() -> None:
    assert one(row(service={"Address": ""})).address == "10.9.0.1"


@pytest.mark.parametrize(
    ("states", "weight"),
    [([], 10), (["passing"], 10), (["passing", "warning"], 2), (["warning", "critical"], 0), (["passing", "maintenance"], 0)],
)
def test_the_worst_check_decides_the_weight(states: list[str], weight: int) -> None:
    assert one(row(Checks=[{"Status": state} for state in states])).weight == weight


@pytest.mark.parametrize(
    ("weights", "weight"),
    [(None, 1), ({}, 1), ({"Passing": 99999}, 65535), ({"Passing": -1}, 1), ({"Passing": True}, 1), ({"Passing": "x"}, 1)],
)
def test_weights_that_are_none_are_one_and_large_ones_are_cut(weights: object, weight: int) -> None:
    assert one(row(service={"Weights": weights})).weight == weight


def test_what_is_missing_in_consul_is_null_and_means_nothing() -> None:
    found = one(row(service={"Tags": None, "Weights": None}, Checks=None))
    assert (found.tags, found.weight) == (frozenset(), 1)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"service": {"Address": "db.example"}}, "is no IP address"),
        ({"service": {"Address": ""}, "node": {"Address": ""}}, "is no IP address"),
        ({"service": {"Port": 0}}, "has no port"),
        ({"service": {"Port": 70000}}, "has no port"),
        ({"service": {"Port": True}}, "has no port"),
        ({"service": {"Port": None}}, "has no port"),
    ],
)
def test_an_instance_that_takes_no_connections_is_left_out_alone(changes: dict[str, Any], reason: str) -> None:
    found, problems = read_instances([row(**changes), row(service={"ID": "web-2", "Address": "10.0.0.6"})])
    assert [one.address for one in found] == ["10.0.0.6"]
    assert [problem.where for problem in problems] == ["web web-1 on n1"]
    assert reason in problems[0].reason


def test_a_node_by_name_is_no_agent() -> None:
    assert one(row(node={"Address": "n1.example"})).agent == ""


@pytest.mark.parametrize(
    "answer",
    [
        {},
        [3],
        [{}],
        [{"Service": {}}],
        [row(service={"Tags": "x"})],
        [row(service={"Tags": [3]})],
        [row(service={"Address": 3})],
        [row(service={"Weights": 3})],
        [row(Checks={})],
        [row(Checks=[3])],
        [row(Checks=[{"Status": 3}])],
    ],
)
def test_what_no_consul_answers_is_an_error_and_not_an_empty_service(answer: object) -> None:
    if answer == {}:
        with pytest.raises(SourceError):
            read_catalog([])
        with pytest.raises(SourceError):
            read_catalog({"web": "x"})
    with pytest.raises(SourceError):
        read_instances(answer)


def test_the_catalog_is_read() -> None:
    assert read_catalog({"consul": [], "web": [VIP_TAG]}) == {"consul": frozenset(), "web": frozenset({VIP_TAG})}
    assert is_claimed([VIP_TAG])
    assert not is_claimed(["minuteman.scheduler=rr", "vip=tcp://11.0.0.1:80"])


# -- VIPs by tags -------------------------------------------------------------------------------------------------------------


def test_a_tag_makes_a_vip_on_behalf_of_its_service() -> None:
    (vip,) = tagged(instance(1), instance(2, weight=3)).vips
    assert vip.key == VIPKey.tcp("11.0.0.1", 80)
    assert vip.principal == "web"
    assert vip.backends == (Backend("10.0.0.1", 8080), Backend("10.0.0.2", 8080, 3))


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("tcp://11.0.0.1:80", VIPKey.tcp("11.0.0.1", 80)),
        ("udp://[fd00::1]:53", VIPKey.udp("fd00::1", 53)),
        ("tcp://web:80", VIPKey.tcp(VIPName("web", "consul"), 80)),
        ("udp://a.b-c:53", VIPKey.udp(VIPName("a.b-c", "consul"), 53)),
    ],
)
def test_a_vip_is_an_address_or_a_name(text: str, key: VIPKey) -> None:
    (vip,) = assemble({"web": vip_document(text)}, {}, {}, with_agents=False).vips
    assert vip.key == key


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tcp://",
        "11.0.0.1:80",
        "tcp://11.0.0.300:80",
        "tcp://11.0.0.1",
        "tcp://web:http",
        "tcp://web:0",
        "tcp://web:999999",
        "tcp://:80",
        "ftp://web:80",
    ],
)
def test_a_tag_that_is_no_vip_is_a_problem_of_its_service(text: str) -> None:
    state = tagged(instance(1, f"vip={text}"), instance(2))
    assert [str(vip.key) for vip in state.vips] == ["tcp://11.0.0.1:80"]
    assert [problem.where for problem in state.problems] == ["service web"]


def test_a_vip_has_those_instances_that_carry_its_tag() -> None:
    old, new = "vip=tcp://11.0.0.1:80", "vip=tcp://11.0.0.2:80"
    state = tagged(instance(1, old), instance(2, old, new), instance(3, new))
    assert [[backend.address for backend in vip.backends] for vip in state.vips] == [
        ["10.0.0.1", "10.0.0.2"],
        ["10.0.0.2", "10.0.0.3"],
    ]
    assert state.problems == ()


def test_a_service_none_of_whose_instances_passes_keeps_its_vip_without_backends() -> None:
    (vip,) = tagged(tags=(VIP_TAG, "v2")).vips
    assert vip.backends == ()


def test_tags_set_what_documents_set() -> None:
    tags = (
        "vip=tcp://11.0.0.1:8080",
        "scheduler=mh",
        "flags=mh-port,mh-fallback",
        "persistence=60",
        "forward=route",
        "drain=30",
    )
    state = tagged(instance(1, *tags))
    assert reasons(state) == ""
    settings = state.vips[0].settings
    assert settings.scheduler == "mh"
    assert settings.flags == ServiceFlags.MH_PORT | ServiceFlags.MH_FALLBACK
    assert settings.persistence is not None
    assert settings.persistence.timeout_seconds == 60
    assert settings.forward is ForwardingMethod.ROUTE
    assert settings.drain_seconds == 30


@pytest.mark.parametrize(
    "tag", ["drain=soon", "drain=999999", "drain=" + "9" * 5000, "persistence=x", "flags=nonsense", "scheduler=", "forward=up"]
)
def test_a_setting_that_is_none_costs_the_vip_and_says_so(tag: str) -> None:
    state = tagged(instance(1, "vip=tcp://11.0.0.1:80", tag))
    assert state.vips == ()
    assert tag.partition("=")[0] in reasons(state)


def test_a_tag_of_ours_that_nobody_knows_is_told_and_costs_nothing() -> None:
    state = tagged(instance(1, "vip=tcp://11.0.0.1:80", "schedular=rr"))
    assert len(state.vips) == 1
    assert "unknown tag 'minuteman.schedular=rr'; there are drain, flags, forward, persistence, scheduler, vip" in reasons(
        state
    )


def test_where_instances_disagree_the_first_has_it() -> None:
    tags = "vip=tcp://11.0.0.1:80"
    state = tagged(instance(1, tags), instance(2, tags, "scheduler=wrr"), instance(3, tags, "scheduler=rr"))
    assert state.vips[0].settings.scheduler == "wrr"
    assert "its instances disagree on scheduler: wrr counts, not rr" in reasons(state)
    gone = tagged(instance(1, tags), tags=("minuteman.scheduler=wrr", "minuteman.scheduler=rr"))
    assert gone.vips[0].settings.scheduler == "rr", "nobody is there to decide it"


# -- by mapping, and between services -------------------------------------------------------------------------------------------


def test_a_mapped_service_needs_no_tag_and_its_tags_say_nothing() -> None:
    document = {"listen": "tcp://11.0.0.7:443", "scheduler": "rr"}
    state = assemble({"web": document}, {"web": {VIP_TAG}}, {"web": [instance(1)]}, with_agents=False)
    (vip,) = state.vips
    assert (str(vip.key), vip.principal, vip.settings.scheduler) == ("tcp://11.0.0.7:443", "", "rr")
    assert [backend.address for backend in vip.backends] == ["10.0.0.1"]


def test_a_vip_that_two_services_claim_is_that_of_the_mapped_and_then_of_the_first() -> None:
    instances = {"a": [instance(1)], "b": [instance(2)], "z": [instance(3)]}
    catalog = {name: {VIP_TAG} for name in ("b", "a")}
    state = assemble({"z": {"listen": "tcp://11.0.0.1:80"}}, catalog, instances, with_agents=False)
    assert [backend.address for backend in state.vips[0].backends] == ["10.0.0.3"]
    assert reasons(state) == (
        "service a: tcp://11.0.0.1:80 is that of service z already\nservice b: tcp://11.0.0.1:80 is that of service z already"
    )
    state = assemble({}, catalog, instances, with_agents=False)
    assert state.vips[0].principal == "a"


def test_a_service_whose_name_cannot_be_shown_gets_no_vip() -> None:
    state = tagged(instance(1), service="we\nb")
    assert state.vips == ()
    assert len(state.problems) == 1


def test_a_backend_that_cannot_be_is_left_out_alone() -> None:
    state = tagged(instance(1), instance(2, address="fd00::5"), instance(3))
    assert [backend.address for backend in state.vips[0].backends] == ["10.0.0.1", "10.0.0.3"]
    assert [problem.where for problem in state.problems] == ["web 2"]


def test_two_instances_at_one_place_are_one_backend() -> None:
    state = tagged(instance(1), instance(2, address="10.0.0.1", weight=5))
    assert state.vips[0].backends == (Backend("10.0.0.1", 8080, 1),)
    assert "web 2: 10.0.0.1:8080 is that of another instance already" in reasons(state)
    both = tagged(instance(1), instance(2, address="10.0.0.1"), instance(3, address="fd00::5"))
    assert len(both.vips[0].backends) == 1
    assert len(both.problems) == 2


def test_agents_count_where_they_are_members() -> None:
    found = instance(1, agent="10.9.0.1")
    for with_agents, agent in ((True, "10.9.0.1"), (False, "")):
        state = assemble({"web": {"listen": "tcp://11.0.0.1:80"}}, {}, {"web": [found]}, with_agents=with_agents)
        assert state.vips[0].backends[0].agent == agent
    state = assemble({"web": {"listen": "tcp://11.0.0.1:80"}}, {}, {"web": [instance(1)]}, with_agents=True)
    assert state.vips[0].backends[0].agent == ""


@given(
    st.permutations(
        [
            row(service={"ID": f"web-{n}", "Address": f"10.0.0.{n}", "Tags": [VIP_TAG, f"minuteman.drain={n}"]})
            for n in range(1, 5)
        ]
    )
)
def test_the_order_of_an_answer_says_nothing(rows: list[dict[str, Any]]) -> None:
    found, _ = read_instances(rows)
    catalog = {"web": {tag for row in rows for tag in row["Service"]["Tags"]}}
    state = assemble({}, catalog, {"web": found}, with_agents=False)
    assert state.vips[0].settings.drain_seconds == 1
    assert len(state.problems) == 1
