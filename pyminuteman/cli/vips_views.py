"""VIPs in words, for people and for programs. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pyminuteman.addresses import format_endpoint
from pyminuteman.cli.desired import to_plain
from pyminuteman.plain.ipvs_words import flag_names
from pyminuteman.sources.base import SourceProblem
from pyminuteman.sources.document import plain_vip
from pyminuteman.vips.desired import DesiredState
from pyminuteman.vips.model import VIP, VIPName
from pyminuteman.vips.resolution import Reason, Resolution

__all__ = ["format_vips", "plain_state", "remarks"]


def remarks(state: DesiredState) -> list[str]:
    """What an operator should know of how VIPs came out, a line each; not what a source itself asked for."""
    lines = [str(conflict) for conflict in state.conflicts]
    lines += [f"{name} has no address: {reason}" for name, reason in state.unaddressed.items()]
    lines += [str(exclusion) for exclusion in state.exclusions if exclusion.reason is not Reason.SOURCE]
    return lines + [str(failure) for failure in state.failed_open]


def format_vips(state: DesiredState) -> Iterator[str]:
    """Lines, without their ends: each VIP with its settings, and below it its backends."""
    for resolution in state.resolutions.values():
        vip = resolution.vip
        yield f"{_title(resolution)}  {_settings(vip)}"
        notes = {exclusion.backend: str(exclusion.reason) for exclusion in resolution.exclusions}
        for backend in vip.backends:
            note = notes.get(backend.key, "")
            yield f"  -> {backend.key!s:28} {backend.weight:<6}{' ' if note else ''}{note}".rstrip()
        if not vip.backends:
            yield "  (no backends)"
        yield from (f"  {failure}" for failure in resolution.failed_open)


def _title(resolution: Resolution) -> str:
    """``tcp://11.0.0.1:80``; of a named one also where it is."""
    places = [format_endpoint(service.key.address, service.key.port) for service, _ in resolution.services]
    if not isinstance(resolution.vip.key.host, VIPName):
        return str(resolution.vip.key)
    return f"{resolution.vip.key} at {', '.join(places) or 'no address'}"


def _settings(vip: VIP) -> str:
    """``mh (mh-port) persistent 300 masquerade drain 30 s``."""
    settings = vip.settings
    words = [settings.scheduler]
    if settings.flags:
        words.append(f"({','.join(flag_names(settings.scheduler, settings.flags))})")
    if settings.persistence:
        words.append(f"persistent {settings.persistence.timeout_seconds}")
    words.append(settings.forward.name.lower())
    if settings.drain_seconds:
        words.append(f"drain {settings.drain_seconds:g} s")
    return " ".join(words)


def plain_state(state: DesiredState, problems: Mapping[str, tuple[SourceProblem, ...]]) -> dict[str, Any]:
    """For ``-o json``: the VIPs as a document has them, the services they become, and what is to be said of them.

    Args:
        state: What it came to.
        problems: By the name of the source, what it left out.
    """
    return {
        "version": 1,
        "vip": [plain_vip(resolution.vip) for resolution in state.resolutions.values()],
        "service": list(to_plain(state.services.items())),
        "name": [{"name": name, "addresses": list(record.addresses)} for name, record in state.names.items()],
        "excluded": [
            {
                "vip": str(one.vip),
                "backend": str(one.backend),
                "held": one.held,
                "reason": one.reason.name.lower(),
                "detail": one.detail,
            }
            for one in state.exclusions
        ],
        "failed_open": [
            {"vip": str(one.vip), "service": str(one.service), "reason": one.reason.name.lower()} for one in state.failed_open
        ],
        "conflict": [str(conflict) for conflict in state.conflicts],
        "problem": [
            {"source": source, "where": problem.where, "reason": problem.reason}
            for source, found in problems.items()
            for problem in found
        ],
    }
