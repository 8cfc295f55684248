"""What this project wants to reach, and whether it did."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from statistics import fmean, median

from benchmarks.aims import Aim
from benchmarks.headline.figures import NEVER, REPAIRED_SECONDS, Run, changes, repair


def aims(runs: Iterable[Run]) -> Iterator[Aim]:
    """Of runs with daemons, of one size."""
    runs = list(runs)
    found = repair(runs)
    text = "backends of the dead have weight 0 in the last kernel"
    yield Aim(f"{text}, median of the runs", 0.5, median(found.weightless) if runs else None, "s")
    yield Aim(f"{text}, at worst", 1.0, max(found.weightless, default=None), "s")
    yield Aim("they are gone from the last kernel, at worst", 1.5, max(found.gone, default=None), "s")
    yield Aim("the last request that failed began after the panic, at worst", REPAIRED_SECONDS, _last_failed(runs), "s")
    yield Aim("a new task is in the last kernel, at worst", 0.5, max(changes(runs, "task"), default=None), "s")
    yield Aim("a new VIP is in the last kernel, at worst", 0.5, max(changes(runs, "vip"), default=None), "s")
    rests = [run["rest"] for run in runs if "rest" in run]
    percent = fmean(rest["daemons"]["cpu_percent"]["mean"] for rest in rests) if rests else None
    yield Aim("a daemon at rest, mean", 2.0, percent, "% of a core")
    yield Aim(
        "a daemon at rest, started by itself, at most",
        80.0,
        max((rest["alone"]["rss_mb"] for rest in rests), default=None),
        "MB",
    )


def _last_failed(runs: list[Run]) -> float | None:
    """0 where none failed. One that fails before anything happened is never right."""
    if not runs:
        return None
    if any(run["answers"]["failed_before_panic"] for run in runs):
        return NEVER
    return max(max(0.0, run["answers"]["last_failed_begun_seconds"] or 0.0) for run in runs)
