"""The figures of a run as markdown: on stdout, in results/, and between markers in README.md and the project's README.

``python -m benchmarks.headline.report --save`` writes them again from ``results/headline.json``, so that the words can change without
measuring again.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import fmean, median
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))  # an uninstalled tree will do

from benchmarks.headline.aims import aims  # noqa: E402
from benchmarks.headline.figures import NEVER, changes, middle_kernels, of_form, repair, sizes  # noqa: E402
from benchmarks.tables import fill, report, table  # noqa: E402

PAGE = HERE / "README.md"
FRONT_PAGE = ROOT / "README.md"
MARKS = ("<!-- headline figures -->", "<!-- /headline figures -->")
RESULTS = HERE / "results"
PREDECESSOR = (
    "What the predecessor published of its own run of this experiment (Minuteman's README, 2016: 40 physical nodes, 1,000 tasks, a "
    "testing node with 10 threads of 10 requests a second, 12.5 % of the nodes panic after 5 s): pictures of latency, no table; failures "
    "detected in less than a second, but up to 30 s when many nodes fail at once; a new task in up to 11 s, as the master was polled."
)
FULL_PERCENT = 40.0
"""Busier than this at rest, a processor is late for a failure, when all of its daemons have work to do at the same time."""
BUSY_LOAD = 0.5
"""Others had so much of the machine before it began: the figures are too high."""


def number(value: float | None) -> str:
    """Three digits that count."""
    if value is None:
        return "-"
    if value == NEVER:
        return "never"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{float(f'{value:.3g}'):g}"


def spread(values: Iterable[float]) -> str:
    """Median, least and most."""
    values = sorted(values)
    return f"{number(median(values))} ({number(values[0])} - {number(values[-1])})" if values else "-"


def aimed(data: Mapping[str, Any]) -> str:
    """The aims, and what came of each."""
    counts = measured(data)
    columns = [list(aims(of_form(dict(data), "daemons", nodes))) for nodes in counts]
    rows = []
    for row in zip(*columns, strict=True):
        cells = ["not measured" if aim.met is None else number(aim.got) if aim.met else f"**{number(aim.got)}**" for aim in row]
        rows.append([row[0].text, f"&le; {number(row[0].most)} {row[0].unit}", *cells])
    return table(["aim (**missed**)", "limit", *(f"{nodes} nodes" for nodes in counts)], rows)


def measured(data: Mapping[str, Any]) -> list[int]:
    """The numbers of nodes of which there are runs with daemons that came to their end."""
    return [nodes for nodes in sizes(dict(data)) if of_form(dict(data), "daemons", nodes)]


def repairs(data: Mapping[str, Any]) -> str:
    """How soon the kernels were as they should be."""
    rows = []
    for nodes in sizes(dict(data)):
        runs = of_form(dict(data), "daemons", nodes)
        if runs:
            found = repair(runs)
            cells = [
                f"{nodes} nodes, {len(runs[0]['dead'])} dead" + ("" if runs[0]["realtime"] else ", no real-time priority"),
                str(len(runs)),
                spread(found.suspected),
                spread(found.weightless),
            ]
            cells += [number(middle_kernels(runs, "weightless")), spread(found.gone)]
            rows.append([*cells, str(max(run["wrongly_out"] for run in runs)), str(sum(run["wrongly_down"] for run in runs))])
    heading = [
        "seconds after the panic: median (least - most) of the runs",
        "runs",
        "the last daemon suspects all",
        "weight 0, last kernel",
    ]
    heading += ["weight 0, all kernels' median", "gone, last kernel", "live backends out, most", "live nodes held for down"]
    return table(heading, rows)


def requests(data: Mapping[str, Any]) -> str:
    """What clients saw."""
    rows = []
    for form, name in (("daemons", "pyminuteman"), ("static", "nobody repairs")):
        for nodes in sizes(dict(data)):
            runs = of_form(dict(data), form, nodes)
            if not runs:
                continue
            said = [run["answers"] for run in runs]
            cells = [
                f"{nodes} nodes: {name}",
                f"{sum(one['count'] for one in said):,}",
                f"{sum(one['failed'] for one in said):,}",
            ]
            for key in ("last_failed_begun_seconds", "last_failed_ended_seconds"):
                cells += [number(max((one[key] for one in said if one[key] is not None), default=None))]
            cells += [str(sum(one["slow"] for one in said))]
            for when in ("before_ms", "after_ms"):
                known = [one[when] for one in said if one[when]]
                cells.append(
                    f"{number(median(one['median'] for one in known))} / {number(median(one['p95'] for one in known))}"
                    if known
                    else "-"
                )
            rows.append(cells)
    heading = ["all runs together", "requests", "failed", "the last failed one began, s", "and was seen to fail, s"]
    return table([*heading, "answered after 0.5 s or more", "ms before: median / p95", "ms from 1 s after"], rows)


def costs(data: Mapping[str, Any]) -> str:
    """What it takes."""
    rows = []
    for nodes in sizes(dict(data)):
        runs = of_form(dict(data), "daemons", nodes)
        rests = [run["rest"] for run in runs if "rest" in run]
        if not rests:
            continue
        daemons = [rest["daemons"] for rest in rests]
        cells = [f"{nodes + 1} daemons", spread(one["cpu_percent"]["mean"] for one in daemons)]
        cells += [number(max(one["cpu_percent"]["most"] for one in daemons))]
        cells += [" / ".join(number(max(rest["alone"][key] for rest in rests)) for key in ("rss_mb", "pss_mb", "private_mb"))]
        cells += [" / ".join(number(fmean(one[key]["mean"] for one in daemons)) for key in ("rss_mb", "pss_mb", "private_mb"))]
        cells += [number(fmean(rest["busy_percent"] for rest in rests))]
        cells += [number(fmean(run[when]["busy_percent"] for run in runs)) for when in ("load", "aftermath")]
        rows.append(cells)
    heading = ["", "% of a core at rest", "most of any", "alone, MB: RSS / PSS / private", "forked, MB: likewise"]
    return table([*heading, "the core is busy, %: at rest", "with requests", "3 s from the panic"], rows)


def news(data: Mapping[str, Any]) -> str:
    """How soon a change of a source is everywhere."""
    rows = []
    for nodes in sizes(dict(data)):
        runs = of_form(dict(data), "daemons", nodes)
        found = {what: changes(runs, what) for what in ("task", "vip")}
        if found["task"]:
            rows.append([f"{nodes} nodes", str(len(found["task"])), spread(found["task"]), spread(found["vip"])])
    return table(["seconds until the last kernel has it", "n each", "a new task", "a new VIP"], rows)


def about(data: Mapping[str, Any]) -> str:
    """Where and when."""
    machine = data["machine"]
    release = next((run["release"] for run in data["runs"] if "release" in run), "?")
    where = "in a user-mode-linux guest, one processor" if data["guest"] else "on the host"
    busy = " **The machine was busy with other things: the figures are too high.**" if data["load_before"] > BUSY_LOAD else ""
    return (
        f"Measured {machine['date']} on {machine['cpu']}, {machine['cpus']} processors, Linux {machine['release']}, Python "
        f"{machine['python']}; IPVS of Linux {release} {where}. Load of the machine before {data['load_before']:g}; "
        f"{data['seconds_in_all'] / 60:.0f} minutes in all.{busy}"
    )


def errors(data: Mapping[str, Any]) -> list[str]:
    """The runs that broke off."""
    return [
        f"**A run of {run['experiment']['nodes']} nodes ({run['experiment']['form']}) broke off:** `{run['error']}`"
        for run in data["runs"]
        if "error" in run
    ]


def missed(data: Mapping[str, Any]) -> str:
    """Which aims were not reached, for those who read no further."""
    said = []
    for nodes in measured(data):
        found = [aim for aim in aims(of_form(dict(data), "daemons", nodes)) if aim.met is False]
        texts = [f"{aim.text}: {number(aim.got)} {aim.unit}, aim {number(aim.most)}" for aim in found]
        said.append(f"* with {nodes} nodes: {'; '.join(texts) or 'none'}")
    return "Aims missed in these runs:\n\n" + "\n".join(said)


def limit(data: Mapping[str, Any]) -> str:
    """How much of what is shown is the processor's."""
    busy = [
        (nodes, fmean(run["rest"]["busy_percent"] for run in of_form(dict(data), "daemons", nodes))) for nodes in measured(data)
    ]
    shares = ", ".join(f"{number(percent)} % of it with {nodes} nodes" for nodes, percent in busy)
    text = f"One processor carries all daemons of a run. At rest, before a request is sent, they use {shares}."
    full = [nodes for nodes, percent in busy if percent > FULL_PERCENT]
    if full:
        text += (
            f" With {' and '.join(map(str, full))} it is the limit, and daemons wait for each other: those figures are of its queue, and say little "
            "of as many hosts, each with a processor of its own."
        )
    return text


def markdown(data: Mapping[str, Any]) -> str:
    """All of it."""
    parts = ["**Aims**", aimed(data), limit(data), "**Repair**", repairs(data), "**Requests**", requests(data), PREDECESSOR]
    parts += ["**News**", news(data), "**Cost**", costs(data), *errors(data), about(data)]
    return "\n\n".join(parts) + "\n"


def front_page(data: Mapping[str, Any]) -> str:
    """What the project's own README shows."""
    return (
        "\n\n".join([requests(data), repairs(data), missed(data), limit(data), *errors(data), PREDECESSOR, about(data)]) + "\n"
    )


def save(data: Mapping[str, Any], results: Path = RESULTS) -> None:
    """Write the tables and the picture, and the tables into whatever has the markers."""
    from benchmarks.headline import picture  # noqa: PLC0415 - matplotlib takes a second, and not everybody has it

    text = markdown(data)
    (results / "headline.md").write_text(text)
    picture.draw(dict(data), results / "headline.svg")
    fill(PAGE, *MARKS, text)
    fill(FRONT_PAGE, *MARKS, front_page(data))


if __name__ == "__main__":
    sys.exit(report(RESULTS / "headline.json", markdown, save))
