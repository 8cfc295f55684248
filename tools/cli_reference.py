"""Print docs/reference/command-line.md: every verb with its arguments and options, from the commands themselves.

Usage: python tools/cli_reference.py > docs/reference/command-line.md. A test holds the page to this.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

ROOT: Final = Path(__file__).resolve().parents[1]
_HEAD: Final = """# Every verb and option

What `--help` says, on one page. How verbs behave, what they print and with which codes they end is in [the command line](../cli.md). Written
by `tools/cli_reference.py`; a test holds it complete. Every verb has `--help`.
"""


def verbs(group: click.Group, context: click.Context) -> Iterator[tuple[click.Command, click.Context]]:
    """The commands below a group, and groups before what is in them, in the order of their help."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        own = click.Context(command, info_name=name, parent=context)
        yield command, own
        if isinstance(command, click.Group):
            yield from verbs(command, own)


def page() -> str:
    """The text of it."""
    from pyminuteman.cli.root import root  # noqa: PLC0415 - takes everything that commands need

    top = click.Context(root, info_name="minuteman", **root.context_settings)
    return "\n".join(
        [_HEAD, *(line for command, context in ((root, top), *verbs(root, top)) for line in _section(command, context))]
    )


def _section(command: click.Command, context: click.Context) -> Iterator[str]:
    yield f"## `{' '.join([context.command_path, *command.collect_usage_pieces(context)])}`"
    yield ""
    yield " ".join((command.help or "").replace("\b", "").split())
    yield ""
    records = [record for parameter in command.get_params(context) if (record := _record(parameter, context))]
    if records:
        yield from ("| option | meaning |", "|---|---|", *records, "")


def _record(parameter: click.Parameter, context: click.Context) -> str:
    found = parameter.get_help_record(context)
    if found is None or not found[1] or "--help" in parameter.opts:
        return ""  # an argument, which the heading has, or what every verb has
    option, meaning = (" ".join(text.split()).replace("|", "\\|") for text in found)
    return f"| `{option}` | {meaning} |"


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.stdout.write(page())
