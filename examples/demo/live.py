"""The demo on a terminal: a dashboard that is drawn anew at each tick."""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from demo.plain import Event, ready_line
from demo.record import sparkline

_LATENCIES: Final = 32
_STYLES: Final = {"alive": "green", "suspect": "bold yellow", "down": "bold red"}
_BESIDE_BAR: Final = 66
"""Columns that a full bar leaves to the others."""
_BESIDE_ROWS: Final = 11
"""Lines that are neither rows of the table nor of the journal: frame, headline, headings, numbers, blanks."""


class LiveScreen:
    """The dashboard. It uses the terminal's other screen, so what was there before comes back."""

    def __init__(self, console: Console) -> None:
        """Take over the terminal."""
        self._console: Final = console
        self._ascii: Final = not console.encoding.lower().startswith("utf")
        self._headline = Text("setting up", "bold")
        self._place = self._page = ""
        self._tick: Event | None = None
        self._journal: Final[deque[Text]] = deque(maxlen=100)
        self._latencies: Final[deque[float]] = deque(maxlen=_LATENCIES)
        self._closed = False
        # Drawn when there is something new, never by a timer: a thread of rich's own would draw half-updated states.
        self._live: Final = Live(console=console, screen=True, auto_refresh=False)
        self._live.start()

    def close(self) -> None:
        """Give the terminal back."""
        self._closed = True
        self._live.stop()

    def show(self, event: Event) -> None:
        """Take an event in, and draw."""
        if self._closed:  # the guest may still be talking while an interrupt ends it
            return
        match event:
            case {"event": "place", "text": text}:
                self._say(text, "dim")
            case {"event": "page", "url": url}:
                self._page = f"web page: {url}"
            case {"event": "ready"}:
                self._place = f"on Linux {event['kernel']}"
                self._say(ready_line(event), "dim")
            case {"event": "step", "number": number, "total": total, "title": title}:
                self._headline = Text.assemble((f" {number}/{total} ", "bold reverse"), "  ", (title, "bold"))
            case {"event": "note", "text": text}:
                self._say(text, "magenta")
            case {"event": "said", "node": node, "text": text}:
                self._say(f"{node}: {text}", "cyan")
            case {"event": "claim", "text": text}:
                self._say(f"ok: {text}", "green")
            case {"event": "tick"}:
                self._tick = event
                self._latencies.append(event["p99"])
        self._live.update(self._draw(), refresh=True)

    def _say(self, text: str, style: str) -> None:
        self._journal.append(Text(text, style))

    def _draw(self) -> RenderableType:
        seconds = int(self._tick["seconds"]) if self._tick else 0
        title = f"pyminuteman {self._place}  {seconds // 60}:{seconds % 60:02}"
        parts: list[RenderableType] = [self._headline, Text("")]
        height = self._console.height
        journal = list(self._journal)
        if self._tick:
            parts += [self._table(self._tick["nodes"]), Text(""), *self._numbers(self._tick), Text("")]
            room = max(height - _BESIDE_ROWS - len(self._tick["nodes"]), 0)
            journal = journal[-room:] if room else []
            for line in journal:
                line.no_wrap, line.overflow = True, "ellipsis"
        return Panel(Group(*parts, *journal), title=title, title_align="left", subtitle=self._page, height=height)

    def _table(self, nodes: list[dict[str, Any]]) -> Table:
        """A row a node: how the client's node sees it, the weights that its own kernel has, and its part of the load."""
        table = Table(box=None, expand=True, pad_edge=False, padding=(0, 1))
        table.add_column("node", no_wrap=True)
        table.add_column("state", no_wrap=True, min_width=7)
        for number, node in enumerate(nodes):
            table.add_column(("its table: " if not number else "") + node["name"], justify="right", no_wrap=True)
        table.add_column("requests", justify="right", no_wrap=True)
        table.add_column("share, last 2 s", no_wrap=True, ratio=1)
        for node in nodes:
            weights = node["table"]
            cells = ["" if weights is None else str(weights.get(other["name"], "-")) for other in nodes]
            state = Text(node["state"], _STYLES.get(node["state"], ""))
            table.add_row(node["name"], state, *cells, str(node["requests"]), self._share(node["share"]))
        return table

    def _share(self, share: float) -> Text:
        bar = Text(("#" if self._ascii else "█") * round(share * max(self._console.width - _BESIDE_BAR, 10)), "green")
        return bar.append(f" {share:.0%}" if share else "")

    def _numbers(self, tick: Event) -> list[Text]:
        """Two lines: traffic, latency."""
        failed, late = tick["failed_so_far"], tick["late_so_far"]
        traffic = Text.assemble(
            f"traffic  {tick['rate']:.0f} requests/s  {tick['requests_so_far']} ended  ",
            (f"{failed} failed", "bold red" if failed else "bold green"),
            (f"  {late} late" if late else "", "yellow"),
        )
        latency = Text.assemble("latency  ", f"p50 {tick['p50']:.1f} ms  p99 {tick['p99']:.1f} ms  ")
        if not self._ascii:
            latency.append(sparkline(self._latencies, max(self._latencies)), "blue")
        for line in (traffic, latency):
            line.no_wrap, line.overflow = True, "ellipsis"
        return [traffic, latency]


def rich_summary(summary: Event) -> Table:
    """The summary as a table."""
    table = Table(title="what was done under load", title_justify="left", show_lines=False)
    table.add_column("step")
    for heading in ("seconds", "requests", "failed"):
        table.add_column(heading, justify="right")
    table.add_column("seen")
    for step in summary["steps"]:
        failed = Text(str(step["failed"]), "green" if not step["failed"] else "bold red")
        cells = (f"{step['number']} {step['title']}", f"{step['seconds']:.1f}", str(step["requests"]))
        table.add_row(*cells, failed, "\n".join(step["seen"]))
    return table
