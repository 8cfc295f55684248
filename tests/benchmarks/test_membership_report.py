"""The membership benchmark's figures: what is shown is what was recorded, and nothing that was missed is left out of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
BENCHMARK = ROOT / "benchmarks" / "membership"
MARKS = ("<!-- membership figures -->", "<!-- /membership figures -->")


def call(code: str, given: object) -> Any:
    """Run code beside the benchmark's modules, in a process of its own: their names are those of other benchmarks' modules too."""
    script = f"import json, sys; sys.path.insert(0, {str(BENCHMARK)!r}); given = json.load(sys.stdin); {code}"
    done = subprocess.run([sys.executable, "-c", script], input=json.dumps(given), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_pages_show_the_figures_of_the_run_that_is_kept() -> None:
    done = subprocess.run([sys.executable, BENCHMARK / "report.py"], capture_output=True, text=True, check=True)
    for page in (BENCHMARK / "README.md", ROOT / "docs" / "membership.md"):
        shown = page.read_text().partition(MARKS[0])[2].partition(MARKS[1])[0]
        assert shown.strip() == done.stdout.strip()
    (front,) = call("import report; print(json.dumps([report.front_page(given)]))", kept())
    assert front.strip() in (ROOT / "README.md").read_text()


def kept() -> Any:
    return json.loads((BENCHMARK / "results" / "membership.json").read_text())


def repetition(suspected: dict[str, list[float]], missing: int = 0) -> dict[str, Any]:
    return {"suspected_seconds": suspected, "missing_suspected": missing}


def detection(*repetitions: dict[str, Any]) -> Any:
    code = (
        "import figures, dataclasses; "
        "print(json.dumps(dataclasses.asdict(figures.detection({'detection': given}, 'suspected'))))"
    )
    return call(code, repetitions)


def test_the_last_survivor_of_each_victim_counts_and_of_each_repetition_the_last_pair() -> None:
    found = detection(repetition({"a": [0.1, 0.4], "b": [0.2, 0.3]}), repetition({"a": [0.2, 0.2], "b": [0.1, 0.9]}))
    assert found["last"] == {"count": 4, "least": 0.2, "median": pytest.approx(0.35), "p95": 0.9, "most": 0.9}
    assert found["first"]["most"] == 0.2
    assert (found["all_pairs"]["count"], found["all_pairs"]["least"], found["missing"]) == (2, 0.4, 0)


def test_a_victim_that_a_survivor_never_heard_of_is_in_no_time_and_is_said() -> None:
    found = detection(repetition({"a": [0.1, 0.4], "b": [0.2]}, missing=1))
    assert found["last"]["count"] == 1
    assert found["all_pairs"] is None
    assert found["missing"] == 1


@pytest.mark.parametrize(("missing", "met"), [(0, True), (1, False)])
def test_an_aim_is_missed_when_one_was_never_told_however_soon_the_others_were(missing: int, met: bool) -> None:
    record = {**repetition({"a": [0.1, 0.2], "b": [0.1, 0.2][missing:]}, missing), "down_seconds": {}, "missing_down": 0}
    code = (
        "import aims, figures; found = {'detection': given}; figures.at_rest = lambda *_: None; "
        "told = figures.detection; figures.detection = lambda found, what: told(found, 'suspected'); "
        "print(json.dumps([aim.met for aim in aims.aims(found)][:2]))"
    )
    assert call(code, [record])[1] is met


def test_what_was_missed_stands_on_the_front_page() -> None:
    code = "import report; print(json.dumps([report.missed(given), report.missed({'peers': {}})]))"
    said, nothing = call(code, kept())
    (rows,) = call("import report; print(json.dumps([report.aimed(given)]))", kept())
    assert said.count("aim ") == rows.count("**missed**")
    assert nothing == ""
