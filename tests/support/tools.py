"""Tools that a test needs: without one it is skipped, or fails where everything is expected to be there."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest


def is_ci() -> bool:
    """Whether everything is expected to be there, and time to be had."""
    return os.environ.get("CI", "").lower() not in {"", "false"}


def needs(reason: str | None) -> pytest.MarkDecorator:
    """Skip a test, or a module, when there is a reason to; under CI it is run, and fails where it takes what is missing."""
    return pytest.mark.skipif(reason is not None and not is_ci(), reason=str(reason))


def root() -> str | None:
    """None when this is root, else the reason for :func:`needs`."""
    return None if os.geteuid() == 0 else "not root"


def missing(what: str) -> NoReturn:
    """Skip the test for want of ``what``; under CI, fail it."""
    if is_ci():
        pytest.fail(f"missing: {what}", pytrace=False)
    pytest.skip(f"missing: {what}")


def tool(name: str, package: str = "") -> str:
    """The path of a program."""
    return shutil.which(name) or missing(f"{name} (apt-get install {package or name})")
