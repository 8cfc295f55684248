"""The daemon's log: lines on standard error, as whoever reads them wants them."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Iterable
from typing import Final, Literal

from pyminuteman.daemon.config import LogConfig
from pyminuteman.daemon.config_checks import Remark

__all__ = ["log_remarks", "start_log"]

_log = logging.getLogger("pyminuteman.daemon")

_PRIORITIES: Final = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
"""Of syslog (RFC 5424), which the journal reads from ``<N>`` at the beginning of a line (sd-daemon(3))."""
_CONTROL: Final = {code: f"\\x{code:02x}" for code in (*range(32), 127, *range(128, 160))}
"""What a name or label must not do to a terminal or to a line."""


class _Text(logging.Formatter):
    """A line a record, whatever is in it."""

    def __init__(self, *, journal: bool) -> None:
        super().__init__("%(levelname)s %(message)s" if journal else "%(asctime)s %(levelname)s %(message)s")
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        """One line; of a traceback, one escaped line too."""
        line = super().format(record).translate(_CONTROL)
        if not self._journal:
            return line
        priority = next((number for level, number in _PRIORITIES if record.levelno >= level), 7)
        return f"<{priority}>{line}"


class _Json(logging.Formatter):
    """An object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        plain = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        if (event := getattr(record, "event", "")) != "":
            plain["event"] = event
        if record.exc_info:
            plain["traceback"] = self.formatException(record.exc_info)
        return json.dumps(plain)


def start_log(config: LogConfig) -> None:
    """Write the log to standard error from now on."""
    form: Literal["auto", "text", "json", "journal"] = config.format
    if form == "auto":
        form = "journal" if os.environ.get("JOURNAL_STREAM") else "text"
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if form == "json" else _Text(journal=form == "journal"))
    log = logging.getLogger("pyminuteman")
    log.handlers[:] = [handler]
    log.propagate = False
    log.setLevel(config.level.upper())


def log_remarks(remarks: Iterable[Remark]) -> None:
    """Say what is odd in the configuration, and yet no error."""
    for remark in remarks:
        _log.warning("configuration: %s", remark)
