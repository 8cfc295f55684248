"""The web page, rendered from what the API tells: a picture of one moment, complete without JavaScript. Pure.

The same plain dicts that ``/v1/status``, ``/v1/members``, ``/v1/backends``, ``/v1/topology`` and ``/v1/events?format=json`` answer with go
in, one HTML document comes out. Where a browser runs JavaScript, ``web/app.js`` takes over each section that is marked ``data-part`` and
keeps it up to date from the API; where not, these tables are the page.

The document has no inline script and no inline style, and :data:`CONTENT_SECURITY_POLICY` forbids both: a name that found its way into
the markup would still do nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from pyminuteman.daemon.markup import Markup, element, void
from pyminuteman.daemon.page_parts import (
    backend_counts,
    backend_table,
    event_list,
    kernel_table,
    mark,
    members_table,
    problem_list,
    sources_table,
    symbols,
    vip_summary,
)

__all__ = ["CONTENT_SECURITY_POLICY", "OPEN_MAX", "ROWS_MAX", "render_page"]

CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""To be sent with the document. It says as much as: only files of this server run, and nothing leaves for anywhere else."""

OPEN_MAX: Final = 60
"""Backends, or members, up to which their tables stand open. Above, the summary lines come first and each table is a click away."""
ROWS_MAX: Final = 2_000
"""Backends and members in one document. What is more is counted; the API has it. (2,000 rows
are some 0.8 MB of HTML and 50 ms of one core; render it in a thread.)"""

_MODULES: Final = (
    "api", "dom", "events", "format", "graph", "layout", "members", "overview", "sparkline", "statistics", "vips", "vendor/d3-force",
)  # fmt: skip
_NONE_YET: Final = "None yet."

Json = Mapping[str, Any]


def _head(title: str) -> Markup:
    return element(
        "head",
        void("meta", charset="utf-8"),
        element("title", title),
        void("meta", name="viewport", content="width=device-width, initial-scale=1"),
        void("meta", name="color-scheme", content="light dark"),
        void("link", rel="icon", href="web/icon.svg", type="image/svg+xml"),
        void("link", rel="stylesheet", href="web/page.css"),
        element("script", src="web/theme.js"),  # before anything is drawn: a page that changes colour on loading hurts at night
        *(void("link", rel="modulepreload", href=f"web/{name}.js") for name in _MODULES),
        element("script", type="module", src="web/app.js"),
    )


def _header(status: Json, at: datetime) -> Markup:
    node = status["node"]
    here = element("span", status["node"]["name"], class_="name")
    return element(
        "header",
        element(
            "h1", void("img", src="web/icon.svg", alt="", width=22, height=22), element("span", "minuteman"), class_="brand"
        ),
        element(
            "p",
            element("span", status["cluster"] or "no cluster", class_="cluster", data_field="cluster"),
            " seen from ",
            element("span", here, data_field="me", title=node["endpoint"]),
            class_="where",
        ),
        element("p", mark(status["state"]), class_="state", data_part="state"),
        element(
            "p",
            element("span", "as of ", element("time", f"{at:%H:%M:%S} UTC", datetime=at.isoformat()), class_="as-of"),
            class_="connection",
            data_part="connection",
            role="status",
        ),
        element("button", "Theme", type="button", class_="quiet", data_part="theme", hidden=""),
    )


def _figure(part: str, label: str, value: str | int, note: str | Markup, *, live: bool = False) -> Markup:
    """``live`` ones have no value but with JavaScript, and are not shown without it."""
    return element(
        "div",
        element("dt", label),
        element(
            "dd",
            element("strong", f"{value:,}" if isinstance(value, int) else value),
            " ",
            element("span", note, class_="note"),
        ),
        class_="figure",
        data_figure=part,
        data_live="" if live else None,
    )


def _figures(status: Json, backends: Json) -> Markup:
    alive = status["members"]
    parts = [f"{alive[word]} {word}" for word in ("alive", "suspect", "down", "left") if alive[word]]
    kernel = status["kernel"]
    return element(
        "dl",
        _figure("members", "Members", sum(alive[word] for word in ("alive", "suspect", "down")), ", ".join(parts)),
        _figure(
            "vips", "Virtual IPs", len(backends["vips"]), backend_counts(b for vip in backends["vips"] for b in vip["backends"])
        ),
        _figure("connections", "Connections", "-", "per second", live=True),
        _figure("traffic", "Traffic", "-", "per second", live=True),
        _figure("kernel", "Kernel", sum(row["destinations"] for row in kernel), "destinations in its table"),
        class_="figures",
        data_part="figures",
    )


