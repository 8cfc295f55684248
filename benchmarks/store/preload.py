"""A hundred thousand entries in each of a thousand replicas of one process: what all of them hold alike is held once.

A replica of 100,000 entries takes some 35 MB, a thousand of them more than a machine has, and nearly all of it is the same for
everybody. One table is filled as a restart fills it. All replicas then hold layers over it: an owner's log, and the entry of a key,
become a replica's own when it is about to change them. A node's own log is its own from the beginning.

This reaches into the replica, deliberately and only here: it changes where things are kept, and not what is done with them.
``tests/benchmarks/test_store_report.py`` holds it to a cluster that shares nothing.
"""
# ruff: noqa: SLF001

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy, deepcopy
from typing import Any

from benchmarks.store.workload import log
from pyminuteman.addresses import NodeId
from pyminuteman.kv.lives import Presence
from pyminuteman.kv.owners import OwnerTable
from pyminuteman.testing.simulation.layered import Layered
from pyminuteman.testing.simulation.stores import StoreCore


class _Owners(dict[NodeId, Any]):
    """Owners that are everybody's, until one is written to: that goes through ``setdefault``, and what only reads does not."""

    def __init__(self, base: Mapping[NodeId, Any]) -> None:
        super().__init__(base)
        self._mine: set[NodeId] = set()

    def setdefault(self, key: NodeId, default: Any = None, /) -> Any:
        if key not in self._mine:
            self._mine.add(key)
            if key in self:
                self[key] = deepcopy(self[key])
        return super().setdefault(key, default)


def preload(cores: Sequence[StoreCore], backends: int, now: float) -> None:
    """Let all replicas hold what all nodes say, so many backends each, and know all of them for alive.

    Args:
        cores: Of all nodes, started, none of which says anything yet.
        backends: Entries of each.
        now: By the nodes' clocks.
    """
    limits = cores[0].replica.limits
    base = OwnerTable(keys_max=limits.own_keys_max, entries_max=limits.entries_max)
    for number, core in enumerate(cores):
        me = core.replica.me
        base.restore(log(me.node, me.epoch, number, backends))
    lives = copy(cores[0].replica._lives)
    lives._lives = {}
    for core in cores:
        lives.notice(core.replica.me.node, core.replica.me.epoch, Presence.ALIVE, now)
    for core in cores:
        _share(core, base)
        core.replica._lives._lives = dict(lives._lives)


def _share(core: StoreCore, base: OwnerTable) -> None:
    owners = core.replica.owners
    owners._owners = _Owners(base._owners)
    owners._by_key = Layered(base._by_key, copy=dict.copy)
    owners._is_sorted = False
    owners.count = base.count
    owners.hashes._buckets = list(base.hashes._buckets)
    owners.changed.clear()
    owners.unstored.clear()
    core.replica._log = owners._owners.setdefault(core.replica.me.node).shown
