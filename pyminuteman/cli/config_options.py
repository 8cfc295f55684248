"""Options of every verb that reads the daemon's configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from pyminuteman.cli.options import Verb

__all__ = ["CONFIG", "config_file", "settings"]

CONFIG: Final = Path("/etc/minuteman/config.toml")
"""Where the daemon's configuration usually is."""

config_file = click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path),
    default=CONFIG,
    show_default=True,
    metavar="FILE",
    help="The daemon's configuration; files in conf.d beside it, and MINUTEMAN_* of the environment, count as well.",
)


def _pairs(_context: click.Context, _parameter: click.Parameter, texts: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or "." not in key:
            raise click.BadParameter(f"{text!r} is not SECTION.KEY=VALUE, as in node.name=web1")
        found[key] = value
    return found


def settings(verb: Verb) -> Verb:
    """``--set``, as ``overrides`` of :func:`pyminuteman.daemon.config_file.load_config`."""
    option = click.option(
        "--set",
        "overrides",
        multiple=True,
        callback=_pairs,
        metavar="SECTION.KEY=VALUE",
        help="A setting in place of the file's, as in node.name=web1; may be given several times.",
    )
    return option(verb)
