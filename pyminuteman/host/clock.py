"""The machine's clock: whether it is kept, and whether it jumps."""

from __future__ import annotations

import ctypes
from time import CLOCK_BOOTTIME, CLOCK_MONOTONIC, CLOCK_REALTIME, clock_gettime
from typing import Final

from pyminuteman.host.findings import Finding, Severity
from pyminuteman.libc import libc

__all__ = ["ClockWatch", "check_synchronised"]

JUMP_SECONDS: Final = 0.1
_TIME_ERROR: Final = 5  # linux/timex.h
_STA_UNSYNC: Final = 0x40
_WHY_JUMP: Final = (
    "what nodes say is ordered by their own clocks across restarts (epochs), and shared values by the last writer's: a clock that jumps back "
    "makes news look old"
)
_WHY_SYNC: Final = (
    "a node whose clock is far ahead (a day unless configured) is not heard by the others, and one that is far behind loses against older "
    "values of others"
)


class ClockWatch:
    """Looks at both clocks when it is made, and again when it is asked: what wall time did beyond what passed is a jump."""

    def __init__(self) -> None:
        self._offset = _offset()

    def check(self) -> Finding:
        """What happened since."""
        jump = _offset() - self._offset
        if abs(jump) > JUMP_SECONDS:
            what = f"wall time jumped by {jump:+.3f} s while we looked"
            fix = "have the clock slewed, not stepped: chrony's makestep only at start; and one time service, not two"
            return Finding("clock.jump", Severity.WARNING, what, _WHY_JUMP, fix)
        slept = clock_gettime(CLOCK_BOOTTIME) - clock_gettime(CLOCK_MONOTONIC)
        suspended = f"; this machine was suspended for {slept:.0f} s since its start" if slept > 1 else ""
        return Finding("clock.jump", Severity.OK, f"wall time went on evenly while we looked{suspended}", _WHY_JUMP)


def _offset() -> float:
    return clock_gettime(CLOCK_REALTIME) - clock_gettime(CLOCK_MONOTONIC)


class _Timex(ctypes.Structure):  # struct timex of sys/timex.h, on 64-bit machines
    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_long * 32),
    )


def check_synchronised() -> Finding:
    """Whether a time service keeps the kernel's clock, as the kernel knows it (adjtimex(2), which changes nothing here)."""
    timex = _Timex()
    state = libc().adjtimex(ctypes.byref(timex))
    if state < 0:
        return Finding(
            "clock.synchronised", Severity.INFO, "the kernel could not be asked whether its clock is kept", _WHY_SYNC
        )
    if state == _TIME_ERROR or timex.status & _STA_UNSYNC:
        what = "no time service keeps this machine's clock (adjtimex says that it is not synchronised)"
        fix = "apt-get install chrony, or: timedatectl set-ntp true"
        return Finding("clock.synchronised", Severity.WARNING, what, _WHY_SYNC, fix)
    what = f"the clock is kept, within {timex.maxerror / 1000:.0f} ms at most"
    return Finding("clock.synchronised", Severity.OK, what, _WHY_SYNC)
