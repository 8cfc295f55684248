"""The store benchmark: what is shown is what was recorded, what was missed is said, and what is held once behaves as what is not."""

from __future__ import annotations

import json
import math
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from benchmarks.store import report, spread
from benchmarks.store.workload import entries, key, value
from pyminuteman.testing.simulation.stores import StoreCore

KEPT = report.HERE / "results" / "store.json"


def kept() -> Any:
    return json.loads(KEPT.read_text())


def shown(page: Path) -> str:
    return page.read_text().partition(report.MARKS[0])[2].partition(report.MARKS[1])[0]


def test_the_pages_show_the_figures_of_the_run_that_is_kept() -> None:
    made = report.markdown(kept())
    for page in report.PAGES:
        assert shown(page).strip() == made.strip()
    assert (report.HERE / "results" / "store.md").read_text() == made


def large(data: Any) -> Any:
    (found,) = [one for one in data["spread"] if one["nodes"] == 1000]
    return found


@pytest.mark.parametrize(
    ("aim", "field", "worse"),
    [(0, "link_bytes", [1, 1.0, 193]), (1, "seconds_last", 0.251), (1, "seconds_last", None)],
)
def test_one_change_that_misses_an_aim_is_a_missed_aim(aim: int, field: str, worse: object) -> None:
    data = deepcopy(kept())
    large(data)["changes"][3][field] = worse
    assert report.aims(data)[aim].got == pytest.approx({"link_bytes": 151, "seconds_last": 251}[field] if worse else math.inf)
    assert report.aimed(data).splitlines()[2 + aim].endswith("**missed** |")


def test_a_slow_restart_is_a_missed_aim_and_a_small_one_is_none() -> None:
    data = deepcopy(kept())
    for run in data["restart"]["runs"]:
        run["from_process_start_seconds"] += 2
    assert report.aimed(data).count("**missed**") >= 1
    data["restart"]["costs"]["entries"] = 10_000
    assert report.aims(data)[2].got is None


def test_what_a_run_did_not_measure_is_said_not_to_be() -> None:
    data = deepcopy(kept())
    data["spread"] = [one for one in data["spread"] if one["nodes"] != 1000]
    assert report.aimed(data).count("not measured") == 2
    del data["engines"]["etcd"]
    data["engines"]["etcd_missing"] = "there is none"
    assert "etcd was left out: there is none." in report.markdown(data)


def test_who_never_had_a_change_is_told() -> None:
    data = deepcopy(kept())
    large(data)["changes"][0] |= {"seconds_last": None, "missing": 2}
    (row,) = [row for row in report.changes(data).splitlines() if row.startswith("| 1,000 ")]
    assert row.endswith("- never | 2 |")


# -- the cluster whose replicas share what they hold -------------------------------------------------------------------

NODES, BACKENDS = 12, 3


def built() -> tuple[spread.Simulation, spread.CountingWire, list[StoreCore]]:
    world, wire, cores, _ = spread.built(NODES, BACKENDS, seed=1, loss=0.0)
    return world, wire, cores


def contents(core: StoreCore) -> list[tuple[str, object, bytes]]:
    return [tuple(entry) for entry in core.replica.owners.entries("")]


def test_every_replica_begins_with_what_all_nodes_say_and_no_comparison_finds_a_difference() -> None:
    world, wire, cores = built()
    everything = sorted(
        (name, core.replica.me.node, said) for number, core in enumerate(cores) for name, said in entries(number, BACKENDS)
    )
    assert all(contents(core) == everything for core in cores)
    world.run(seconds=10.0)
    assert all(core.replica.counters["comparisons"] for core in cores)
    assert not any(core.replica.counters["comparisons_differing"] for core in cores)
    assert wire.datagrams[spread.REPAIR] == 0


def test_a_change_goes_to_all_and_what_is_shared_stays_as_it_was() -> None:
    world, _, cores = built()
    before = contents(cores[1])
    name, said = key(0, 1), value(0, 77)
    cores[0].replica.change_own({name: said})
    assert cores[0].replica.owners.get(cores[0].replica.me.node, name) == said
    assert all(contents(core) == before for core in cores[1:])
    cores[0].replica.change_own({name: None})
    world.run(seconds=20.0)
    assert all(core.replica.owners.get(cores[0].replica.me.node, name) is None for core in cores)
    assert all(core.replica.owners.count == NODES * BACKENDS - 1 for core in cores)
    assert len({core.replica.owners.hashes.root for core in cores}) == 1


def test_a_change_costs_what_it_costs_where_nothing_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = spread.measure(NODES, backends=BACKENDS, changes=3)

    def say(cores: list[StoreCore], backends: int, now: float) -> None:
        """Nothing is loaded: all say it, and hear it."""
        del now
        for number, (host, core) in enumerate(zip(worlds[-1].hosts, cores, strict=True)):
            said = dict(entries(number, backends))
            worlds[-1].ask(host, lambda _, at, core=core, said=said: core.write(said, at))
        worlds[-1].run(seconds=15.0)

    worlds: list[spread.Simulation] = []
    start = spread.start_warm

    def start_and_keep(world: spread.Simulation, **_: object) -> None:
        worlds.append(world)
        start(world)

    monkeypatch.setattr(spread, "preload", say)
    monkeypatch.setattr(spread, "start_warm", start_and_keep)
    alone = spread.measure(NODES, backends=BACKENDS, changes=3)
    assert alone["entries"] == shared["entries"] == NODES * BACKENDS
    for one, other in zip(alone["changes"], shared["changes"], strict=True):
        assert one["missing"] == other["missing"] == 0
        assert abs(one["link_bytes"][1] - other["link_bytes"][1]) <= 2
        assert abs(one["seconds_last"] - other["seconds_last"]) <= spread.LINK_SECONDS
        assert one["datagrams"]["change"] == other["datagrams"]["change"] == NODES - 1


def test_one_change_takes_less_than_150_bytes_of_a_link_in_one_datagram_for_each_other_node() -> None:
    (change,) = spread.measure(NODES, backends=BACKENDS, changes=1)["changes"]
    assert change["datagrams"]["change"] == NODES - 1
    assert change["bytes"]["change"] == pytest.approx(change["link_bytes"][1] * (NODES - 1), rel=0.001)
    assert change["link_bytes"][2] - spread.FRAME_BYTES <= 150
