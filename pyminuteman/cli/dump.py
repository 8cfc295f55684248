"""``minuteman dump``: all that a diagnosis needs, in one archive."""

from __future__ import annotations

import io
import json
import os
import socket
import tarfile
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import click
from click.core import ParameterSource

from pyminuteman.cli import exit_codes, version_text
from pyminuteman.cli.application import Application, pass_application
from pyminuteman.cli.asking import socket_option
from pyminuteman.cli.config_options import CONFIG
from pyminuteman.cli.doctor_config import options_of, patient_of, read, unless_missing
from pyminuteman.cli.dump_parts import Collected, Part, collect
from pyminuteman.cli.dump_sources import API_GATE, api_parts, findings, host_parts
from pyminuteman.cli.terminal import out, say
from pyminuteman.daemon.config import DaemonConfig
from pyminuteman.errors import ConfigurationError
from pyminuteman.host.announcements import DEVICE

__all__ = ["dump_command"]

_MODE: Final = 0o600
_STATE: Final = Path("/var/lib/minuteman")
_SAID: Final = {"device": "device", "api_socket": "path"}
"""What the command line can say in place of the configuration: doctor's option, and our parameter."""


@click.command("dump", epilog=exit_codes.HELP)
@click.option(
    "--output",
    "target",
    type=click.Path(path_type=Path),
    metavar="FILE.tar.gz",
    help="The archive; it must not be there yet. By default minuteman-dump-HOST-TIME.tar.gz here.",
)
@click.option(
    "--connections",
    type=click.IntRange(0, 10_000_000),
    default=10_000,
    show_default=True,
    metavar="N",
    help="How many connections of the kernel's table at most; reading many is slow.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(0.1, 600),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="For each part; doctor has 30 in any case.",
)
@click.option("--device", default=DEVICE, show_default=True, metavar="NAME", help="The device of VIP addresses.")
@click.option(
    "--log",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The daemon's log, where it is a file and not in the journal.",
)
@click.option(
    "--config",
    "configured",
    type=click.Path(path_type=Path),
    default=CONFIG,
    show_default=True,
    metavar="FILE",
    help="The daemon's configuration: what doctor looks at.",
)
@socket_option
@pass_application
def dump_command(
    application: Application,
    *,
    target: Path | None,
    connections: int,
    timeout: float,
    device: str,
    log: Path | None,
    configured: Path,
    path: Path,
) -> int:
    """Write all that a diagnosis needs into one archive: what the daemon tells, and how kernel and host are.

    There are no secrets in it, but addresses and names of this network. It works without the daemon as well, and without root, as far
    as that goes: MANIFEST.json says of each part how it went. The exit code is 4 when a part failed; what this host does not have is no
    failure.
    """
    now = datetime.now(UTC)
    directory = f"minuteman-dump-{_safe(socket.gethostname())}-{now:%Y%m%dT%H%M%SZ}"
    target = target or Path(f"{directory}.tar.gz")
    place = unless_missing(configured) if _is_usual("configured") else configured
    config = read(place, {})
    options: dict[str, Any] = {"device": device, "api_socket": path, "state_directory": _STATE}
    if isinstance(config, DaemonConfig):
        given = {name for name, parameter in _SAID.items() if not _is_usual(parameter)}
        options |= {name: value for name, value in options_of(config).items() if name not in given}
    look = partial(findings, place, config, patient_of(options))
    host = host_parts(application, device=options["device"], doctor=look, log=log, connections=connections, seconds=timeout)
    rows: list[dict[str, Any]] = []
    with _created(target) as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
        for one in _collected([*api_parts(path, timeout), *host]):
            if one.state == "ok":
                _add(archive, f"{directory}/{one.name}", one.content, now)
            rows.append(one.plain())
        _add(archive, f"{directory}/MANIFEST.json", _manifest(rows, now), now)
    return _told(rows, target)


def _is_usual(parameter: str) -> bool:
    """Whether this was not said on the command line, nor by the environment."""
    return click.get_current_context().get_parameter_source(parameter) is ParameterSource.DEFAULT


def _safe(name: str) -> str:
    return "".join(c if c.isascii() and (c.isalnum() or c in "-.") else "_" for c in name) or "host"


def _created(target: Path) -> io.BufferedWriter:
    """A new file, its owner's alone.

    Raises:
        ConfigurationError: It cannot be made, or is there already.
    """
    try:
        return os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE), "wb")
    except OSError as error:
        raise ConfigurationError(str(target), "", f"cannot be written: {error.strerror}; name another with --output") from error


def _collected(parts: list[Part]) -> Iterator[Collected]:
    """Each part; when the daemon does not answer once, it is not asked again and again."""
    silent = ""
    for part in parts:
        if silent and part.name.startswith("api/"):
            yield Collected(part.name, "failed", f"not asked for: {silent}")
            continue
        found = collect(part)
        if part.name == API_GATE and found.state != "ok":
            silent = found.reason
            say(f"without what the daemon tells: {silent}")
        yield found


def _add(archive: tarfile.TarFile, name: str, content: bytes, now: datetime) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mtime, entry.mode = len(content), int(now.timestamp()), _MODE
    archive.addfile(entry, io.BytesIO(content))


def _manifest(rows: list[dict[str, Any]], now: datetime) -> bytes:
    silent = next((row["reason"] for row in rows if row["name"] == API_GATE and row["state"] != "ok"), "")
    plain = {
        "version": 1,
        "software": version_text(),
        "host": socket.gethostname(),
        "made_at": now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "daemon": {"answers": not silent, "reason": silent},
        "parts": rows,
    }
    return (json.dumps(plain, indent=2) + "\n").encode()


def _told(rows: list[dict[str, Any]], target: Path) -> int:
    """Say how it went; the path is the data."""
    failed = [row for row in rows if row["state"] == "failed"]
    say(f"{row['name']}: {row['reason']}" for row in failed if not row["reason"].startswith("not asked for"))
    say(f"cut: {row['name']}" for row in rows if row["truncated"])
    absent = sum(row["state"] == "absent" for row in rows)
    say(f"{len(rows) - len(failed) - absent} of {len(rows)} parts; {len(failed)} failed, {absent} are not on this host")
    out(str(target))
    return exit_codes.PARTIAL if failed else exit_codes.OK
