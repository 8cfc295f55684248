"""Where the parts of a dump come from: the daemon's API, the kernel, files of /proc, programs, and what doctor finds."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from pyminuteman.cli import version_text
from pyminuteman.cli.application import Application
from pyminuteman.cli.doctor_config import check_configuration
from pyminuteman.cli.dump_parts import Absent, Part, limited
from pyminuteman.daemon.client import DaemonClient
from pyminuteman.daemon.config import DaemonConfig
from pyminuteman.errors import ConfigurationError, MinutemanError
from pyminuteman.host import diagnosis
from pyminuteman.host.diagnosis import Patient
from pyminuteman.host.tools import find, run

__all__ = ["API_GATE", "PROC", "api_parts", "findings", "host_parts"]

PROC: Final = Path("/proc")
API_GATE: Final = "api/status.json"
"""When this one fails, the others of the API are not asked for."""
_API: Final = {
    "members": "/v1/members",
    "topology": "/v1/topology",
    "backends": "/v1/backends",
    "statistics": "/v1/statistics",
    "vips": "/v1/vips",
    "config": "/v1/config",
}
_PROGRAMS: Final[dict[str, Sequence[str]]] = {
    "rules/nft.txt": ("nft", "-a", "list", "ruleset"),
    "rules/iptables.txt": ("iptables-save", "-c"),
    "rules/ip6tables.txt": ("ip6tables-save", "-c"),
    "rules/iptables_legacy.txt": ("iptables-legacy-save", "-c"),
    "rules/ip6tables_legacy.txt": ("ip6tables-legacy-save", "-c"),
    "rules/ipset.txt": ("ipset", "list", "-terse"),
    "logs/journal.txt": (
        "journalctl",
        "-u",
        "minuteman",
        "-u",
        "minuteman@*",
        "-n",
        "5000",
        "-o",
        "short-iso",
        "--no-pager",
        "-q",
    ),
    "network/addresses.txt": ("ip", "-d", "-s", "address", "show"),
    "network/rules.txt": ("ip", "rule", "show"),
    "network/rules6.txt": ("ip", "-6", "rule", "show"),
    "network/neighbours.txt": ("ip", "-s", "neighbour", "show"),
}
_PACKAGES: Final = (
    "pyminuteman",
    "click",
    "rich",
    "trio",
    "cffi",
    "starlette",
    "h11",
    "msgpack",
    "cryptography",
    "httpx2",
    "dnspython",
)
_READ_MOST: Final = 1 << 20


def api_parts(path: Path, seconds: float) -> Iterator[Part]:
    """What the daemon tells; :data:`API_GATE` first."""

    def asked(route: str, query: dict[str, str] | None = None) -> str:
        with DaemonClient(path, timeout_seconds=seconds) as client:
            return json.dumps(client.get(route, query), indent=2) + "\n"

    def metrics() -> str:
        with DaemonClient(path, timeout_seconds=seconds) as client:
            return client.text("/metrics")

    yield Part(API_GATE, lambda: asked("/v1/status"), seconds)
    for name, route in _API.items():
        yield Part(f"api/{name}.json", partial(asked, route), seconds)
    yield Part("api/events.json", lambda: asked("/v1/events", {"format": "json", "since": "0"}), seconds)
    yield Part("api/metrics.txt", metrics, seconds)


def host_parts(
    application: Application, *, device: str, doctor: Callable[[], str], log: Path | None, connections: int, seconds: float
) -> Iterator[Part]:
    """What can be had without the daemon.

    Args:
        application: Opens the kernel's table.
        device: That of VIP addresses.
        doctor: What doctor finds: see :func:`findings`.
        log: The daemon's log, where that is a file.
        connections: How many lines of connections at most.
        seconds: For each part.
    """
    yield Part("versions.json", _versions, seconds)
    yield Part("ipvs/rules.txt", lambda: _rules(application), seconds)
    yield Part("ipvs/statistics.json", lambda: _statistics(application), seconds)
    for name in ("ip_vs", "ip_vs_app", "ip_vs_stats", "ip_vs_stats_percpu"):
        yield Part(f"ipvs/proc/{name}.txt", partial(_lines, PROC / "net" / name, 100_000), seconds)
    for name in ("ip_vs_conn", "ip_vs_conn_sync"):
        yield Part(f"ipvs/proc/{name}.txt", partial(_lines, PROC / "net" / name, connections), seconds)
    yield Part("sysctl/ipvs.txt", partial(_settings, "net/ipv4/vs", "*"), seconds)
    yield Part("sysctl/conntrack.txt", partial(_settings, "net/netfilter", "nf_conntrack_*"), seconds)
    yield Part("sysctl/ipv4.txt", partial(_settings, "net/ipv4", "ip_*"), seconds)
    for name in ("modules", "meminfo", "loadavg", "uptime", "net/softnet_stat", "net/netstat", "net/snmp", "net/sockstat"):
        yield Part(f"host/{name.replace('/', '_')}.txt", partial(_lines, PROC / name, 10_000), seconds)
    if log is not None:
        yield Part("logs/file.txt", lambda: _tail(log), seconds)
    own = {
        "network/device.txt": ("ip", "-d", "-s", "address", "show", "dev", device),
        "network/device_routes.txt": ("ip", "route", "show", "table", "local", "dev", device),
        "network/device_routes6.txt": ("ip", "-6", "route", "show", "table", "local", "dev", device),
        "network/routes.txt": ("ip", "route", "show", "table", "main"),
    }
    for file, command in (own | _PROGRAMS).items():
        yield Part(file, partial(_program, command), seconds)
    yield Part("doctor.json", doctor, max(seconds, 30.0))


def _lines(path: Path, most: int) -> str:
    with path.open(encoding="utf-8", errors="replace") as lines:
        return "".join(limited(lines, most))


def _tail(path: Path) -> str:
    with path.open("rb") as file:
        left_out = max(0, file.seek(0, os.SEEK_END) - _READ_MOST)
        file.seek(left_out)
        text = file.read(_READ_MOST).decode("utf-8", "replace")
    return f"# without its first {left_out} bytes\n{text}" if left_out else text


def _settings(directory: str, pattern: str) -> str:
    """As ``sysctl`` prints them; one that cannot be read says why."""
    found = sorted(path for path in (PROC / "sys" / directory).glob(pattern) if path.is_file())
    if not found:
        msg = f"there is no {PROC / 'sys' / directory / pattern}"
        raise Absent(msg)
    lines = []
    for path in found:
        name = f"{directory}/{path.name}".replace("/", ".")
        try:
            with path.open(encoding="utf-8", errors="replace") as file:
                lines.append(f"{name} = {' '.join(file.read(_READ_MOST).split())}\n")
        except OSError as error:
            lines.append(f"# {name}: {error.strerror}\n")
    return "".join(lines)


def _program(command: Sequence[str]) -> str:
    if find(command[0]) is None:
        msg = f"there is no {command[0]} on this machine"
        raise Absent(msg)
    answer = run(command)
    if not answer.ok:
        if "does not exist" in answer.error or "Cannot find device" in answer.error:
            raise Absent(answer.error)
        msg = f"{' '.join(command)} ended with {answer.code}: {answer.error}"
        raise MinutemanError(msg)
    return answer.output


def _rules(application: Application) -> str:
    with application.table() as table:
        return table.export()


def _statistics(application: Application) -> str:
    from pyminuteman.cli.ipvs_list import plain_listing  # noqa: PLC0415 - what is not here may fail by itself

    with application.table() as table:
        statistics, information = table.statistics(), table.information()
    kernel = {
        "ipvs_version": ".".join(map(str, information.version)),
        "connection_table_size": information.connection_table_size,
    }
    return json.dumps({"version": 1, "kernel": kernel, "service": list(plain_listing(statistics.values()))}, indent=1) + "\n"


def findings(path: Path | None, config: DaemonConfig | ConfigurationError | None, patient: Patient) -> str:
    """What doctor finds: in the configuration, which is there or not, and in the host."""
    found = [*check_configuration(path, config), *diagnosis.examine(patient)]
    return json.dumps({"version": 1, "findings": [one.plain() for one in found]}, indent=2) + "\n"


def _versions() -> str:
    system = os.uname()
    plain: dict[str, Any] = {
        "version": 1,
        "software": version_text(),
        "python": sys.version,
        "kernel": {"release": system.release, "version": system.version, "machine": system.machine, "host": system.nodename},
        "uid": os.geteuid(),
        "packages": {name: found for name in _PACKAGES if (found := _package(name))},
        "programs": {name: run((name, option)).output.strip() for name, option in _ASKED.items() if find(name)},
    }
    try:
        plain["system"] = platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError as error:
        plain["system"] = f"not known: {error}"
    return json.dumps(plain, indent=2) + "\n"


_ASKED: Final = {"nft": "--version", "iptables": "--version", "ip": "-Version", "ipset": "--version"}


def _package(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
