"""The files that a configuration names, as far as they can be looked at: those that hold secrets are for nobody else's eyes.

Nothing is opened, and what cannot be looked at is no error: the configuration may be for another host, or be checked by somebody who may
not see the files. Whoever opens them later looks once more.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pyminuteman.daemon.config import DaemonConfig
from pyminuteman.daemon.config_checks import Remark
from pyminuteman.plain.fields import Invalid, Place, place_text

__all__ = ["check_files", "file_remarks"]

_OURS: Final = (("cluster", "key_file"), ("api", "token_file"))
"""For the daemon alone, and no symbolic links, whose targets others might change."""
_PRIVATE: Final = (("api", "key"), ("store", "etcd", "key"), ("store", "etcd", "token_file"))
"""A group may read them, as is usual for keys of TLS, and links to them are usual, too."""
_PUBLIC: Final = (("api", "cert"), ("api", "client_ca"), ("store", "etcd", "ca"), ("store", "etcd", "cert"))
_NOT_FOR_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_NOT_FOR_ALL: Final = stat.S_IRWXO | stat.S_IWGRP


def check_files(config: DaemonConfig) -> None:
    """Look at files with secrets.

    Raises:
        Invalid: Others can read or write one.
    """
    for places, follow, forbidden, mode in ((_OURS, False, _NOT_FOR_OTHERS, "600"), (_PRIVATE, True, _NOT_FOR_ALL, "640")):
        for place, path in _named(config, places):
            status = _status(path, follow=follow)
            if isinstance(status, str):
                continue
            if stat.S_ISLNK(status.st_mode):
                raise Invalid(
                    place, f"{place[-1]} {path} is a symbolic link, whose target others might change: name the file itself"
                )
            if not stat.S_ISREG(status.st_mode):
                raise Invalid(place, f"{place[-1]} {path} is no file")
            if status.st_mode & forbidden:
                raise Invalid(place, f"{place[-1]} {path} can be read or written by others; do: chmod {mode} {path}")


def file_remarks(config: DaemonConfig) -> Iterator[Remark]:
    """Files that are not there, or cannot be looked at from here."""
    for place, path in _named(config, (*_OURS, *_PRIVATE, *_PUBLIC)):
        status = _status(path, follow=True)
        if isinstance(status, str):
            yield Remark(place_text(place), f"{path} cannot be looked at: {status}")


def _named(config: DaemonConfig, places: tuple[Place, ...]) -> Iterator[tuple[Place, Path]]:
    for place in places:
        found: object = config
        for name in place:
            found = getattr(found, str(name))
        if isinstance(found, Path) and (place[0] != "store" or config.store.engine == "etcd"):
            yield place, found


def _status(path: Path, *, follow: bool) -> os.stat_result | str:
    try:
        return path.stat(follow_symlinks=follow)
    except OSError as error:
        return error.strerror or str(error)
