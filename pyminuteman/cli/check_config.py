"""``minuteman check-config``: whether the daemon's configuration says what it must, before the daemon is told to use it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

from pyminuteman.cli import exit_codes
from pyminuteman.cli.config_options import config_file, settings
from pyminuteman.cli.options import output
from pyminuteman.cli.terminal import clean, out, say
from pyminuteman.daemon.config_file import all_remarks, describe, load_config

__all__ = ["check_config_command"]

_HELP = """\b
Exit codes:
  0   all is well; what is odd, and yet no error, is told on standard error
  2   wrong usage
  78  it does not say what it must; the line says where, and what is accepted
"""


@click.command("check-config", epilog=_HELP)
@config_file
@settings
@output("text", "json")
def check_config_command(path: Path, overrides: dict[str, str], form: str) -> int:
    """Read the daemon's configuration and say what is wrong with it; with -o json, show all of it, defaults included, without secrets.

    Nothing is opened that it names, and nothing is changed. Files that it names are looked at: others must not read those with secrets.
    """
    config = load_config(path, environment=os.environ, overrides=overrides)
    odd = all_remarks(config)
    if form == "json":
        plain = {"version": 1, "config": describe(config), "remarks": [remark._asdict() for remark in odd]}
        out(json.dumps(plain, indent=2))
        return exit_codes.OK
    say(f"{path}: {remark}" for remark in odd)
    sources = ", ".join(source.name for source in config.sources) or "none"
    out(
        f"{clean(str(path))}: all is well (node {clean(config.node.name) or 'named as the host'} at {config.node.bind}; sources: {sources})"
    )
    return exit_codes.OK
