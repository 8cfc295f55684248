"""What this node says to the others, in the store: kept equal to what it has to say, as far as the store takes it.

1. As a rule all that has changed is one write. Where the store refuses that, what is no longer so goes first, and the rest is said in
   parts: one VIP that cannot be said hides no other.
2. A VIP without its head is nobody's business: when the head is refused, so are its backends. When there is no more room, what comes
   first in the order of the sources is said, and of a VIP as many backends as there is room for.
3. What is refused is told once, with the reason, and is shown for as long as it is so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, groupby
from typing import Any, Final, NamedTuple

import trio

from pyminuteman.daemon.entries import PREFIX, changes, encode, head_of
from pyminuteman.kv.errors import InvalidKeyError, StoreError, StoreLimitError, TooManyKeys
from pyminuteman.kv.store import Store
from pyminuteman.vips.claims import Claim

__all__ = ["Saying", "Voice", "saying"]

_AGAIN_SECONDS: Final = 5.0
_ROOM_SECONDS: Final = 60.0
"""How soon to see whether there is room now: it is made by others, who do not tell."""
_TOLD_MAX: Final = 20
_GROUPS_BETWEEN_BREATHS: Final = 64

_Entry = tuple[str, bytes]
_Group = Sequence[_Entry]


class Saying(NamedTuple):
    """Claims as entries.

    Attributes:
        entries: By key.
        names: Of each head's key, the VIP.
        wrong: VIPs that cannot be written as entries, and why.
    """

    entries: dict[str, bytes]
    names: dict[str, str]
    wrong: dict[str, str]


def saying(claims: Iterable[Claim]) -> Saying:
    """These claims as entries; one that cannot be is left out, with the reason."""
    entries: dict[str, bytes] = {}
    names: dict[str, str] = {}
    wrong: dict[str, str] = {}
    for claim in claims:
        try:
            entries.update(encode([claim]))
            names[head_of(claim)] = str(claim.vip.key)
        except (ValueError, TypeError, OverflowError) as error:
            wrong[str(claim.vip.key)] = str(error)
    return Saying(entries, names, wrong)


class Voice:
    """Speaks for this node.

    Args:
        store: Where.
        tell: Where events are told: kind, text, data.
        prefixes: Of the keys that are said here; other keys of this node are left alone.
    """

    def __init__(self, store: Store, tell: Callable[[str, str, Mapping[str, Any]], object], prefixes: tuple[str, ...]) -> None:
        self._store, self._tell, self._prefixes = store, tell, prefixes
        self._refused: dict[str, str] = {}
        self._full = ""
        self._tries = 0
        self._told = ""
        self.untold: Mapping[str, str] = {}
        """VIPs (or other things) of which something is not said to the others, and why."""

    async def say(self, said: Saying, besides: Mapping[str, bytes]) -> float | None:
        """Say this, and nothing else under our prefixes.

        Args:
            said: Claims.
            besides: Entries of other kinds.

        Returns:
            When to try again, in seconds; None when all is said.
        """
        before = {key: value for key, value in self._store.own().items() if key.startswith(self._prefixes)}
        different = changes(before, {**said.entries, **besides})
        self._refused, self._full, self._tries = {}, "", 0
        try:
            try:
                await self._store.change_own(different)
            except (InvalidKeyError, StoreLimitError):
                await self._store.change_own({key: None for key, value in different.items() if value is None})
                await self._say_in_parts(before, [(key, value) for key, value in different.items() if value is not None])
        except StoreError as error:
            if str(error) != self._told:
                self._told = str(error)
                self._tell("refused", f"what this node says is not told: {error}", {"error": str(error)})
            return _AGAIN_SECONDS
        self._told = ""
        self._note(said)
        return _ROOM_SECONDS if self._refused else None

    async def _say_in_parts(self, before: Mapping[str, bytes], entries: Iterable[_Entry]) -> None:
        await self._say_groups(before, [list(group) for _, group in groupby(entries, lambda entry: _head(entry[0]))])

    async def _say_groups(self, before: Mapping[str, bytes], groups: Sequence[_Group]) -> None:
        """All at once, or else by halves: few that are refused among many cost few writes."""
        if self._full:  # what is there can be changed; what is new has no room
            new = [key for group in groups for key, _ in group if key not in before]
            self._refused.update(dict.fromkeys(new, self._full))
            groups = [kept for group in groups if (kept := [entry for entry in group if entry[0] in before])]
        if not groups:
            return
        self._tries += 1
        if self._tries % _GROUPS_BETWEEN_BREATHS == 0:
            await trio.lowlevel.checkpoint()
        try:
            await self._store.change_own(dict(chain.from_iterable(groups)))
        except (InvalidKeyError, StoreLimitError) as error:
            if len(groups) > 1:
                middle = len(groups) // 2
                await self._say_groups(before, groups[:middle])
                await self._say_groups(before, groups[middle:])
            elif len(groups[0]) > 1:
                await self._say_one(before, groups[0])
            else:
                key = groups[0][0][0]
                self._refused[key] = str(error)
                if isinstance(error, TooManyKeys) and key not in before:
                    self._full = str(error)

    async def _say_one(self, before: Mapping[str, bytes], group: _Group) -> None:
        """One VIP: its head, and then its backends if anybody knows of that."""
        rows = [[entry] for entry in group]
        head = group[0][0]
        if head == _head(head):
            await self._say_groups(before, [rows.pop(0)])
            if head in self._refused and head not in before:
                self._refused.update(dict.fromkeys((key for key, _ in group), self._refused[head]))
                return
        await self._say_groups(before, rows)

    def _note(self, said: Saying) -> None:
        untold = dict(said.wrong)
        for key, reason in self._refused.items():
            untold.setdefault(said.names.get(_head(key), key), reason)
        fresh = {what: reason for what, reason in untold.items() if what not in self.untold}
        self.untold = untold
        for what, reason in list(fresh.items())[:_TOLD_MAX]:
            self._tell(
                "refused", f"{what} is not told to the others, or not all of it: {reason}", {"vip": what, "reason": reason}
            )
        if len(fresh) > _TOLD_MAX:
            more = len(fresh) - _TOLD_MAX
            self._tell("refused", f"nor are {more} more; /v1/status says how many", {"count": more})


def _head(key: str) -> str:
    """The head that an entry belongs to; what is no claim's stands for itself."""
    return "/".join(key.split("/", 2)[:2]) if key.startswith(PREFIX) else key
