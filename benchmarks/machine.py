"""What something was measured on, and when."""

from __future__ import annotations

import os
import platform
import re
import time
from pathlib import Path
from typing import Any


def machine() -> dict[str, Any]:
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {
        "cpu": model[1] if model else platform.machine(),
        "cpus": os.cpu_count(),
        "release": platform.release(),
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
    }
