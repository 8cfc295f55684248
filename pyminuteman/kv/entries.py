"""What one owner says: its log, as its owner writes it and as others have it.

Pure. The owner alone writes, so one number orders all it ever says in one life: its **version**, 1 when the life begins, one more with
each key put or deleted. Whoever has the log up to a version knows exactly what stood then. From this follows:

1. **A deleted entry never comes back.** What is received counts only where it is newer: no transfer that ends at or below the
   version that is here changes anything, and one that ends above it comes from somebody who knows of all that happened below.
2. **No deletion need be remembered for this.** Tombstones only make answers short: who lacks deletions that nobody remembers gets the
   whole log, and what it has and the log does not name is gone. The newest :data:`TOMBSTONES_KEPT` are kept; with a log, one takes
   over how far its deletions are forgotten.
3. **A life takes over from the one before it** (a lower epoch) when all that it began with is here, and not before: a restart of an
   owner that says the same again is seen by nobody.
4. A log that **lapsed**, for its owner was away, comes back only as new as it was: the version that was here stays remembered.
5. Gaps are held: what came beyond one counts at once, and the version stays where the gap begins, so that it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Final

from pyminuteman.addresses import NodeId
from pyminuteman.kv.messages import Change, LogPart
from pyminuteman.kv.versions import Ranges

__all__ = ["GAPS_MAX", "TOMBSTONES_KEPT", "Log", "cut"]

TOMBSTONES_KEPT: Final = 256
"""Deletions remembered of one owner, besides those beyond a gap."""
GAPS_MAX: Final = 64
"""Gaps in one log; what would make one more is dropped, and comes with the repair of the others."""


class Log:
    """One life of one owner.

    Args:
        owner: Whose.
        epoch: Which life.
        base: The version at which it had said all it began with.
        floor: Do not show it before this version: so much was seen of it before.

    Attributes:
        entries: Key to version and value, as far as it is here.
    """

    __slots__ = ("_collected", "_doubtful", "_final", "_floor", "_removed", "_versions", "base", "entries", "epoch", "owner")

    def __init__(self, owner: NodeId, epoch: int, *, base: int, floor: int = 0) -> None:
        self.owner = owner
        self.epoch = epoch
        self.base = base
        self._floor = floor
        self.entries: dict[str, tuple[int, bytes]] = {}
        self._removed: dict[str, int] = {}
        self._collected = 0
        self._versions = Ranges()
        self._doubtful: dict[str, tuple[int, int]] = {}
        self._final = 0

    @classmethod
    def restored(cls, owner: NodeId, epoch: int, base: int, version: int, entries: Mapping[str, tuple[int, bytes]]) -> Log:
        """From disk, where it was stored without its tombstones."""
        log = cls(owner, epoch, base=base)
        log.entries = dict(entries)
        log._versions = Ranges(version)
        log._collected = version
        return log

    # -- what it says --------------------------------------------------------------------------------------------------

    @property
    def version(self) -> int:
        """Up to here nothing is missing; 0 when nothing is known."""
        return self._versions.upto

    @property
    def consistent(self) -> bool:
        """Whether it is what its owner said at :attr:`version`: there is no gap, and no transfer is half through."""
        return not self._versions and self.version >= self._final

    @property
    def complete(self) -> bool:
        """Whether it may be shown: it is consistent, all that it began with is here, and no less than was here before."""
        return self.version >= max(1, self.base, self._floor) and self.consistent

    @property
    def tombstones(self) -> int:
        """Deletions remembered."""
        return len(self._removed)

    # -- its owner's side ----------------------------------------------------------------------------------------------

    def write(self, changes: Iterable[tuple[str, bytes | None]]) -> LogPart | None:
        """Put and delete, each as a version of its own. What is as it was is left out.

        Returns:
            What others must be told; None when nothing has changed.
        """
        low = self.version
        written: list[Change] = []
        for key, value in changes:
            held = self.entries.get(key)
            if value == (None if held is None else held[1]):
                continue
            change = Change(low + 1 + len(written), key, value)
            self._take(change)
            written.append(change)
        if not written:
            return None
        self._versions.add(low, low + len(written))
        self._collect()
        return LogPart(self.owner, self.epoch, self.base, low, self.version, self.version, tuple(written))

    def begin(self, entries: Iterable[tuple[str, bytes]]) -> None:
        """Begin a life with all of these; the base is where they end."""
        self._versions.add(0, 1)
        self.write(entries)
        self.base = self.version

    # -- others' side --------------------------------------------------------------------------------------------------

    def since(self, version: int, *, part_bytes: int) -> Iterator[LogPart]:
        """What is missing at a version, cut in parts of about so many bytes of keys and values.

        No parts when nothing is, or when this is not consistent: who asks will ask again, or another.
        """
        if version >= self.version or not self.consistent:
            return
        low = 0 if version < self._collected else version
        final = self.version
        changes = [Change(at, key, value) for key, (at, value) in self.entries.items() if at > low]
        changes += [Change(at, key, None) for key, at in self._removed.items() if at > low]
        changes.sort()
        whole = LogPart(self.owner, self.epoch, self.base, low, final, final, tuple(changes), 0 if low else self._collected)
        yield from cut(whole, part_bytes)

    def growth(self, part: LogPart) -> int:
        """How many keys there would be more, at most."""
        held = self.entries
        return sum(
            (value is not None) - (key in held) for _, key, value in part.changes if (value is not None) != (key in held)
        )

    def receive(self, part: LogPart) -> set[str] | None:
        """Take a part of this life.

        Returns:
            Keys whose values are other ones now; None when there are too many gaps to take it.
        """
        versions = self._versions
        if part.final <= versions.upto:
            return set()
        if part.low > versions.upto and len(versions) >= GAPS_MAX:
            return None
        # A part that names all of its versions leaves no doubt about any: deltas do not look through the log while a gap is open.
        overlaps = len(part.changes) < part.high - part.low and (part.low < versions.upto or len(versions) > 0)
        self.base = part.base
        self._final = max(self._final, part.final)
        self._collected = max(self._collected, part.forgotten)
        changed = {change.key for change in part.changes if self._take(change)}
        if overlaps:
            self._doubt(part)
        versions.add(part.low, part.high)
        if self._doubtful:
            changed |= self._settle()
        self._collect()
        return changed

    def _take(self, change: Change) -> bool:
        """Whether it makes a difference to be told of."""
        version, key, value = change
        held = self.entries.get(key)
        if version <= (held[0] if held is not None else self._removed.get(key, 0)):
            return False
        if value is not None:
            self._removed.pop(key, None)
            self.entries[key] = (version, value)
            return held is None or held[1] != value
        self.entries.pop(key, None)
        self._removed.pop(key, None)  # so that tombstones stand in the order of their versions, as far as those came in order
        self._removed[key] = version
        return held is not None

    def _doubt(self, part: LogPart) -> None:
        """What dates from this part's versions and is not named in it is gone, or was put anew beyond it: that will be seen."""
        named = {change.key for change in part.changes}
        for key, (version, _) in self.entries.items():
            if part.low < version <= part.high and key not in named:
                self._doubtful[key] = (version, part.final)

    def _settle(self) -> set[str]:
        """Remove what the whole transfer did not name."""
        gone = set()
        for key, (version, final) in list(self._doubtful.items()):
            held = self.entries.get(key)
            if held is None or held[0] != version:
                del self._doubtful[key]
            elif self.version >= final:
                del self._doubtful[key], self.entries[key]
                gone.add(key)
        return gone

    def _collect(self) -> None:
        """Forget the oldest deletions. Not those beyond a gap: what comes to fill it may still name what they deleted."""
        surplus = len(self._removed) - TOMBSTONES_KEPT
        if surplus <= 0:
            return
        for key, version in sorted(self._removed.items(), key=lambda one: one[1])[:surplus]:
            if version > self.version:
                return
            del self._removed[key]
            self._collected = version


def cut(whole: LogPart, part_bytes: int) -> Iterator[LogPart]:
    """The same in parts of about so many bytes of keys and values (more where a single value is larger)."""
    low, begin, size = whole.low, 0, 0
    for end, change in enumerate(whole.changes, start=1):
        size += len(change.key) + len(change.value or b"") + 8
        if size >= part_bytes and end < len(whole.changes):
            yield replace(whole, low=low, high=change.version, changes=whole.changes[begin:end])
            low, begin, size = change.version, end, 0
    yield replace(whole, low=low, changes=whole.changes[begin:])
