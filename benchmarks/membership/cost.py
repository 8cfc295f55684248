"""What does it cost to be a member: processor, memory and packets at rest, and a cold start of the whole cluster?"""

from __future__ import annotations

import os
import time
from pathlib import Path
from statistics import fmean
from typing import Any

from cluster import Cluster, NodeEndedError
from failure_detection import VIEWS_SECONDS, pairs_text
from peers import CONTACT
from progress import Progress
from records import Record, alarm_records, rounded

from pyminuteman.testing.cluster_namespaces import LinkCounters

_COLD_START_SECONDS = 60.0
_QUIET_SECONDS = 3.0  # after the views are complete, before the rest is measured


def cold_start(cluster: Cluster, progress: Progress) -> Record:
    """Start all the nodes, one after the other as fast as can be, and wait until every view is complete.

    Two figures: from before the first process was started, which has the start of forty processes in it, on as many processors as
    there are; and from when the last node said that it is up, which is what the protocol itself takes.
    """
    nodes = range(cluster.size)
    before = cluster.namespaces.counters()
    mark = cluster.views.mark()
    began_ns = time.time_ns()
    cluster.start(nodes)
    launched_ns = time.time_ns()
    wrong = cluster.wait_for_views(_COLD_START_SECONDS)
    sent = _sent_bytes(cluster, before)
    complete_ns = max((change.time_ns for change in cluster.views.since(mark)), default=began_ns)
    running_ns = cluster.running_since_ns()
    if running_ns is None:
        raise NodeEndedError("some nodes never said that they are up")
    record = {
        "launched_seconds": rounded((launched_ns - began_ns) / 1e9),
        "last_running_seconds": rounded((running_ns - began_ns) / 1e9),
        "complete_seconds": None if wrong else rounded((complete_ns - began_ns) / 1e9),
        "joined_seconds": None if wrong else rounded((complete_ns - running_ns) / 1e9),
        "wrong_pairs": len(wrong),
        "sent_bytes_mean": round(fmean(sent)),
        "sent_bytes_max": max(sent),
        "alarms": alarm_records(cluster.alarms_since(mark)),
    }
    total = f"complete in {record['complete_seconds']} s" if not wrong else f"{len(wrong)} pairs missing: {pairs_text(wrong)}"
    progress.done(f"cold start: last node running after {record['last_running_seconds']} s, {total}")
    return record


def join_at_once(cluster: Cluster, progress: Progress) -> Record:
    """All nodes run, and wait for the contact; then it comes. What the start of forty processes hides: thirty-nine join at once."""
    others = set(range(cluster.size)) - {CONTACT}
    cluster.start(others)
    cluster.wait_until(lambda: cluster.running_since_ns() is not None, _COLD_START_SECONDS)
    cluster.rest(_QUIET_SECONDS)
    before = cluster.namespaces.counters()
    mark = cluster.views.mark()
    cluster.start([CONTACT])
    wrong = cluster.wait_for_views(_COLD_START_SECONDS)
    sent = _sent_bytes(cluster, before)
    contact_ns = cluster.running_since_ns()
    complete_ns = max((change.time_ns for change in cluster.views.since(mark)), default=None)
    seconds = None if wrong or contact_ns is None or complete_ns is None else rounded((complete_ns - contact_ns) / 1e9)
    record = {
        "complete_seconds": seconds,
        "wrong_pairs": len(wrong),
        "sent_bytes_mean": round(fmean(sent)),
        "sent_bytes_max": max(sent),
        "alarms": alarm_records(cluster.alarms_since(mark)),
    }
    total = f"complete in {seconds} s" if not wrong else f"{len(wrong)} pairs missing: {pairs_text(wrong)}"
    progress.done(f"all wait for the contact, and it comes: {total}")
    return record


def at_rest(cluster: Cluster, seconds: float, progress: Progress) -> Record:
    """Nothing happens: what does each node take?"""
    cluster.wait_for_views(VIEWS_SECONDS)
    cluster.rest(_QUIET_SECONDS)
    mark = cluster.views.mark()
    nodes = sorted(cluster.running())
    began = time.perf_counter()
    links, ticks = cluster.namespaces.counters(), [_cpu_ticks(cluster.process(node)) for node in nodes]
    cluster.rest(seconds)
    links_after, ticks_after = cluster.namespaces.counters(), [_cpu_ticks(cluster.process(node)) for node in nodes]
    took = time.perf_counter() - began
    carried = [after - before for after, before in zip(links_after, links, strict=True)]
    memory = [_memory_mb(cluster.process(node)) for node in nodes]
    tick_seconds = 1 / os.sysconf("SC_CLK_TCK")
    record: dict[str, Any] = {
        "seconds": round(took, 2),
        "cpu_percent": _spread([(b - a) * tick_seconds / took * 100 for a, b in zip(ticks, ticks_after, strict=True)]),
        "sent_packets_per_second": _spread([link.sent_packets / took for link in carried]),
        "sent_bytes_per_second": _spread([link.sent_bytes / took for link in carried]),
        "rss_mb": _spread([rss for rss, _ in memory]),
        "pss_mb": _spread([pss for _, pss in memory]),
        "alarms": alarm_records(cluster.alarms_since(mark)),
    }
    figures = ", ".join(f"{record[key]['mean']:.4g} {unit}" for key, unit in REST_UNITS.items())
    progress.done(f"at rest, a node: {figures}")
    return record


REST_UNITS = {
    "cpu_percent": "% of a core",
    "sent_packets_per_second": "packets/s",
    "sent_bytes_per_second": "B/s",
    "rss_mb": "MB RSS",
    "pss_mb": "MB PSS",
}


def _sent_bytes(cluster: Cluster, before: list[LinkCounters]) -> list[int]:
    return [(after - earlier).sent_bytes for after, earlier in zip(cluster.namespaces.counters(), before, strict=True)]


def _spread(values: list[float]) -> dict[str, float]:
    return {"mean": round(fmean(values), 3), "max": round(max(values), 3)}


def _cpu_ticks(pid: int) -> int:
    """User and system time of all threads, with that of children it has waited for: proc(5), fields 14 to 17 of stat."""
    columns = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(ticks) for ticks in columns[11:15])


def _memory_mb(pid: int) -> tuple[float, float]:
    """Resident memory, and with what is shared divided among those who share it."""
    kib = dict.fromkeys(("Rss", "Pss"), 0)
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in kib:
            kib[name] = int(rest.split()[0])
    return kib["Rss"] * 1024 / 1e6, kib["Pss"] * 1024 / 1e6
