"""From the records of a run to the figures that are shown. No measuring here, and no words."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from records import Record
from views import Belief

Found = dict[str, Any]  # a peer's part of the results
WHERE = ("alarms", "of_it", "by_it", "elsewhere")


@dataclass(frozen=True, slots=True)
class Spread:
    """Least, median, 95th percentile (nearest rank) and most of some values."""

    count: int
    least: float
    median: float
    p95: float
    most: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread | None:
        ordered = sorted(values)
        if not ordered:
            return None
        return cls(len(ordered), ordered[0], median(ordered), ordered[math.ceil(0.95 * len(ordered)) - 1], ordered[-1])


@dataclass(frozen=True, slots=True)
class Detection:
    """Seconds from death to word of it, by victim (first and last survivor) and by repetition (the last pair of all)."""

    first: Spread | None
    last: Spread | None
    all_pairs: Spread | None
    missing: int  # pairs that had not heard at the deadline; they are in none of the above


def detection(found: Found, what: str) -> Detection:
    """Of `suspected` or of `down`. A victim that some survivor never heard of has no last one; nor has its repetition."""
    records = found.get("detection", [])
    told = [(record[f"{what}_seconds"], record[f"missing_{what}"]) for record in records]
    # Every survivor is asked for every victim, so what is there and what is missing give the number of survivors.
    asked = [(victims, (sum(map(len, victims.values())) + missing) // len(victims)) for victims, missing in told]
    return Detection(
        Spread.of(times[0] for victims, _ in told for times in victims.values() if times),
        Spread.of(times[-1] for victims, survivors in asked for times in victims.values() if len(times) == survivors),
        Spread.of(max(times[-1] for times in victims.values()) for victims, missing in told if not missing),
        sum(record[f"missing_{what}"] for record in records),
    )


def all_pairs(found: Found, what: str) -> list[float]:
    """Every survivor's time for every victim."""
    records = found.get("detection", [])
    return sorted(time for record in records for times in record[f"{what}_seconds"].values() for time in times)


@dataclass(frozen=True, slots=True)
class Alarms:
    """What was wrongly said in some trials, in (observer, subject) pairs."""

    trials: int
    suspicions: int
    downs: int
    trials_with_downs: int
    suspicions_not_over: int  # when the trial was
    longest_after_cause_seconds: float | None  # of a suspicion, beyond what caused it; None without suspicions that ended
    wrong_views_after: int


def alarms(records: Iterable[Record], where: Iterable[str] = WHERE) -> Alarms:
    records, where = list(records), list(where)
    said = [[alarm for place in where for alarm in record.get(place, ())] for record in records]
    suspicions = [alarm for found in said for alarm in found if alarm["kind"] == Belief.SUSPECT]
    downs = [sum(alarm["kind"] == Belief.DOWN for alarm in found) for found in said]
    ended = [alarm["outlived_cause_seconds"] for alarm in suspicions if alarm["outlived_cause_seconds"] is not None]
    return Alarms(
        trials=len(records),
        suspicions=len(suspicions),
        downs=sum(downs),
        trials_with_downs=sum(count > 0 for count in downs),
        suspicions_not_over=len(suspicions) - len(ended),
        longest_after_cause_seconds=max(ended, default=None),
        wrong_views_after=sum(record.get("wrong_pairs_after", 0) for record in records),
    )


def frozen(found: Found, seconds: float) -> list[Record]:
    return [record for record in found.get("frozen", []) if record["seconds"] == seconds]


def lossy(found: Found, share: float) -> list[Record]:
    return [record for record in found.get("loss", []) if record["share"] == share]


def at_rest(found: Found, key: str) -> tuple[float, float] | None:
    """Of a node: the mean over nodes and blocks, and the most of any."""
    rows = [record[key] for record in found.get("at_rest", [])]
    return (fmean(row["mean"] for row in rows), max(row["max"] for row in rows)) if rows else None


def start(found: Found, scenario: str, key: str) -> Spread | None:
    """Of `cold_start` or `join_at_once`; those that were never complete are in no figure."""
    values = (record[key] for record in found.get(scenario, []))
    return Spread.of(value for value in values if value is not None)
