"""The demo without a terminal: plain lines, as they come; and the summary, which both screens end with."""

from __future__ import annotations

import sys
from typing import Any, Protocol, TextIO

Event = dict[str, Any]


class Screen(Protocol):
    """Whatever shows events."""

    def show(self, event: Event) -> None:
        """Show one event."""

    def close(self) -> None:
        """Give the terminal back. May be called twice."""


class PlainScreen:
    """Lines of ASCII without escape codes, flushed one by one: for pipes, logs and CI."""

    def __init__(self, stream: TextIO | None = None) -> None:
        """Print to ``stream``, or to standard output."""
        self._stream = stream or sys.stdout

    def show(self, event: Event) -> None:
        """Print what is worth a line; the ticks are not."""
        for line in plain_lines(event):
            print(line, file=self._stream, flush=True)

    def close(self) -> None:
        """Nothing to give back."""


def plain_lines(event: Event) -> list[str]:
    """An event in words."""
    lines: list[str] = []
    match event:
        case {"event": "place", "text": text}:
            lines = [text]
        case {"event": "page", "url": url}:
            lines = [f"web page, while it runs: {url}"]
        case {"event": "ready"}:
            lines = [ready_line(event)]
        case {"event": "step", "number": number, "total": total, "title": title}:
            lines = ["", f"[{number}/{total}] {title}"]
        case {"event": "note", "text": text}:
            lines = [f"  -     {text}"]
        case {"event": "said", "node": node, "text": text}:
            lines = [f"  {node}    {text}"]
        case {"event": "claim", "text": text}:
            lines = [f"  ok    {text}"]
        case {"event": "step_end", "requests_so_far": requests, "failed_so_far": failed, "seconds": seconds}:
            lines = [f"        {seconds:.1f} s; {requests} requests so far, {failed} failed"]
    return lines


def ready_line(event: Event) -> str:
    """What was set up, and in what time."""
    return (
        f"{event['nodes']} nodes, each with a namespace, a daemon and an IPVS table of its own, see each other after "
        f"{event['seconds']:.1f} s (Linux {event['kernel']}, {event['rate']:g} requests/s)"
    )


def summary_lines(summary: Event) -> list[str]:
    """The summary as a table of plain text, its last line ``N requests, M failed``."""
    rows = [("step", "seconds", "requests", "failed")]
    details: list[list[str]] = [[]]
    for step in summary["steps"]:
        rows.append((f"{step['number']} {step['title']}", f"{step['seconds']:.1f}", str(step["requests"]), str(step["failed"])))
        details.append(step["seen"])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for (title, *numbers), detail in zip(rows, details, strict=True):
        cells = [title.ljust(widths[0]), *(text.rjust(width) for text, width in zip(numbers, widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
        lines += [f"    {part}" for part in detail]
    claims = sum(len(step["claims"]) for step in summary["steps"])
    latency = f"latency p50 {summary['p50_ms']:.1f} ms, p99 {summary['p99_ms']:.1f} ms"
    return [*lines, "", f"{latency}; {claims} claims checked in {summary['seconds']:.0f} s", total_line(summary)]


def total_line(summary: Event) -> str:
    """All requests in one line, with what the panic did to them."""
    if summary["harm"] is None or summary["failed"] != summary["harm"]["failed"]:
        return f"{summary['requests']} requests, {summary['failed']} failed"
    return f"{summary['requests']} requests: {harm_of(summary['harm'])}"


def harm_of(harm: Event) -> str:
    """What a panic did to requests, in words."""
    if not harm["failed"] + harm["late"]:
        return "none failed, none was late"
    late = f"{harm['late']} late" + (f" (answered after {harm['longest_seconds']:.1f} s at most)" if harm["late"] else "")
    return f"{harm['failed']} failed, {late}, all begun within {harm['begun_within_seconds']:.2f} s of the panic"
