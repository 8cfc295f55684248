"""One VIP a key: documents that come and go one by one, as a key-value store has them, and the complete state that they add up to. Pure.

1. A key whose value cannot be understood keeps the VIP that it last described, and is among the problems; where it never described one
   it is left out. So a slip of the pen takes no VIP away.
2. Of two keys that describe one VIP the first in the order of keys has it; the other is among the problems until the first is gone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from pyminuteman.sources.base import SourceError, SourceProblem, SourceState
from pyminuteman.sources.document import parse_vip
from pyminuteman.vips.model import VIP, VIPKey

__all__ = ["KeyedVIPs"]


class KeyedVIPs:
    """VIPs by the keys that describe them. Empty at first."""

    def __init__(self) -> None:
        """Begin with none."""
        self._vips: dict[bytes, VIP] = {}
        self._reasons: dict[bytes, str] = {}

    def change(self, changes: Mapping[bytes, bytes | None]) -> None:
        """These keys have these values now, or (None) are gone."""
        for key, value in changes.items():
            self._reasons.pop(key, None)
            if value is None:
                self._vips.pop(key, None)
                continue
            try:
                self._vips[key] = parse_vip(_read(value), "")
            except SourceError as error:
                stands = "; what it said before stands" if key in self._vips else ""
                self._reasons[key] = f"{error}{stands}"

    def state(self) -> SourceState:
        """What all keys together say."""
        vips: dict[VIPKey, VIP] = {}
        described_by: dict[VIPKey, bytes] = {}
        problems = [SourceProblem(_shown(key), reason) for key, reason in self._reasons.items()]
        for key in sorted(self._vips):
            vip = self._vips[key]
            if vip.key in vips:
                problems.append(
                    SourceProblem(_shown(key), f"{vip.key} is described by {_shown(described_by[vip.key])} already")
                )
            else:
                vips[vip.key], described_by[vip.key] = vip, key
        return SourceState(
            tuple(sorted(vips.values(), key=lambda vip: vip.key.sort_key)),
            tuple(sorted(problems, key=lambda one: (one.where, one.reason))),
        )


def _read(value: bytes) -> object:
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"its value is no JSON: {error}") from None


def _shown(key: bytes) -> str:
    text = key.decode(errors="backslashreplace")
    return text if text.isprintable() else ascii(text)
