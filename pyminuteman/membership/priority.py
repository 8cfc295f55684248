"""Real-time priority for the process that detects failures, where the system grants it.

On a busy machine a process at normal priority is late by tens of milliseconds now and then; under ``SCHED_FIFO`` by one or two. A
node that is never late can be given timeouts near the network's, and is never taken for dead itself.
"""

from __future__ import annotations

import os
from typing import Final, NamedTuple

__all__ = ["REALTIME_PRIORITY", "Priority", "take_realtime_priority"]

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


def take_realtime_priority(priority: int = REALTIME_PRIORITY) -> Priority:
    """Ask for ``SCHED_FIFO`` for the calling thread, and so for a process of one thread. Processes started later do not inherit it.

    Should the process ever spin, the kernel keeps a share of each second for the others (``sched_rt_runtime_us``, 5 %).

    Args:
        priority: 1 to 99.

    Returns:
        Whether it was granted. A refusal changes nothing, and is no error.
    """
    policy = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
    try:
        os.sched_setscheduler(0, policy, os.sched_param(priority))
    except PermissionError:
        return Priority(granted=False, reason="not permitted: it takes CAP_SYS_NICE, or a limit on real-time priority (rtprio)")
    except OSError as error:
        return Priority(granted=False, reason=f"the system refuses it: {error.strerror}")
    return Priority(granted=True)
