"""What is to be told of a new desired state: the events between it and the one before.

Pure. Resolutions that are the same object are not looked at, so that the cost grows with what changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pyminuteman.vips.desired import DesiredState
from pyminuteman.vips.model import BackendKey
from pyminuteman.vips.resolution import Exclusion, Resolution

__all__ = ["Telling", "differences"]

Telling = tuple[str, str, dict[str, Any]]
"""Kind, text and data of an event."""

_EMPTY: dict[BackendKey, Exclusion] = {}


def differences(before: DesiredState, after: DesiredState) -> Iterator[Telling]:
    """What happened in between, in the order of the VIPs."""
    for key in before.resolutions:
        if key not in after.resolutions:
            yield "vip_removed", f"{key} is no more", {"vip": str(key)}
    for key, resolution in after.resolutions.items():
        old = before.resolutions.get(key)
        if old is resolution:
            continue
        if old is None:
            count = len(resolution.vip.backends)
            yield "vip_added", f"{key}, with {count} backend{'' if count == 1 else 's'}", {"vip": str(key), "backends": count}
        yield from _of_backends(old, resolution)
        known = set() if old is None else {(failed.service, failed.reason) for failed in old.failed_open}
        for failed in resolution.failed_open:
            if (failed.service, failed.reason) not in known:
                data = {"vip": str(key), "service": str(failed.service), "reason": failed.reason.name.lower()}
                yield "failed_open", str(failed), data


def _of_backends(old: Resolution | None, new: Resolution) -> Iterator[Telling]:
    """Backends that were taken out, or came back; of one that is no longer claimed nothing is to be said."""
    out = {exclusion.backend: exclusion for exclusion in new.exclusions}
    was = _EMPTY if old is None else {exclusion.backend: exclusion for exclusion in old.exclusions}
    for backend, exclusion in out.items():
        if backend not in was or was[backend].reason is not exclusion.reason:
            data = {
                "vip": str(exclusion.vip),
                "backend": str(backend),
                "reason": exclusion.reason.name.lower(),
                "held": exclusion.held,
            }
            yield "backend_out", str(exclusion), data
    claimed = {backend.key for backend in new.vip.backends}
    for backend in was:
        if backend not in out and backend in claimed:
            yield (
                "backend_in",
                f"{new.vip.key}: {backend} takes connections again",
                {"vip": str(new.vip.key), "backend": str(backend)},
            )
