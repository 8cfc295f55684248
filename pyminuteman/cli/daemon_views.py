"""What the daemon's API tells, in lines for people. Pure: takes the plain data of ``docs/reference/api.md``, gives lines.

Lines may hold control characters of others' names; whoever prints them cleans them.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from pyminuteman.addresses import format_endpoint
from pyminuteman.cli.terminal import clean

__all__ = ["aligned", "backend_lines", "event_line", "held_back", "member_lines", "status_lines", "vip_lines", "why_out"]

Plain = Mapping[str, Any]


def aligned(rows: Iterable[Sequence[object]]) -> Iterator[str]:
    """Cells, cleaned, in columns that are as wide as they need be; the last of a row is not filled up."""
    table = [[clean(str(cell)) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip_longest(*table, fillvalue="")]
    for row in table:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip()


# Status


def status_lines(status: Plain) -> list[str]:
    """How the daemon is: first what is wrong, then its parts."""
    node = status["node"]
    lines = [f"{status['state']}: node {node['name']} ({node['id']}) of cluster {status['cluster']}, at {node['endpoint']}"]
    lines.append(f"{status['software']}, since {node['started_at']}")
    lines += [f"  ! {one['kind']}: {one['text']}" for one in status["problems"]]
    for held in held_back(status):
        lines += [
            f"held back{_within(held['namespace'])}, for it would take away {held['text']}:",
            *(f"  {service}" for service in held["services"]),
            f"  if that is meant: minuteman confirm --namespace {shlex.quote(held['namespace'])}",
        ]
    members = ", ".join(f"{count} {name}" for name, count in status["members"].items())
    store = status["store"]
    lines.append(f"members: {members}")
    lines.append(f"store: {store['engine']}, {'ready' if store['ready'] else 'not ready'}, {store['entries']} entries")
    if store["problem"]:
        lines.append(f"  ! {store['problem']}")
    lines += _tables(status)
    return lines


def _tables(status: Plain) -> Iterator[str]:
    sources = [
        (one["name"], one["state"], f"{one['vips']} VIPs", _age(one["age_seconds"]), one["place"], one["reason"])
        for one in status["sources"]
    ]
    yield "sources:" if sources else "sources: none"
    yield from (f"  {line}" for line in aligned(sources))
    for source in status["sources"]:
        yield from (f"  {source['name']}: left out: {one['where']}: {one['reason']}" for one in source["problems"])
    kernels = [
        (
            one["namespace"] or "this host",
            f"{one['services']} services",
            f"{one['destinations']} destinations",
            "not yet brought up to date" if one["last_sync_at"] is None else f"last sync {one['last_sync_at']}",
            f"{one['draining']} draining",
            f"{len(one['foreign'])} of others",
            one["error"],
        )
        for one in status["kernel"]
    ]
    yield "kernel:" if kernels else "kernel: none"
    yield from (f"  {line}" for line in aligned(kernels))
    yield "host:" if status["host"] else "host: not set up by the daemon"
    yield from (f"  {line}" for line in aligned(_step(one) for one in status["host"]))


def _step(step: Plain) -> tuple[str, str, str]:
    return step["step"], "ok" if step["ok"] else "not ok", step["reason"]


def held_back(status: Plain) -> list[dict[str, Any]]:
    """What is held back: of each such network namespace ``namespace``, ``id``, ``text`` and ``services``."""
    return [{"namespace": one["namespace"], **one["held_back"]} for one in status["kernel"] if one["held_back"] is not None]


def _within(namespace: str) -> str:
    return f" in network namespace {namespace}" if namespace else ""


def _age(seconds: float | None) -> str:
    return "never" if seconds is None else f"{seconds:.0f} s ago"


# VIPs and backends


def vip_lines(backends: Plain) -> Iterator[str]:
    """A line a VIP."""
    rows: list[Sequence[object]] = [("VIP", "ADDRESSES", "SCHEDULER", "IN", "HELD", "OUT", "SOURCES", "CLAIMED BY")]
    for vip in backends["vips"]:
        states = [one["state"] for one in vip["backends"]]
        rows.append(
            (
                vip["vip"],
                ",".join(vip["addresses"]) or "none",
                vip["scheduler"],
                *(states.count(state) for state in ("in", "held", "out")),
                ",".join(vip["sources"]) or "-",
                ",".join(vip["claimed_by"]) or "-",
            )
        )
    return aligned(rows)


def backend_lines(backends: Plain, *, out_only: bool = False) -> Iterator[str]:
    """Each VIP, and below it its backends with the reason why one is not in; then claims that do not count, and conflicts."""
    for vip in backends["vips"]:
        rows = [one for one in vip["backends"] if not out_only or one["state"] != "in"]
        if out_only and not rows:
            continue
        at = f" at {', '.join(vip['addresses']) or 'no address'}" if vip["name"] else ""
        yield f"{vip['vip']}{at}  {vip['scheduler']}"
        yield from (f"  ! all are taken all the same: {reason}" for reason in vip["failed_open"])
        yield from (f"  {line}" for line in aligned(_backend_row(one) for one in rows))
        if not vip["backends"]:
            yield "  (no backends)"
    for one in backends["refused"]:
        what = f"backend {one['backend']} of {one['vip']}" if one["backend"] else one["vip"]
        claimant = one["claimant"]
        yield f"refused: {what}, from {claimant['source']} at {one['node']}: {one['reason']} ({one['detail']})"
    yield from (f"conflict: {text}" for text in backends["conflicts"])


def _backend_row(backend: Plain) -> tuple[str, ...]:
    weight = f"weight {backend['effective_weight']}"
    if backend["effective_weight"] != backend["weight"]:
        weight += f" (of {backend['weight']})"
    connections = backend["connections"]
    now = "" if connections is None else f"{connections['active']}+{connections['inactive']} connections"
    place = format_endpoint(backend["address"], backend["port"])
    return f"-> {place}", backend["node"] or backend["agent"] or "-", backend["state"], weight, now, why_out(backend)


def why_out(backend: Plain) -> str:
    """All that is known of why a backend is out, or has another weight: reason, detail, operators' marks, health."""
    words = [": ".join(filter(None, (backend["reason"], backend["detail"])))]
    if drain := backend["drain"]:
        words.append(f"drained by {drain['by']} at {drain['at']}{_because(drain['reason'])}")
    if mark := backend.get("weight_set"):
        words.append(f"weight {mark['weight']} set by {mark['by']} at {mark['at']}{_because(mark['reason'])}")
    health = backend["health"]
    if health is not None and not health["healthy"]:
        words.append(f"its check says: {health['reason'] or 'not healthy'}, at {health['checked_at'] or 'no time yet'}")
    return "; ".join(filter(None, words))


def _because(reason: str) -> str:
    return f" ({reason})" if reason else ""


# Members and events


def member_lines(members: Plain) -> Iterator[str]:
    """A line a member; the one that was asked has a star."""
    rows: list[Sequence[object]] = [("NAME", "STATUS", "SINCE", "ENDPOINT", "BACKENDS", "ID", "TAGS", "DRAINED")]
    for one in members["members"]:
        drain = one["drain"]
        rows.append(
            (
                one["name"] + ("*" if one["me"] else ""),
                one["status"],
                one["since"] or "-",
                one["endpoint"],
                one["backends"],
                one["id"],
                ",".join(f"{key}={value}" for key, value in one["tags"].items()) or "-",
                "" if drain is None else f"by {drain['by']} at {drain['at']}{_because(drain['reason'])}",
            )
        )
    return aligned(rows)


def event_line(event: Plain) -> str:
    """One event, in one line."""
    return clean(f"{event.get('time', '')} {event['kind']:<14} {event.get('text', '')}".strip())
