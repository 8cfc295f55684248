"""What a test's processes owe each other."""

from __future__ import annotations

import os
import signal
from typing import Final

from pyminuteman.libc import error_of, libc

__all__ = ["die_with_parent"]

_PR_SET_PDEATHSIG: Final = 1  # <linux/prctl.h>


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends, however that ends.

    Args:
        parent: Its process id, as it was known before the fork.

    Raises:
        OSError: The kernel refuses.
    """
    if libc().prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
        raise error_of("prctl")
    if os.getppid() != parent:  # it ended before we asked
        os._exit(1)
