"""The headline experiment: what is shown is what was recorded, what was missed is said, and a small run of it comes to its end."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # benchmarks are no part of what is installed

from benchmarks.headline import costs, figures, kernels, logs, report  # noqa: E402
from benchmarks.headline.aims import aims  # noqa: E402
from benchmarks.headline.experiment import Experiment  # noqa: E402
from benchmarks.headline.run import planned, without_most_requests  # noqa: E402

KEPT = report.RESULTS / "headline.json"
TEXT = b"""IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
TCP  0B000001:0050 wlc 
  -> 0A3D0003:1F40      Masq    1      0          0         
  -> 0A3D0002:1F41      Masq    0      0          2         
  -> 0A3D0002:1F40      Masq    10     1          0         
TCP  0B000101:0050 wlc 
  -> 0A3D0001:1F40      Masq    1      0          0         
"""  # noqa: W291 - so the kernel writes it


def kept() -> Any:
    return json.loads(KEPT.read_text())


def of_least_nodes() -> list[Any]:
    """The runs with daemons of the smallest cluster."""
    found = figures.of_form(kept(), "daemons")
    return [run for run in found if run["experiment"]["nodes"] == min(run["experiment"]["nodes"] for run in found)]


def shown(page: Path) -> str:
    return page.read_text().partition(report.MARKS[0])[2].partition(report.MARKS[1])[0].strip()


def test_the_pages_show_the_figures_of_the_run_that_is_kept() -> None:
    text = report.markdown(kept())
    assert (report.RESULTS / "headline.md").read_text() == text
    assert shown(report.PAGE) == text.strip()
    assert shown(report.FRONT_PAGE) == report.front_page(kept()).strip()


def test_what_is_kept_has_the_requests_of_the_picture_and_their_figures() -> None:
    data = kept()
    for run in data["runs"]:
        if "requests" in run:
            assert figures.of_requests(run) == run["answers"]
    assert {form for form in ("daemons", "static") if figures.shown(data, form)} == {"daemons", "static"}
    assert without_most_requests(data) == data


def run(**changed: Any) -> Any:
    """One with daemons: two survivors, nothing amiss."""
    times: dict[str, Any] = {"suspected_seconds": {"0": 0.2, "1": 0.3}, "down_seconds": {"0": 0.9, "1": 0.9}}
    times |= {"weightless_seconds": {"0": 0.3, "1": 0.4}, "gone_seconds": {"0": 1.0, "1": 1.1}, "survivors": 2}
    rows = [[1.0, 1.0, 1.1, 1.2, "ok", "n0"]]
    found = {**times, "changes": {"task": [0.3], "vip": [0.4]}, "panic_seconds": 2.0, "dead": [2], "requests": rows}
    found |= {"panic_took_seconds": 0.1, **changed}
    found["answers"] = figures.of_requests(found)
    return found


def verdicts(*runs: Any) -> dict[str, bool | None]:
    return {aim.text: aim.met for aim in aims(runs)}


def missed(*runs: Any) -> list[str]:
    return [text for text, met in verdicts(*runs).items() if met is False]


def test_aims_are_met_when_they_are() -> None:
    assert missed(run()) == []
    assert set(verdicts().values()) == {None}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"weightless_seconds": {"0": 0.3, "1": 0.6}}, ["median of the runs"]),
        ({"weightless_seconds": {"0": 0.3}}, ["median of the runs", "at worst"]),  # one kernel never was
        ({"gone_seconds": {"0": 1.0, "1": 1.6}}, ["gone"]),
        ({"gone_seconds": {}}, ["gone"]),
        ({"changes": {"task": [0.3, None], "vip": [0.4]}}, ["a new task"]),
        ({"changes": {"task": [0.3], "vip": [0.51]}}, ["a new VIP"]),
        ({"requests": [[3.1, 3.1, None, 8.1, "timeout", ""]]}, ["the last request that failed"]),
        ({"requests": [[1.0, 1.0, None, 1.1, "refused", ""]]}, ["the last request that failed"]),  # nothing had happened yet
    ],
)
def test_an_aim_that_is_missed_is_said(changed: dict[str, Any], said: list[str]) -> None:
    found = missed(run(**changed))
    assert len(found) == len(said)
    assert all(words in text for words, text in zip(said, found, strict=True))


def test_a_failure_within_the_time_of_repair_is_no_miss_and_is_counted() -> None:
    rows = [[2.9, 2.9, None, 7.9, "timeout", ""], [1.9, 1.9, 1.95, 6.9, "timeout", ""], [3.2, 3.2, 3.2, 3.8, "ok", "n1"]]
    one = run(requests=rows)
    assert missed(one) == []
    answers = one["answers"]
    assert (answers["failed"], answers["failed_begun_before_panic"], answers["failed_before_panic"]) == (2, 1, 0)
    assert (answers["last_failed_begun_seconds"], answers["last_failed_ended_seconds"]) == (0.9, 5.9)
    assert (answers["slow"], answers["after_ms"]["n"], answers["before_ms"]) == (1, 1, None)
    assert answers["outcomes"] == {"ok": 1, "timeout": 2}


def test_latency_counts_from_when_a_request_was_meant_to_begin() -> None:
    answers = run(requests=[[1.0, 1.3, 1.3, 1.4, "ok", "n0"]])["answers"]
    assert answers["before_ms"]["median"] == pytest.approx(400)
    assert answers["begun_late_ms"]["median"] == pytest.approx(300)


def test_an_answer_from_the_dead_would_show() -> None:
    rows = [
        [at, at, at, at + 0.1, "ok", "n2"] for at in (1.5, 2.05, 2.5)
    ]  # the second while links went down, one after the other
    assert run(requests=rows)["answers"]["answered_by_dead"] == 1


def test_a_run_that_broke_off_is_in_no_figure_and_is_said() -> None:
    data = kept()
    broken = {"experiment": data["runs"][0]["experiment"], "error": "TimeoutError: n3"}
    more = data | {"runs": [*data["runs"], broken]}
    assert report.repairs(more) == report.repairs(data)
    assert "TimeoutError: n3" in report.front_page(more)


def test_each_size_has_its_verdicts_and_a_processor_that_is_full_is_said() -> None:
    one = next(run for run in kept()["runs"] if run["experiment"]["form"] == "daemons")
    size = one["experiment"] | {"nodes": 3000, "tasks": 3000}
    slow = one | {"experiment": size, "gone_seconds": {}, "rest": one["rest"] | {"busy_percent": 93.0}}
    data = kept() | {"runs": [one | {"rest": one["rest"] | {"busy_percent": 20.0}}, slow]}
    few = one["experiment"]["nodes"]
    gone = next(line for line in report.aimed(data).splitlines() if "gone from the last" in line)
    assert gone.endswith("| **never** |")
    assert report.aimed(data).splitlines()[0].endswith(f"| {few} nodes | 3000 nodes |")
    assert "* with 3000 nodes: they are gone from the last kernel, at worst: never s" in report.missed(data)
    assert f"20 % of it with {few} nodes, 93 % of it with 3000 nodes" in report.limit(data)
    assert "With 3000 it is the limit" in report.limit(data)


def test_a_busy_machine_is_said() -> None:
    assert "was busy" in report.about(kept() | {"load_before": 2.0})
    assert "was busy" not in report.about(kept() | {"load_before": 0.1})


def test_daemons_that_do_not_go_before_others_are_said_to() -> None:
    for realtime, times in ((True, 0), (False, 1)):
        runs = [one | {"realtime": realtime} for one in of_least_nodes()]
        assert report.repairs(kept() | {"runs": runs}).count("no real-time priority") == times
    assert [Experiment(nodes=nodes).has_realtime(1) for nodes in (10, 20, 40)] == [True, False, False]
    assert Experiment(nodes=20).has_realtime(2)


def test_the_plan_is_five_three_and_three_runs_in_turns_and_one_without_repair() -> None:
    found = planned([10, 20, 40], 5, 7, quick=False)
    counts = {nodes: sum(one.nodes == nodes and one.form == "daemons" for one in found) for nodes in (10, 20, 40)}
    assert counts == {10: 3, 20: 3, 40: 5}
    assert [one.nodes for one in found if one.form == "static"] == [40]
    assert len({one.seed for one in found if one.nodes == 40 and one.form == "daemons"}) == 5
    assert [one.nodes for one in found[:3]] == [10, 20, 40]
    assert [one.form for one in planned([10], 1, 7, quick=True)] == ["daemons", "static"]


def test_an_experiment_is_what_it_was_after_its_way_through_json() -> None:
    one = Experiment(nodes=40, seed=3)
    assert Experiment.of(json.loads(json.dumps(one.as_data()))) == one
    assert len(one.dead()) == 5
    assert one.tester not in one.dead()
    begins = one.begins()
    assert len(begins) == 2000
    assert begins == sorted(begins)
    assert {schedule for _, schedule in begins} == set(range(10))
    with pytest.raises(ValueError, match="evenly"):
        Experiment(nodes=3, tasks=1000)


def test_rows_of_the_dead_are_told_from_the_others() -> None:
    assert kernels.count_of(TEXT) == 4
    assert kernels.Casualties(["10.61.0.2"], 2)(TEXT) == (1, 2, 0)
    assert kernels.Casualties(["10.61.0.3"], 3)(TEXT) == (1, 1, 1)  # 10.61.0.2:8001 lives and has weight 0
    assert kernels.Casualties(["10.61.0.9"], 5)(TEXT) == (0, 0, 2)


LOG = """2026-11-28 11:07:48,950 INFO sync: add 10 destinations, in 0.2 ms
2026-11-28 11:07:54,581 INFO member_suspect: n3 is suspect
2026-11-28 11:07:54,600 INFO sync: edit 25 destinations, in 0.1 ms
Traceback (most recent call last):
2026-11-28 11:07:54,700 INFO sync: add 1 service, edit 1 destination, remove 20 destinations, in 0.1 ms
2026-11-28 11:07:55,581 INFO member_down: n3 is down
"""


def test_what_a_daemon_logs_tells_when_the_kernel_had_it_and_never_too_early() -> None:
    lines = logs.lines_of(LOG)
    begin = lines[0].at
    assert [line.kind for line in lines] == ["sync", "member_suspect", "sync", "sync", "member_down"]
    assert begin % 1 == pytest.approx(0.951)
    at = {count: logs.carried_out(lines, "edit", count) for count in (1, 25, 26, 27)}
    assert at == {1: lines[2].at, 25: lines[2].at, 26: lines[3].at, 27: None}
    assert logs.carried_out(lines, "remove", 20) == lines[3].at
    told = logs.what_was_told({0: lines, 1: lines[:3], 2: []}, {"n3"}, begin)
    assert told["suspected_seconds"] == {"0": pytest.approx(5.631), "1": pytest.approx(5.631)}
    assert told["down_seconds"] == {"0": pytest.approx(6.631)}
    assert logs.what_was_told({0: lines}, {"n4"}, begin) == {
        "suspected_seconds": {},
        "wrongly_suspected": 1,
        "down_seconds": {},
        "wrongly_down": 1,
    }


def test_a_processor_is_as_busy_as_its_ticks_say() -> None:
    before = costs.Processor.of("cpu  100 0 50 800 50 0 0 0 0 0")
    assert before.percent_until(costs.Processor.of("cpu  120 5 55 860 60 0 0 0 0 0")) == pytest.approx(30)
    assert before.percent_until(before) == 0


def test_what_this_process_costs_can_be_read() -> None:
    import os  # noqa: PLC0415

    found = costs.memory(os.getpid())
    assert 0 < found["private_mb"] <= found["rss_mb"]
    assert found["pss_mb"] <= found["rss_mb"]
    assert costs.processor_seconds(os.getpid()) > 0


@pytest.mark.kernel(timeout=300)
def test_a_small_run_comes_to_its_end() -> None:
    from benchmarks.headline.inside import measure  # noqa: PLC0415 - what it takes is on Linux alone

    small = Experiment(
        nodes=4, tasks=40, rest_seconds=1.0, changes=1, panic_seconds=1.0, seconds=8.0, pace=2.0, patience_seconds=3.0
    )
    found = measure(small)
    assert (len(found["dead"]), found["survivors"], len(found["requests"])) == (1, 4, 160)
    assert len(found["weightless_seconds"]) == len(found["gone_seconds"]) == 4
    answers = figures.of_requests(found)
    assert answers["failed_before_panic"] == answers["answered_by_dead"] == 0
    assert answers["outcomes"]["ok"] > 100
    assert found["rest"]["alone"]["rss_mb"] > 0
    assert None not in found["changes"]["task"] + found["changes"]["vip"]
