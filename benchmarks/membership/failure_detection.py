"""How soon does every survivor know that nodes have died?

Five of forty fall silent at one moment, as in a kernel panic: their links go down, then their processes are killed. Each survivor's
first word on each victim is timed from the moment before the first link went down. Then the victims start again, every view becomes
complete, one to three seconds pass, and the next five die. Victims are random; the contact is none.
"""

from __future__ import annotations

import time
from collections.abc import Collection

from cluster import Cluster
from peers import name_of
from progress import Progress
from records import Record, alarm_records, rounded
from views import Belief, Pair, first_told

VIEWS_SECONDS = 20.0  # for all views to become right
_GONE = (Belief.DOWN, Belief.LEFT)
_KNOWN = (Belief.SUSPECT, *_GONE)


def measure(cluster: Cluster, repetitions: int, victims: int, progress: Progress) -> list[Record]:
    records = []
    for _ in range(repetitions):
        wrong_before = cluster.wait_for_views(VIEWS_SECONDS)
        cluster.rest(cluster.chance.uniform(1.0, 3.0))
        chosen = cluster.pick(victims)
        mark = cluster.views.mark()
        since_ns = cluster.kill(chosen)
        record = watch(cluster, mark, since_ns, chosen) | {"wrong_pairs_before": len(wrong_before)}
        records.append(record)
        cluster.revive(chosen)
        progress.done(f"detection: {_summary(record)}")
    cluster.wait_for_views(VIEWS_SECONDS)
    return records


def watch(cluster: Cluster, mark: int, since_ns: int, victims: Collection[int]) -> Record:
    """Wait until every survivor has said that each victim is down, and write down who said what when."""
    survivors = cluster.running()
    expected = len(survivors) * len(victims)

    def told(*beliefs: Belief) -> dict[int, list[float]]:
        return first_told(cluster.views.since(mark), survivors, victims, since_ns, beliefs)

    cluster.wait_until(lambda: sum(map(len, told(*_GONE).values())) == expected, cluster.peer.down_deadline_seconds)
    suspected, down = told(*_KNOWN), told(*_GONE)
    return {
        "victims": [name_of(victim) for victim in victims],
        "suspected_seconds": _by_name(suspected),
        "down_seconds": _by_name(down),
        "missing_suspected": expected - sum(map(len, suspected.values())),
        "missing_down": expected - sum(map(len, down.values())),
        "watched_seconds": rounded((time.time_ns() - since_ns) / 1e9),
        "alarms": alarm_records(cluster.alarms_since(mark)),
    }


def _by_name(times: dict[int, list[float]]) -> dict[str, list[float | None]]:
    return {name_of(victim): [rounded(seconds) for seconds in found] for victim, found in times.items()}


def _summary(record: Record) -> str:
    parts = []
    for what in ("suspected", "down"):
        times = [seconds for found in record[f"{what}_seconds"].values() for seconds in found]
        missing = record[f"missing_{what}"]
        parts.append(
            f"{what} by the last in {max(times):.2f} s" if times and not missing else f"{what}: {missing} pairs missing"
        )
    wrong = len(record["alarms"])
    return ", ".join(parts) + (f", {wrong} false alarms" if wrong else "")


def pairs_text(pairs: list[Pair]) -> str:
    return ", ".join(f"{name_of(observer)} of {name_of(subject)}" for observer, subject in pairs[:5])
