"""The daemon's configuration as plain data, for programs and people: the way back of :mod:`pyminuteman.daemon.config_document`. Pure."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from pyminuteman.addresses import Endpoint
from pyminuteman.daemon.config import DaemonConfig, SourceConfig
from pyminuteman.vips.allocation import AddressRange
from pyminuteman.vips.policy import Networks

__all__ = ["describe"]

_USER: Final = re.compile(r"(?<=//)[^/?#@\s]*@")
_QUERY: Final = re.compile(r"(?<=\?)[^#]+")


def describe(config: DaemonConfig, *, secrets: bool = False) -> dict[str, Any]:
    """The same as plain data, whole: what :func:`~pyminuteman.daemon.config_document.read_config` reads.

    Args:
        config: All of it.
        secrets: Leave in what URLs have of users, passwords and queries; else there are asterisks.
    """
    hidden = str if secrets else _without_secrets
    plain: dict[str, Any] = {}
    for section in fields(DaemonConfig):
        value = getattr(config, section.name)
        if section.name == "sources":
            plain["source"] = [_plain_source(source) | {"place": hidden(source.place)} for source in value]
        else:
            plain[section.name] = _plain(value)
    del plain["store"]["limits"]["lease_seconds"]
    plain["store"]["etcd"]["endpoints"] = [hidden(one) for one in config.store.etcd.endpoints]
    plain["node"]["tags"] = dict(config.node.tags)
    del plain["node"]["membership_overrides"]
    plain["membership"] = _plain(config.node.membership)
    rules = plain["policy"].pop("rules")
    for rule in rules:
        rule["ports"] = [f"{low}-{high}" if low != high else str(low) for low, high in rule["ports"]]
    plain["policy"]["rule"] = rules
    return plain


def _plain_source(source: SourceConfig) -> dict[str, Any]:
    plain: dict[str, Any] = _plain(source)
    if source.health is None:
        del plain["health"]
    else:
        del plain["health"]["concurrency"]
    return plain


def _without_secrets(place: str) -> str:
    shown = _USER.sub("***@", place)
    return _QUERY.sub("***", shown, count=1) if shown.startswith(("http:", "https:")) else shown


def _plain(value: Any) -> Any:
    match value:
        case None:
            plain: Any = ""
        case AddressRange():
            plain = f"{value.address(0)}-{value.address(value.size)}"
        case Path() | Endpoint():
            plain = str(value)
        case Networks():
            plain = list(value.texts)
        case frozenset():
            plain = sorted(value)
        case tuple():
            plain = [_plain(item) for item in value]
        case str() | int() | float():
            plain = value
        case _:
            plain = {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    return plain
