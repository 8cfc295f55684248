"""Scopes in words, as ``--scope`` and the ``scope`` of a file have them. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import reduce
from operator import or_

from pyminuteman.ipvs import Scope

__all__ = ["parse_scope"]

_MARKS = re.compile(r"(0x[0-9a-fA-F]{1,8}|[0-9]{1,10})(?:-(0x[0-9a-fA-F]{1,8}|[0-9]{1,10}))?", re.ASCII)


def parse_scope(words: Sequence[str]) -> Scope:
    """The union of what the words say: ``11.0.0.0/8``, ``fwmark:7``, ``fwmark:1-9``, ``everything``.

    Raises:
        ValueError: One of them says nothing of the kind, or there is none.
    """
    scopes = [_parse(word) for word in words]
    if not scopes:
        msg = "name at least one network, fwmark:N or everything"
        raise ValueError(msg)
    return next((scope for scope in scopes if scope.is_everything), None) or reduce(or_, scopes)


def _parse(word: str) -> Scope:
    if word == "everything":
        return Scope.everything()
    kind, colon, rest = word.partition(":")
    if kind == "fwmark" and colon:
        found = _MARKS.fullmatch(rest)
        first = int(found[1], 0 if found[1].startswith("0x") else 10) if found else 0
        last = int(found[2], 0 if found[2].startswith("0x") else 10) if found and found[2] else first
        if not 1 <= first <= last <= 2**32 - 1:
            msg = f"scope {word!r}: expected fwmark:N or fwmark:FIRST-LAST, with numbers from 1 to {2**32 - 1}"
            raise ValueError(msg)
        return Scope.fwmarks(range(first, last + 1))
    try:
        return Scope.networks(word)
    except ValueError as error:
        msg = f"scope {word!r} is no network (11.0.0.0/8), fwmark:N, fwmark:A-B or everything: {error}"
        raise ValueError(msg) from None
