"""Writes what a wheel ships beside the package: man pages and completion for shells.

Usage: make_manual.py DIRECTORY

Pages of section 1 are made from the commands themselves, a page a group, so they cannot lag behind; those of sections 5 and 8 are
written by hand, in docs/man. Completion scripts are click's own: they ask the command. ``tools/build_backend.py`` calls this when a
wheel is built.
"""

from __future__ import annotations

import datetime as dt
import os
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click
from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

ROOT: Final = Path(__file__).resolve().parents[1]
HAND_WRITTEN: Final = ROOT / "docs/man"
COMPLETION: Final[dict[str, type[ShellComplete]]] = {
    "share/bash-completion/completions/minuteman": BashComplete,
    "share/zsh/site-functions/_minuteman": ZshComplete,
    "share/fish/vendor_completions.d/minuteman.fish": FishComplete,
}
_ENVIRONMENT: Final = {
    "NO_COLOR": "Set to anything: no colour.",
    "CLICOLOR_FORCE": "1: colour on pipes too.",
    "TERM": "dumb: no colour, and no line is drawn over.",
}
_WIDTH: Final = 78
_FLAG: Final = re.compile(r"-{1,2}[A-Za-z0-9][A-Za-z0-9-]*")


def files(version: str) -> dict[str, str]:
    """Path below the installation's prefix to text, of all there is."""
    from pyminuteman.cli.root import root  # noqa: PLC0415 - takes everything that commands need

    seconds = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
    now = dt.datetime.now(dt.UTC)
    date = (dt.datetime.fromtimestamp(seconds, dt.UTC) if seconds else now).date().isoformat()
    made = {path: kind(root, {}, "minuteman", "_MINUTEMAN_COMPLETE") for path, kind in COMPLETION.items()}
    # Not BashComplete.source: it would ask the builder's bash for its version.
    found = {path: ShellComplete.source(one) for path, one in made.items()}
    for name, text in _pages(root, date, version):
        found[f"share/man/man1/{name}.1"] = text
    for page in sorted(HAND_WRITTEN.glob("*.[1-8]")):
        text = page.read_text(encoding="utf-8").replace("@DATE@", date).replace("@VERSION@", version)
        found[f"share/man/man{page.suffix[1:]}/{page.name}"] = text
    return found


def write(directory: Path, version: str) -> list[Path]:
    """Write them below ``directory``, and return where."""
    written = []
    for name, text in files(version).items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        written.append(path)
    return written


def _pages(root: click.Group, date: str, version: str) -> Iterator[tuple[str, str]]:
    """Name and text: one of the command, and one of each of its groups."""
    context = click.Context(root, info_name="minuteman", **root.context_settings)
    groups = {name: found for name, found in _commands(root, context) if isinstance(found, click.Group)}
    others = ["minuteman(8)", "minuteman.toml(5)"]
    for name, group in ({"minuteman": root} | groups).items():
        title = "minuteman" if group is root else f"minuteman-{name}"
        own = context if group is root else click.Context(group, info_name=name, parent=context)
        see = [*(f"minuteman-{other}(1)" for other in sorted(groups) if other != name), *others]
        lines = [f'.TH {title.upper()} 1 "{date}" "pyminuteman {version}" "pyminuteman"']
        lines += [".SH NAME", f"{title} \\- {_escape(_first(group))}"]
        lines += [".SH SYNOPSIS", *_usage(group, own)]
        lines += [".SH DESCRIPTION", *_prose(group.help or "")]
        lines += [".SH OPTIONS", *_options(group, own)]
        lines += [".SH COMMANDS", *_described(group, own, root)]
        lines += _epilog(group, root)
        lines += [".SH EXIT STATUS", *_prose(_exit_codes(root).replace("Exit codes:\n", ""))]
        lines += [".SH ENVIRONMENT", *(line for pair in _ENVIRONMENT.items() for line in _entry(f"\\fB{pair[0]}\\fR", pair[1]))]
        lines += [".SH SEE ALSO", ",\n".join(_reference(one) for one in ([] if group is root else ["minuteman(1)"]) + see)]
        yield title, "\n".join(lines) + "\n"


