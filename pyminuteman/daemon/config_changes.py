"""What differs between two configurations, what of it counts at once, and what takes a restart. Pure.

:func:`takes_restart` is the one place that says which: the reference's marks come from it, and so does what a reload does.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from pyminuteman.daemon.config import DaemonConfig, SourceConfig
from pyminuteman.daemon.config_checks import check
from pyminuteman.daemon.config_description import describe
from pyminuteman.daemon.config_document import managed_of
from pyminuteman.errors import ConfigurationError
from pyminuteman.plain.fields import Invalid, place_text

__all__ = ["Change", "changed", "in_force", "restart_needed", "takes_restart", "told"]

_RELOADED: Final = frozenset({"source", "policy", "ipvs", "health", "log"})
"""Sections that count as soon as they are read again. Of the others each key takes a restart: sockets, identities and what other nodes
agree on hang on them."""
_RELOADED_KEYS: Final = frozenset({"api.metrics_labels", "api.hosts"})
_NOT_RELOADED: Final = frozenset({"health.concurrency"})
_SHOWN_MAX: Final = 80
"""Longer values are not shown: who wants to know looks into the file."""


@dataclass(frozen=True, slots=True)
class Change:
    """A setting that differs.

    Attributes:
        key: Dotted, as in ``node.bind`` and ``membership.heartbeat_interval_seconds``; of a source ``source.NAME``, of rules ``policy.rule``.
        restart: Whether it counts only after a restart.
    """

    key: str
    restart: bool


def takes_restart(key: str) -> bool:
    """Whether a change of this dotted key counts only after a restart; else a reload is enough."""
    return key in _NOT_RELOADED or (key.partition(".")[0] not in _RELOADED and key not in _RELOADED_KEYS)


def changed(old: DaemonConfig, new: DaemonConfig) -> tuple[Change, ...]:
    """What differs, in the order of the sections. Sources are the same when their names are; their order does not matter."""
    before, after = dict(_settings(old)), dict(_settings(new))
    keys = sorted(dict.fromkeys([*before, *after]), key=lambda key: _ORDER.index(key.partition(".")[0]))
    return tuple(Change(key, takes_restart(key)) for key in keys if before.get(key) != after.get(key))


def restart_needed(old: DaemonConfig, new: DaemonConfig) -> tuple[str, ...]:
    """The dotted keys that differ and that a reload does not make count; in the order of the sections."""
    return tuple(change.key for change in changed(old, new) if change.restart)


def in_force(old: DaemonConfig, new: DaemonConfig) -> DaemonConfig:
    """What counts when ``new`` is read while ``old`` counts: all of the new one but for the keys that take a restart.

    Raises:
        ConfigurationError: The two do not go together without a restart.
    """
    tables = {section.name: _mixed(section.name, old, new) for section in fields(DaemonConfig) if section.name != "sources"}
    sources = tuple(_with_concurrency(source, old.health.concurrency) for source in new.sources)
    config = DaemonConfig(sources=sources, **tables)
    if new.ipvs.managed == managed_of(new):  # it was not said; then it is what names and policy say that count
        config = replace(config, ipvs=replace(config.ipvs, managed=managed_of(config) or old.ipvs.managed))
    try:
        check(config)
    except Invalid as error:
        waiting = ", ".join(restart_needed(old, new))
        raise ConfigurationError(
            None, place_text(error.place), f"{error.reason}; it may be so after a restart, which {waiting} needs"
        ) from None
    return config


def told(old: DaemonConfig, new: DaemonConfig) -> tuple[list[str], list[str]]:
    """What differs, in lines for people, without secrets: what counts at once, and what takes a restart."""
    lines: list[str] = []
    restart: list[str] = []
    before, after = describe(old), describe(new)
    for change in changed(old, new):
        section, _, name = change.key.partition(".")
        if section == "source":
            lines += _of_source(name, old.source(name), new.source(name))
        else:
            text = _shown(_found(before, change.key), _found(after, change.key))
            (restart if change.restart else lines).append(f"{change.key}: {text}")
    return lines, restart


def _mixed(name: str, old: DaemonConfig, new: DaemonConfig) -> Any:
    """A section of the new one, with what takes a restart from the old one."""
    before, after = getattr(old, name), getattr(new, name)
    kept = {field.name: getattr(before, field.name) for field in fields(before) if takes_restart(f"{name}.{field.name}")}
    return replace(after, **kept)


def _with_concurrency(source: SourceConfig, concurrency: int) -> SourceConfig:
    """It is the whole node's, and a source's has it only because its checks are whole."""
    return source if source.health is None else replace(source, health=replace(source.health, concurrency=concurrency))


def _of_source(name: str, old: SourceConfig | None, new: SourceConfig | None) -> Iterator[str]:
    if old is None or new is None:
        yield f"source.{name}: {'added' if old is None else 'removed'}"
        return
    (before,), (after,) = (describe(DaemonConfig(sources=(one,)))["source"] for one in (old, new))
    for field in fields(SourceConfig):
        if getattr(old, field.name) == getattr(new, field.name):
            continue
        was, now = before.get(field.name), after.get(field.name)
        if isinstance(was, dict) and isinstance(now, dict):
            yield from (
                f"source.{name}.{field.name}.{key}: {_shown(was[key], now[key])}" for key in was if was[key] != now[key]
            )
        elif field.name == "health":
            yield f"source.{name}.health: {'as in [health]' if now is None else 'its own'}"
        else:
            yield f"source.{name}.{field.name}: {_shown(was, now)}"


def _found(plain: Mapping[str, Any], key: str) -> Any:
    found: Any = plain
    for part in key.split("."):
        found = found[part]
    return found


def _shown(old: object, new: object) -> str:
    """Both values, where they are short and differ without their secrets, too."""
    before, after = (json.dumps(value, ensure_ascii=False) for value in (old, new))
    return f"{before} -> {after}" if before != after and max(len(before), len(after)) <= _SHOWN_MAX else "changed"


_ORDER: Final = ("node", "membership", *(field.name.replace("sources", "source") for field in fields(DaemonConfig)))


def _settings(config: DaemonConfig) -> Iterator[tuple[str, Any]]:
    """Every setting by its dotted key."""
    yield from ((f"source.{source.name}", _with_concurrency(source, 0)) for source in config.sources)
    yield from ((f"membership.{name}", value) for name, value in config.node.membership_overrides)
    for section in fields(config):
        if section.name == "sources":
            continue
        table = getattr(config, section.name)
        for field in fields(table):
            key, value = f"{section.name}.{field.name}", getattr(table, field.name)
            if key in {"store.etcd", "store.limits"}:
                yield from (
                    (f"{key}.{one.name}", getattr(value, one.name)) for one in fields(value) if one.name != "lease_seconds"
                )
            elif key != "node.membership_overrides":
                yield "policy.rule" if key == "policy.rules" else key, value
