"""The static files of the web page, read once: a fixed list of names, so that no path from a request ever reaches the disk."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from types import MappingProxyType
from typing import Final

__all__ = ["Asset", "load_assets"]

_TYPES: Final[Mapping[str, str]] = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    "": "text/plain; charset=utf-8",  # LICENSES
}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file, as it is to be sent."""

    content: bytes
    media_type: str
    """For the header ``Content-Type``; send ``X-Content-Type-Options: nosniff`` with it."""
    etag: str
    """Strong and quoted, of the content alone. With ``Cache-Control: no-cache`` a browser asks once a load and is told 304."""


def _read(directory: Traversable, prefix: str) -> dict[str, Asset]:
    found = {}
    for entry in sorted(directory.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            found.update(_read(entry, f"{prefix}{entry.name}/"))
            continue
        _, dot, ending = entry.name.rpartition(".")
        content = entry.read_bytes()
        etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        found[f"{prefix}{entry.name}"] = Asset(content, _TYPES[dot + ending if dot else ""], etag)
    return found


def load_assets() -> Mapping[str, Asset]:
    """Every file under ``web/`` by its name there: ``app.js``, ``vendor/d3-force.js``.

    The page asks for them as ``web/NAME``, beside itself. About 90 kB in all.

    Raises:
        OSError: A file of the installation cannot be read.
    """
    return MappingProxyType(_read(resources.files("pyminuteman.daemon") / "web", ""))
