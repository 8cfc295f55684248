"""Markdown tables, and the places in pages that they are written into."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


def table(heading: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    heading = list(heading)
    lines = ["| " + " | ".join(heading) + " |", "|---" + "|---:" * (len(heading) - 1) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def fill(page: Path, begin: str, end: str, text: str) -> None:
    """Replace what is between two marks.

    Raises:
        ValueError: the page has not each of them once, in that order: what was measured would be lost unseen.
    """
    before, mark, rest = page.read_text().partition(begin)
    _, closing, after = rest.partition(end)
    if not mark or not closing or begin in rest or end in after:
        raise ValueError(f"{page} has not one place between {begin} and {end}")
    page.write_text(f"{before}{begin}\n\n{text}\n{end}{after}")


def report(results: Path, markdown: Callable[[dict[str, Any]], str], save: Callable[[dict[str, Any]], None]) -> int:
    """The command line of a report: the figures of the last run as markdown, on standard output or into the pages."""
    parser = argparse.ArgumentParser(description="Write the figures of the last run as markdown.")
    parser.add_argument("--save", action="store_true", help="into results/ and the pages, not to stdout")
    parser.add_argument("--results", type=Path, default=results, help="default %(default)s")
    options = parser.parse_args()
    data = json.loads(options.results.read_text())
    if options.save:
        save(data)
    else:
        print(markdown(data))
    return 0
