"""What this library wants to reach with 40 nodes of which five die, and whether it did."""

from __future__ import annotations

from collections.abc import Iterator

import figures
from figures import Found

from benchmarks.aims import Aim

NEVER = float("inf")


def aims(found: Found) -> Iterator[Aim]:
    for what, middle, worst in (("suspected", 0.3, 0.5), ("down", 1.0, 1.3)):
        told = figures.detection(found, what)
        never = NEVER if told.missing else None
        yield Aim(f"{what} by the last survivor, median", middle, told.last.median if told.last else never, "s")
        yield Aim(f"{what} by the last survivor, at worst", worst, never or (told.last.most if told.last else None), "s")
    for what, records in (
        ("beside 8 busy loops", found.get("busy", [])),
        ("frozen for 0.3 s", figures.frozen(found, 0.3)),
        ("in kills 6 s apart", found.get("killed_in_succession", [])),
        ("by a node whose neighbours all died", [{"alarms": record["by_it"]} for record in found.get("bereaved", [])]),
    ):
        yield Aim(f"live nodes declared down, {what}", 0, figures.alarms(records).downs if records else None, "pairs")
    yield Aim("a wrong suspicion lasts, beyond its cause", 0.3, _longest_suspicion(found), "s")
    yield Aim("frozen for 2 s: alive everywhere after its thaw", 0.5, _longest_return(found), "s")
    for what, scenario, key in (
        ("from the start of the first process", "cold_start", "complete_seconds"),
        ("from when the last process runs", "cold_start", "joined_seconds"),
        ("from when the contact comes that all others wait for", "join_at_once", "complete_seconds"),
    ):
        yield Aim(f"cold start, every view complete {what}, median", 2.0, _start(found, scenario, key), "s")
    for key, most, unit in (
        ("sent_packets_per_second", 50, "packets/s"),
        ("sent_bytes_per_second", 5000, "B/s"),
        ("cpu_percent", 1.5, "% of a core"),
        ("rss_mb", 45, "MB RSS"),
    ):
        rest = figures.at_rest(found, key)
        yield Aim("at rest, mean of the nodes", most, rest[0] if rest else None, unit)


def _longest_suspicion(found: Found) -> float | None:
    """In everything but the freezes of 1 s and 2 s, where the node is down before it thaws."""
    names = ("detection", "busy", "killed_in_succession", "loss", "bereaved", "at_rest")
    records = [record for name in names for record in found.get(name, [])] + figures.frozen(found, 0.3)
    seen = figures.alarms(records)
    if not records:
        return None
    return NEVER if seen.suspicions_not_over else seen.longest_after_cause_seconds or 0.0


def _longest_return(found: Found) -> float | None:
    ends = [record["alive_everywhere_after_seconds"] for record in figures.frozen(found, 2.0)]
    return max((NEVER if end is None else end for end in ends), default=None)


def _start(found: Found, scenario: str, key: str) -> float | None:
    if any(record[key] is None for record in found.get(scenario, [])):
        return NEVER
    spread = figures.start(found, scenario, key)
    return spread.median if spread else None
