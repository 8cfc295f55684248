"""Fails, and shows the difference, where the C sources are not as clang-format would have them; `--fix` puts them right."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SOURCES = sorted(
    path
    for folder in ("csrc", "pyminuteman", "tests", "benchmarks")
    for path in Path(folder).rglob("*.[ch]")
    if path.name != "_native.c"
)

if __name__ == "__main__":
    how = ["-i"] if "--fix" in sys.argv else ["--dry-run", "--Werror"]
    style = "--style=file:csrc/.clang-format"
    sys.exit(subprocess.run(["clang-format", style, *how, *map(str, SOURCES)], check=False).returncode)
