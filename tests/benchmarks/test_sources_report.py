"""The figures of the sources' benchmark: what is shown is what was recorded, missed aims included; and what it feeds to readers is whole."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # benchmarks are no part of what is installed

from benchmarks.sources import documents, inside, parsing, report  # noqa: E402
from benchmarks.sources.aims import aims  # noqa: E402
from benchmarks.sources.spread import spread  # noqa: E402

RESULTS = ROOT / "benchmarks" / "sources" / "results"


def kept() -> Any:
    return json.loads((RESULTS / "sources.json").read_text())


def test_the_pages_show_the_figures_of_the_run_that_is_kept() -> None:
    text = report.markdown(kept())
    assert (RESULTS / "sources.md").read_text() == text
    for page in (ROOT / "benchmarks" / "sources" / "README.md", ROOT / "docs" / "sources" / "README.md"):
        shown = page.read_text().partition(report.MARKS[0])[2].partition(report.MARKS[1])[0]
        assert shown.strip() == text.strip()


def test_the_run_that_is_kept_is_one_of_everything() -> None:
    data = kept()
    assert data["parsing"].keys() == parsing.INPUTS.keys()
    assert all(found["whole_ms"]["n"] >= 7 for found in data["parsing"].values())
    assert all(len(one["written_ms"]) >= 30 for one in data["kernel"]["runs"])
    assert None not in [aim.got for aim in aims(data)]


@pytest.mark.parametrize(("milliseconds", "verdict"), [(20.0, "met"), (20.5, "**missed**")])
def test_an_aim_that_is_missed_is_marked(milliseconds: float, verdict: str) -> None:
    run = {"source": "etcd", "backends": 1, "marked": False}
    data = {"kernel": {"runs": [{"run": run, "seen_ms": [milliseconds] * 3}]}}
    rows = report.aimed(data).splitlines()
    assert rows[2].endswith(f"| {verdict} |")
    assert rows[3].endswith("| not measured |")


def test_a_busy_machine_is_said() -> None:
    data = kept()
    assert "was busy" in report.about(data | {"load_before": 2.0})
    assert "was busy" not in report.about(data | {"load_before": 0.1})


def test_what_the_process_said_beside_its_work_is_shown() -> None:
    usual = (
        "scope: x\nthe table is as desired: 1 service\nedit 1 destination: 1 of 1 operations done in 0.1 ms\nended; it stays\n"
    )
    assert inside.remarks(usual + "etcd:x: no answer in time\n") == ["etcd:x: no answer in time"]
    data = kept()
    data["kernel"]["runs"][0]["said"] = ["no answer in time"]
    assert "no answer in time" in report.markdown(data)


def test_percentiles_are_values_that_were_measured() -> None:
    found = spread([float(value) for value in range(1, 101)])
    assert (found["least"], found["median"], found["p95"], found["most"]) == (1, 50.5, 95, 100)
    assert spread([3.0])["p95"] == 3.0
    with pytest.raises(ValueError, match="nothing was measured"):
        spread([])


def test_each_change_is_followed_by_its_own_notes() -> None:
    notes = [("event", 1.001), ("state", 1.002), ("state", 1.003), ("event", 2.005), ("woken", 2.004), ("woken", 2.006)]
    found = inside.parts([1.0, 2.0], notes)
    assert found == {"event": [1.0, 5.0], "state": [2.0], "woken": [6.0]}


@pytest.mark.parametrize("name", ["mesos-agent", "json"])
def test_inputs_are_read_whole(name: str) -> None:
    one = parsing.INPUTS[name]
    vips = one.extract(one.decode(one.make()))
    assert (len(vips), sum(len(vip.backends) for vip in vips)) == (one.vips, one.backends)


def test_an_agent_runs_its_own_tasks() -> None:
    (framework,) = json.loads(documents.mesos_agent_state())["frameworks"]
    assert {task["slave_id"] for executor in framework["executors"] for task in executor["tasks"]} == {documents.agent_id(0)}
