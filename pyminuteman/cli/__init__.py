"""The command ``minuteman``: a table of verb groups, each loaded when it is called for.

Importing this needs neither click nor rich; they come with the extra ``cli``, and :func:`main` says so when they are missing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Final

__all__ = ["GROUPS", "main", "version_text"]

GROUPS: Final = {
    "run": ("pyminuteman.cli.run", "The daemon: be a node, balance VIPs on this host, tell the others of its own."),
    "status": ("pyminuteman.cli.status", "How the daemon is: its problems, sources, members, kernel, and what is held back."),
    "backends": ("pyminuteman.cli.backends", "The backends of VIPs, and why one is out."),
    "drain": ("pyminuteman.cli.marking", "No new connections for a node or a backend, on all nodes."),
    "undrain": ("pyminuteman.cli.marking", "Take a drain back."),
    "weight": ("pyminuteman.cli.marking", "Give a backend another weight than its source does."),
    "confirm": ("pyminuteman.cli.orders", "Have the daemon do what it holds back."),
    "reload": ("pyminuteman.cli.orders", "Have the daemon read its configuration again."),
    "watch": ("pyminuteman.cli.watch", "What happens, as it happens."),
    "dump": ("pyminuteman.cli.dump", "All that a diagnosis needs, in one archive."),
    "ipvs": ("pyminuteman.cli.ipvs", "The kernel's IPVS table: list, plan, apply, drain, watch."),
    "vips": ("pyminuteman.cli.vips", "VIPs from files and other sources: show them, keep the kernel equal to them."),
    "members": ("pyminuteman.cli.members", "Membership of a cluster: run a node, see the others come and go."),
    "check-config": ("pyminuteman.cli.check_config", "Whether the daemon's configuration says what it must."),
    "doctor": ("pyminuteman.cli.doctor", "What this host lacks for VIPs, why that matters, and putting it right."),
    "keys": ("pyminuteman.cli.keys", "Keys of a cluster: generate, list, and rotate them in key files."),
}
"""Name of a group or of a single verb to the module that has it, and its line of help, which is shown without loading it.

A group is the module's ``group``. A single verb is what is called as it is, with dashes as underscores and ``_command`` behind:
``check-config`` is ``check_config_command`` of its module. To add one, write the module and a line here. A verb that reads the daemon's
configuration takes ``--config`` and ``--set`` from :mod:`pyminuteman.cli.config_options`. ``vips`` and ``members`` are groups: what the
daemon says of them is a verb of theirs, added in their modules."""


def version_text() -> str:
    """``minuteman 1.2.3``, as installed."""
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 - slow, and only here

    try:
        return f"minuteman {version('pyminuteman')}"
    except PackageNotFoundError:
        return "minuteman (not installed)"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; ``--help`` tells what it can.

    Args:
        arguments: Those after the program's name; None for the process's own.

    Returns:
        The exit code (:mod:`pyminuteman.cli.exit_codes`).
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by whoever started us: also, no socket of ours shall be number 1
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123 - for the whole process
    missing = [name for name in ("click", "rich") if find_spec(name) is None]
    if missing:
        sys.stderr.write(f"minuteman: the command line needs {' and '.join(missing)}: pip install 'pyminuteman[cli]'\n")
        return 1
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words == ["--version"]:
        sys.stdout.write(f"{version_text()}\n")  # shells ask for it at every prompt: click would double the time
        return 0
    from pyminuteman.cli.root import root  # noqa: PLC0415 - needs click

    code = root.main(words, prog_name="minuteman", standalone_mode=False)
    return code if isinstance(code, int) else 0
