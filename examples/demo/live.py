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
_STYLES: Final = {"": "", "draining": "yellow", "deleted": "bold red", "foreign": "dim"}
_BESIDE_BAR: Final = 65
"""Columns that a full bar leaves to the others."""
_BESIDE_ROWS: Final = 12
"""Lines that are neither rows of the table nor of the journal: frame, headline, headings, numbers, blanks."""


class LiveScreen:
    """The dashboard. It uses the terminal's other screen, so what was there before comes back."""

    def __init__(self, console: Console) -> None:
        """Take over the terminal."""
        self._console: Final = console
        self._ascii: Final = not console.encoding.lower().startswith("utf")
        self._headline = Text("setting up", "bold")
        self._place = ""
        self._tick: Event | None = None
        self._journal: Final[deque[Text]] = deque(maxlen=100)
        self._latencies: Final[deque[float]] = deque(maxlen=_LATENCIES)
        self._change = Text("none yet", "dim")
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
            case {"event": "ready"}:
                self._place = f"on Linux {event['kernel']}"
                self._say(ready_line(event), "dim")
            case {"event": "step", "number": number, "total": total, "title": title}:
                self._headline = Text.assemble((f" {number}/{total} ", "bold reverse"), "  ", (title, "bold"))
            case {"event": "change", "what": what, "summary": summary, "milliseconds": took}:
                self._change = Text.assemble((f"{took:.1f} ms", "bold cyan"), f"  {summary}")
                self._say(f"converge: {what}", "cyan")
            case {"event": "note", "text": text}:
                self._say(text, "magenta")
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
            rows = sum(len(service["rows"]) for service in self._tick["services"])
            parts += [self._table(self._tick["services"]), Text(""), *self._numbers(self._tick), Text("")]
            room = max(height - _BESIDE_ROWS - rows, 0)
            journal = journal[-room:] if room else []
            for line in journal:
                line.no_wrap, line.overflow = True, "ellipsis"
        return Panel(Group(*parts, *journal), title=title, title_align="left", height=height)

    def _table(self, services: list[dict[str, Any]]) -> Table:
        table = Table(box=None, expand=True, pad_edge=False, padding=(0, 1))
        table.add_column("service", no_wrap=True)
        table.add_column("backend", no_wrap=True)
        for heading in ("weight", "open", "requests"):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("share, last 2 s", no_wrap=True, ratio=1)
        for service in services:
            first = f"{service['name']} {service['address']}".lstrip()
            for row in service["rows"]:
                style = _STYLES[row["state"]]
                requests = "" if row["state"] == "foreign" else row["requests"]
                cells = (first, row["name"] or row["address"], row["weight"], row["active"], requests)
                table.add_row(*map(str, cells), self._share(row), style=style)
                first = ""
        return table

    def _share(self, row: dict[str, Any]) -> Text:
        if row["state"] == "foreign":
            return Text("not in our scope")
        full = "#" if self._ascii else "█"
        share = Text(f"{row['state']} " if row["state"] else "")  # first: the bar may be cut off on a narrow terminal
        share.append(
            full * round(row["share"] * max(self._console.width - _BESIDE_BAR, 10)), "green" if not row["state"] else ""
        )
        return share.append(f" {row['share']:.0%}" if row["share"] else "")

    def _numbers(self, tick: Event) -> list[Text]:
        """Three lines: traffic, latency, the last change."""
        failed = (f"{tick['failed']} failed", "bold green" if not tick["failed"] else "bold red")
        traffic = Text.assemble("traffic      ", f"{tick['rate']:.0f} requests/s  {tick['requests']} ended  ", failed)
        latency = Text.assemble("latency      ", f"p50 {tick['p50']:.1f} ms  p99 {tick['p99']:.1f} ms  ")
        if not self._ascii:
            latency.append(sparkline(self._latencies, max(self._latencies)), "blue")
        change = Text.assemble("last change  ", self._change)
        for line in (traffic, latency, change):
            line.no_wrap, line.overflow = True, "ellipsis"
        return [traffic, latency, change]


def rich_summary(summary: Event) -> Table:
    """The summary as a table."""
    table = Table(title="what was done under load", title_justify="left", show_lines=False)
    table.add_column("step")
    table.add_column("converge ms", justify="right")
    table.add_column("requests", justify="right")
    table.add_column("failed", justify="right")
    table.add_column("seen")
    for step in summary["steps"]:
        times = "\n".join(f"{change['milliseconds']:.1f}" for change in step["changes"])
        failed = Text(str(step["failed"]), "green" if not step["failed"] else "bold red")
        seen = "\n".join(step["seen"])
        table.add_row(f"{step['number']} {step['title']}", times, str(step["requests"]), failed, seen)
    return table
