"""The page in a real browser: what it shows, what it survives, and that it does nothing behind anybody's back.

One browser for all; every test ends with the console silent and nothing asked of any other origin.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.support.browser import Browser, browser
from tests.support.page_cluster import HOSTILE, PageCluster
from tests.support.page_server import PageServer, page_server
from tests.support.tools import tool

Serve = Callable[[PageCluster], PageServer]

EXPECTED_FROM_FAULTS = ("Failed to load resource", "ERR_EMPTY_RESPONSE", "ERR_INCOMPLETE_CHUNKED_ENCODING")
CONNECTION = ".connection"
PUT = "const at = document.querySelector(arguments[0]); at.value = arguments[1]; at.dispatchEvent(new Event(arguments[2]))"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    tool("chromium")
    tool("chromedriver", "chromium-driver")
    with browser() as page:
        yield page


@pytest.fixture
def page(chromium: Browser) -> Iterator[Browser]:
    chromium.prefer(prefers_color_scheme="light")
    yield chromium
    chromium.scripts(allowed=True)


@pytest.fixture
def serve(page: Browser) -> Iterator[Serve]:
    """Serves a cluster, opens it, and waits until it is live. At the end, the page has done nothing that it must not."""
    with ExitStack() as stack:
        servers: list[PageServer] = []

        def start(cluster: PageCluster, **window: int) -> PageServer:
            servers.append(stack.enter_context(page_server(cluster)))
            page.asked()
            page.open(servers[-1].url, **window)
            return servers[-1]

        yield start
        complaints = page.complaints()
        elsewhere = page.elsewhere(servers[-1].url)
        page.driver.get("about:blank")  # before the server goes
    if servers[-1].faults:
        complaints = [text for text in complaints if not any(known in text for known in EXPECTED_FROM_FAULTS)]
    assert complaints == []
    assert elsewhere == []


def live(page: Browser) -> None:
    page.until("the page is live", lambda: page.text(CONNECTION) == "live")


def states_of_nodes(page: Browser) -> dict[str, str]:
    return dict(
        page.run(
            "return [...document.querySelectorAll('.node')].map(n => [n.getAttribute('aria-label').split(',')[0], n.querySelector('.shape').getAttribute('href')])"
        )
    )


def test_misdeeds_would_be_seen(page: Browser, serve: Serve) -> None:
    server = serve(PageCluster(3))
    live(page)
    page.run("document.body.setAttribute('style', 'color: red'); fetch('http://127.0.0.2:1/elsewhere').catch(() => 0)")
    page.run(
        "const made = document.createElement('script'); made.textContent = 'globalThis.harmed=1'; document.body.append(made)"
    )
    said: list[str] = []
    page.until("the console has said all", lambda: said.extend(page.complaints()) or len(said) >= 3)
    assert all("Content Security Policy" in text for text in said)
    assert page.run("return typeof harmed") == "undefined"
    page.open(server.url)
    page.run("location.href = 'http://127.0.0.2:1/elsewhere'")
    found: list[str] = []
    page.until("it was asked for", lambda: found.extend(page.elsewhere(server.url)) or found)
    assert found == ["http://127.0.0.2:1/elsewhere"]
    page.complaints()


def test_five_nodes(page: Browser, serve: Serve) -> None:
    cluster = PageCluster(5)
    serve(cluster)
    live(page)
    assert states_of_nodes(page) == dict.fromkeys(cluster.names.values(), "#shape-round")
    assert page.run("return document.querySelectorAll('.node.me').length") == 1
    page.until_true(
        "document.querySelector('.links').getAttribute('d')?.split('M').length - 1 === arguments[0]", len(cluster.links)
    )
    inside = page.run(
        "const box = document.querySelector('svg.graph').getBoundingClientRect();"
        "return [...document.querySelectorAll('.node .shape')].every(n => { const r = n.getBoundingClientRect();"
        "return r.left >= box.left && r.right <= box.right && r.top >= box.top && r.bottom <= box.bottom && r.width > 5; })"
    )
    assert inside
    lines = page.run("return [...document.querySelectorAll('.vip summary .name')].map(n => n.textContent)")
    assert lines == sorted(vip["name"] for vip in cluster.vips)
    assert page.run("return document.querySelectorAll('.vip tbody tr').length") == 12  # open, for they are few
    assert page.run("return document.querySelectorAll('#members tbody tr').length") == 5
    assert page.run("return document.querySelectorAll('.events li').length") == len(cluster.events)


def test_a_node_goes_down_and_returns(page: Browser, serve: Serve) -> None:
    cluster = PageCluster(5)
    server = serve(cluster)
    live(page)
    page.until_true("performance.getEntriesByName('graph-settle').length")
    name = cluster.names[cluster.ids[2]]
    places = "return Object.fromEntries([...document.querySelectorAll('.node')].map(n => [n.dataset.id, n.getBoundingClientRect().x]))"
    before = page.run(places)
    cluster.turn(2, "suspect")
    server.tell()
    page.until("suspect", lambda: states_of_nodes(page)[name] == "#shape-triangle")
    cluster.turn(2, "down")
    server.tell()
    page.until("down", lambda: states_of_nodes(page)[name] == "#shape-cross")
    page.until(
        "its backends are out, and why", lambda: f"{name} is down" in page.text("#vips") and "3 out" in page.text(".figures")
    )
    assert "1 down" in page.text("#graph-legend")  # in words, for whoever sees no graph
    assert f"{name} down" in page.run("return document.querySelector('.canvas').getAttribute('aria-label')")
    assert page.text(".events li .mark") == f"{name} is down"
    after = page.run(places)
    assert max(abs(after[one] - before[one]) for one in before if one != cluster.ids[2]) < 60  # the others are where they were
    cluster.turn(2, "alive")
    server.tell()
    page.until("alive", lambda: states_of_nodes(page)[name] == "#shape-round")
    page.until("its backends are in", lambda: page.text("[data-figure=vips] .note") == "12 in")


def test_marks_are_told_apart_without_colour(page: Browser, serve: Serve) -> None:
    cluster = PageCluster(6)
    cluster.turn(1, "suspect")
    cluster.turn(2, "down")
    cluster.states[cluster.ids[3]] = "left"
    cluster.drain(4, "anna", "new disk")
    serve(cluster)
    live(page)
    shapes = [states_of_nodes(page)[cluster.names[one]] for one in cluster.ids]
    assert shapes == ["#shape-round", "#shape-triangle", "#shape-cross", "#shape-ring", "#shape-round", "#shape-round"]
    assert page.run("return document.querySelectorAll('.node .badge[href]').length") == 1  # of who is drained
    assert "drained by anna: new disk" in page.text("#vips")
    assert page.run("return [...document.querySelectorAll('#members .mark')].every(m => m.textContent.length > 2)")


def test_sparklines_move(page: Browser, serve: Serve) -> None:
    cluster = PageCluster(5)
    serve(cluster)
    live(page)
    path = "document.querySelector('[data-figure=connections] .spark .stroke').getAttribute('d')"
    page.until_true(f"{path} !== null")
    first = page.run(f"return {path}")
    page.until_true(f"{path} !== arguments[0]", first)
    assert page.run(f"return {path}.split('L').length") >= 3
    for selector in (".vip summary .spark .stroke", ".vip td .spark .stroke"):
        page.until_true("document.querySelector(arguments[0]).getAttribute('d') !== null", selector)
    assert page.text("[data-figure=connections] strong") != "-"


def test_hostile_texts_are_texts(page: Browser, serve: Serve) -> None:
    cluster = PageCluster(8, vips=5, hostile=True)
    for text in HOSTILE:
        cluster.problems.append({"kind": "other", "text": text})
        cluster.say("conflict", text)
    cluster.say(HOSTILE[1], HOSTILE[2])  # of a kind that nobody knows
    cluster.sources[0].update(
        name=HOSTILE[0],
        place=HOSTILE[1],
        state=HOSTILE[2],
        reason=HOSTILE[3],
        problems=[{"where": HOSTILE[0], "reason": HOSTILE[1]}],
    )
    cluster.held_back = {"id": "0" * 16, "text": HOSTILE[2], "services": []}
    cluster.turn(1, "down")
    cluster.drain(2, HOSTILE[0], HOSTILE[1])
    serve(cluster)
    live(page)
    page.until_true("document.querySelectorAll('.node').length === 8")
    page.run("for (const one of document.querySelectorAll('details')) one.open = true")
    page.until_true("document.querySelectorAll('.vip tbody tr').length === 12")
    shown = page.run("return document.body.textContent")
    for text in HOSTILE[:4]:
        assert shown.count(text) >= 3
    assert "a\ufffdgnp.exe\ufffd[31m" in shown
    assert "\u202e" not in shown
    assert "\x1b" not in shown
    assert page.run("return typeof harmed") == "undefined"
    assert page.run("return document.querySelectorAll('main img, [onerror], [onload], a[href^=javascript]').length") == 0


def test_without_scripts_the_tables_are_there(page: Browser, serve: Serve) -> None:
    cluster = PageCluster(5, hostile=True)
    cluster.turn(2, "down")
    page.scripts(allowed=False)
    server = serve(cluster)
    page.scripts(allowed=True)  # for the test's own questions; those of the page have had their chance
    assert not any(path.startswith("/v1/") for path in server.asked)
    assert page.run("return [...document.querySelectorAll('section')].filter(s => s.offsetHeight > 0).map(s => s.id)") == [
        "events", "vips", "members", "sources", "kernel",
    ]  # fmt: skip
    text = page.text("main")
    for expected in (
        "Without JavaScript",
        "4 alive, 1 down",
        "is down",
        "10.0.0.5:8080",
        "file:/etc/minuteman/vips.d",
        HOSTILE[0],
    ):
        assert expected in text
    assert page.run("return document.querySelectorAll('.vip tbody tr').length") == 12
    assert page.run("return typeof harmed") == "undefined"


def test_the_connection_is_lost_and_nothing_is_missed(page: Browser, serve: Serve) -> None:
    cluster = PageCluster(5)
    server = serve(cluster)
    live(page)
    cluster.say("weight", "event while all is well")
    server.tell()
    page.until("the event", lambda: "event while all is well" in page.text("#events"))
    server.faults = server.unreachable = True
    server.cut()
    page.until("it says so", lambda: page.text(CONNECTION).startswith("connection lost, showing data of "))
    assert page.run("return /of [0-9]{2}:[0-9]{2}:[0-9]{2}$/.test(document.querySelector(arguments[0]).innerText)", CONNECTION)
    assert page.run("return document.querySelectorAll('.node').length") == 5  # what was known stays
    for number in range(3):
        cluster.say("weight", f"event {number} while nobody heard")
    cluster.turn(1, "down")
    server.unreachable = False
    page.until(
        "all are there", lambda: all(f"event {number} while nobody heard" in page.text("#events") for number in range(3)), 20
    )
    page.until("live", lambda: page.text(CONNECTION) == "live", 20)
    page.until("down", lambda: "#shape-cross" in states_of_nodes(page).values())
    numbers = page.run("return [...document.querySelectorAll('.events li .mark')].map(m => m.textContent)")
    assert len(numbers) == len(set(numbers)) == len(cluster.events)


def test_a_stream_that_is_cut_goes_on_after_the_last_event(page: Browser, serve: Serve) -> None:
    cluster = PageCluster(5)
    server = serve(cluster)
    live(page)
    last = cluster.say("weight", "the last before")
    server.tell()
    page.until("the event", lambda: "the last before" in page.text("#events"))
    server.cut()
    page.until("it is resumed", lambda: server.resumed_from[-1] == f"{cluster.life}-{last['id']}")
    server.cut(farewell=True)  # as a daemon that ends in order says it
    page.until("it is opened anew", lambda: len(server.resumed_from) == 3)
    cluster.say("weight", "the first after")
    server.tell()
    page.until("the event", lambda: "the first after" in page.text("#events"))


def test_a_flood_of_events(page: Browser, serve: Serve) -> None:
    cluster = PageCluster(5)
    server = serve(cluster)
    live(page)
    for number in range(1500):
        cluster.say("weight", f"number {number} of the flood")
    server.tell()
    page.until("the last of them", lambda: page.text(".events li .mark") == "number 1499 of the flood")
    shown = page.run("return [...document.querySelectorAll('.events li .mark')].map(m => m.textContent)")
    assert shown == [f"number {number} of the flood" for number in range(1499, 1299, -1)]
    looks = sum(path == "/v1/backends" for path in server.asked)
    assert looks <= 5  # asked once a second, however much happens


def test_events_that_were_dropped_are_said_to_be(page: Browser, serve: Serve) -> None:
    cluster = PageCluster(5)
    server = serve(cluster)
    live(page)
    server.faults = server.unreachable = True
    server.cut()
    for number in range(20):
        cluster.say("weight", f"weight {number}")
    cluster.oldest = len(cluster.events) - 4
    server.unreachable = False
    page.until("it says so", lambda: "15 events dropped" in page.text("#events"), 20)
    cluster.oldest = 1
    known = len(cluster.events)
    cluster.events.clear()  # a new daemon, that counts anew, and has more to say by now than the old one had
    cluster.life = "2" * 16
    for number in range(1, known + 3):
        cluster.say("weight", f"number {number} of a new life")
    server.cut()
    page.until("it says so", lambda: "started anew" in page.text("#events"), 20)
    page.until("all of it", lambda: all(f"number {number} of a new life" in page.text("#events") for number in (1, known + 2)))


def test_one_answer_that_fails_is_named(page: Browser, serve: Serve) -> None:
    server = serve(PageCluster(5))
    live(page)
    server.faults = True
    server.failing.add("/v1/statistics")
    page.until("it says so", lambda: "statistics (503, the table is being read)" in page.text(CONNECTION))
    assert "showing its data of" in page.text(CONNECTION)
    server.failing.clear()
    page.until("live", lambda: page.text(CONNECTION) == "live", 20)


def test_what_the_server_rendered_stands_until_the_api_answers(page: Browser, serve: Serve) -> None:
    paths = {f"/v1/{name}" for name in ("status", "members", "topology", "backends", "statistics", "events")}
    server = serve(PageCluster(5))
    server.faults = True
    server.failing |= paths
    page.open(server.url)
    page.until("it says so", lambda: page.text(CONNECTION) == "no answer: 503, the table is being read")
    assert page.run("return document.querySelectorAll('.vip tbody tr').length") == 12
    assert page.run("return document.querySelectorAll('#members tbody tr').length") == 5
    assert page.run("return document.getElementById('graph').hidden")
    server.failing.clear()
    page.until("live", lambda: page.text(CONNECTION) == "live", 20)
    assert not page.run("return document.getElementById('graph').hidden")


def test_dark(page: Browser, serve: Serve) -> None:
    ground = "return getComputedStyle(document.body).backgroundColor"
    server = serve(PageCluster(5))
    live(page)
    light = page.run(ground)
    page.prefer(prefers_color_scheme="dark")
    dark = page.run(ground)
    assert light != dark
    choose = "document.querySelector('[data-part=theme]').click()"
    page.run(choose)  # from the system's to light
    assert page.run(ground) == light
    page.open(server.url)
    assert page.run(ground) == light  # it is remembered
    page.prefer(prefers_color_scheme="light")
    page.run(choose)
    assert page.run(ground) == dark
    page.run(choose)
    assert page.run(ground) == light
    assert page.text("[data-part=theme]") == "Theme: system"


def tab(page: Browser, key: str = "Tab", code: int = 9) -> None:
    """A real key press, as the browser's own input handling sees it."""
    for kind in ("keyDown", "keyUp"):
        page.driver.execute_cdp_cmd(
            "Input.dispatchKeyEvent", {"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code}
        )


def test_keyboard(page: Browser, serve: Serve) -> None:
    cluster = PageCluster(5)
    serve(cluster)
    live(page)
    seen: list[Any] = []
    where = (
        "const a = document.activeElement, s = getComputedStyle(a);"
        "return [a.className || a.tagName.toLowerCase(), a.innerText || a.getAttribute('aria-label') || '', s.outlineStyle !== 'none' && s.outlineWidth !== '0px']"
    )
    for _ in range(12):
        tab(page)
        seen.append(page.run(where))
    kinds = [kind for kind, _, _ in seen]
    assert kinds[:8] == ["skip", "quiet", "canvas", "select", "events", "input", "select", "quiet"]
    assert kinds[8] == "summary"
    assert all(visible for _, _, visible in seen)
    page.run("document.querySelector('.canvas').focus()")
    for _ in range(2):
        tab(page, "ArrowRight", 39)
    chosen = page.run("return document.querySelector('[aria-selected=true]').getAttribute('aria-label')")
    assert chosen == "node-2, alive, 3 backends"
    assert page.text(".about").startswith("node-2: alive since")
    assert page.run(
        "return document.getElementById(document.querySelector('.canvas').getAttribute('aria-activedescendant')).classList.contains('chosen')"
    )
    tab(page, "Escape", 27)
    assert page.run("return document.querySelectorAll('.chosen').length") == 0
    page.run("document.querySelector('.vip summary').focus()")
    tab(page, "Enter", 13)
    page.driver.execute_cdp_cmd("Input.dispatchKeyEvent", {"type": "char", "text": "\r"})
    page.until_true("document.querySelector('.vip').open === false")


def test_filters(page: Browser, serve: Serve) -> None:
    cluster = PageCluster(5)
    cluster.turn(3, "down")
    serve(cluster)
    live(page)
    rows = "return [...document.querySelectorAll('.vip tbody th')].map(n => n.textContent)"
    page.run(PUT, "#vips input", "10.1.0.6", "input")
    assert page.run(rows) == ["10.1.0.6:8080"]
    page.run(PUT, "#vips input", "nothing like it", "input")
    assert "No VIP, and no backend, matches." in page.text("#vips")
    page.run(PUT, "#vips input", "", "input")
    page.run(PUT, "#vips select", "out", "change")
    out = [backend for vip in cluster.vips for backend in vip["backends"] if backend["state"] == "out"]
    assert len(page.run(rows)) == len(out) > 0
    page.run(PUT, "#members input", "node-4", "input")
    assert page.run("return document.querySelectorAll('#members tbody tr').length") == 1
    page.run(PUT, "#events select", "members", "change")
    assert page.run("return document.querySelectorAll('.events li').length") == sum(
        e["kind"].startswith("member") for e in cluster.events
    )


def test_narrow(page: Browser, serve: Serve) -> None:
    serve(PageCluster(5), width=400, height=800)
    live(page)
    assert page.run("return document.documentElement.scrollWidth") <= 400
    page.run("document.querySelector('#members').scrollIntoView()")
    assert page.run("return [...document.querySelectorAll('section')].every(s => s.getBoundingClientRect().right <= 400)")


def test_motion_is_reduced(page: Browser, serve: Serve) -> None:
    page.prefer(prefers_reduced_motion="reduce")
    cluster = PageCluster(20)
    server = serve(cluster)
    live(page)
    page.until_true("performance.getEntriesByName('graph-settle').length")
    page.run("performance.clearMeasures()")
    cluster.turn(5, "down")
    server.tell()
    page.until_true("performance.getEntriesByName('graph-settle').length")
    assert page.run("return performance.getEntriesByName('graph-draw').length") <= 4  # at the end, not on the way


def test_four_hundred_nodes_and_a_thousand_backends(page: Browser, serve: Serve) -> None:
    cluster = PageCluster(400, vips=4, backends=1000)
    cluster.turn(399, "down")
    server = serve(cluster)
    live(page)
    page.until_true("performance.getEntriesByName('graph-settle').length", seconds=20)
    busy, most = page.run(
        "return [performance.getEntriesByName('graph-settle')[0].detail.busyMs,"
        "Math.max(...performance.getEntriesByName('graph-draw').map(d => d.duration))]"
    )
    assert busy < 4000  # some 300 ms on a machine that has nothing else to do
    assert most < 400  # some 10 ms there
    assert len(states_of_nodes(page)) == 400
    assert page.run("return document.querySelectorAll('#vips tbody tr').length") == 0  # closed, for they are many
    assert page.run("return document.querySelectorAll('#members tbody tr').length") == 50
    name = cluster.names[cluster.ids[399]]
    assert name in page.text("#members")  # who is in trouble is among the first, whatever its name
    page.run(PUT, "#vips select", "out", "change")  # those few are opened; what is open stays so
    out = sum(backend["state"] == "out" for vip in cluster.vips for backend in vip["backends"])
    page.until_true("document.querySelectorAll('#vips tbody tr').length === arguments[0]", out)
    page.run(PUT, "#vips select", "", "change")
    page.run(
        "if (document.querySelector('#vips .tools button').innerText === 'Open all') document.querySelector('#vips .tools button').click()"
    )
    page.until_true("document.querySelectorAll('#vips tbody tr').length === 200")
    page.run("document.querySelector('.vip button').click()")
    assert page.run("return document.querySelectorAll('#vips tbody tr').length") == 400
    looks = cluster.looks
    page.until("it is still asking", lambda: cluster.looks > looks)
    cluster.turn(399, "alive")
    server.tell()
    page.until("alive", lambda: states_of_nodes(page)[name] == "#shape-round")
