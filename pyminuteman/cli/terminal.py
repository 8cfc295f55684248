"""Words for people and data for programs: data goes to standard output, talk to standard error.

Nothing that came from outside reaches a terminal with its control characters in it (:func:`clean`): names of interfaces and
the data of persistence engines are not ours.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import IO, TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

__all__ = ["Update", "clean", "console", "is_terminal", "out", "out_json", "progress_bar", "say", "status_line", "wants_color"]

Update = Callable[[str, bool], object]
"""Takes the words of the moment, and whether they are news."""

_PIECE = 1 << 15
_PROGRESS_FROM = 2000
"""Operations from which a bar is worth its drawing; fewer are done within a blink."""


def clean(text: str) -> str:
    """One line without control characters, and without what cannot be encoded."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c for c in text if c.isprintable() or c == "\t").encode("utf-8", "replace").decode()


def is_terminal(stream: IO[str]) -> bool:
    """Whether somebody watches this stream on a terminal that can be drawn upon."""
    return stream.isatty() and os.environ.get("TERM", "") != "dumb"


def wants_color(stream: IO[str], *, no_color: bool = False) -> bool:
    """Colour or not: ``--no-color`` and ``NO_COLOR`` forbid it, ``CLICOLOR_FORCE`` asks for it, else a terminal does."""
    if no_color or os.environ.get("NO_COLOR"):
        return False
    return os.environ.get("CLICOLOR_FORCE", "0") not in {"", "0"} or is_terminal(stream)


def out(text: str, *, color: bool = False, end: str = "\n") -> None:
    """Data: to standard output as it is, ``end`` behind it unless it ends with that or is empty."""
    text += "" if text.endswith(end) or not text else end
    # In pieces: with PYTHONUNBUFFERED one long write to a pipe that is closed half way looks like a success.
    for start in range(0, len(text), _PIECE):
        click.echo(text[start : start + _PIECE], nl=False, color=color)


def out_json(head: Mapping[str, Any], name: str, rows: Iterable[Any]) -> None:
    """The object ``head``, with ``rows`` as the list ``name`` at its end, piece by piece: a large table is never there as a whole."""
    text = json.dumps(head, indent=2).removesuffix("\n}") + f',\n  "{name}": ['
    between = "\n    "
    for row in rows:
        text += between + json.dumps(row, indent=2).replace("\n", "\n    ")
        between = ",\n    "
        if len(text) > _PIECE:
            out(text, end="")
            text = ""
    out(text + ("\n  ]\n}" if between.startswith(",") else "]\n}"))


def say(lines: str | Iterable[str]) -> None:
    """Talk: to standard error, cleaned. Nobody listening is no reason to stop half way through a change."""
    with contextlib.suppress(OSError):
        for line in lines.split("\n") if isinstance(lines, str) else lines:
            click.echo(clean(line), err=True)


def console(stream: IO[str], *, no_color: bool = False) -> Console:
    """A console of rich's on a stream."""
    from rich.console import Console  # noqa: PLC0415 - slow to import, and most verbs never draw

    return Console(file=stream, no_color=not wants_color(stream, no_color=no_color), highlight=False, markup=False)


class _Bar:
    """What :func:`progress_bar` gives: called with the operations done and their number."""

    def __init__(self, stream: IO[str], no_color: bool) -> None:
        self._stream, self._no_color = stream, no_color
        self._stack = contextlib.ExitStack()
        self._update: Callable[[int], object] | None = None

    def __call__(self, done: int, total: int) -> None:
        """Draw; the first call makes the bar."""
        if self._update is None:
            from rich.progress import Progress  # noqa: PLC0415 - see console

            bar = self._stack.enter_context(
                Progress(console=console(self._stream, no_color=self._no_color), transient=True),
            )
            task = bar.add_task("applying", total=total)
            self._update = partial(_advance, bar, task)
        self._update(done)

    def close(self) -> None:
        """Take it off the screen."""
        self._stack.close()


def _advance(bar: Progress, task: TaskID, done: int) -> None:
    bar.update(task, completed=done)


@contextlib.contextmanager
def progress_bar(total: int, *, no_color: bool = False) -> Iterator[_Bar | None]:
    """Something to hand over as ``progress``; None when nobody would see it."""
    if total < _PROGRESS_FROM or not is_terminal(sys.stderr):
        yield None
        return
    bar = _Bar(sys.stderr, no_color)
    try:
        yield bar
    finally:
        bar.close()


@contextlib.contextmanager
def status_line() -> Iterator[Update]:
    """A line on standard error that keeps changing; where it is no terminal, a line for each piece of news."""
    if not is_terminal(sys.stderr):
        yield lambda text, news: say(text) if news else None
        return

    def draw(text: str, _news: bool = False) -> None:
        with contextlib.suppress(OSError):
            width = os.get_terminal_size(sys.stderr.fileno()).columns - 1
            sys.stderr.write(f"\r\x1b[2K{clean(text)[:width]}")
            sys.stderr.flush()

    try:
        yield draw
    finally:
        draw("")
