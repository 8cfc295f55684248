"""What can go wrong between the command line and the daemon. Pure."""

from __future__ import annotations

from pyminuteman.errors import MinutemanError

__all__ = ["DaemonError", "DaemonForbidden", "DaemonRefused", "DaemonUnreachable"]


class DaemonError(MinutemanError):
    """The daemon did not do what was asked. The text says what to do."""


class DaemonUnreachable(DaemonError):
    """Nobody answers at the socket, or not in time. Whether a change was made is not known when it broke off; the text says which."""


class DaemonForbidden(DaemonError):
    """This user may not connect, or may not change anything. Nothing was changed."""


class DaemonRefused(DaemonError):
    """The daemon said no. Nothing was changed.

    Attributes:
        status: The HTTP status.
        code: A word for programs, as in ``docs/reference/api.md``.
    """

    def __init__(self, status: int, code: str, message: str, hint: str = "") -> None:
        super().__init__(f"{message}; {hint}" if hint else message)
        self.status, self.code = status, code
