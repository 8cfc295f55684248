"""The page of a real daemon in a real browser: five of them run on a real kernel, traffic flows, one dies and returns.

They are the demo's, and what the demo says is when to look; its way to the page is between the browser and the daemon.
"""

from __future__ import annotations

import pytest

from pyminuteman.testing.network_namespace import why_no_host_ipvs
from pyminuteman.testing.pytest_kernel import require_guest
from tests.support.browser import Browser, browser
from tests.support.running_demo import running_demo
from tests.support.tools import tool

NAMES = [f"n{number}" for number in range(5)]
SECONDS = 60.0  # for what a busy machine does
STATES = """return Object.fromEntries([...document.querySelectorAll('.node')].map(
    n => [n.getAttribute('aria-label').split(',')[0], n.querySelector('.shape').getAttribute('href')]))"""
ROWS = "return [...document.querySelectorAll('.vip tbody tr')].map(row => row.innerText)"
# What is there for some seconds only is kept, for a busy machine may look away that long.
KEEP = """globalThis.seen = new Set(); setInterval(() => {
    for (const row of document.querySelectorAll('.vip tbody tr')) seen.add(row.innerText);
    for (const node of document.querySelectorAll('.node')) seen.add(node.getAttribute('aria-label'));
}, 100)"""
SEEN = "return [...seen]"
ROUND = "#shape-round"


@pytest.fixture(autouse=True)
def kernel(request: pytest.FixtureRequest) -> None:
    if why_no_host_ipvs():
        require_guest(request.config)


def until(page: Browser, what: str, script: str, expected: object) -> None:
    page.until(f"{what}: {expected}", lambda: page.run(script) == expected, SECONDS)


def seen(page: Browser, *words: str) -> None:
    """Wait until a row or a node of the graph was there that has all these words."""
    page.until(f"seen: {words}", lambda: any(all(word in text for word in words) for text in page.run(SEEN)), SECONDS)


def rows(page: Browser) -> dict[str, str]:
    """Those of the VIP's backends, by node."""
    return {next(name for name in NAMES if name in text.split()): text for text in page.run(ROWS)}


def test_the_page_shows_what_the_cluster_does() -> None:
    tool("chromium")
    tool("chromedriver", "chromium-driver")
    with browser() as page, running_demo("--stay", "--seconds-per-step", "3") as demo:
        url = demo.wait("web page, while it runs:")
        page.open(url)
        page.until("live", lambda: page.text(".connection") == "live", SECONDS)
        until(page, "nodes", STATES, dict.fromkeys(NAMES, ROUND))
        assert page.text("[data-field=me]") == "n0"
        page.until("all alive", lambda: page.text("[data-figure=members] .note") == "5 alive", SECONDS)
        page.run(KEEP)

        demo.wait("[3/5]")  # the drain
        page.until("a row for each task", lambda: sorted(rows(page)) == NAMES, SECONDS)
        assert page.text(".vip summary .name") == "tcp://11.0.0.1:80"
        page.until("rates", lambda: float(page.text("[data-figure=connections] strong")) > 10, SECONDS)
        seen(page, "10.61.0.3:8000", "0 of 1", "held", "new disk")
        demo.wait("n3 is gone from all kernels")
        seen(page, "10.61.0.4:8000", "0 of 1", "out", "its host is out of reach")
        seen(page, "n3, down")

        demo.wait("all is said")
        until(page, "nodes", STATES, dict.fromkeys(NAMES, ROUND))
        page.until("all in", lambda: page.text("[data-figure=vips] .note") == "5 in", SECONDS)
        events = page.text(".events")  # the newest first
        told = [
            "n3 is there",
            "n3 is down",
            "n3 has fallen silent",
            "an operator drains it",
            "tcp://11.0.0.1:80, with 1 backend",
        ]
        places = [events.find(text) for text in told]
        assert -1 not in places, events
        assert places == sorted(places), events
        page.until("live still", lambda: page.text(".connection") == "live", SECONDS)
        assert page.complaints() == []
        assert page.elsewhere(url) == []

        page.open(f"{url}n3/")  # the page of the node that had died
        page.until("live", lambda: page.text(".connection") == "live", SECONDS)
        assert page.text("[data-field=me]") == "n3"
        page.driver.get("about:blank")  # before the cluster goes
        assert demo.end() == 0, demo.lines
