"""``python -m pyminuteman``: the command ``minuteman``."""

from __future__ import annotations

import sys

from pyminuteman.cli import main

if __name__ == "__main__":
    sys.exit(main())