def _section(part: str, title: str, *inside: Markup, tools: str = "", hidden: bool = False) -> Markup:
    """One part of the page. ``tools`` names what JavaScript puts beside the title; without it there is nothing to press."""
    heading = element(
        "div", element("h2", title, id=f"{part}-title"), element("div", class_="tools", data_tools=tools), class_="heading"
    )
    return element(
        "section",
        heading,
        element("div", *inside, class_="body", data_part=part),
        id=part,
        aria_labelledby=f"{part}-title",
        hidden="" if hidden else None,
    )


def _vips(backends: Json) -> list[Markup]:
    total = sum(len(vip["backends"]) for vip in backends["vips"])
    parts, room = [], ROWS_MAX
    for vip in sorted(backends["vips"], key=lambda vip: (vip["name"] or vip["vip"], vip["vip"])):
        rows = vip["backends"][: max(room, 0)]
        room -= len(vip["backends"])
        parts.append(
            element(
                "details",
                vip_summary(vip),
                backend_table(rows, left_out=len(vip["backends"]) - len(rows)),
                class_="vip",
                open="" if total <= OPEN_MAX else None,
            )
        )
    return parts or [element("p", _NONE_YET, class_="empty")]


def _refused(backends: Json) -> list[Markup]:
    lines = [
        f"{row['vip']}, claimed by {row['claimant']['source']} on {row['node']}: {row['reason']}"
        + (f" ({row['detail']})" if row["detail"] else "")
        for row in backends["refused"]
    ] + list(backends["conflicts"])
    if not lines:
        return []
    title = f"Claims that were refused or contradict each other: {len(lines)}"
    return [element("details", element("summary", title), _lines(lines[:ROWS_MAX]), class_="refused")]


def _lines(texts: Iterable[str]) -> Markup:
    return element("ul", *(element("li", text) for text in texts), class_="plain")


def _members(members: Json, topology: Json) -> list[Markup]:
    rows = members["members"]
    table = members_table(rows[:ROWS_MAX], left_out=max(len(rows) - ROWS_MAX, 0))
    about = element("p", f"{len(topology['nodes'])} nodes, {len(topology['links'])} links between them.", class_="note")
    if len(rows) <= OPEN_MAX:
        return [about, table]
    return [about, element("details", element("summary", f"All {len(rows)} members"), table)]


def render_page(*, status: Json, members: Json, backends: Json, topology: Json, events: Json, at: datetime) -> str:
    """The HTML document for these answers of the API.

    Args:
        status: As of ``/v1/status``.
        members: As of ``/v1/members``.
        backends: As of ``/v1/backends``.
        topology: As of ``/v1/topology``.
        events: As of ``/v1/events?format=json``, as many as are to be shown without JavaScript; any order.
        at: When that was. Aware.

    Returns:
        UTF-8 text, to be sent as ``text/html; charset=utf-8`` with :data:`CONTENT_SECURITY_POLICY`. Its links are relative: the static
        files are expected under ``web/``, the API under ``v1/``, wherever a proxy puts the whole.
    """
    at = at.astimezone(UTC)
    without = "Without JavaScript this is a picture of one moment. Load it again for the next."
    main = element(
        "main",
        element("noscript", element("p", without, class_="notice")),
        element("div", problem_list(status), data_part="problems"),
        _figures(status, backends),
        element(
            "div",
            _section("graph", "Cluster", tools="graph", hidden=True),
            _section("events", "Events", event_list(events["events"]), tools="events"),
            class_="pair",
            data_newest=events["newest"],
            data_life=events["life"],
        ),
        _section("vips", "Virtual IPs", *_vips(backends), *_refused(backends), tools="vips"),
        _section("members", "Members", *_members(members, topology), tools="members"),
        _section("sources", "Sources", sources_table(status["sources"])),
        _section("kernel", "Kernel and host", kernel_table(status)),
        id="main",
        tabindex=-1,
    )
    footer = element(
        "footer",
        element("span", f"minuteman {status['software']}, node {status['node']['id']}"),
        element(
            "nav",
            *(
                element("a", text, href=href)
                for text, href in (("API", "v1/openapi.json"), ("Metrics", "metrics"), ("Status", "v1/status"))
            ),
            aria_label="Elsewhere",
        ),
    )
    body = element(
        "body", element("a", "Skip to the content", href="#main", class_="skip"), symbols(), _header(status, at), main, footer
    )
    title = f"{status['cluster'] or 'minuteman'} · {status['node']['name']}"
    return f"<!doctype html>\n{element('html', _head(title), body, lang='en')}\n"
