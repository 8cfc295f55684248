"""A look at a node whose parts are real: membership, store, monitor; only what reconciles is a double."""

from __future__ import annotations

import errno
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from pyminuteman.addresses import Endpoint
from pyminuteman.daemon.api import NoSuchThing, NotNow
from pyminuteman.daemon.node_subject import NodeSubject
from pyminuteman.daemon.observed import Buckets, Faults, Mark
from pyminuteman.daemon.observing import kernel, observe, symbol
from pyminuteman.daemon.views import status_view
from pyminuteman.health.monitor import Target, open_monitor
from pyminuteman.ipvs import ServiceKey
from pyminuteman.ipvs.shrinkage import Shrinkage
from pyminuteman.kv import open_store
from pyminuteman.membership import open_membership
from pyminuteman.sources.base import SourceState
from pyminuteman.sources.push import PushSource
from pyminuteman.vips.desired import DesiredState
from pyminuteman.vips.policy import Judgement
from tests.daemon.api.double import ONE, OTHER, WALL, Double, observation, unix_api

KEY = ServiceKey.tcp("11.0.0.1", 80)


def status(**changes: Any) -> Any:
    plain = {
        "services": 1,
        "destinations": 2,
        "last_sync_at": WALL,
        "last_sync_seconds": 0.1,
        "last_queued_at": WALL - 1,
        "syncs_total": 3,
        "errors": {("add", errno.ENOMEM): 1, ("add", 9999): 2},
        "draining": 1,
        "held": None,
        "foreign": (KEY,),
        "error": "",
        "sync": Buckets((1.0,), (1, 0), 0.5),
        "programming": SimpleNamespace(bounds=[1.0], counts=[2, 0], sum=1),
    }
    return SimpleNamespace(**(plain | changes))


class Reconciler:
    def __init__(self) -> None:
        self.status = status()
        self.asked = 0

    async def statistics(self) -> Any:
        self.asked += 1
        await trio.lowlevel.checkpoint()
        return observation().statistics


class Check:
    async def run(self) -> None:
        await trio.lowlevel.checkpoint()


def test_what_a_reconciler_has_done() -> None:
    found = kernel("", status())
    assert found.errors == {("add", "ENOMEM"): 1, ("add", "9999"): 2}
    assert (found.foreign, found.changes_pending, found.held) == (("tcp 11.0.0.1:80",), 0, "")
    assert found.programming == Buckets((1.0,), (2, 0), 1.0)
    assert kernel("", status(last_queued_at=WALL + 1)).changes_pending == 1
    assert kernel("", status(last_sync_at=None)).changes_pending == 1
    assert kernel("", status(last_queued_at=None)).changes_pending == 0
    held = kernel("", status(held=Shrinkage(((KEY, 7),), 7, 10)))
    assert (held.held, held.held_services) == ("7 of 10 destinations (70 %)", ("tcp 11.0.0.1:80",))
    assert held.held_id == Shrinkage(((KEY, 7),), 7, 10).identity


def test_errors_have_their_symbols() -> None:
    assert [symbol(number) for number in (errno.EPERM, -errno.EPERM, "EPERM", 9999)] == ["EPERM", "EPERM", "EPERM", "9999"]


