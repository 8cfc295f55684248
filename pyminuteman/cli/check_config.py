"""``minuteman check-config``: whether the daemon's configuration says what it must, before the daemon is told to use it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

from pyminuteman.cli import exit_codes
from pyminuteman.cli.options import output
from pyminuteman.cli.terminal import clean, out
from pyminuteman.daemon.config_file import DEFAULT_PATH, describe, load_config

__all__ = ["check_config_command"]

_HELP = """\b
Exit codes:
  0   all is well
  2   wrong usage
  78  it does not say what it must; the line says where, and what is accepted
"""


@click.command("check-config", epilog=_HELP)
@click.option("--config", "path", type=click.Path(path_type=Path), default=DEFAULT_PATH, show_default=True, metavar="FILE",
              help="The daemon's configuration; conf.d beside it and MINUTEMAN_* of the environment count as well.")  # fmt: skip
@output("text", "json")
def check_config_command(path: Path, form: str) -> int:
    """Read the daemon's configuration and say what is wrong with it; with -o json, show all of it, defaults included, without secrets.

    Nothing is opened that it names, and nothing is changed.
    """
    config = load_config(path, environment=os.environ)
    if form == "json":
        out(json.dumps({"version": 1, "config": describe(config)}, indent=2))
        return exit_codes.OK
    sources = ", ".join(source.name for source in config.sources) or "none"
    out(
        f"{clean(str(path))}: all is well (node {clean(config.node.name) or 'named as the host'} at {config.node.bind}; sources: {sources})"
    )
    return exit_codes.OK
