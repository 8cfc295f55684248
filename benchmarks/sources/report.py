"""The figures of a run as markdown: on stdout, in results/, and between markers in README.md and docs/sources/README.md.

``python -m benchmarks.sources.report --save`` writes them again from ``results/sources.json``, so that the words can change without
measuring again.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))  # an uninstalled tree will do

from benchmarks.sources.aims import aims  # noqa: E402
from benchmarks.sources.deciding import CASES, SHAPES, STEPS  # noqa: E402
from benchmarks.sources.parsing import INPUTS  # noqa: E402
from benchmarks.sources.spread import Spread, spread  # noqa: E402
from benchmarks.tables import fill, report, table  # noqa: E402

PAGES = (HERE / "README.md", ROOT / "docs" / "sources" / "README.md")
MARKS = ("<!-- source figures -->", "<!-- /source figures -->")
RESULTS = HERE / "results"
POINTS = {
    "event": "the event is here",
    "state": "a state has it",
    "woken": "who keeps the table works on it",
    "read": "the table is known, from memory or read",
    "decided": "what to do is to be worked out",
    "applied": "the kernel has answered",
}
KINDS = {"etcd": "a put", "file": "a file renamed into place", "http": "a document, asked for every 0.1 s"}


def number(value: float) -> str:
    """Three digits that count."""
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}" if abs(rounded) >= 100 else f"{rounded:.3g}"


def shown(found: Spread) -> str:
    return f"{number(found['median'])} ({number(found['least'])} - {number(found['most'])})"


def aimed(data: Mapping[str, Any]) -> str:
    rows = []
    for aim in aims(dict(data)):
        got = "-" if aim.got is None else number(aim.got)
        verdict = "not measured" if aim.met is None else "met" if aim.met else "**missed**"
        rows.append([aim.text, f"&le; {number(aim.most)}", got, verdict])
    return table(["aim, ms", "limit", "got", "verdict"], rows)


def latencies(data: Mapping[str, Any]) -> str:
    rows = []
    for one in data["kernel"]["runs"]:
        run = one["run"]
        if not run["marked"]:
            found, written = spread(one["seen_ms"]), spread(one["written_ms"])
            cells = [f"{run['source']}: {KINDS[run['source']]}", f"{run['backends']:,}", str(found["n"])]
            cells += [number(found[key]) for key in ("least", "median", "p95", "most")]
            rows.append([*cells, number(written["median"])])
    heading = ["until the kernel has it, ms", "backends", "n", "least", "median", "p95", "most"]
    return table([*heading, "of which until it is written, median"], rows)


def parts(data: Mapping[str, Any]) -> str:
    """Medians, each from the beginning."""
    kernel = "guest" if data["kernel"]["guest"] else "kernel"
    columns = [
        (f"{one['run']['source']}, {one['run']['backends']:,}, {where}", one)
        for where, latency in ((kernel, data["kernel"]), ("host", data["here"]))
        for one in latency["runs"]
        if one["run"]["marked"]
    ]
    rows = [["written, and acknowledged", *(number(spread(one["written_ms"])["median"]) for _, one in columns)]]
    for point, text in POINTS.items():
        values = [one["parts_ms"].get(point) for _, one in columns]
        rows.append([text, *(number(spread(found)["median"]) if found else "-" for found in values)])
    return table(["ms since it was begun, medians", *(title for title, _ in columns)], rows)


def rates(data: Mapping[str, Any]) -> str:
    rows = []
    for name, found in data["parsing"].items():
        one = INPUTS[name]
        whole = found["whole_ms"]
        cells = [f"{one.title}; {one.count:,} {one.units}", f"{found['bytes'] / 1e6:.3g}", shown(whole)]
        cells += ["-" if one.decoder == "-" else shown(found["decoding_ms"]), shown(found["extracting_ms"])]
        cells += [number(found["cpu_ms"]["median"]), number(one.count / found["whole_ms"]["median"] * 1e3)]
        rows.append([*cells, number(found["memory_mib"])])
    heading = ["from bytes to VIPs", "MB", "ms", "of which decoding", "and extracting", "CPU ms", "tasks or backends a second"]
    return table([*heading, "peak memory more, MiB"], rows)


def functions(data: Mapping[str, Any]) -> str:
    """What was timed, by name."""
    by_names: dict[tuple[str, str], list[str]] = {}
    for name in data["parsing"]:
        one = INPUTS[name]
        by_names.setdefault((one.decoder, one.extractor), []).append(one.title.partition(":")[0])
    said = [f"{', '.join(titles)}: `{decoder}`; `{extractor}`" for (decoder, extractor), titles in by_names.items()]
    return "What is timed, decoding and extracting: " + ". ".join(said).replace("`-`; ", "") + "."


def decisions(data: Mapping[str, Any]) -> str:
    rows = []
    for shape, found in data["deciding"].items():
        for case, steps in found["cases"].items():
            rows.append([f"{SHAPES[shape][2]}: {CASES[case]}", *(shown(steps[step]) for step in STEPS)])
    return table(["from VIPs to the plan, ms", *STEPS.values()], rows)


def markdown(data: Mapping[str, Any]) -> str:
    return (
        "\n\n".join(
            [
                "**Aims**",
                aimed(data),
                "**From a change to the kernel**, of `minuteman vips apply --watch` as it is, on one machine",
                latencies(data),
                "**Where the time goes**: the same, with clocks read on the way; on the host without IPVS, which a double stands for there",
                parts(data),
                *said(data),
                "**Reading**: median (least - most)",
                rates(data),
                functions(data),
                "**Deciding**: median (least - most)",
                decisions(data),
                about(data),
            ]
        )
        + "\n"
    )


def said(data: Mapping[str, Any]) -> list[str]:
    """What went wrong on the way, if anything did."""
    found = []
    for one in (*data["kernel"]["runs"], *data["here"]["runs"]):
        if one["said"]:
            run = one["run"]
            found.append(
                f"In the run of {run['source']} with {run['backends']:,} backends it said: `{'`, `'.join(one['said'])}`"
            )
    return found


def about(data: Mapping[str, Any]) -> str:
    machine, kernel = data["machine"], data["kernel"]
    where = "in a user-mode-linux guest, one processor," if kernel["guest"] else "on the host,"
    busy = " **The machine was busy with other things meanwhile: the figures are too high.**" if is_busy(data) else ""
    return (
        f"Measured {machine['date']} on {machine['cpu']}, {machine['cpus']} processors, Linux {machine['release']}, Python "
        f"{machine['python']}, etcd {data['etcd']}; IPVS of Linux {kernel['release']} {where} where a system call costs "
        f"{number(kernel['system_call_us'])} us, and {number(data['here']['system_call_us'])} us on the host. Load of the machine before "
        f"{data['load_before']}, after {data['load_after']}; {data['seconds_in_all'] / 60:.1f} minutes in all.{busy}"
    )


def is_busy(data: Mapping[str, Any]) -> bool:
    """Whether others had more than half a processor when it began."""
    return float(data["load_before"]) > 0.5


def save(data: Mapping[str, Any], results: Path = RESULTS) -> None:
    """Write the tables, also into whatever has the markers."""
    text = markdown(data)
    (results / "sources.md").write_text(text)
    for page in PAGES:
        fill(page, *MARKS, text)


if __name__ == "__main__":
    sys.exit(report(RESULTS / "sources.json", markdown, save))