@pytest.mark.trio
async def test_a_look_at_real_parts() -> None:
    bind = Endpoint.parse("127.0.0.1:0")
    async with (
        open_membership(name="one", bind=bind) as one,
        open_membership(name="two", bind=bind, contacts=[one.me.endpoint]) as two,
        open_store(one) as store,
        open_monitor() as monitor,
    ):
        await two.wait_joined(5)
        await one.wait_joined(5)
        source, reconciler = PushSource(), Reconciler()
        monitor.watch({ONE: Target(Check())})
        mark = Mark("root", WALL)
        node: Any = SimpleNamespace(
            started_at=WALL,
            membership=one,
            store=store,
            feeds=[SimpleNamespace(name="pushed", source=source, state=None, stale=False, age_seconds=None)],
            state=DesiredState(),
            judgement=Judgement(),
            marks=SimpleNamespace(node_drains={OTHER: mark}, backend_drains={}, weights={}),
            faults=Faults({"claim": 3}),
            monitor=monitor,
            reconcilers={"ns": Reconciler(), "": reconciler},
            host=[SimpleNamespace(step="dummy", ok=True, reason="")],
        )
        seen = await observe(node, cluster="test", engine="gossip", zone="z")
        assert (reconciler.asked, seen.statistics) == (0, {})
        full = await observe(
            node, cluster="test", engine="gossip", zone="z", statistics=True, outcomes=lambda: observation().outcomes
        )
        assert (reconciler.asked, len(full.statistics), len(full.outcomes)) == (1, 1, 1)
    assert set(seen.members) == {two.me.id}
    assert seen.neighbours == (two.me.id,)
    assert [one.namespace for one in seen.kernels] == ["", "ns"]
    assert list(seen.health) == [ONE]
    assert seen.faults.counts == {"claim": 3}
    assert seen.node_drains == {OTHER: mark}
    assert (seen.build["version"], seen.software.split()[0]) == (seen.software.split()[1], "pyminuteman")
    source.status.counters["pushes"] = 99
    assert seen.feeds[0].status.counters["pushes"] == 0  # it was looked at before
    told = status_view(seen)
    assert told["members"]["alive"] == 2
    assert told["sources"][0]["place"] == "push:"


@pytest.mark.trio
async def test_a_node_is_served(tmp_path: Path) -> None:
    bind = Endpoint.parse("127.0.0.1:0")
    source, double = PushSource(), Double()
    async with open_membership(name="one", bind=bind) as one, open_store(one) as store, open_monitor() as monitor:
        node: Any = SimpleNamespace(
            started_at=WALL,
            membership=one,
            store=store,
            feeds=[
                SimpleNamespace(name="pushed", source=source, state=None, stale=False, age_seconds=None),
                SimpleNamespace(name="other", source=observation().feeds[0], state=None, stale=False, age_seconds=None),
            ],
            state=DesiredState(),
            judgement=Judgement(),
            marks=SimpleNamespace(node_drains={}, backend_drains={}, weights={}),
            faults=Faults(),
            monitor=monitor,
            reconcilers={},
            host=[],
            events=double.events,
            **{verb: getattr(double, verb) for verb in ("drain", "undrain", "set_weight", "clear_weight", "confirm")},
        )
        node.feeds[1].source = SimpleNamespace(name="file:x", status=source.status)
        subject = NodeSubject(
            node=node, cluster="test", engine="gossip", zone="z", plain=lambda: {"a": 1}, reloading=double.reload
        )
        async with unix_api(tmp_path, subject) as (client, api):  # type: ignore[arg-type]
            subject.api_metrics, subject.event_counts = api.metrics, lambda: {"sync": 1}
            assert (await client.json("GET", "/v1/config"))["config"] == {"a": 1}
            await client.json("POST", "/v1/drain", body={"node": "one"})
            await client.json("POST", "/v1/undrain", body={"node": "one"})
            node.marks.weights[None, ONE] = (1, Mark("root", WALL))
            await client.json("POST", "/v1/weight", body={"backend": str(ONE), "weight": 1})
            await client.json("POST", "/v1/weight", body={"backend": str(ONE), "weight": None})
            await client.json("POST", "/v1/reload")
            await client.json("PUT", "/v1/sources/pushed", body={"vip": []})
            async with client.stream("GET", "/metrics") as response:
                text = (await response.read()).decode()
        assert "minuteman_api_requests_total " in text
        assert 'minuteman_events_total{kind="sync"} 1' in text
        with pytest.raises(NoSuchThing):
            subject.push("other", SourceState())
        with pytest.raises(NotNow):
            await subject.confirm("", "0" * 16)
    assert [verb for verb, *_ in double.done] == ["drain", "undrain", "weight", "clear", "reload"]
    assert source.status.counters["pushes"] == 1
