"""The pictures of the page in docs/screenshots, taken anew: python -m tests.support.page_screenshots. Needs chromium and chromium-driver."""

from __future__ import annotations

import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

from PIL import Image

from tests.support.browser import Browser, browser, missing
from tests.support.page_cluster import PageCluster
from tests.support.page_server import PageServer, page_server
from tests.support.running_demo import running_demo

TARGET = Path(__file__).resolve().parents[2] / "docs/screenshots"
BYTES_MAX = 200_000
SAMPLES = 50
# The pictures show two minutes of traffic; nobody waits for that. Twenty-five of the page's seconds are one of ours.
HASTE = """{
  const [now, timeout, interval] = [performance.now.bind(performance), setTimeout, setInterval];
  performance.now = () => now() * 25;
  globalThis.setTimeout = (call, ms) => timeout(call, ms / 25);
  globalThis.setInterval = (call, ms) => interval(call, ms / 25);
}"""


def _reduced(picture: bytes) -> bytes:
    """The same with 256 colours, in less than half the bytes. The method keeps rare colours: states are a few pixels each."""
    reduced = BytesIO()
    Image.open(BytesIO(picture)).convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
        reduced, "PNG", optimize=True
    )
    return reduced.getvalue()


def _live(page: Browser, server: PageServer, width: int, height: int) -> None:
    before = server.cluster.looks
    page.open(server.url, width, height)
    page.until_true("performance.getEntriesByName('graph-settle').length", seconds=30)
    page.until("enough samples", lambda: server.cluster.looks >= before + SAMPLES, seconds=60)


def _five_light(page: Browser, server: PageServer) -> None:
    _live(page, server, 1280, 1010)


def _five_dark(page: Browser, server: PageServer) -> None:
    page.prefer(prefers_color_scheme="dark")
    _live(page, server, 1280, 1010)
    server.cluster.turn(2, "suspect")
    server.tell()
    server.cluster.turn(2, "down")
    server.cluster.drain(3, "anna", "new disk")
    server.tell()
    page.until_true("document.querySelector('.node.is-down') && document.querySelectorAll('.vip tr').length")
    looks = server.cluster.looks
    page.until("samples of it", lambda: server.cluster.looks >= looks + 12, seconds=30)


def _narrow(page: Browser, server: PageServer) -> None:
    page.prefer(prefers_color_scheme="light")
    _live(page, server, 400, 1300)


def _without_scripts(page: Browser, server: PageServer) -> None:
    page.scripts(allowed=False)
    page.open(server.url, 1280, 1200)
    page.scripts(allowed=True)


def _large(page: Browser, server: PageServer) -> None:
    for index in (17, 230, 231):
        server.cluster.turn(index, "down")
    server.cluster.turn(90, "suspect")
    server.cluster.drain(301, "anna", "kernel update")
    _live(page, server, 1280, 1010)


def _real(page: Browser) -> bytes:
    """The demo's daemons, in the seconds after one of them died."""
    with running_demo("--seconds-per-step", "10") as demo:
        page.open(demo.wait("web page, while it runs:"), 1280, 1010)
        demo.wait("n3 is gone from all kernels")
        page.until_true(
            "document.querySelector('.node.is-down') && [...document.querySelectorAll('.node')].length === 5", seconds=30
        )
        started = page.run("return performance.now()")
        page.until_true("performance.now() > arguments[0] + 7000", started)  # the graph comes to rest
        picture = page.picture()
        page.driver.get("about:blank")  # before the cluster goes
        return picture


def main() -> int:
    """Take them all; the exit status is 1 when one is too large to be kept in the repository."""
    if program := missing():
        sys.exit(f"{program} is missing: tools/install.sh dev")
    TARGET.mkdir(parents=True, exist_ok=True)
    pictures: dict[str, tuple[int, int, int, Callable[[Browser, PageServer], None]]] = {
        "five-nodes-light": (5, 3, 12, _five_light),
        "without-javascript": (5, 3, 12, _without_scripts),
        "narrow": (5, 3, 12, _narrow),
        "five-nodes-dark": (5, 3, 12, _five_dark),
        "four-hundred-nodes": (400, 40, 1000, _large),
    }
    too_large = False

    def keep(name: str, picture: bytes) -> None:
        nonlocal too_large
        reduced = _reduced(picture)
        (TARGET / f"{name}.png").write_bytes(reduced)
        too_large |= len(reduced) > BYTES_MAX
        sys.stdout.write(f"{name}: {len(reduced)} bytes; the console said {page.complaints() or 'nothing'}\n")

    with browser() as page:
        page.prefer(prefers_color_scheme="light")
        keep("live", _real(page))
        page.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": HASTE})
        for name, (nodes, vips, backends, arrange) in pictures.items():
            with page_server(PageCluster(nodes, vips, backends)) as server:
                arrange(page, server)
                picture = page.picture()
                page.driver.get("about:blank")  # before the server goes
            keep(name, picture)
            page.prefer(prefers_color_scheme="light")
    return int(too_large)


if __name__ == "__main__":
    sys.exit(main())
