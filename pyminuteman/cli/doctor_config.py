"""What ``minuteman doctor`` asks, as the daemon's configuration has it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from pyminuteman.daemon.config import DaemonConfig
from pyminuteman.daemon.config_file import all_remarks, load_config
from pyminuteman.errors import ConfigurationError
from pyminuteman.host.diagnosis import Patient
from pyminuteman.host.findings import Finding, Severity
from pyminuteman.host.reach import is_own
from pyminuteman.host.setup import HostSettings

__all__ = ["check_configuration", "options_of", "patient_of", "read", "unless_missing"]

_WHY: Final = (
    "the daemon does what it says, and this is what doctor has looked at; one that is no good keeps the daemon from starting"
)
_HOST_NAMES: Final = {"bypass": "portmap_bypass"}
_OF_HOST: Final = frozenset(field.name for field in fields(HostSettings))
_OF_PATIENT: Final = frozenset(field.name for field in fields(Patient)) - {"host"}


def unless_missing(path: Path) -> Path | None:
    """The usual place of the configuration, which counts only if something is there."""
    return path if os.path.lexists(path) else None


def read(path: Path | None, overrides: dict[str, str]) -> DaemonConfig | ConfigurationError | None:
    """The configuration, or why it is no good; None without a path."""
    if path is None and not overrides:
        return None
    try:
        return load_config(path, environment=os.environ, overrides=overrides)
    except ConfigurationError as error:
        return error


def options_of(config: DaemonConfig) -> dict[str, Any]:
    """The options of doctor that it stands for. Where the daemon is to set up nothing of the host, nothing is asked of that."""
    host = config.host
    return {
        "device": host.device,
        "announce": host.announce if host.setup else "none",
        "masquerade": host.masquerade if host.setup else "none",
        "guard": host.setup and host.guard,
        "bypass": host.setup and host.portmap_bypass,
        "sysctls": host.setup and host.sysctls,
        "ipv6": config.ipvs.has_ipv6,
        "bind": config.node.bind if config.node.bind.port else None,
        "contacts": tuple(one for one in config.cluster.contacts if one.port != config.node.bind.port or not is_own(one)),
        "cluster": config.cluster.name,
        "key_file": config.cluster.key_file,
        "insecure": config.cluster.key_file is None,
        "state_directory": config.node.state_directory,
        "api_socket": config.api.socket,
        "api_tcp": config.api.tcp,
        "dns_bind": config.names.dns_bind,
        "namespaces": config.namespaces.directory,
    }


def patient_of(options: Mapping[str, Any]) -> Patient:
    """What to look at, by the options of doctor; those that are not there are as usual."""
    host = {_HOST_NAMES.get(name, name): value for name, value in options.items()}
    settings = HostSettings(**{name: host[name] for name in _OF_HOST & host.keys()})
    return Patient(host=settings, **{name: options[name] for name in _OF_PATIENT & options.keys()})


def check_configuration(path: Path | None, found: DaemonConfig | ConfigurationError | None) -> Iterator[Finding]:
    """Whether it is good, and what is odd in it."""
    identity = "config"
    match found:
        case None:
            what = "there is no configuration: the usual is looked at"
            yield Finding(identity, Severity.INFO, what, _WHY, "name it with --config")
        case ConfigurationError():
            what = f"the configuration is no good, so the usual is looked at: {found}"
            yield Finding(identity, Severity.ERROR, what, _WHY, "minuteman check-config tells when it is")
        case DaemonConfig():
            yield Finding(identity, Severity.OK, f"{path or 'what was said'} is good", _WHY)
            for remark in all_remarks(found):
                yield Finding("config.remark", Severity.WARNING, str(remark), _WHY)