def _commands(group: click.Group, context: click.Context) -> Iterator[tuple[str, click.Command]]:
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        if found is not None and not found.hidden:
            yield name, found


def _described(group: click.Group, context: click.Context, root: click.Group, before: str = "") -> Iterator[str]:
    for name, command in _commands(group, context):
        own = click.Context(command, info_name=name, parent=context)
        if isinstance(command, click.Group) and group is root:
            yield from _entry(f"\\fBminuteman {name}\\fR", f"{_first(command)}. See minuteman-{name}(1).")
            continue
        yield f".SS {_escape(before + name)}"
        yield from _usage(command, own)
        yield ".PP"
        yield from _prose(command.help or "")
        yield from _options(command, own)
        yield from _epilog(command, root)
        if isinstance(command, click.Group):
            yield from _described(command, own, root, f"{before}{name} ")


def _usage(command: click.Command, context: click.Context) -> list[str]:
    pieces = " ".join(command.collect_usage_pieces(context))
    return [f".B {_escape(context.command_path)}", f"{_marked(pieces)}"]


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        is_help = "--help" in parameter.opts and not isinstance(command, click.Group)
        if record is not None and record[1] and not is_help:
            yield from _entry(_marked(record[0]), record[1])


def _epilog(command: click.Command, root: click.Group) -> list[str]:
    """What stands behind the options, but for the exit codes that are every command's."""
    return _prose((command.epilog or "").replace(_exit_codes(root), "").strip(" \n"), ".PP")


def _exit_codes(root: click.Group) -> str:
    return root.epilog or ""


def _entry(term: str, text: str) -> list[str]:
    return [".TP", term, *_wrapped(text)]


def _first(command: click.Command) -> str:
    """The first sentence, in one line."""
    paragraph = " ".join((command.help or "").split("\n\n")[0].split())
    return paragraph.split(". ")[0].rstrip(".")


def _prose(text: str, before: str = "") -> list[str]:
    """Paragraphs as click takes them: one that begins with a backspace is kept as it is."""
    lines: list[str] = []
    for paragraph in re.split(r"\n\s*\n|\n(?=\x08)", textwrap.dedent(text).strip("\n")):
        kept = paragraph.lstrip("\n ").startswith("\b")
        body = paragraph.strip("\b\n ") if not kept else paragraph.replace("\b", "").strip("\n")
        if not body:
            continue
        lines += [".PP"] if lines or before else []
        lines += [".nf", *(_escape(line) for line in body.split("\n")), ".fi"] if kept else _wrapped(body)
    return lines


def _wrapped(text: str) -> list[str]:
    return [_escape(line) for line in textwrap.wrap(" ".join(text.split()), _WIDTH, break_on_hyphens=False)]


def _escape(text: str) -> str:
    """As roff prints it unchanged."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("~", "\\(ti").replace("^", "\\(ha").replace("`", "\\(ga")
    return f"\\&{text}" if text[:1] in {".", "'"} else text


def _marked(text: str) -> str:
    """Flags bold, what stands for something else in italics."""
    text = _FLAG.sub(lambda found: f"\0B{found[0]}\0R", text)
    text = re.sub(r"(?<![\w-])[A-Z][A-Z0-9_]+(?![\w-])", lambda found: f"\0I{found[0]}\0R", text)
    return _escape(text).replace("\0", "\\f")


def _reference(page: str) -> str:
    name, _, section = page.partition("(")
    return f"\\fB{_escape(name)}\\fR({section}"


if __name__ == "__main__":
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    if len(sys.argv) != 2:  # noqa: PLR2004 - itself and the directory
        sys.exit(__doc__)
    sys.path.insert(0, str(ROOT))
    write(Path(sys.argv[1]), project["version"])
