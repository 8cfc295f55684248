"""``minuteman run``: the daemon."""

from __future__ import annotations

import gc
import logging
import os
from pathlib import Path
from typing import Final

import click

from pyminuteman.cli import exit_codes
from pyminuteman.cli.config_options import config_file, settings

__all__ = ["run_command"]

_HELP: Final = """\b
Signals:
  TERM, INT   leave the cluster, and end; the second time, end at once
  HUP         read the configuration again; one that is no good changes nothing
  USR1        log how things stand
\b
Exit codes:
  0   it was told to end, and did
  1   something failed, such as a port that is taken
  2   wrong usage
  69  this kernel has no IPVS
  77  not permitted: run it as root, or with CAP_NET_ADMIN
  78  the configuration does not say what it must
"""


@click.command("run", epilog=_HELP)
@config_file
@settings
@click.option("--user", metavar="NAME[:GROUP]", help="Become this user, with no more rights than the configuration takes.")
def run_command(path: Path, overrides: dict[str, str], user: str | None) -> int:
    """Be a node: balance VIPs on this host, and tell the others of this host's own.

    What it does is written down in docs/daemon.md; 'minuteman check-config' checks the configuration, 'minuteman doctor' the host.
    """
    import trio  # noqa: PLC0415 - --help needs none of this

    from pyminuteman.cli.vips_sources import bare_errors  # noqa: PLC0415
    from pyminuteman.daemon.app import run  # noqa: PLC0415
    from pyminuteman.daemon.composition import rights_of  # noqa: PLC0415
    from pyminuteman.daemon.config import DaemonConfig  # noqa: PLC0415
    from pyminuteman.daemon.config_file import all_remarks, describe, load_config  # noqa: PLC0415
    from pyminuteman.daemon.heap import keep_heap_dense  # noqa: PLC0415
    from pyminuteman.daemon.logs import log_remarks, start_log  # noqa: PLC0415
    from pyminuteman.daemon.privileges import User, drop  # noqa: PLC0415
    from pyminuteman.membership import be_realtime  # noqa: PLC0415

    def load() -> DaemonConfig:
        return load_config(path, environment=os.environ, overrides=overrides)

    config = load()
    start_log(config.log)
    log_remarks(all_remarks(config))
    keep_heap_dense()
    if config.node.realtime and not (had := be_realtime()).granted:  # no error: the unit says whether it may be had
        logging.getLogger("pyminuteman.daemon").info("ordinary priority, for real-time priority is %s", had.reason)
    if user is not None:
        drop(rights_of(config), User.named(user))
    gc.freeze()  # what was imported stays: without this, a collection would look through all of it, for 10 ms
    with bare_errors():
        trio.run(run, config, load, describe)
    return exit_codes.OK
