"""Markdown tables, and the places in pages that they are written into."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


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
