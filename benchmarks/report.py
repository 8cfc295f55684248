"""The figures of a run as markdown: ``results/reconcile.md``, and with ``--save`` also that part of the two README.md.

Reads ``results/reconcile.json``, so that the words can change without measuring again.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from tables import fill, table
from workloads import WORKLOADS

HERE = Path(__file__).resolve().parent
END = "<!-- end of figures -->"
NAMES = {
    "limit": "the limit (C)",
    "apply": "apply(plan)",
    "converge": "converge(desired)",
    "memory": "converge(desired, audit=False)",
    "gnlpy": "gnlpy",
    "ipvsadm": "ipvsadm",
    "pyroute2": "pyroute2",
}
PEERS = ("gnlpy", "ipvsadm", "pyroute2")
OURS = ("apply", "converge", "memory")
# A change to a table that is read first: whose dump, how often.
READ_FIRST = {"W4": ("W3n", 2), "W5": ("W3", 1), "W8": ("W7", 1)}
# Whom a workload is about: the whole of it, end to end.
WHOLE = {"load": "converge", "read": "converge", "delta": "memory", "weights": "memory", "one": "memory"}


def number(value: float) -> str:
    """Three digits that count."""
    if value >= 1000:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:#.3g}".rstrip(".")


def spread(row: dict[str, Any] | None) -> str:
    return f"{number(row['median_ms'])} ({number(row['min_ms'])} - {number(row['max_ms'])})" if row else "-"


def with_dumps(results: dict[str, Any], name: str) -> dict[str, Any] | None:
    """The limit of a change to a table that has to be read first."""
    read, dumps = READ_FIRST.get(name, (name, 0))
    limit, dump = (results.get(which, {}).get("limit") for which in (name, read))
    if not limit or not dump:
        return None
    return {key: limit[key] + dumps * dump[key] for key in ("median_ms", "min_ms", "system_calls")}


def ratio(row: dict[str, Any] | None, limit: dict[str, Any] | None) -> str:
    return f"**{row['median_ms'] / limit['median_ms']:.2f}** ({row['min_ms'] / limit['min_ms']:.2f})" if row and limit else "-"


def kernel_ms(data: dict[str, Any], name: str) -> float:
    """What IPVS itself does for a workload: the limit's time, less what it spends on messages and the guest's system calls."""
    limit, native = data["results"][name]["limit"], data["native"]["milliseconds"][name]["limit"]
    tax = data["system_call_us"] - data["native"]["system_call_us"]
    return max(0.0, limit["median_ms"] - limit["system_calls"] * tax / 1e3 - native)


def estimate(data: dict[str, Any], name: str) -> dict[str, float]:
    """Native milliseconds of a changing workload, by peer: see native.py."""
    native = data["native"]
    kernel, requests = kernel_ms(data, name), WORKLOADS[name].requests
    found = {peer: kernel + value for peer, value in native["milliseconds"][name].items()}
    if name != "W8":
        for peer, source in (("gnlpy", "gnlpy"), ("ipvsadm", "lookup"), ("pyroute2", "pyroute2")):
            found[peer] = kernel + requests * native["change_us"][source] / 1e3
    return found


def estimated(data: dict[str, Any]) -> list[str]:
    """The workloads that an estimate can be made for."""
    names = data.get("native", {}).get("milliseconds", {})
    return [name for name in names if "limit" in data["results"].get(name, {})]


def against_the_limit(data: dict[str, Any]) -> str:
    rows = []
    for name, found in data["results"].items():
        workload, limit = WORKLOADS[name], found.get("limit")
        ways = [way for way in OURS if way in found]
        for at, way in enumerate(ways):
            row = found[way]
            least = with_dumps(data["results"], name) if way == "converge" else limit
            rows.append(
                [
                    f"{name}: {workload.title}" if at == 0 else "",
                    spread(limit) if at == 0 else "",
                    f"`{NAMES[way]}`",
                    spread(row),
                    ratio(row, least),
                    number(row["own_ms"]) if way != "apply" and workload.kind != "read" else "-",
                    f"{row['system_calls']:.0f} / {least['system_calls']:.0f}" if least else f"{row['system_calls']:.0f}",
                    str(row["n"]),
                ]
            )
    heading = [
        "workload",
        "limit, ms",
        "ours",
        "ms",
        "ratio",
        "own ms, outside the kernel",
        "system calls, ours / limit",
        "n",
    ]
    return table(heading, rows)


def estimates(data: dict[str, Any]) -> str:
    rows = []
    for name in estimated(data):
        found = estimate(data, name)
        ours = found[WHOLE[WORKLOADS[name].kind]]
        row = [f"{name}: {WORKLOADS[name].title}", number(found["limit"]), number(found["apply"]), number(ours)]
        for peer in PEERS:
            least = "&ge; " if peer == "ipvsadm" else ""
            row.append(f"{least}{number(found[peer])} ({least}{number(found[peer] / ours)} x)" if peer in found else "-")
        rows.append([*row, f"{found['apply'] / found['limit']:.2f}", f"{ours / found['limit']:.2f}"])
    heading = ["estimate, ms", "limit", "`apply`", "`converge`", *PEERS, "`apply` / limit", "`converge` / limit"]
    return table(heading, rows)


def change_costs(data: dict[str, Any]) -> str:
    native, loads = data["native"], data["native"]["milliseconds"]["W2"]
    requests = WORKLOADS["W2"].requests
    rows = [
        ("the limit: packed, one acknowledgement a datagram", loads["limit"] / requests * 1e3),
        ("`apply(plan)`", loads["apply"] / requests * 1e3),
        ("`converge(desired)`, all of it", loads["converge"] / requests * 1e3),
        ("C, a request and an acknowledgement at a time", native["change_us"]["single"]),
        ("C, a socket and a look-up for each: less than ipvsadm does", native["change_us"]["lookup"]),
        ("gnlpy", native["change_us"]["gnlpy"]),
        ("pyroute2", native["change_us"]["pyroute2"]),
    ]
    return table(["a change, without IPVS's own work", "us"], [[name, number(value)] for name, value in rows])


def in_the_guest(data: dict[str, Any]) -> str:
    peers = [peer for peer in NAMES if any(peer in found for found in data["results"].values())]
    rows = []
    for name, found in data["results"].items():
        cells = [f"{spread(found.get(peer))}, n={found[peer]['n']}" if peer in found else "-" for peer in peers]
        rows.append([name, *cells])
    return table(["ms: median (least - most), n", *(NAMES[peer] for peer in peers)], rows)


def system_calls(data: dict[str, Any]) -> str:
    rows = []
    for peer, counts in data["calls"].items():
        cells = [f"{counts[kind]:.3g}" if kind in counts else "-" for kind in ("load", "read")]
        rows.append([NAMES[peer], *cells])
    return table(["system calls", "a change (50 services of 10)", "a service read, with its 10 destinations"], rows)


def diff(data: dict[str, Any]) -> str:
    rows = []
    for case, engines in data["diff"].items():
        for engine, row in engines.items():
            count = f"{row['instructions'] / 1e6:.1f} million" if "instructions" in row else "-"
            name = "engine (C)" if engine == "engine" else "reference (Python)"
            rows.append([f"{case}: {name}", number(row["ms"]), number(row["memory_kib"] / 1024), count])
    return table(["diff of 100,000 destinations, native", "ms", "peak memory more, MiB", "instructions"], rows)


def machine(data: dict[str, Any]) -> str:
    about = data["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    where = "a user-mode-linux guest, one processor" if data["guest"] else "the host itself"
    return (
        f"Measured {about['date']} on {about['cpu']}, {about['cpus']} processors, Linux {about['release']}; IPVS of "
        f"Linux {data['release']} in {where}, where a system call costs {data['system_call_us']:.1f} us. Python {about['python']}, "
        f"{about['compiler']}; {versions}. {data['seconds_in_all'] / 60:.0f} minutes in all."
    )


def front_page(data: dict[str, Any]) -> str:
    """What the project's own README shows: the ratio to the limit, and the estimate beside the peers."""
    parts = [
        (
            "**Times the limit**, a C program that sends the same messages and does nothing else: medians (least - most), ratio of the "
            "medians, in brackets of the least. The limit of W3, W3n and W7 is a raw dump."
        ),
        against_the_limit(data),
    ]
    if estimated(data):
        parts += [
            (
                "**Beside the peers, estimated for a host without the guest** (the cost of everybody's messages and system calls on this "
                "host's kernel, plus IPVS's own work from the guest; in brackets: times our `converge`; ipvsadm at least):"
            ),
            estimates(data),
        ]
    return "\n\n".join([*parts, machine(data)]) + "\n"


