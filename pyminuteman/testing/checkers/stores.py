"""The store's properties: replicas that can talk agree before long, and what was removed never comes back.

1. **ReplicasAgree**: once quiet, everybody in a community has what each of its members says, nothing of anybody else, and the same
   shared values. A node that is alone need not have given the others up.
2. **NoEntryComesBack**: in one life of a process, an entry that went while its owner's log was there never comes back as the same
   version, whatever is lost, late, cut or restarted, and no entry is ever replaced by an older one. Nor does an element of the set in
   which each is added once.
"""

from __future__ import annotations

from collections.abc import Iterator

from pyminuteman.addresses import NodeId
from pyminuteman.kv.store import Entry
from pyminuteman.testing.checkers.checker import Checker
from pyminuteman.testing.simulation.bounds import Bounds
from pyminuteman.testing.simulation.process import Process
from pyminuteman.testing.simulation.stores import TOKENS, StoreCore
from pyminuteman.testing.simulation.world import Simulation

__all__ = ["NoEntryComesBack", "ReplicasAgree"]


class ReplicasAgree(Checker):
    """Compares each replica with what its community says."""

    def unsettled(self) -> Iterator[str]:
        """Each replica that is wrong."""
        for community in self.world.truth.communities():
            cores = [(process, process.node) for process in community if isinstance(process.node, StoreCore)]
            said = sorted(Entry(key, process.id, value) for process, core in cores for key, value in core.replica.own().items())
            if len(cores) < 2:  # noqa: PLR2004 - it and another
                continue
            self.judged += 1
            values = cores[0][1].replica.shared.values("")
            for process, core in cores:
                yield from self._differences(process, core, said)
                if core.replica.shared.values("") != values:
                    yield f"{process.name} has shared values {core.replica.shared.values('')}, and {cores[0][0].name} {values}"

    def _differences(self, process: Process, core: StoreCore, said: list[Entry]) -> Iterator[str]:
        held = core.replica.owners.entries("")
        if held != said:
            lacks, extra = set(said) - set(held), set(held) - set(said)
            for what, entries in (("lacks", lacks), ("still has", extra)):
                for key, owner, value in sorted(entries):
                    yield f"{process.name} {what} {key} = {value!r} of {self.world.name_of(owner)}"


class NoEntryComesBack(Checker):
    """Told by each core of what has changed there. Its ``core_changed`` is to be a listener of the world's cores."""

    def __init__(self, world: Simulation, bounds: Bounds) -> None:
        super().__init__(world, bounds)
        self._shown: dict[StoreCore, dict[NodeId, tuple[int, dict[str, int]]]] = {}
        self._gone: dict[StoreCore, set[tuple[NodeId, int, str, int]]] = {}
        self._tokens: dict[StoreCore, tuple[set[bytes], set[bytes]]] = {}

    def core_changed(self, core: StoreCore) -> None:
        """Look at every key that changed."""
        shown, gone = self._shown.setdefault(core, {}), self._gone.setdefault(core, set())
        owners = core.replica.owners
        for key in sorted(owners.changed):
            for owner in sorted({*owners.get_all(key), *shown}):
                log = owners.log(owner)
                if log is None or owner == core.me.id:
                    shown.pop(owner, None)  # lapsed: it may come back as it was
                    continue
                epoch, versions = shown.get(owner, (log.epoch, {}))
                if epoch != log.epoch:
                    if epoch > log.epoch:
                        self._note(core, f"goes back to an earlier life of {self.world.name_of(owner)}")
                    versions = {}
                shown[owner] = (log.epoch, versions)
                self._look(core, (owner, log.epoch, key), versions, log.entries.get(key, (0, b""))[0], gone)
        if TOKENS in core.replica.shared.changed:
            self._look_at_tokens(core)

    def _look(
        self,
        core: StoreCore,
        what: tuple[NodeId, int, str],
        versions: dict[str, int],
        now: int,
        gone: set[tuple[NodeId, int, str, int]],
    ) -> None:
        owner, epoch, key = what
        before = versions.get(key, 0)
        if not now:
            if before:
                self.judged += 1
                gone.add((owner, epoch, key, before))
                del versions[key]
            return
        versions[key] = now
        if now < before:
            self._note(core, f"goes from version {before} of {key} of {self.world.name_of(owner)} back to {now}")
        if (owner, epoch, key, now) in gone:
            self._note(core, f"shows version {now} of {key} of {self.world.name_of(owner)} again, which had gone")

    def _look_at_tokens(self, core: StoreCore) -> None:
        value = core.replica.shared.read(TOKENS)
        present = {token for token in value if isinstance(token, bytes)} if isinstance(value, frozenset) else set()
        before, gone = self._tokens.get(core, (set(), set()))
        for token in sorted(present & gone):
            self._note(core, f"has {token!r} again, which had gone")
        self.judged += len(before - present)
        self._tokens[core] = present, gone | (before - present)

    def _note(self, core: StoreCore, what: str) -> None:
        self.findings.append(f"{self.world.now:.4f} {self.world.name_of(core.me.id)} {what}")
