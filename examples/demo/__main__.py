"""Load balancing with IPVS, live: real traffic, changes under load, and assertions. See docs/demo.md."""

from __future__ import annotations

import sys
from pathlib import Path

# Run as `python examples/demo`, or as `python -m examples.demo`: either way the package is called `demo`.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from demo.launcher import main

if __name__ == "__main__":
    sys.exit(main())
