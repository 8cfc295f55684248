"""From what one run recorded to the figures that are shown. No measuring here, and no words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.sources.spread import Spread, spread

Run = dict[str, Any]
Row = Sequence[Any]
"""Of a request: meant, begun, connected, ended (seconds after the first), outcome, by whom."""
MEANT, BEGUN, CONNECTED, ENDED, OUTCOME, BY = range(6)
NEVER = float("inf")
SLOW_SECONDS = 0.5
"""An answer that took longer was held up: by a SYN that had to be sent again, a second later."""
REPAIRED_SECONDS = 1.0
"""Requests that begin later than this after the panic are to meet none of the dead."""


def of_requests(run: Run) -> dict[str, Any]:
    """What became of a run's requests. Times of failures are after the panic, negative before it; latencies in milliseconds."""
    rows: Sequence[Row] = run["requests"]
    panic_seconds: float = run["panic_seconds"]
    failed = [row for row in rows if row[OUTCOME] != "ok"]
    answered = [row for row in rows if row[OUTCOME] == "ok"]
    names = {f"n{node}" for node in run["dead"]}
    before = [row for row in answered if row[ENDED] < panic_seconds]
    after = [row for row in answered if row[MEANT] >= panic_seconds + REPAIRED_SECONDS]
    return {
        "count": len(rows),
        "outcomes": dict(sorted(Counter(row[OUTCOME] for row in rows).items())),
        "failed": len(failed),
        "failed_before_panic": sum(row[ENDED] < panic_seconds for row in failed),
        "failed_begun_before_panic": sum(row[MEANT] < panic_seconds <= row[ENDED] for row in failed),
        "last_failed_begun_seconds": max((round(row[MEANT] - panic_seconds, 3) for row in failed), default=None),
        "last_failed_ended_seconds": max((round(row[ENDED] - panic_seconds, 3) for row in failed), default=None),
        "slow": sum(latency_ms(row) > SLOW_SECONDS * 1e3 for row in answered),
        "last_slow_begun_seconds": max(
            (round(row[MEANT] - panic_seconds, 3) for row in answered if latency_ms(row) > SLOW_SECONDS * 1e3), default=None
        ),
        "before_ms": spread_or_none(map(latency_ms, before)),
        "after_ms": spread_or_none(map(latency_ms, after)),
        "begun_late_ms": spread_or_none((row[BEGUN] - row[MEANT]) * 1e3 for row in rows),
        "answered_by": len({row[BY] for row in answered}),
        "answered_by_dead": sum(
            row[BY] in names and row[BEGUN] > panic_seconds + run["panic_took_seconds"] for row in answered
        ),
    }


def latency_ms(row: Row) -> float:
    """From when the request was meant to begin until its end, whichever that was."""
    return float(row[ENDED] - row[MEANT]) * 1e3


def spread_or_none(values: Iterable[float]) -> Spread | None:
    """None of nothing."""
    values = list(values)
    return spread(values) if values else None


@dataclass(frozen=True, slots=True)
class Repair:
    """When the last kernel of each run was repaired, in seconds after the panic; :data:`NEVER` where one was not."""

    weightless: tuple[float, ...]
    gone: tuple[float, ...]
    suspected: tuple[float, ...]
    down: tuple[float, ...]


def last_of(run: Run, what: str) -> float:
    """Of all survivors, the last one's time."""
    times = run[f"{what}_seconds"]
    return max(times.values()) if len(times) == run["survivors"] else NEVER


def repair(runs: Iterable[Run]) -> Repair:
    """Of runs with daemons."""
    runs = list(runs)
    return Repair(*(tuple(last_of(run, what) for run in runs) for what in ("weightless", "gone", "suspected", "down")))


def middle_kernels(runs: Iterable[Run], what: str) -> float | None:
    """The median of all survivors of all runs that came to it."""
    times = [time for run in runs for time in run[f"{what}_seconds"].values()]
    return median(times) if times else None


def changes(runs: Iterable[Run], what: str) -> list[float]:
    """How soon the last kernel had what was new, ``task`` or ``vip``; :data:`NEVER` where it had not."""
    return [NEVER if time is None else time for run in runs for time in run.get("changes", {}).get(what, ())]


def of_form(data: dict[str, Any], form: str, nodes: int | None = None) -> list[Run]:
    """The runs of one form that came to their end; of that size, if one is given."""
    return [
        run
        for run in data["runs"]
        if run["experiment"]["form"] == form and nodes in {None, run["experiment"]["nodes"]} and "error" not in run
    ]


def sizes(data: dict[str, Any]) -> list[int]:
    """The numbers of nodes, ascending."""
    return sorted({run["experiment"]["nodes"] for run in data["runs"]})


def shown(data: dict[str, Any], form: str) -> Run | None:
    """The run of that form that the picture is of: the first of the largest size that has its requests."""
    found = [run for run in of_form(data, form) if "requests" in run]
    return max(found, key=lambda run: run["experiment"]["nodes"], default=None)
