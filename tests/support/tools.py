"""Tools that a test needs: without one it is skipped, or fails where everything is expected to be there."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest


def is_ci() -> bool:
    """Whether everything is expected to be there, and time to be had."""
    return os.environ.get("CI", "").lower() not in {"", "false"}


def missing(what: str) -> NoReturn:
    """Skip the test for want of ``what``; under CI, fail it."""
    if is_ci():
        pytest.fail(f"missing: {what}", pytrace=False)
    pytest.skip(f"missing: {what}")


def tool(name: str, package: str = "") -> str:
    """The path of a program."""
    return shutil.which(name) or missing(f"{name} (apt-get install {package or name})")
