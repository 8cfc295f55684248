"""Real-time priority for the process that detects failures, where the system grants it.

On a busy machine a process at normal priority is late by tens of milliseconds now and then; under ``SCHED_FIFO`` by one or two. A
node that is never late can be given timeouts near the network's, and is never taken for dead itself.

The loop is not alone: who starts a thread waits until that has begun, and all threads share the interpreter's lock. Where others had
ordinary priority, loops were seen to stand still for more than a second, because the processor was given to somebody else while such a thread
had the lock, or had yet to begin. So all threads of a program that calls :func:`be_realtime` have real-time priority, one below the loop's.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from types import FrameType
from typing import Final, NamedTuple

__all__ = ["REALTIME_PRIORITY", "Priority", "be_realtime", "take_realtime_priority"]

REALTIME_PRIORITY: Final = 10
"""Of 1 to 99: above every ordinary process, below the kernel's threads that serve interrupts (50)."""


class Priority(NamedTuple):
    """What was had.

    Attributes:
        granted: Whether the process has real-time priority now.
        reason: Why not, and what would help; empty when it has.
    """

    granted: bool
    reason: str = ""


def take_realtime_priority(priority: int = REALTIME_PRIORITY, *, hand_on: bool = False) -> Priority:
    """Ask for ``SCHED_FIFO`` for the calling thread. A program with other threads wants :func:`be_realtime`.

    Should the process ever spin, the kernel keeps a share of each second for the others (``sched_rt_runtime_us``, 5 %).

    Args:
        priority: 1 to 99.
        hand_on: Whether threads and processes that this thread starts have it, too.

    Returns:
        Whether it was granted. A refusal changes nothing, and is no error.
    """
    policy = os.SCHED_FIFO | (0 if hand_on else os.SCHED_RESET_ON_FORK)
    try:
        os.sched_setscheduler(0, policy, os.sched_param(priority))
    except PermissionError:
        return Priority(granted=False, reason="not permitted: it takes CAP_SYS_NICE, or a limit on real-time priority (rtprio)")
    except OSError as error:
        return Priority(granted=False, reason=f"the system refuses it: {error.strerror}")
    return Priority(granted=True)


def be_realtime() -> Priority:
    """Ask for ``SCHED_FIFO`` for the main thread of a program, before there are others: a loop that is not to be kept waiting.

    Threads that are started from then on have it too, and go one below before they do anything (by :func:`threading.setprofile`, for which
    there is then no other use). So have programs that they start, unless :func:`pyminuteman.capabilities.hand_on_no_priority` was called before.

    Returns:
        Whether it was granted.
    """
    had = take_realtime_priority(hand_on=True)
    if had.granted:
        threading.setprofile(_step_down)
    return had


def _step_down(_frame: FrameType, _event: str, _about: object) -> None:
    """The first thing that happens in a thread, and the last call of this kind."""
    sys.setprofile(None)
    with suppress(OSError):  # a filter of system calls, not the kernel: less is always granted
        if os.sched_getparam(0).sched_priority == REALTIME_PRIORITY:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(REALTIME_PRIORITY - 1))
