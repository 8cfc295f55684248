"""The store benchmark's figures as markdown: on stdout, in results/, and between markers in README.md and docs/protocols/store.md.

``python benchmarks/store/report.py --save`` writes them again from ``results/store.json``, so that the words can change without
measuring again.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.tables import fill, report, table  # noqa: E402

PAGES = (HERE / "README.md", ROOT / "docs" / "protocols" / "store.md")
MARKS = ("<!-- store figures -->", "<!-- /store figures -->")
AIMED_NODES = 1000


class Aim(NamedTuple):
    """What was to be reached: ``got`` is None when this run did not measure it, infinite when it never happened."""

    text: str
    unit: str
    most: float
    got: float | None


def number(value: float) -> str:
    """Three digits that count."""
    if value >= 1000:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.3g}" if value != int(value) else f"{value:.0f}"


def spread(values: Iterable[float]) -> str:
    """Median (least - most); without the spread where there is none."""
    values = list(values)
    least, most = number(min(values)), number(max(values))
    return number(median(values)) if least == most else f"{number(median(values))} ({least} - {most})"


def last_seconds(change: dict[str, Any]) -> float:
    return float("inf") if change["seconds_last"] is None else float(change["seconds_last"])


def aims(data: dict[str, Any]) -> list[Aim]:
    """What this run has of the three."""
    aimed = [one for one in data["spread"] if (one["nodes"], one["keys"], one["loss"]) == (AIMED_NODES, 1, 0)]
    changes = [change for one in aimed for change in one["changes"]]
    frame = aimed[0]["frame_bytes"] if aimed else 0
    starts = [run["from_process_start_seconds"] for run in data["restart"]["runs"]]
    whole = data["restart"]["costs"]["entries"] == 100_000
    return [
        Aim(
            "one change among 100,000 entries, the dearest link: sealed, as UDP carries it",
            "bytes",
            150,
            max((change["link_bytes"][2] - frame for change in changes), default=None),
        ),
        Aim(
            "until the last of 1,000 nodes has it, the slowest change",
            "ms",
            250,
            max((last_seconds(change) * 1000 for change in changes), default=None),
        ),
        Aim(
            "a restart with 100,000 entries, from the process's start until ready, median",
            "s",
            2,
            median(starts) if whole else None,
        ),
    ]


def aimed(data: dict[str, Any]) -> str:
    rows = []
    for aim in aims(data):
        verdict = "not measured" if aim.got is None else "met" if aim.got <= aim.most else "**missed**"
        got = "-" if aim.got is None else "never" if aim.got == float("inf") else number(aim.got)
        rows.append([f"{aim.text} ({aim.unit})", f"&le; {number(aim.most)}", got, verdict])
    return table(["aim", "limit", "got", "verdict"], rows)


def changes(data: dict[str, Any]) -> str:
    """A row for each cluster."""
    rows = []
    for one in data["spread"]:
        made = one["changes"]
        nodes, frame = one["nodes"], one["frame_bytes"]
        lasts = [last_seconds(change) * 1000 for change in made]
        halves = [change["seconds_median"] * 1000 for change in made if change["seconds_median"] is not None]
        kinds = (sum(change["bytes"].values()) / 1000 for change in made)
        of_changes = median(change["bytes"]["change"] for change in made) / 1000
        name = f"{nodes:,}" + (f", {one['loss']:.0%} of datagrams lost" if one["loss"] else "")
        never = sum(change["missing"] for change in made)
        rows.append(
            [
                name,
                f"{one['entries']:,}",
                str(one["keys"]),
                str(len(made)),
                _links(made, frame),
                spread(change["link_bytes"][1] for change in made),
                spread(sum(change["datagrams"].values()) for change in made),
                f"{spread(kinds)}, of which {number(of_changes)}",
                spread(halves) if halves else "-",
                spread(lasts) if max(lasts) < float("inf") else f"{number(min(lasts))} - never",
                str(never),
            ]
        )
    heading = [
        "nodes",
        "entries",
        "backends changed at once",
        "n",
        "bytes a link: the sealed datagrams",
        "with all headers",
        "datagrams of all nodes",
        "kB of all nodes, of which the change",
        "ms until half have it",
        "ms until the last",
        "never had it",
    ]
    return table(heading, rows)


def simulated(data: dict[str, Any]) -> str:
    """What the largest simulation took."""
    largest = max(data["spread"], key=lambda one: one["nodes"])
    return (
        f"At rest a node sends {number(largest['rest_datagrams_a_node_second'])} datagrams a second, "
        f"{number(largest['rest_bytes_a_node_second'] / 1000)} kB with headers: membership, and comparisons of stores. The simulation "
        f"of {largest['nodes']:,} nodes took {number(largest['cpu_seconds'])} s of processor time and "
        f"{number(largest['memory_bytes'] / 1e6)} MB of memory."
    )


def _links(made: list[dict[str, Any]], frame: int) -> str:
    """Over all links of all changes: the middle one's mean, the cheapest link, the dearest."""
    least, most = min(change["link_bytes"][0] for change in made), max(change["link_bytes"][2] for change in made)
    middle = median(change["link_bytes"][1] for change in made) - frame
    return number(middle) if least == most else f"{number(middle)} ({number(least - frame)} - {number(most - frame)})"


