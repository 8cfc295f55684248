"""setuptools' build backend, and before a wheel is built the manual and the completion scripts that it is to contain.

They are made from the commands, which takes what the commands import: hence the further requirements, for wheels only. An editable
install, such as that of a checkout, has neither; ``make_manual.py DIRECTORY`` writes them anywhere.
"""

from __future__ import annotations

import shutil
import sys
import tomllib
from pathlib import Path
from typing import Any, Final

from setuptools import build_meta
from setuptools.build_meta import (
    build_editable,
    build_sdist,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

ROOT: Final = Path(__file__).resolve().parents[1]
MANUAL: Final = ROOT / "build/manual"
"""Where ``setup.py`` looks for them."""


def get_requires_for_build_wheel(config_settings: dict[str, Any] | None = None) -> list[str]:
    """What setuptools wants, and what importing the commands takes."""
    project = _project()
    return [
        *build_meta.get_requires_for_build_wheel(config_settings),
        *project["dependencies"],
        *project["optional-dependencies"]["cli"],
    ]


def build_wheel(
    wheel_directory: str, config_settings: dict[str, Any] | None = None, metadata_directory: str | None = None
) -> str:
    """As setuptools does, with the manual in it."""
    sys.path[:0] = [str(ROOT), str(ROOT / "tools")]
    import make_manual  # noqa: PLC0415 - it needs what the line above finds, and the requirements above

    shutil.rmtree(MANUAL, ignore_errors=True)
    make_manual.write(MANUAL, _project()["version"])
    return build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)


def _project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return found
