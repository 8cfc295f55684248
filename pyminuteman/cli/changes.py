"""What the verbs that change the table have in common: showing a plan, carrying it out, telling what became of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pyminuteman.cli import exit_codes
from pyminuteman.cli.application import Application
from pyminuteman.cli.desired import to_plain
from pyminuteman.cli.files import Source
from pyminuteman.cli.terminal import clean, is_terminal, out, out_json, progress_bar, say
from pyminuteman.errors import ConfigurationError
from pyminuteman.ipvs import (
    ApplyError,
    ApplyReport,
    Desired,
    Destination,
    KernelError,
    NotConverged,
    NotPermitted,
    Operation,
    Plan,
    Scope,
    ServiceKey,
    Snapshot,
)

__all__ = ["carry_out", "doomed", "in_words", "narrowed", "refuse_empty", "show_plan"]

_SHOWN = 40
"""Operations shown to people before they are asked: a screenful. Files and pipes get all."""

Progress = Callable[[int, int], object] | None


def refuse_empty(source: Source, *, allowed: bool) -> None:
    """Refuse a file without services, which would empty the scope, unless that is meant.

    Raises:
        ConfigurationError: It is empty, and that was not said to be meant.
    """
    if not source.table.services and not allowed:
        reason = "it describes no service, so everything in scope would be removed; say --allow-empty if that is meant"
        raise ConfigurationError(source.path, "", reason)


def doomed(snapshot: Snapshot, desired: Desired, scope: Scope) -> list[ServiceKey]:
    """The services that are there, in scope, and not desired."""
    wanted = {service.key for service in desired}
    return [service.key for service in snapshot if service.key not in wanted and service.key in scope]


def in_words(keys: Iterable[ServiceKey], snapshot: Snapshot) -> list[str]:
    """Services that would be removed, for a question."""
    rows = [(key, len(snapshot.destinations(key))) for key in keys]
    return [f"{key}, with {count} destination{'' if count == 1 else 's'}" for key, count in rows]


def narrowed(desired: Desired, confirmed: Iterable[ServiceKey]) -> Scope:
    """Only what was desired or confirmed: a service that appears in scope meanwhile was never asked about, and stays."""
    return Scope.services([*(service.key for service in desired), *confirmed])


def show_plan(plan: Plan, form: str, *, everything: bool) -> None:
    """The operations on standard output, as ipvsadm lines or JSON."""
    if form == "json":
        summary = {command.name.lower(): count for command, count in plan.tally().items()}
        out_json({"version": 1, "changes": bool(plan), "summary": summary}, "operations", map(_plain_operation, plan))
        return
    most = len(plan) if everything or not is_terminal(sys.stdout) else _SHOWN
    out("".join(f"{clean(str(operation))}\n" for operation in plan[:most]))
    if len(plan) > most:
        say(f"and {len(plan) - most} more")


def _plain_operation(operation: Operation) -> dict[str, Any]:
    plain: dict[str, Any] = {"operation": operation.command.name.lower(), "line": str(operation)}
    service = getattr(operation, "service", None)
    destination = getattr(operation, "destination", None)
    if service is not None:
        (plain["service"],) = to_plain([(service, () if destination is None else (destination,))])
        rows = plain["service"].pop("destination")
        plain |= {"destination": rows[0]} if rows else {}
    return plain


def carry_out(
    application: Application, plan: Plan, action: Callable[[Progress], ApplyReport], *, form: str, source: Source | None = None
) -> tuple[int, ApplyReport | None]:
    """Run ``action`` with a progress bar, and tell every failure.

    Args:
        application: For its settings.
        plan: What it is expected to do: its length decides on the bar.
        action: Takes a callback for progress.
        form: ``json`` prints the report as data, too.
        source: To name the lines of what failed.

    Returns:
        The exit code, and the report, if there is one.
    """
    failed: Sequence[KernelError] = ()
    report: ApplyReport | None
    code = exit_codes.OK
    try:
        with progress_bar(len(plan), no_color=application.no_color) as bar:
            report = action(bar)
    except ApplyError as error:
        report, failed, code = error.report, error.report.failed, exit_codes.PARTIAL
    except NotConverged as error:
        say(str(error))
        report, code = error.report, exit_codes.PARTIAL
        failed = report.failed if report else ()
    where = [_where(source, report, at) for at in sorted(report.errors)] if report and failed else []
    for failure, place in zip(failed, where, strict=True):
        say(f"failed: {place}{failure}")
    if failed and all(isinstance(failure, NotPermitted) for failure in failed):
        code = exit_codes.NOT_PERMITTED
    if report is not None and report.plan:
        done = len(report.plan) - len(failed)
        rest = f"; {len(failed)} failed" if failed else ""
        say(f"{done} of {len(report.plan)} operations done in {report.elapsed_seconds:.2f} s{rest}")
    if form == "json" and report is not None:
        out(json.dumps(_plain_report(report, where), indent=2))
    return code, report


def _where(source: Source | None, report: ApplyReport, at: int) -> str:
    """``tables/web.toml: line 12: ``, when the operation comes from there."""
    operation = report.plan[at]
    service = getattr(operation, "service", None)
    destination: Destination | None = getattr(operation, "destination", None)
    line = source.line(service.key, destination) if source and service else None
    return f"{source.path}: line {line}: " if source and line else ""


def _plain_report(report: ApplyReport, where: Sequence[str]) -> dict[str, Any]:
    return {
        "version": 1,
        "operations": len(report.plan),
        "done": len(report.plan) - len(report.failed),
        "elapsed_seconds": round(report.elapsed_seconds, 6),
        "failed": [
            {
                "line": failure.operation,
                "errno": failure.errno,
                "reason": failure.strerror,
                "kernel": failure.text,
                "hint": failure.hint,
                "where": place.removesuffix(": ") or None,
            }
            for failure, place in zip(report.failed, where, strict=False)
        ],
        "draining": [
            {"service": str(key), "destination": str(destination), "seconds_left": round(left, 1)}
            for key, destination, left in report.draining
        ],
    }