def restarts(data: dict[str, Any]) -> str:
    runs = data["restart"]["runs"]
    starts = data["engines"].get("etcd", {}).get("starts", [])
    rows = []
    for text, name, scale in (
        ("from the process's start until ready, s", "from_process_start_seconds", 1),
        ("- of which until the store is opened: Python, imports, the membership's start, s", "before_seconds", 1),
        ("from opening until entries can be read, s", "readable_seconds", 1),
        ("from opening until ready, s", "ready_seconds", 1),
        ("processor time, all of the process until ready, s", "cpu_seconds", 1),
        ("processor time of opening, s", "open_cpu_seconds", 1),
        ("resident memory when ready, MB", "rss_bytes", 1e-6),
        ("- of which before opening, MB", "rss_before_bytes", 1e-6),
    ):
        cells = [
            spread(run[name] * scale for run in some if name in run) if some and name in some[0] else "-"
            for some in (runs, starts)
        ]
        rows.append([text, *cells])
    rows.append(["on disk, MB", number(data["restart"]["disk_bytes"] / 1e6), "-"])
    entries = data["restart"]["costs"]["entries"]
    return table(
        [f"{entries:,} entries; median (least - most)", f"from SQLite, n={len(runs)}", f"from an etcd, n={len(starts)}"], rows
    )


def costs(data: dict[str, Any]) -> str:
    found = data["restart"]["costs"]
    rows = [
        ["`put_own`, until it returns, us", number(found["put_us"])],
        ["a change of another node: decoded and taken, us", number(found["take_us"])],
        ["a change to the database: one transaction, us", number(found["write_us"])],
        ["- and how much that writes, bytes", number(found["written_bytes"])],
        ['`entries("vips/")` of all, the first time, ms', number(found["first_read_ms"])],
        ['`entries("vips/")` of all, from then on, ms', number(found["read_ms"])],
    ]
    return table([f"while {found['entries']:,} entries are held; medians", ""], rows)


def engines(data: dict[str, Any]) -> str:
    rows = []
    for name in ("gossip", "etcd"):
        found = data["engines"].get(name)
        if found is not None:
            cells = [spread(value * 1000 for value in found[key]) for key in ("put_seconds", "watch_seconds")]
            rows.append([name, str(len(found["put_seconds"])), *cells])
    return table(["ms: median (least - most)", "n", "`put_own` returns", "a watch on the other node tells of it"], rows)


def markdown(data: dict[str, Any]) -> str:
    parts = [
        "**Aims**",
        aimed(data),
        "**One change in a cluster that holds them**, by simulation, links of 5 ms",
        changes(data),
        simulated(data),
        "**A restart**",
        restarts(data),
        "**What one change costs a node**",
        costs(data),
        "**Two nodes, one machine**",
        engines(data),
    ]
    found = data["engines"]
    if "etcd_missing" in found:
        parts.append(f"etcd was left out: {found['etcd_missing']}.")
    else:
        parts.append(
            f"To put {data['loaded']:,} entries into the etcd, 120 in a transaction, took {number(found['etcd']['fill_seconds'])} s."
        )
    return "\n\n".join([*parts, about(data)]) + "\n"


def about(data: dict[str, Any]) -> str:
    machine = data["machine"]
    etcd = data["engines"].get("etcd", {}).get("version")
    loads = " and ".join(number(load) for load in data["loads"])
    busy = (
        " **The machine was busy with other things: wall times are above what it takes alone.**" if data["loads"][0] > 1 else ""
    )
    return (
        f"Measured {machine['date']} on {machine['cpu']}, {machine['cpus']} processors, Linux {machine['release']}, Python "
        f"{machine['python']}, SQLite {data['restart']['sqlite']}{f', etcd {etcd}' if etcd else ''}; load {loads} before and after; "
        f"{data['seconds_in_all'] / 60:.1f} minutes in all.{busy}"
    )


def save(data: dict[str, Any], results: Path) -> None:
    """Write the tables, also into whatever has the markers."""
    text = markdown(data)
    (results / "store.md").write_text(text)
    for page in PAGES:
        fill(page, *MARKS, text)


if __name__ == "__main__":
    sys.exit(report(HERE / "results" / "store.json", markdown, lambda data: save(data, HERE / "results")))
