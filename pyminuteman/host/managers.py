"""Other software that writes IPVS tables. Two managers of one table undo each other's work for ever."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from pyminuteman.host.findings import Finding, Severity

__all__ = ["MANAGERS", "check_managers"]

MANAGERS: Final[Mapping[str, str]] = {
    "keepalived": "stop it, or take virtual_server blocks out of its configuration (VRRP alone does no harm)",
    "kube-proxy": "run it with --proxy-mode=nftables or iptables; or leave its services' networks out of ours ([ipvs] exclude)",
    "kube-router": "run it without --run-service-proxy; or leave its services' networks out of ours ([ipvs] exclude)",
    "ldirectord": "stop it: systemctl disable --now ldirectord",
    "dockerd": "in swarm mode it has IPVS tables in namespaces of its own, which are not touched",
    "beam.smp": "dcos-net and minuteman run in it: stop them, see the guide on migration",
}
"""Name of the process to what to do about it."""
_HARMLESS: Final = {"dockerd"}
_WHY: Final = "two managers of one IPVS table undo each other's changes for ever: connections break each time"
_RESTORES: Final = re.compile(r"^\s*AUTO\s*=\s*[\"']?true", re.MULTILINE | re.IGNORECASE)
_PROCESSES_MAX: Final = 100_000


def check_managers(root: Path = Path("/")) -> Iterable[Finding]:
    """Those that run, and the boot script of ipvsadm.

    Args:
        root: Where ``proc`` and ``etc`` are: for tests.
    """
    found = sorted(_running(root / "proc") & MANAGERS.keys())
    for name in found:
        severity = Severity.INFO if name in _HARMLESS else Severity.WARNING
        yield Finding(f"managers.{name}", severity, f"{name} runs on this machine", _WHY, MANAGERS[name])
    rules = root / "etc/ipvsadm.rules"
    if rules.exists() and _RESTORES.search(_text(root / "etc/default/ipvsadm")):
        fix = 'set AUTO="false" in /etc/default/ipvsadm; its rules can be taken over: --source ipvsadm:/etc/ipvsadm.rules'
        what = "/etc/ipvsadm.rules is loaded at each boot (AUTO in /etc/default/ipvsadm)"
        yield Finding("managers.ipvsadm", Severity.WARNING, what, _WHY, fix)
        found.append("ipvsadm")
    if not set(found) - _HARMLESS:
        yield Finding("managers", Severity.OK, "no other manager of IPVS tables was found", _WHY)


def _running(proc: Path) -> set[str]:
    names: set[str] = set()
    try:
        with os.scandir(proc) as entries:
            pids = [entry.name for entry in entries if entry.name.isdigit()][:_PROCESSES_MAX]
    except OSError:
        return names
    for pid in pids:
        if name := _text(proc / pid / "comm").strip():
            names.add(name)
    return names


def _text(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(65536)
    except OSError:
        return ""
