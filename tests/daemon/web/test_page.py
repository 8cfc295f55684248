"""The page as it is rendered: complete without scripts, and nothing in it but what the data say."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyminuteman.daemon.assets import load_assets
from pyminuteman.daemon.markup import TEXT_MAX, Markup, element, shown, void
from pyminuteman.daemon.page import CONTENT_SECURITY_POLICY, ROWS_MAX, render_page
from pyminuteman.daemon.page_parts import SHAPES, backend_counts, event_list, mark, natural
from tests.support.page_cluster import HOSTILE, PageCluster

AT = datetime(2026, 11, 26, 10, 31, 30, tzinfo=UTC)
KINDS = [
    "member_up",
    "member_suspect",
    "member_down",
    "member_left",
    "member_updated",
    "conflict",
    "partition",
    "stall",
    "vip_added",
    "vip_removed",
    "backend_out",
    "backend_in",
    "failed_open",
    "refused",
    "source_stale",
    "source_good",
    "sync",
    "sync_failed",
    "held_back",
    "foreign",
    "namespace",
    "drained",
    "undrained",
    "weight",
    "reload",
    "host",
]  # of /v1/events
VOID = {"meta", "link", "input", "img"}


def rendered(cluster: PageCluster) -> str:
    return render_page(
        status=cluster.status(),
        members=cluster.members(),
        backends=cluster.backends(),
        topology=cluster.topology(),
        events=cluster.since_event(0),
        at=AT,
    )


class Reader(HTMLParser):
    """What a browser would make of it: elements, their attributes, and the text of each table's rows."""

    def __init__(self, document: str) -> None:
        super().__init__(convert_charrefs=True)
        self.stack: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.rows: list[list[str]] = []
        self.feed(document)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if "td" in self.stack or "th" in self.stack:
            self.rows[-1][-1] += data

    def row(self, first: str) -> list[str]:
        return next(row for row in self.rows if row[0] == first)

    def having(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


# What is shown


def test_every_member_backend_and_event_is_there() -> None:
    cluster = PageCluster(5)
    cluster.turn(2, "down")
    read = Reader(rendered(cluster))
    for vip in cluster.vips:
        assert vip["vip"] in read.text
        for backend in vip["backends"]:
            row = read.row(f"{backend['address']}:{backend['port']}")
            weight = str(backend["weight"])
            assert row[1:] == [
                backend["node"], weight if backend["state"] == "in" else f"0 of {weight}", backend["state"], backend["reason"],
                str(backend["connections"]["active"]),
            ]  # fmt: skip
    for member in cluster.members()["members"]:
        row = read.row(member["name"] + (" this node" if member["me"] else ""))
        assert row[1:] == [
            member["status"],
            member["since"][11:19],
            member["endpoint"],
            str(member["backends"]),
            str(len(member["neighbours"])),
            "",
        ]
    for event in cluster.events:
        assert event["text"] in read.text
    assert f"5 nodes, {len(cluster.topology()['links'])} links between them." in read.text
    assert "as of 10:31:30 UTC" in read.text


def test_why_a_backend_is_out() -> None:
    cluster = PageCluster(3, vips=1, backends=5)
    one, two, three, four, five = cluster.vips[0]["backends"]
    drain = {"by": "anna", "at": "2026-11-26T09:30:00.000Z", "reason": "new disk"}
    one.update(
        state="out",
        reason="unhealthy",
        detail="3 checks failed",
        health={"healthy": False, "reason": "refused", "checked_at": ""},
    )
    two.update(state="held", reason="drained", drain=drain)
    three.update(state="held", reason="drained", drain={**drain, "reason": ""}, connections=None)
    four.update(state="out", reason="refused", health={"healthy": False, "reason": "refused", "checked_at": ""})
    five.update(address="fd01::5", health={"healthy": True, "reason": "", "checked_at": ""})
    read = Reader(rendered(cluster))
    said = {row[0]: row[4] for row in read.rows if row[0].endswith(":8080")}
    assert said == {
        "10.0.0.5:8080": "unhealthy; 3 checks failed; refused",
        "10.0.0.6:8080": "drained by anna: new disk",
        "10.0.0.7:8080": "drained by anna",
        "10.0.0.8:8080": "refused",
        "[fd01::5]:8080": "",
    }
    assert read.row("10.0.0.7:8080")[5] == "-"


def test_what_is_wrong() -> None:
    cluster = PageCluster(3, vips=1, backends=2)
    cluster.problems = [{"kind": "source", "text": "the source web is stale"}]
    cluster.held_back = {"id": "0" * 16, "text": "8 of 12 destinations would go", "services": ["tcp://11.0.0.1:443"]}
    cluster.vips[0]["failed_open"] = ["every backend is unhealthy"]
    cluster.sources[0].update(
        state="stale", age_seconds=None, reason="no answer", problems=[{"where": "line 3", "reason": "no address"}]
    )
    cluster.drain(1, "anna", "new disk")
    cluster.drained[cluster.ids[2]] = None  # type: ignore[assignment]  # drained, and nobody says by whom
    status = cluster.status()
    status["kernel"][0].update(foreign=["tcp://11.9.9.9:80"])
    status["kernel"].append(
        {
            **status["kernel"][0],
            "namespace": "blue",
            "held_back": None,
            "foreign": [],
            "error": "not permitted",
            "last_sync_at": None,
        }
    )
    status["kernel"].append({**status["kernel"][0], "namespace": "green", "held_back": None, "foreign": []})
    status["host"][0].update(ok=False, reason="no module ip_vs")
    backends = {**cluster.backends(), "conflicts": ["two schedulers for 11.0.0.1"], "refused": [
        {"vip": "tcp://11.0.0.9:80", "claimant": {"source": "web", "principal": ""}, "node": "node-2", "reason": "denied", "detail": "rule 1", "backend": None},
        {"vip": "tcp://11.0.0.8:80", "claimant": {"source": "web", "principal": ""}, "node": "node-2", "reason": "denied", "detail": "", "backend": None},
    ]}  # fmt: skip
    read = Reader(render_page(
        status=status, members=cluster.members(), backends=backends, topology=cluster.topology(), events=cluster.since_event(0), at=AT,
    ))  # fmt: skip
    for expected in (
        "the source web is stale", "failed open: every backend is unhealthy", "tcp://11.0.0.9:80, claimed by web on node-2: denied (rule 1)",
        "tcp://11.0.0.8:80, claimed by web on node-2: denied", "two schedulers for 11.0.0.1", "contradict each other: 3", "no module ip_vs",
    ):  # fmt: skip
        assert expected in read.text
    assert read.row("web")[2:] == ["stale", "1", "-", "no answer; line 3: no address"]
    assert read.row("mesos")[4] == "1 s"
    assert read.row("the host's own")[-1] == "8 of 12 destinations would go; not ours, left alone: tcp://11.9.9.9:80"
    assert read.row("blue")[1] == "failed"
    assert read.row("blue")[-2:] == ["-", "not permitted"]
    assert read.row("green")[1] == "done"
    assert read.row("node-2")[-1] == "by anna: new disk"


def test_a_node_that_has_only_begun() -> None:
    cluster = PageCluster(1, vips=1, backends=0)
    cluster.vips.clear()
    cluster.events.clear()
    status = {**cluster.status(), "state": "waiting", "cluster": "", "host": []}
    read = Reader(render_page(
        status=status, members=cluster.members(), backends=cluster.backends(), topology=cluster.topology(), events=cluster.since_event(0), at=AT,
    ))  # fmt: skip
    assert read.text.count("None yet.") == 2
    assert "no backends" in read.text
    assert "no cluster" in read.text


def test_many_are_closed_and_more_are_counted() -> None:
    few = Reader(rendered(PageCluster(5)))
    assert all("open" in attributes for attributes in few.having("details"))
    cluster = PageCluster(70, vips=3, backends=ROWS_MAX + 7)
    cluster.vips.append(
        {**cluster.vips[0], "vip": "tcp://11.0.0.9:80", "name": "", "backends": cluster.vips[0]["backends"][:2]}
    )
    many = Reader(rendered(cluster))
    assert not any("open" in attributes for attributes in many.having("details"))
    assert "All 70 members" in many.text
    assert sum(row[0].endswith(":8080") for row in many.rows) == ROWS_MAX
    assert "and 9 more, which the API has" in many.text


@pytest.mark.parametrize("hostile", [False, True])
def test_nothing_runs_and_nothing_is_fetched_from_elsewhere(hostile: bool) -> None:
    read = Reader(rendered(PageCluster(8, hostile=hostile)))
    assert [attributes.get("src") for attributes in read.having("script")] == ["web/theme.js", "web/app.js"]
    for _, attributes in read.elements:
        assert "style" not in attributes
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href"):
            assert re.fullmatch(r"(web|v1)/[\w./-]+|#[\w-]+|metrics", attributes.get(name) or "#none")
    assert read.having("style") == []


def test_hostile_texts_are_shown_as_they_are() -> None:
    cluster = PageCluster(8, vips=5, hostile=True)
    read = Reader(rendered(cluster))
    for text in HOSTILE[:4]:
        assert text in read.text
    assert "a\ufffdgnp.exe\ufffd[31m" in read.text


# Its elements

CHILDREN = st.one_of(st.text(), st.integers(), st.sampled_from(HOSTILE))


@given(child=CHILDREN, attribute=CHILDREN)
def test_no_text_becomes_markup(child: str | int, attribute: str | int) -> None:
    read = Reader(element("p", child, title=attribute, class_=None))
    expected = shown(attribute).replace("\r\n", "\n")
    assert read.elements == [("p", {"title": expected})]
    assert read.text == shown(child)


@given(st.text())
def test_what_is_shown_can_be_seen(text: str) -> None:
    seen = shown(text)
    assert len(seen) <= TEXT_MAX
    assert not any(ord(letter) < 32 and letter not in "\t\n" for letter in seen)
    seen.encode()


def test_endless_texts_are_cut() -> None:
    assert shown("a" * TEXT_MAX) == "a" * TEXT_MAX
    assert shown("a" * (TEXT_MAX + 1)) == "a" * (TEXT_MAX - 1) + "…"


@pytest.mark.parametrize("name", ["style", "onclick", "a b", "A", ""])
def test_attributes_that_the_policy_would_void_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no attribute"):
        element("p", **{name: "x"})


@pytest.mark.parametrize("name", ["p onload", "<p", ""])
def test_names_of_elements_are_names(name: str) -> None:
    with pytest.raises(ValueError, match="no element"):
        void(name)


def test_markup_is_not_escaped_twice_and_its_sum_is_a_text_again() -> None:
    inner = element("b", "<")
    assert element("p", inner) == "<p><b>&lt;</b></p>"
    assert element("p", inner + inner) == "<p>&lt;b&gt;&amp;lt;&lt;/b&gt;&lt;b&gt;&amp;lt;&lt;/b&gt;</p>"
    assert isinstance(inner, Markup)


def test_natural_order() -> None:
    names = ["n10", "n2", "2n", "n", "n02b", "", "n²"]
    assert sorted(names, key=natural) == ["", "2n", "n", "n2", "n02b", "n10", "n²"]


def test_counts_and_marks() -> None:
    assert backend_counts([]) == "no backends"
    assert backend_counts([{"state": "out"}, {"state": "in"}, {"state": "in"}]) == "2 in, 1 out"
    assert 'class="mark is-note"' in mark("of a kind unknown")
    assert "#shape-cross" in mark("down")


# Its files


def test_every_file_that_is_named_is_there() -> None:
    assets = load_assets()
    read = Reader(rendered(PageCluster(5)))
    named = {
        attributes[key]
        for _, attributes in read.elements
        for key in ("src", "href")
        if (attributes.get(key) or "").startswith("web/")
    }
    for name in named:
        assert name.removeprefix("web/") in assets
    for name, asset in assets.items():
        if not name.endswith(".js"):
            continue
        text = asset.content.decode()
        imported = re.findall(r'^import .* from "(.*)";$', text, re.MULTILINE)
        for other in imported:
            assert other.removeprefix("./") in assets
            assert f"web/{other.removeprefix('./')}" in named  # fetched at once, not when their importer has been read
        assert not re.search(r"\beval\b|new Function|innerHTML|outerHTML|insertAdjacentHTML|document\.write", text)
        assert set(re.findall(r"https?://[^\"'` ]+", text)) <= {"http://www.w3.org/2000/svg"}


def test_files_have_types_and_tags() -> None:
    assets = load_assets()
    assert assets["app.js"].media_type == "text/javascript; charset=utf-8"
    assert assets["page.css"].media_type == "text/css; charset=utf-8"
    assert assets["icon.svg"].media_type == "image/svg+xml"
    assert assets["vendor/LICENSES"].media_type == "text/plain; charset=utf-8"
    assert len({asset.etag for asset in assets.values()}) == len(assets)
    assert sum(len(asset.content) for asset in assets.values()) < 150_000


def test_what_is_of_others_is_what_is_recorded() -> None:
    assets = load_assets()
    record: dict[str, Any] = json.loads(assets["vendor/vendor.json"].content)
    recorded = {f"vendor/{entry['file']}" for entry in record["files"]}
    assert {name for name in assets if name.startswith("vendor/")} == recorded | {"vendor/vendor.json", "vendor/LICENSES"}
    licences = assets["vendor/LICENSES"].content.decode()
    for entry in record["files"]:
        content = assets[f"vendor/{entry['file']}"].content
        digest = base64.b64encode(hashlib.sha384(content).digest()).decode()
        assert entry["integrity"] == f"sha384-{digest}"
        assert entry["bytes"] == len(content)
        for package in entry["packages"]:
            assert f"{package['name']} {package['version']}" in licences
            assert package["licence"] == "ISC"


def test_both_renderers_have_the_same_shapes() -> None:
    text = load_assets()["dom.js"].content.decode()
    found = text[text.index("SHAPES = {") : text.index("};", text.index("SHAPES = {"))]
    assert dict(re.findall(r"(\w+): \"(\w+)\"", found)) == dict(SHAPES)


def test_both_renderers_know_the_same_kinds_of_events() -> None:
    text = load_assets()["events.js"].content.decode()
    table = text[text.index("KINDS = {") : text.index("\n};", text.index("KINDS = {"))]
    marks = dict(re.findall(r"(\w+): \[\"(\w+)\"", table))
    assert set(marks) == set(KINDS)
    for kind, word in marks.items():
        assert f'is-{word}"' in event_list([{"id": 1, "time": "2026-11-26T09:30:00.000Z", "kind": kind, "text": "it"}])


def test_the_policy_allows_nothing_inline() -> None:
    policy = dict(part.strip().split(" ", 1) for part in CONTENT_SECURITY_POLICY.split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert "unsafe" not in CONTENT_SECURITY_POLICY
