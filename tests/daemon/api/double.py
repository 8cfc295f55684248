"""A node that is none: what the API asks of one, with a state that tests set."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import trio

from pyminuteman.addresses import Endpoint, NodeId
from pyminuteman.daemon.api import Api, ApiOptions, NoSuchThing, NotNow, Reloaded, open_api
from pyminuteman.daemon.observed import (
    Buckets,
    FeedObserved,
    HostObserved,
    KernelObserved,
    Mark,
    Moment,
    Observation,
    OutcomesOf,
    StoreObserved,
)
from pyminuteman.errors import ConfigurationError
from pyminuteman.health.monitor import Health
from pyminuteman.http_client import HttpClient, HttpOptions
from pyminuteman.ipvs import (
    Connections,
    Counters,
    Destination,
    DestinationStatistics,
    Rates,
    Service,
    ServiceStatistics,
)
from pyminuteman.membership import Member, MemberStatus, Record
from pyminuteman.sources.base import SourceProblem, SourceState, SourceStatus
from pyminuteman.vips.claims import Claim
from pyminuteman.vips.desired import DesiredTable
from pyminuteman.vips.model import VIP, Backend, BackendKey, VIPKey, VIPName
from pyminuteman.vips.policy import Networks, Policy, Rule
from pyminuteman.vips.resolution import Adjustments, Reach

WALL, CLOCK = 1_795_839_480.123, 1000.0
NOW = Moment(WALL, CLOCK)
ME = NodeId(bytes(15) + b"\1")
OTHER = NodeId(bytes(15) + b"\2")
DEAD = NodeId(bytes(15) + b"\3")
WEB = VIPKey.tcp("11.0.0.1", 80)
NAMED = VIPKey.tcp(VIPName("foo", "marathon"), 443)
ONE, TWO, THREE = BackendKey("10.0.0.1", 8080), BackendKey("10.0.0.2", 8080), BackendKey("10.0.0.3", 8080)


def record(node: NodeId, name: str, address: str, **others: Any) -> Record:
    return Record(id=node, epoch=7, version=1, name=name, endpoint=Endpoint(address, 61420), **others)


def observation(**changes: Any) -> Observation:
    """Three nodes, of which one is down; two VIPs of two backends each and one of the dead; one claim that is refused."""
    web = VIP(WEB, tuple(Backend(key.address, key.port, agent=key.address) for key in (ONE, TWO, THREE)))
    named = VIP(NAMED, (Backend("10.0.0.1", 9090, agent="10.0.0.1"), Backend("10.0.0.2", 9090, agent="10.0.0.2")))
    hijack = VIP(VIPKey.tcp("169.254.169.254", 80), (Backend("10.0.0.1", 1),))
    vouched = frozenset({"10.0.0.1", "10.0.0.2", "10.0.0.3"})
    claims = [Claim(vip, "web", str(node), vouched=vouched) for vip, node in ((web, ME), (named, OTHER), (hijack, OTHER))]
    judgement = Policy((Rule(vip_networks=Networks("11.0.0.0/8")),)).judge(claims)
    table = DesiredTable(own_addresses=["10.0.0.1"])
    table.replace(judgement.accepted)
    table.adjust(Adjustments(unhealthy=frozenset({(None, TWO)})))
    desired = table.refresh(lambda agent: Reach.DOWN if agent == "10.0.0.3" else Reach.UP)
    member = Member(record(OTHER, "two", "10.0.0.2", neighbours=(ME,)), MemberStatus.ALIVE, CLOCK - 60)
    dead = Member(record(DEAD, "three", "10.0.0.3", neighbours=(ME, OTHER)), MemberStatus.DOWN, CLOCK - 5)
    service = Service.tcp("11.0.0.1", 80)
    row = DestinationStatistics(Counters(10, 1, 2, 3, 4), Rates(1, 2, 3, 4, 5), Connections(5, 6, 0))
    statistics = {
        service.key: ServiceStatistics(
            service, Counters(20, 2, 4, 6, 8), Rates(2, 4, 6, 8, 10), {Destination("10.0.0.1", 8080): row}
        )
    }
    made = Observation(
        moment=NOW,
        software="pyminuteman 0.1.0",
        build={"version": "0.1.0", "python": "3.11", "kernel": "6.1"},
        started_at=WALL - 3600,
        cluster="test",
        me=record(ME, "one", "10.0.0.1", addresses=("192.0.2.1",), tags=(("rack", "a"),), keys=(b"\x01\x02",)),
        members={OTHER: member, DEAD: dead},
        neighbours=(OTHER,),
        store=StoreObserved("gossip", ready=True, entries=3),
        feeds=(
            FeedObserved(
                "web",
                "file:/etc/minuteman/vips.d",
                SourceState((web,), (SourceProblem("web.toml: line 3", "no address"),)),
                SourceStatus(last_good_at=CLOCK - 1, counters={"states": 2}),
                age_seconds=1.0,
            ),
            FeedObserved("empty", "push:", None, SourceStatus()),
        ),
        desired=desired,
        judgement=judgement,
        health={TWO: Health(healthy=False, confirmed=True, since=CLOCK - 3, reason="refused", checked_at=CLOCK - 1)},
        kernels=(
            KernelObserved(
                services=2,
                destinations=4,
                last_sync_at=WALL - 10,
                last_sync_seconds=0.0123456789,
                last_queued_at=WALL - 11,
                syncs_total=5,
                errors={("add", "ENOMEM"): 2},
                foreign=("tcp 11.0.0.9:80",),
                sync=Buckets((0.001, 0.002), (1, 2, 3), 1.5),
                programming=Buckets((0.001, 0.002), (0, 1, 0), 0.0015),
            ),
        ),
        statistics=statistics,
        outcomes={(service.key, ONE): OutcomesOf(9, 1, Buckets((0.001,), (8, 1), 0.01), 0.0012345)},
        host=(HostObserved("dummy", ok=True), HostObserved("masquerade", ok=True)),
        membership_metrics={
            "active_view_size": 1,
            "suspicions_total": 1,
            "refused_forged_total": 3,
            "links_lost_failed_total": 1,
        },
        store_metrics={"store_entries": 3},
        health_metrics={"targets": 5, "healthy": 4},
        event_counts={"member_up": 2},
    )
    return replace(made, **changes)


@dataclass
class Event:
    id: int
    time: float
    kind: str
    text: str
    data: dict[str, Any]


class Log:
    """Events, of which so many are kept."""

    def __init__(self, keep: int = 1000, life: str = "00000000000000aa") -> None:
        self.life = life
        self.kept: list[Event] = []
        self.count = 0
        self.keep = keep
        self._lot = trio.lowlevel.ParkingLot()

    @property
    def oldest(self) -> int:
        return self.kept[0].id if self.kept else 0

    @property
    def newest(self) -> int:
        return self.count

    def add(self, kind: str, text: str = "", **data: Any) -> None:
        self.count += 1
        self.kept = [*self.kept, Event(self.count, WALL, kind, text, data)][-self.keep :]
        self._lot.unpark_all()

    def since(self, number: int) -> list[Event]:
        return [event for event in self.kept if event.id > number]

    async def wait_beyond(self, number: int) -> None:
        while self.count <= number:
            await self._lot.park()


@dataclass
class Double:
    """The node, and what was asked of it."""

    seen: Observation = field(default_factory=observation)
    events: Log = field(default_factory=Log)
    done: list[tuple[Any, ...]] = field(default_factory=list)
    pushed_sources: Sequence[str] = ("pushed",)
    looks: int = 0
    stuck: bool = False
    broken_configuration: str = ""

    async def observe(self, *, statistics: bool = False) -> Observation:
        self.looks += 1
        await trio.lowlevel.checkpoint()
        if self.stuck:
            await trio.sleep_forever()
        return self.seen if statistics else replace(self.seen, statistics={})

    def plain_config(self) -> dict[str, Any]:
        return {"node": {"name": "one"}}

    async def drain(self, target: Any, *, by: str, reason: str) -> None:
        self.done.append(("drain", target, by, reason))
        self.seen = (
            replace(self.seen, node_drains={target: Mark(by, WALL, reason)}) if isinstance(target, NodeId) else self.seen
        )
        self.events.add("drained", str(target))

    async def undrain(self, target: Any, *, by: str, reason: str) -> None:
        self.done.append(("undrain", target, by, reason))

    async def set_weight(self, target: Any, weight: int, *, by: str, reason: str) -> None:
        self.done.append(("weight", target, weight, by, reason))

    async def clear_weight(self, target: Any, *, by: str, reason: str) -> None:
        self.done.append(("clear", target, by, reason))

    async def reload(self) -> Reloaded:
        self.done.append(("reload",))
        if self.broken_configuration:
            raise ConfigurationError("config.toml", "line 3 (log.level)", self.broken_configuration)
        return Reloaded(('log.level: "info" -> "debug"',), ('node.name: "" -> "x"',), ("source: there is none",))

    async def confirm(self, namespace: str, identity: str) -> None:
        assert len(identity) == 16
        if namespace:
            raise NoSuchThing(f"there is no namespace {namespace!r}")
        raise NotNow("nothing is held back")

    def push(self, source: str, state: SourceState) -> bool:
        self.done.append(("push", source, state))
        return True


@asynccontextmanager
async def unix_api(tmp_path: Path, double: Double, **besides: Any) -> AsyncIterator[tuple[HttpClient, Api]]:
    """The API on a unix socket, and a client of it."""
    path = tmp_path / "api.sock"
    options = {name: besides.pop(name) for name in list(besides) if not name.endswith("_limits") and name != "page"}
    async with (
        open_api(double, ApiOptions(socket=path, **options), **besides) as api,
        HttpClient("http://minuteman", HttpOptions(unix_socket=path, timeout_seconds=5)) as client,
    ):
        yield client, api
