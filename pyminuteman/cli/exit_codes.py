"""What the process says on its way out. Pure.

Below 64 each number has one meaning of ours; the others are those of ``sysexits.h`` and of shells.
"""

from __future__ import annotations

from typing import Final

from pyminuteman.daemon.client_errors import DaemonForbidden, DaemonUnreachable
from pyminuteman.errors import ConfigurationError, MinutemanError
from pyminuteman.ipvs import (
    ApplyError,
    InvalidDestinationError,
    InvalidServiceError,
    IPVSUnavailableError,
    NotConverged,
    NotPermitted,
    Unsupported,
)

__all__ = [
    "BROKEN_PIPE",
    "CHANGES",
    "CONFIGURATION",
    "FAILED",
    "HELP",
    "INTERRUPTED",
    "NOT_PERMITTED",
    "OK",
    "PARTIAL",
    "TIME_UP",
    "UNAVAILABLE",
    "USAGE",
    "Refused",
    "Stopped",
    "code_for",
]

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
CHANGES: Final = 3
PARTIAL: Final = 4
TIME_UP: Final = 5
UNAVAILABLE: Final = 69
NOT_PERMITTED: Final = 77
CONFIGURATION: Final = 78
INTERRUPTED: Final = 130
BROKEN_PIPE: Final = 141

HELP: Final = """\b
Exit codes:
  0   done, or nothing to do
  1   something else failed
  2   wrong usage; or a confirmation was needed and could not be had
  3   plan: there is something to do
  4   part of it failed; the rest was done
  5   drain: the time was up, and connections were cut
  69  this kernel has no IPVS, or lacks what was asked for; or no daemon answers
  77  not permitted: run as root, with CAP_NET_ADMIN, or as a member of the daemon's group
  78  a file does not say what it must; nothing was changed
  130 interrupted
  141 nobody reads the output any more
"""


class Refused(MinutemanError):
    """Nobody was there to confirm it, or they did not. Nothing was changed."""


class Stopped(MinutemanError):
    """What was asked for cannot be done as the table is; the text says why."""


def code_for(error: BaseException) -> int:
    """The exit code that an error stands for."""
    table: list[tuple[tuple[type[BaseException], ...], int]] = [
        ((Refused,), USAGE),
        ((ApplyError, NotConverged), PARTIAL),
        ((NotPermitted, DaemonForbidden), NOT_PERMITTED),
        ((IPVSUnavailableError, Unsupported, DaemonUnreachable), UNAVAILABLE),
        ((ConfigurationError, InvalidServiceError, InvalidDestinationError), CONFIGURATION),
    ]
    return next((code for kinds, code in table if isinstance(error, kinds)), FAILED)
