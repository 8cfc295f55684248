"""The plain dicts that the API tells: shapes that are promised, and each why."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pyminuteman.addresses import NodeId
from pyminuteman.daemon.observed import (
    FaultObserved,
    Faults,
    HostObserved,
    KernelObserved,
    Mark,
    Moment,
    Names,
    StoreObserved,
    rfc3339,
)
from pyminuteman.daemon.traffic_views import service_text, statistics_view
from pyminuteman.daemon.views import (
    events_view,
    members_view,
    missed_view,
    node_state,
    problems,
    source_state,
    status_view,
    topology_view,
)
from pyminuteman.daemon.vip_views import backends_view, legacy_vips_view, vip_name
from pyminuteman.ipvs import ServiceKey
from pyminuteman.membership import Member, MemberStatus
from pyminuteman.sources.base import SourceState, SourceStatus
from pyminuteman.vips.claims import Claim
from pyminuteman.vips.desired import DesiredTable
from pyminuteman.vips.model import VIP, Backend, BackendKey, VIPKey, VIPName
from pyminuteman.vips.resolution import Reach
from tests.daemon.api.double import CLOCK, DEAD, ME, NAMED, ONE, OTHER, TWO, WALL, WEB, Event, observation, record

MARK = Mark("root", WALL - 1, "disk")
MARKED = {"by": "root", "at": "2026-11-28T04:17:59.123Z", "reason": "disk"}


def test_times_are_rfc_3339() -> None:
    assert rfc3339(0) == "1970-01-01T00:00:00.000Z"
    moment = Moment(WALL, CLOCK)
    assert (moment.now, moment.text(CLOCK - 1.5), moment.text(None)) == (
        "2026-11-28T04:18:00.123Z",
        "2026-11-28T04:17:58.623Z",
        None,
    )


def test_status() -> None:
    found = status_view(observation())
    assert found["node"] == {
        "id": str(ME),
        "name": "one",
        "endpoint": "10.0.0.1:61420",
        "addresses": ["192.0.2.1"],
        "epoch": 7,
        "started_at": "2026-11-28T03:18:00.123Z",
    }
    assert found["members"] == {"alive": 2, "suspect": 0, "down": 1, "left": 0}
    assert [(row["name"], row["state"], row["vips"], row["age_seconds"]) for row in found["sources"]] == [
        ("web", "good", 1, 1.0),
        ("empty", "waiting", 0, None),
    ]
    assert found["sources"][0]["problems"] == [{"where": "web.toml: line 3", "reason": "no address"}]
    assert found["kernel"] == [
        {
            "namespace": "",
            "services": 2,
            "destinations": 4,
            "last_sync_at": "2026-11-28T04:17:50.123Z",
            "last_sync_seconds": 0.012346,
            "syncs": 5,
            "draining": 0,
            "held_back": None,
            "foreign": ["tcp 11.0.0.9:80"],
            "error": "",
        }
    ]
    assert found["host"][0] == {"step": "dummy", "ok": True, "reason": ""}


@pytest.mark.parametrize(
    ("changes", "state", "kinds"),
    [
        ({"feeds": ()}, "running", set()),
        ({"feeds": (), "kernels": ()}, "waiting", set()),
        ({"feeds": (), "kernels": (KernelObserved(),)}, "waiting", set()),
        ({"feeds": (), "kernels": (KernelObserved(error="no"),)}, "degraded", {"sync_failed"}),
        ({"feeds": (), "kernels": (KernelObserved(last_sync_at=1.0), KernelObserved("ns"))}, "running", set()),
        ({"feeds": (), "kernels": (KernelObserved("ns", held="7 of 10", held_services=("x",)),)}, "held", {"held_back"}),
        ({"feeds": (), "store": StoreObserved("etcd", ready=False, problem="away")}, "degraded", {"store"}),
        ({"feeds": (), "host": (HostObserved("masquerade", ok=False, reason="no nft"),)}, "degraded", {"host"}),
    ],
)
def test_the_state_of_a_node(changes: dict[str, Any], state: str, kinds: set[str]) -> None:
    seen = observation(**changes)
    assert node_state(seen) == state
    assert {one["kind"] for one in problems(seen)} == kinds
    assert status_view(seen)["state"] == state


def test_what_is_wrong_with_many_namespaces_hides_nothing_else() -> None:
    kernels = tuple(KernelObserved(f"c{number}", error="no") for number in range(200))
    found = problems(observation(kernels=(KernelObserved(error="own"), *kernels)))
    assert [one["text"] for one in found[:2]] == ["own", "namespace c0: no"]
    assert found[10]["text"] == "191 more network namespaces have no good table, or hold a plan back"
    assert found[11]["kind"] == "source_problem"


def test_what_is_held_back_is_told() -> None:
    kernel = KernelObserved("ns", held="7 of 10 destinations (70 %)", held_id="a" * 16, held_services=("tcp 11.0.0.1:80",))
    seen = observation(kernels=(kernel,))
    assert status_view(seen)["kernel"][0]["held_back"] == {
        "id": "a" * 16,
        "text": kernel.held,
        "services": ["tcp 11.0.0.1:80"],
    }
    assert problems(seen)[0]["text"] == "namespace ns: held back, for it would take away 7 of 10 destinations (70 %)"


def test_what_does_not_count_and_what_could_not_be_said_is_told() -> None:
    assert status_view(observation())["faults"] == {"counts": {}, "shown": []}
    faults = Faults(
        {"claim": 7, "mark": 1, "health": 2},
        (
            FaultObserved("claim", str(OTHER), "vip/1", "no VIP"),
            FaultObserved("mark", "", "drain/x", "no mark"),
            FaultObserved("health", str(OTHER), "unhealthy/10.0.0.1:80", "not its host"),
        ),
        9,
        {f"tcp://11.0.0.{number}:80": "no room" for number in range(120)},
    )
    seen = observation(faults=faults)
    told = status_view(seen)
    assert told["faults"]["counts"] == {"claim": 7, "mark": 1, "health": 2}
    assert told["faults"]["shown"][0] == {"kind": "claim", "node": "two", "key": "vip/1", "reason": "no VIP"}
    assert [one["node"] for one in told["faults"]["shown"]] == ["two", "", "two"]
    assert (len(told["untold"]), told["untold"][0]) == (100, {"vip": "tcp://11.0.0.0:80", "reason": "no room"})
    found = [one["text"] for one in problems(seen) if one["kind"] in {"unreadable", "untold"}]
    assert found == [
        "7 claims cannot be read, as vip/1 of two: no VIP",
        "1 marks cannot be read, as drain/x: no mark",
        "120 VIPs are not told to the others as they are, as tcp://11.0.0.0:80: no room",
    ]
    assert problems(observation(faults=Faults({"health": 2}, faults.shown[2:]))) == problems(observation())


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, "good"),
        ({"state": None}, "waiting"),
        ({"state": None, "status": SourceStatus(reason="refused")}, "failing"),
        ({"stale": True}, "stale"),
        ({"status": SourceStatus(reason="refused")}, "failing"),
    ],
)
def test_the_state_of_a_source(changes: dict[str, Any], state: str) -> None:
    feed = replace(observation().feeds[0], **changes)
    assert source_state(feed) == state
    kinds = {one["kind"] for one in problems(observation(feeds=(feed,)))}
    assert (f"source_{state}" in kinds) == (state in {"stale", "failing"})


def test_a_source_that_has_fallen_silent_without_a_reason() -> None:
    feed = replace(observation().feeds[0], stale=True, state=SourceState())
    assert problems(observation(feeds=(feed,))) == [{"kind": "source_stale", "text": "source web: it has fallen silent"}]


def test_what_fails_open_or_has_no_address_is_a_problem() -> None:
    table = DesiredTable()
    names = [VIPKey.tcp(VIPName("/", "marathon"), 80)]
    table.replace([Claim(VIP(WEB, (Backend("10.0.0.3", 80, agent="10.0.0.3"),)))])
    table.put(names[0], [Claim(VIP(names[0], (Backend("10.0.0.3", 80),)))])
    seen = observation(feeds=(), desired=table.refresh(lambda _: Reach.DOWN))
    assert [one["kind"] for one in problems(seen)] == ["failed_open", "unaddressed"]
    found = backends_view(seen)
    assert found["vips"][0]["failed_open"] == ["its host is out of reach"]
    assert found["vips"][1]["name"] == "/@marathon"
    assert found["vips"][1]["backends"][0]["state"] == "out"


def test_members() -> None:
    seen = observation(node_drains={OTHER: MARK})
    one, dead, other = members_view(seen)["members"]
    assert one == {
        "id": str(ME),
        "name": "one",
        "label": "one",
        "status": "alive",
        "since": "2026-11-28T03:18:00.123Z",
        "endpoint": "10.0.0.1:61420",
        "addresses": ["192.0.2.1"],
        "tags": {"rack": "a"},
        "keys": ["0102"],
        "epoch": 7,
        "neighbours": [str(OTHER)],
        "drained": False,
        "drain": None,
        "backends": 2,
        "me": True,
    }
    assert (dead["status"], dead["since"], dead["backends"]) == ("down", "2026-11-28T04:17:55.123Z", 1)
    assert (other["drained"], other["drain"], other["neighbours"]) == (True, MARKED, [str(ME)])


def test_links_are_told_once_and_none_of_the_dead() -> None:
    found = topology_view(observation(node_drains={OTHER: MARK}))
    assert found["links"] == [[str(ME), str(OTHER)]]
    assert [(node["name"], node["drained"]) for node in found["nodes"]] == [("one", False), ("three", False), ("two", True)]
    third = Member(record(DEAD, "three", "10.0.0.3", neighbours=(OTHER, NodeId(bytes(16)))), MemberStatus.SUSPECT, 0)
    assert len(topology_view(observation(members={**observation().members, DEAD: third}))["links"]) == 2


def test_backends_say_why_they_are_out() -> None:
    seen = observation(
        backend_drains={(WEB, ONE): MARK, (None, TWO): MARK},
        node_drains={DEAD: MARK},
        weights={(None, ONE): (5, MARK)},
    )
    found = backends_view(seen)
    web, named = found["vips"]
    assert {key: web[key] for key in ("vip", "name", "addresses", "port", "protocol", "scheduler")} == {
        "vip": "tcp://11.0.0.1:80",
        "name": "",
        "addresses": ["11.0.0.1"],
        "port": 80,
        "protocol": "tcp",
        "scheduler": "wlc",
    }
    assert (web["sources"], web["claimed_by"], web["failed_open"]) == (["web"], ["one"], [])
    assert (named["vip"], named["name"], named["claimed_by"]) == (str(NAMED), "foo.marathon", ["two"])
    one, two, three = web["backends"]
    assert one == {
        "address": "10.0.0.1",
        "port": 8080,
        "agent": "10.0.0.1",
        "node": "one",
        "weight": 1,
        "effective_weight": 1,
        "state": "in",
        "reason": "",
        "detail": "",
        "health": None,
        "drain": MARKED,
        "weight_set": {"weight": 5, **MARKED},
        "connections": {"active": 5, "inactive": 6},
        "outcomes": {"opened": 9, "failed": 1, "latency_ms": 1.234},
    }
    assert (two["state"], two["reason"], two["drain"]) == ("held", "it fails its health check", MARKED)
    assert two["health"] == {"healthy": False, "reason": "refused", "checked_at": "2026-11-28T04:17:59.123Z"}
    assert (three["state"], three["node"], three["detail"], three["drain"]) == ("out", "three", "10.0.0.3", MARKED)
    (refused,) = found["refused"]
    assert (refused["vip"], refused["node"], refused["backend"], refused["claimant"]) == (
        "tcp://169.254.169.254:80",
        "two",
        None,
        {"source": "web", "principal": ""},
    )


def test_a_container_is_found_by_its_address_on_its_own_host() -> None:
    local = Backend("10.0.0.1", 31000, agent="10.0.0.1", local=BackendKey("172.17.0.2", 80))
    stranger = Backend("10.0.0.9", 80)
    twin = Backend("172.17.0.2", 80)
    table = DesiredTable(own_addresses=["10.0.0.1"])
    table.replace(
        [Claim(VIP(WEB, (local, stranger, twin)), node="?"), Claim(VIP(WEB, (Backend("10.0.0.8", 80, weight=3),)), node="b")]
    )
    found = backends_view(observation(desired=table.refresh(lambda _: Reach.UP)))["vips"][0]["backends"]
    assert [(row["address"], row["state"], row["effective_weight"], row["node"]) for row in found] == [
        ("10.0.0.1", "in", 1, "one"),
        ("10.0.0.8", "in", 3, ""),
        ("10.0.0.9", "in", 1, ""),
        ("172.17.0.2", "out", 0, ""),
    ]


def test_names_of_nodes() -> None:
    seen = observation()
    unknown = NodeId(bytes(15) + b"\x09")
    names = seen.names()
    assert [names(one) for one in ("", ME, str(OTHER), unknown, "nonsense")] == [
        "",
        "one",
        "two",
        str(unknown),
        "nonsense",
    ]
    assert seen.nodes_by_address()["192.0.2.1"].name == "one"


def test_nodes_of_one_name_are_told_apart() -> None:
    third, fourth = NodeId(b"\xab" * 16), NodeId(b"\xcd" * 16)
    seen = observation()
    twins = {
        **seen.members,
        third: Member(record(third, "two", "10.0.0.7"), MemberStatus.ALIVE, CLOCK),
        fourth: Member(record(fourth, "three", "10.0.0.8"), MemberStatus.ALIVE, CLOCK),
    }
    seen = replace(seen, members=twins)
    found = members_view(seen)["members"]
    assert [(row["name"], row["label"]) for row in found] == [
        ("one", "one"),
        ("three", "three (00000000)"),
        ("three", "three (cdcdcdcd)"),
        ("two", "two (00000000)"),
        ("two", "two (abababab)"),
    ]
    assert [node["label"] for node in topology_view(seen)["nodes"]] == [row["label"] for row in found]
    told = backends_view(seen)
    nodes = {backend["node"] for vip in told["vips"] for backend in vip["backends"]}
    assert nodes == {"one", "two (00000000)", "three (00000000)"}
    assert {one for vip in told["vips"] for one in vip["claimed_by"]} == {"one", "two (00000000)"}
    assert {one["node"] for one in told["refused"]} == {"two (00000000)"}
    alike = Names([record(ME, "x", "10.0.0.1"), record(OTHER, "x", "10.0.0.2"), record(third, "x", "10.0.0.3")])
    assert [alike(one) for one in (ME, OTHER, third)] == [f"x ({ME})", f"x ({OTHER})", "x (abababab)"]


def test_refused_backends_are_named() -> None:
    seen = observation()
    refusal = replace(seen.judgement.refusals[0], backend=ONE)
    judgement = replace(seen.judgement, refusals=(refusal,))
    assert backends_view(replace(seen, judgement=judgement))["refused"][0]["backend"] == "10.0.0.1:8080"


def test_outcomes_without_a_latency() -> None:
    seen = observation()
    ((key, one),) = seen.outcomes.items()
    row = backends_view(observation(outcomes={key: replace(one, latency_seconds=None)}))["vips"][0]["backends"][0]
    assert row["outcomes"] == {"opened": 9, "failed": 1, "latency_ms": None}


def test_the_predecessors_shape() -> None:
    assert legacy_vips_view(observation()) == [
        {
            "vip": "11.0.0.1:80",
            "protocol": "tcp",
            "backend": [{"ip": f"10.0.0.{number}", "port": 8080} for number in (1, 2, 3)],
        },
        {
            "vip": "foo.marathon.l4lb.minuteman:443",
            "protocol": "tcp",
            "backend": [{"ip": f"10.0.0.{number}", "port": 9090} for number in (1, 2)],
        },
    ]


def test_statistics() -> None:
    seen = observation()
    found = statistics_view(seen)
    assert (found["version"], found["time"]) == (1, "2026-11-28T04:18:00.123Z")
    (service,) = found["services"]
    assert (service["service"], service["vip"], service["in_bytes_total"]) == ("tcp://11.0.0.1:80", "tcp://11.0.0.1:80", 6)
    assert service["rates"] == {"connections": 2, "in_bytes": 8, "out_bytes": 10, "in_packets": 4, "out_packets": 6}
    (backend,) = service["backends"]
    assert (backend["weight"], backend["active"], backend["inactive"], backend["connections_total"]) == (1, 5, 6, 10)
    assert statistics_view(replace(seen, desired=type(seen.desired)()))["services"][0]["vip"] == ""


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (ServiceKey.tcp("11.0.0.1", 80), "tcp://11.0.0.1:80"),
        (ServiceKey.udp("fd00::1", 53), "udp://[fd00::1]:53"),
        (ServiceKey.fwmark(7), "fwmark://7"),
        (ServiceKey.fwmark(7, 10), "fwmark://7/ipv6"),
    ],
)
def test_how_services_are_named(key: ServiceKey, text: str) -> None:
    assert service_text(key) == text


def test_names_of_vips() -> None:
    assert (vip_name(WEB), vip_name(NAMED)) == ("", "foo.marathon")


def test_events() -> None:
    found = events_view([Event(3, WALL, "sync", "text", {"a": 1})], life="0" * 16, oldest=1, newest=3)
    assert found == {
        "version": 1,
        "life": "0" * 16,
        "events": [{"id": 3, "time": "2026-11-28T04:18:00.123Z", "kind": "sync", "text": "text", "data": {"a": 1}}],
        "oldest": 1,
        "newest": 3,
    }
    assert missed_view(7, 7, WALL)["text"] == "event 7 is not kept any more"
