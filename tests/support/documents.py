"""What documents show of a terminal, to be carried out: commands with the machine they are given on, and what these answer.

In a fenced block ``console`` a line such as ``web1# ip address`` is a command to be given on the machine ``web1``, as root; up to the
next such line follows what it prints. A command goes on behind a backslash, and in a here-document up to its end. In what is printed,
``...`` stands for any text within a line, and alone for any number of lines; columns are as wide as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["Step", "answers_as_shown", "blocks", "steps"]

_FENCE: Final = re.compile(r"^ *```(\w*).*$")
_PROMPT: Final = re.compile(r"^([a-z][a-z0-9-]*)# (.+)$")
_HERE: Final = re.compile(r"<<'?(\w+)'?")


@dataclass(frozen=True, slots=True)
class Step:
    """One command of a document, with the heading it stands under."""

    line: int
    section: str
    machine: str
    command: str
    shown: tuple[str, ...]


def blocks(path: Path) -> Iterator[tuple[str, str, int, list[str]]]:
    """Each fenced block of a document: its section, its language, the number of its first line, its lines."""
    section, language, first, lines = "", None, 0, []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        fence = _FENCE.match(line)
        if language is None:
            if line.startswith("#"):
                section = line.lstrip("# ")
            if fence:
                language, first, lines = fence[1], number + 1, []
        elif fence:
            yield section, language, first, lines
            language = None
        else:
            lines.append(line)
    assert language is None, f"{path}: the block of line {first} has no end"


def steps(path: Path) -> list[Step]:
    """All commands of a document, in their order.

    A ``console`` block that begins with no command is a mistake of its author, as is one whose machine nobody can tell.
    """
    found: list[Step] = []
    for section, language, first, lines in blocks(path):
        if language == "console":
            found += _of_block(path, section, first, lines)
    return found


def _of_block(path: Path, section: str, first: int, lines: list[str]) -> Iterator[Step]:
    at = 0
    while at < len(lines):
        start, prompt = at, _PROMPT.match(lines[at])
        assert prompt, f"{path}:{first + at}: no command, as in 'web1# true': {lines[at]!r}"
        command = [prompt[2]]
        at += 1
        while command[-1].endswith("\\"):
            command.append(lines[at])
            at += 1
        if here := _HERE.search("\n".join(command)):
            while command[-1] != here[1]:
                command.append(lines[at])
                at += 1
        shown = []
        while at < len(lines) and not _PROMPT.match(lines[at]):
            shown.append(lines[at])
            at += 1
        yield Step(first + start, section, prompt[1], "\n".join(command), tuple(shown))


def answers_as_shown(shown: tuple[str, ...], answer: str) -> bool:
    """Whether a command answered what its document shows."""
    pattern = "".join(r"(?:[^\n]*\n)*" if line.strip() == "..." else _line(line) + r" *\n" for line in shown)
    return re.fullmatch(pattern, answer if answer.endswith("\n") or not answer else answer + "\n") is not None


def _line(text: str) -> str:
    """A pattern for one line: runs of blanks are alike, and an ellipsis is any text."""
    words = re.split(r"(\.\.\.| +)", text.rstrip())
    return "".join("[^\n]*" if word == "..." else " +" if word.startswith(" ") else re.escape(word) for word in words)
