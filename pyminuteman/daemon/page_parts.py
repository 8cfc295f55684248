"""The tables and lines of the web page, one function each; :mod:`pyminuteman.daemon.page` puts them together. Pure.

Whatever is a state is said three times: by a word, by a shape and by a colour, so that whoever sees no colours, or no shapes, misses
nothing. The shapes are shared by the tables and by the graph.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, Final

from pyminuteman.daemon.markup import Child, Markup, element

__all__ = [
    "SHAPES",
    "backend_counts",
    "backend_table",
    "event_list",
    "kernel_table",
    "mark",
    "members_table",
    "natural",
    "problem_list",
    "sources_table",
    "symbols",
    "vip_summary",
]

SHAPES: Final[Mapping[str, str]] = {
    "alive": "round", "in": "round", "good": "round", "running": "round", "done": "round",
    "suspect": "triangle", "held": "triangle", "stale": "triangle", "waiting": "triangle",
    "down": "cross", "out": "cross", "failing": "cross", "degraded": "cross", "failed": "cross",
    "left": "ring", "drained": "pause", "note": "dot",
}  # fmt: skip
"""Which shape says which word. The words are those of the API."""

Json = Mapping[str, Any]

_DIGITS: Final = re.compile(r"(\d+)")
_VIEW: Final = "-8 -8 16 16"
_KINDS: Final[Mapping[str, str]] = {
    "member_up": "alive", "member_suspect": "suspect", "member_down": "down", "member_left": "left",
    "backend_out": "out", "backend_in": "in", "source_stale": "stale", "source_good": "good",
    "sync_failed": "failed", "conflict": "failed", "partition": "failed", "stall": "suspect", "failed_open": "suspect",
    "held_back": "held", "refused": "held", "drained": "drained",
}  # fmt: skip


def natural(text: str) -> list[tuple[int, int | str]]:
    """A key that sorts n2 before n10."""
    return [(0, int(part)) if part.isdecimal() and part.isascii() else (1, part) for part in _DIGITS.split(text) if part]


def symbols() -> Markup:
    """The shapes, to be placed once in the document; :func:`mark` refers to them."""
    drawn = {
        "round": element("circle", r=6),
        "ring": element("circle", r=5, class_="line"),
        "triangle": element("path", d="M0-7 7 6H-7Z"),
        "cross": Markup(
            element("path", d="M-6-6H6V6H-6Z") + element("path", d="M-2.8-2.8 2.8 2.8M2.8-2.8-2.8 2.8", class_="cut")
        ),
        "pause": Markup(element("circle", r=6, class_="line") + element("path", d="M-2-3V3M2-3V3", class_="line")),
        "dot": element("circle", r=3),
    }
    made = (element("symbol", shape, id=f"shape-{name}", viewbox=_VIEW) for name, shape in drawn.items())
    return element("svg", *made, class_="symbols", aria_hidden="true", width=0, height=0)


@cache
def _shape(known: str) -> Markup:
    return element(
        "svg",
        element("use", href=f"#shape-{SHAPES[known]}", x=-8, y=-8, width=16, height=16),
        viewbox=_VIEW,
        aria_hidden="true",
    )


def mark(word: str, text: str | None = None) -> Markup:
    """The shape of a state and its word (or another text)."""
    known = word if word in SHAPES else "note"
    return element("span", _shape(known), element("span", word if text is None else text), class_=f"mark is-{known}")


def backend_counts(backends: Iterable[Json]) -> str:
    """``3 in, 1 out`` of these backends."""
    counted = Counter(backend["state"] for backend in backends)
    return ", ".join(f"{counted[state]} {state}" for state in ("in", "held", "out") if counted[state]) or "no backends"


def _moment(text: str) -> Markup:
    """A time of the API as its clock shows it; the whole is in the attribute and in the tooltip."""
    return element("time", text[11:19], datetime=text, title=text)


def _row(cells: Sequence[Child], kinds: Sequence[str | None]) -> Markup:
    """The first cell is the row's heading."""
    rest = (element("td", cell, class_=kind) for cell, kind in zip(cells[1:], kinds[1:], strict=True))
    return element("tr", element("th", cells[0], scope="row", class_=kinds[0]), *rest)


def _table(caption: str, columns: Sequence[tuple[str, str]], rows: Iterable[Sequence[Child]], left_out: int = 0) -> Markup:
    """``columns`` are titles with their classes; each cell of a row has its column's class."""
    head = element("tr", *(element("th", title, scope="col", class_=kind or None) for title, kind in columns))
    body = [_row(row, [kind or None for _, kind in columns]) for row in rows]
    if left_out:
        body.append(
            element("tr", element("td", f"and {left_out} more, which the API has", colspan=len(columns), class_="empty"))
        )
    table = element("table", element("caption", caption), element("thead", head), element("tbody", *body))
    return element("div", table, class_="scroll")


def problem_list(status: Json) -> Markup:
    """What the node says is wrong. Nothing, when nothing is."""
    if not status["problems"]:
        return Markup()
    lines = (element("li", mark("suspect", row["text"])) for row in status["problems"])
    return element("ul", *lines, class_="problems", aria_label="Problems")


def _weight(backend: Json) -> Child:
    if backend["effective_weight"] == backend["weight"]:
        return str(backend["weight"])
    return element("span", element("strong", backend["effective_weight"]), " of ", str(backend["weight"]))


