"""When somebody else was first: which errors only say so, and what is done about them.

Two writers that want the same have no quarrel. A row to be added that is there already is edited instead; one to be removed that is
gone is removed. What else a race leaves behind is cured by reading and planning again.
"""

from __future__ import annotations

from errno import ECANCELED, EEXIST, ENODATA, ENOENT, ESRCH
from typing import Final

from pyminuteman.ipvs import records
from pyminuteman.ipvs.backend import TableBackend
from pyminuteman.ipvs.plan import AddDestination, AddService, EditDestination, EditService, Plan
from pyminuteman.ipvs.records import Command

__all__ = ["is_race", "settle"]

_RACES: Final = {EEXIST, ESRCH, ENODATA, ECANCELED}
"""Errors that reading again and planning again can cure. For a destination ENOENT is another; for a service it is an unknown
scheduler, which stays unknown."""


def settle(backend: TableBackend, plan: Plan, errors: dict[int, tuple[int, str]]) -> frozenset[int]:
    """Take the errors out that only say that somebody else was first, and finish what was meant."""
    settled: set[int] = set()
    edits: dict[int, EditService | EditDestination] = {}
    for at, (errno, _) in errors.items():
        command = plan.operations[at * records.OPERATION_SIZE]
        gone = (command == Command.REMOVE_SERVICE and errno == ESRCH) or (
            command == Command.REMOVE_DESTINATION and errno in {ESRCH, ENOENT}
        )
        if gone:
            settled.add(at)
        elif errno == EEXIST and command in {Command.ADD_SERVICE, Command.ADD_DESTINATION}:
            operation = plan[at]
            if isinstance(operation, AddDestination):
                edits[at] = EditDestination(operation.service, operation.destination)
            elif isinstance(operation, AddService):
                edits[at] = EditService(operation.service)
    if edits:
        places = list(edits)
        failed = backend.execute(Plan.of(edits.values()))
        settled.update(at for index, at in enumerate(places) if index not in failed)
    for at in settled:
        del errors[at]
    return frozenset(settled)


def is_race(plan: Plan, at: int, errno: int) -> bool:
    """Whether reading and planning again may cure the error of that operation."""
    of_destination = plan.operations[at * records.OPERATION_SIZE] in {Command.EDIT_DESTINATION, Command.REMOVE_DESTINATION}
    return errno in _RACES or (errno == ENOENT and of_destination)
