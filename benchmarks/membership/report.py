"""The figures of a run as markdown: on stdout, in results/, and between markers in README.md and docs/membership.md.

``python report.py --save`` writes them again from ``results/membership.json``, so that the words can change without measuring again.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))  # what all benchmarks share is found from there, by a name of its own

import figures  # noqa: E402
from aims import NEVER, aims  # noqa: E402
from cost import REST_UNITS  # noqa: E402
from figures import Spread  # noqa: E402

from benchmarks import scaling  # noqa: E402
from benchmarks.tables import fill, report, table  # noqa: E402

EVERYTHING_IN = (HERE / "README.md", ROOT / "docs" / "membership.md")
FRONT_PAGE = ROOT / "README.md"
MARKS = ("<!-- membership figures -->", "<!-- /membership figures -->")

NAMES = {"minuteman": "pyminuteman", "serf": "serf"}


def number(value: float | None) -> str:
    """Three digits that count."""
    if value is None:
        return "-"
    if value == NEVER:
        return "never"
    if value == int(value) and abs(value) < 1000:
        return f"{value:.0f}"
    return f"{float(f'{value:.3g}'):,.0f}" if value >= 1000 else f"{value:.3g}"


def spread(values: Spread | None) -> str:
    if values is None:
        return "-"
    return " / ".join(f"{value:.2f}" for value in (values.least, values.median, values.p95, values.most))


def detections(data: dict[str, Any]) -> str:
    rows = []
    for name, found in data["peers"].items():
        for what in ("suspected", "down") if name == "minuteman" else ("down",):
            told = figures.detection(found, what)
            wrong = figures.alarms(found.get("detection", []))
            cells = [f"{NAMES[name]}: {what}", str(len(found.get("detection", []))), spread(told.first), spread(told.last)]
            cells += [spread(told.all_pairs), str(told.missing), str(wrong.downs)]
            rows.append(cells)
    heading = ["seconds: least / median / p95 / most", "n", "first survivor", "last survivor", "last of all pairs"]
    return table([*heading, "pairs never told", "wrongly down"], rows)


def false_alarms(data: dict[str, Any]) -> str:
    """Each scenario, each peer."""
    rows = []
    for title, pick in _scenarios(data).items():
        for name, found in data["peers"].items():
            records = pick(found)
            if not records:
                continue
            said = figures.alarms(records)
            suspicions = f"{said.suspicions}"
            if name == "serf":  # nobody but the prober says so, and nobody says when it is over
                longest = "?" if said.suspicions else "-"
            else:
                longest = number(NEVER if said.suspicions_not_over else said.longest_after_cause_seconds)
            downs = f"{said.downs}" + (f" (in {said.trials_with_downs} of {said.trials})" if said.downs else "")
            cells = [title, NAMES[name], str(said.trials), suspicions, longest, downs, str(said.wrong_views_after)]
            rows.append(cells)
    heading = ["what happens", "peer", "trials", "wrong suspicions", "the longest, beyond its cause, s", "wrongly down"]
    return table([*heading, "views wrong in the end"], rows)


def _scenarios(data: dict[str, Any]) -> dict[str, Any]:
    def frozen(seconds: float, *where: str) -> Any:
        return lambda found: [
            {place: record[place] for place in where} | {"wrong_pairs_after": record["wrong_pairs_after"]}
            for record in figures.frozen(found, seconds)
        ]

    def bereaved(*where: str) -> Any:
        return lambda found: [{place: record[place] for place in where} for record in found.get("bereaved", [])]

    def lossy(share: float) -> Any:
        return lambda found: figures.lossy(found, share)

    seconds = sum(record["seconds"] for record in _first(data, "busy")[:1])
    scenarios: dict[str, Any] = {"cold start": lambda found: found.get("cold_start", [])}
    scenarios["the contact comes last"] = lambda found: found.get("join_at_once", [])
    scenarios["nothing, at rest"] = lambda found: found.get("at_rest", [])
    scenarios[f"8 busy loops, {seconds:.0f} s"] = lambda found: found.get("busy", [])
    for share in sorted({record["share"] for record in _first(data, "loss")}):
        scenarios[f"{share:.0%} of packets lost"] = lossy(share)
    for length in sorted({record["seconds"] for record in _first(data, "frozen")}):
        scenarios[f"a node frozen for {length:g} s: said of it"] = frozen(length, "of_it")
        scenarios[f"a node frozen for {length:g} s: all else that was said"] = frozen(length, "by_it", "elsewhere")
    scenarios[f"{data['victims']} nodes killed every 6 s"] = lambda found: found.get("killed_in_succession", [])
    scenarios["all neighbours of a node killed: said by it"] = bereaved("by_it")
    scenarios["all neighbours of a node killed: said by others"] = bereaved("of_it", "elsewhere")
    return scenarios


def _first(data: dict[str, Any], scenario: str) -> list[Any]:
    return next((found[scenario] for found in data["peers"].values() if found.get(scenario)), [])


def thaws(data: dict[str, Any]) -> str:
    rows = []
    for length in sorted({record["seconds"] for record in _first(data, "frozen")}):
        for name, found in data["peers"].items():
            records = figures.frozen(found, length)
            ends = [record["alive_everywhere_after_seconds"] for record in records]
            known = [end for end in ends if end is not None]
            declared = sum(any(alarm["kind"] == "down" for alarm in record["of_it"]) for record in records)
            if records and name != "serf":
                cells = [f"{length:g} s", NAMES[name], str(len(records)), str(declared)]
                rows.append([*cells, spread(Spread.of(known)), str(len(ends) - len(known))])
    heading = [
        "frozen for",
        "peer",
        "n",
        "declared down by somebody",
        "alive everywhere after the thaw, s: least / median / p95 / most",
    ]
    return table([*heading, "never"], rows)


def costs(data: dict[str, Any]) -> str:
    rows = []
    for name, found in data["peers"].items():
        cells = [NAMES[name]]
        for key in REST_UNITS:
            rest = figures.at_rest(found, key)
            cells.append(f"{number(rest[0])} ({number(rest[1])})" if rest else "-")
        rows.append(cells)
    heading = ["a node at rest: mean (most)", *(unit + (" sent" if "/s" in unit else "") for unit in REST_UNITS.values())]
    return table(heading, rows)


def cold_starts(data: dict[str, Any]) -> str:
    rows = []
    for what, scenario, key in (
        ("all start: every view complete", "cold_start", "complete_seconds"),
        ("- of which, until the last process runs", "cold_start", "last_running_seconds"),
        ("- and from then on", "cold_start", "joined_seconds"),
        ("all wait for the contact, and it comes: every view complete", "join_at_once", "complete_seconds"),
    ):
        for name, found in data["peers"].items():
            starts = found.get(scenario, [])
            if not starts:
                continue
            sent, most = (figures.start(found, scenario, f"sent_bytes_{which}") for which in ("mean", "max"))
            traffic = f"{sent.median / 1e3:.1f} ({most.most / 1e3:.1f})" if sent and most and key == "complete_seconds" else ""
            missing = str(sum(record["wrong_pairs"] for record in starts)) if traffic else ""
            rows.append([what, NAMES[name], str(len(starts)), spread(figures.start(found, scenario, key)), traffic, missing])
    heading = ["", "peer", "n", "s: least / median / p95 / most", "sent meanwhile, kB a node (most)", "pairs missing at 60 s"]
    return table(heading, rows)


def aimed(data: dict[str, Any]) -> str:
    rows = []
    for aim in aims(data["peers"].get("minuteman", {})):
        verdict = "not measured" if aim.met is None else "met" if aim.met else "**missed**"
        rows.append([f"{aim.text} ({aim.unit})", f"&le; {number(aim.most)}" if aim.most else "0", number(aim.got), verdict])
    return table(["aim", "limit", "got", "verdict"], rows)


def markdown(data: dict[str, Any]) -> str:
    peers = data["peers"]
    parts = []
    if "minuteman" in peers:
        parts += ["**Aims**", aimed(data)]
    for title, records, make in (
        (f"**Detection**: {data['victims']} of {data['nodes']} nodes die at one moment", "detection", detections),
        ("**False alarms**, in pairs of an observer and a live node", "frozen", false_alarms),
        ("**Thaws**", "frozen", thaws),
        ("**Cost**", "at_rest", costs),
        ("**Cold start**", "cold_start", cold_starts),
    ):
        if _first(data, records):
            parts += [title, make(data)]
    for name, found in peers.items():
        parts += [f"{NAMES[name]} broke off. {error}" for error in found["errors"]]
    parts.append(about(data))
    if larger := scaling.kept():
        parts += ["**Larger clusters**, by simulation and not in this run", scaling.markdown(larger)]
    return "\n\n".join(parts) + "\n"


def front_page(data: dict[str, Any]) -> str:
    """What the project's own README shows."""
    parts = [
        f"{data['victims']} of {data['nodes']} nodes die at one moment; seconds until the survivors know.",
        detections(data),
        "What a node takes while nothing happens.",
        costs(data),
        missed(data),
        about(data),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def missed(data: dict[str, Any]) -> str:
    """Which aims this run has not reached, for those who read no further."""
    found = [aim for aim in aims(data["peers"].get("minuteman", {})) if aim.met is False]
    said = "; ".join(f"{aim.text}: {number(aim.got)} {aim.unit}, aim {number(aim.most)}" for aim in found)
    return f"Aims missed in this run: {said}. The others are [met](docs/membership.md)." if said else ""


def about(data: dict[str, Any]) -> str:
    machine = data["machine"]
    titles = "; ".join(found["title"] for found in data["peers"].values())
    return (
        f"Measured {machine['date']} on {machine['cpu']}, {machine['cpus']} processors, Linux {machine['release']}, Python "
        f"{machine['python']}; {titles}. {data['nodes']} nodes, seed {data['seed']}, load before {machine['load_before']}, "
        f"{data['seconds_in_all'] / 60:.0f} minutes in all."
    )


def save(data: dict[str, Any], results: Path) -> None:
    """Write the tables and the picture, and the tables into whatever has the markers."""
    import picture  # noqa: PLC0415 - matplotlib takes a second, and not everybody has it

    text = markdown(data)
    (results / "membership.md").write_text(text)
    picture.draw(data, results / "failure_detection.svg")
    for reader, part in (*((reader, text) for reader in EVERYTHING_IN), (FRONT_PAGE, front_page(data))):
        fill(reader, *MARKS, part)


if __name__ == "__main__":
    sys.exit(report(HERE / "results" / "membership.json", markdown, lambda data: save(data, HERE / "results")))
