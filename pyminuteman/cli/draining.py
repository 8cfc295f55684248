"""Waiting until what is no longer desired has no connections any more."""

from __future__ import annotations

from collections.abc import Iterable

from pyminuteman.cli import exit_codes
from pyminuteman.cli.application import Application
from pyminuteman.cli.terminal import say, status_line
from pyminuteman.ipvs import (
    ApplyReport,
    Connections,
    Desired,
    Destination,
    IPVSError,
    IPVSTable,
    NoSuchService,
    ServiceKey,
)

__all__ = ["connections_of", "wait_until_drained"]

_POLL_SECONDS = 1.0


def connections_of(table: IPVSTable, key: ServiceKey, destination: Destination) -> tuple[Destination, Connections] | None:
    """The destination as it is now, and its connections; None when it, or its service, is gone."""
    try:
        (service,) = table.statistics(key).values()
    except NoSuchService:
        return None
    found = ((row, one.connections) for row, one in service.destinations.items() if row.key == destination.key)
    return next(found, None)


def wait_until_drained(application: Application, table: IPVSTable, desired: Desired, report: ApplyReport) -> int:
    """Converge again and again until nothing drains any more.

    Args:
        application: For its clock.
        table: With a drain policy.
        desired: What is desired.
        report: Of the first time.

    Returns:
        The exit code.
    """
    left = report.draining
    before: set[tuple[ServiceKey, bytes]] = set()
    try:
        with status_line() as update:
            while left:
                now = {(key, destination.key) for key, destination, _ in left}
                longest = max(seconds for _, _, seconds in left)
                count = sum(_count(table, key, destination) for key, destination, _ in left)
                noun = "destination" if len(left) == 1 else "destinations"
                update(f"draining: {len(left)} {noun}, {count} connections, at most {longest:.0f} s to go", now != before)
                before = now
                # Not past the first deadline, or a short drain would last a whole poll.
                application.sleep(max(0.05, min(_POLL_SECONDS, *(seconds for _, _, seconds in left))))
                left = table.converge(desired).draining
    except KeyboardInterrupt:
        say("interrupted; these are still there with weight 0, and the same command goes on with them:")
        say(_lines(left))
        return exit_codes.INTERRUPTED
    except IPVSError:
        say("these are still there with weight 0:")
        say(_lines(left))
        raise
    say("drained")
    return exit_codes.OK


def _lines(left: Iterable[tuple[ServiceKey, Destination, float]]) -> list[str]:
    return [f"  {key} -> {destination}" for key, destination, _ in left]


def _count(table: IPVSTable, key: ServiceKey, destination: Destination) -> int:
    found = connections_of(table, key, destination)
    return found[1].active + found[1].inactive if found else 0
