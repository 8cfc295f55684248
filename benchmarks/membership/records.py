"""What is written down of each repetition: plain JSON, raw enough that every table and picture can be made from it again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from peers import name_of
from views import Alarm, Belief

Record = dict[str, Any]


def rounded(seconds: float | None) -> float | None:
    """To a tenth of a millisecond: no clock here is better."""
    return None if seconds is None else round(seconds, 4)


def alarm_records(alarms: Iterable[Alarm], cause_ended_ns: int | None = None) -> list[Record]:
    """Wrong suspicions and wrong downs.

    Args:
        alarms: them.
        cause_ended_ns: when it ceased that one could have meant it, as when a frozen process went on; None where nothing was wrong
            with the node: then the whole length of the alarm is its own.
    """
    return [
        {
            "kind": str(alarm.kind),
            "observer": name_of(alarm.observer),
            "subject": name_of(alarm.subject),
            "lasted_seconds": rounded(alarm.lasted_seconds),
            "outlived_cause_seconds": rounded(_outlived(alarm, cause_ended_ns)),
        }
        for alarm in alarms
    ]


def _outlived(alarm: Alarm, cause_ended_ns: int | None) -> float | None:
    if alarm.ended_ns is None:
        return None
    return (alarm.ended_ns - max(alarm.began_ns, cause_ended_ns or 0)) / 1e9


def of_kind(records: Iterable[Record], kind: Belief) -> list[Record]:
    return [record for record in records if record["kind"] == kind]