def markdown(data: dict[str, Any]) -> str:
    parts = [
        machine(data),
        "### This library against the limit, in the guest" if data["guest"] else "### This library against the limit",
        against_the_limit(data),
        (
            "Medians of n repetitions (least - most); the ratio is of the medians, in brackets of the least. The limit of W3, W3n and W7 "
            "is the raw dump. `converge` reads the table before each change: in W4, W5 and W8 its limit is the change and as many dumps."
        ),
    ]
    if estimated(data):
        parts += [
            "### Without the guest: an estimate",
            estimates(data),
            (
                "Not measured on one machine: messages and system calls on the host's kernel, IPVS's own work in the guest, the least of "
                "each. `converge` is by memory (`audit=False`) where a table is there. In brackets: times our `converge`. Peers are "
                "handed the changes of W4 and W5, which `converge` has to find. ipvsadm: at least, and without starting a process."
            ),
            change_costs(data),
        ]
    parts += ["### What the guest measured" if data["guest"] else "### All that was measured", in_the_guest(data)]
    if data["guest"]:
        parts.append(
            "Do not divide these: the guest overstates whoever makes more system calls. The estimate above is what may be compared; "
            "for reading there is none."
        )
    if data.get("calls"):
        parts.append(system_calls(data))
    if data.get("diff"):
        parts += ["### The diff", diff(data)]
    return "\n\n".join(parts) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the figures of the last run as markdown.")
    parser.add_argument("--save", action="store_true", help="into results/reconcile.md and both README.md, not to stdout")
    options = parser.parse_args()
    data = json.loads((HERE / "results" / "reconcile.json").read_text())
    text = markdown(data)
    if not options.save:
        print(text)
        return 0
    (HERE / "results" / "reconcile.md").write_text(text)
    fill(HERE / "README.md", "<!-- figures: written by report.py -->", END, text)
    fill(HERE.parent / "README.md", "<!-- figures: written by benchmarks/report.py -->", END, front_page(data))
    return 0


if __name__ == "__main__":
    sys.exit(main())