def _why(backend: Json) -> str:
    """Why a backend is as it is, in one line; empty when there is nothing to say."""
    drain = backend["drain"]
    parts = ["" if drain is not None and backend["reason"] == "drained" else backend["reason"], backend["detail"]]
    if drain is not None:
        parts.append(f"drained by {drain['by']}: {drain['reason']}" if drain["reason"] else f"drained by {drain['by']}")
    health = backend["health"]
    if health is not None and not health["healthy"] and health["reason"] not in parts:
        parts.append(health["reason"])
    return "; ".join(part for part in parts if part)


def _address(row: Json) -> str:
    return f"[{row['address']}]:{row['port']}" if ":" in row["address"] else f"{row['address']}:{row['port']}"


def backend_table(backends: Iterable[Json], left_out: int = 0) -> Markup:
    """A VIP's backends by address, with why they are out."""
    columns = (("Backend", "address"), ("Node", ""), ("Weight", "number"), ("State", ""), ("Why", "why"), ("Active", "number"))
    rows = []
    for backend in sorted(backends, key=lambda row: natural(_address(row))):
        connections = backend["connections"]
        rows.append(
            (
                _address(backend),
                backend["node"],
                _weight(backend),
                mark(backend["state"]),
                _why(backend),
                "-" if connections is None else str(connections["active"]),
            )
        )
    return _table("Backends", columns, rows, left_out)


def vip_summary(vip: Json) -> Markup:
    """The line of a VIP that can be opened."""
    states = {backend["state"] for backend in vip["backends"]}
    worst = next((state for state in ("out", "held", "in") if state in states), "out")
    failed_open = [element("span", f"failed open: {', '.join(vip['failed_open'])}", class_="why")] if vip["failed_open"] else []
    parts = (
        element("span", vip["name"] or vip["vip"], class_="name"),
        element("span", vip["vip"] if vip["name"] else "", class_="address"),
        element("span", backend_counts(vip["backends"]), class_="counts"),
        *failed_open,
    )
    return element("summary", mark(worst, ""), *(child for part in parts for child in (" ", part)))


def members_table(members: Iterable[Json], left_out: int = 0) -> Markup:
    """Who is in the cluster, by name."""
    columns = (
        ("Name", ""),
        ("State", ""),
        ("Since", ""),
        ("Endpoint", "address"),
        ("Backends", "number"),
        ("Links", "number"),
        ("Drain", "why"),
    )
    rows = []
    for member in sorted(members, key=lambda row: (natural(row["label"]), row["id"])):
        name = element("span", member["label"], title=member["id"])
        drain = member["drain"]
        rows.append(
            (
                element("span", name, " ", element("span", "this node", class_="tag")) if member["me"] else name,
                mark(member["status"]),
                _moment(member["since"]),
                member["endpoint"],
                str(member["backends"]),
                str(len(member["neighbours"])),
                mark("drained", f"by {drain['by']}: {drain['reason']}")
                if drain
                else (mark("drained") if member["drained"] else ""),
            )
        )
    return _table("Members", columns, rows, left_out)


def event_list(events: Iterable[Json]) -> Markup:
    """What happened, the newest first."""
    lines = [
        element("li", _moment(event["time"]), " ", mark(_KINDS.get(event["kind"], "note"), event["text"]), title=event["kind"])
        for event in sorted(events, key=lambda event: event["id"], reverse=True)
    ]
    if not lines:
        return element("p", "None yet.", class_="empty")
    return element("ol", *lines, class_="events", aria_label="Events, the newest first")


def sources_table(sources: Iterable[Json]) -> Markup:
    """What VIPs are read from, and what each source could not make sense of."""
    columns = (("Source", ""), ("Place", "address"), ("State", ""), ("VIPs", "number"), ("Age", "number"), ("Why", "why"))
    rows = []
    for source in sources:
        age = source["age_seconds"]
        why_not = [source["reason"], *(f"{row['where']}: {row['reason']}" for row in source["problems"])]
        said = "; ".join(text for text in why_not if text)
        shown_age = "-" if age is None else f"{age:.0f} s"
        rows.append((source["name"], source["place"], mark(source["state"]), str(source["vips"]), shown_age, said))
    return _table("Sources", columns, rows)


def kernel_table(status: Json) -> Markup:
    """Each network namespace's table in the kernel, and the steps of host set-up."""
    columns = (
        ("Namespace", ""),
        ("State", ""),
        ("Services", "number"),
        ("Destinations", "number"),
        ("Draining", "number"),
        ("Last write", ""),
        ("Why", "why"),
    )
    rows: list[Sequence[Child]] = []
    for kernel in status["kernel"]:
        held = kernel["held_back"]
        state = "failed" if kernel["error"] else "held" if held else "done"
        written = kernel["last_sync_at"]
        foreign = f"not ours, left alone: {', '.join(kernel['foreign'])}" if kernel["foreign"] else ""
        said = "; ".join(text for text in (kernel["error"], held["text"] if held else "", foreign) if text)
        counted = (str(kernel[key]) for key in ("services", "destinations", "draining"))
        rows.append(
            (kernel["namespace"] or "the host's own", mark(state), *counted, "-" if written is None else _moment(written), said)
        )
    steps = [
        element(
            "li", mark("done" if step["ok"] else "failed", step["step"]), " ", element("span", step["reason"], class_="why")
        )
        for step in status["host"]
    ]
    table = _table("Kernel", columns, rows)
    return element("div", table, element("ul", *steps, class_="plain", aria_label="Host set-up")) if steps else table
