"""The node, its members and its state as the plain dicts that the API, the command line and the page show. Pure.

Every object has ``version``; times are RFC 3339 in UTC; ids are 32 hexadecimal digits. Field names are promised: they may be added to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from pyminuteman.addresses import NodeId
from pyminuteman.daemon.observed import FeedObserved, Happening, KernelObserved, Mark, Names, Observation, rfc3339
from pyminuteman.membership import MemberStatus, Record

__all__ = [
    "KERNEL_STATES",
    "VERSION",
    "event_view",
    "events_view",
    "kernel_state",
    "mark_view",
    "members_view",
    "missed_view",
    "node_state",
    "problems",
    "source_state",
    "status_view",
    "topology_view",
]

VERSION: Final = 1
"""Of the shapes; a field that is taken away or means something else would make it 2."""
Plain = dict[str, Any]


def mark_view(mark: Mark | None) -> Plain | None:
    """Who laid it down, when, and why."""
    return None if mark is None else {"by": mark.by, "at": rfc3339(mark.at), "reason": mark.reason}


# Status


def status_view(seen: Observation) -> Plain:
    """What ``/v1/status`` tells."""
    me, counts = seen.me, Counter(member.status for member in seen.members.values())
    return {
        "version": VERSION,
        "software": seen.software,
        "time": seen.moment.now,
        "node": {
            "id": str(me.id),
            "name": me.name,
            "endpoint": str(me.endpoint),
            "addresses": list(me.addresses),
            "epoch": me.epoch,
            "started_at": rfc3339(seen.started_at),
        },
        "cluster": seen.cluster,
        "state": node_state(seen),
        "problems": problems(seen),
        "sources": [_source(feed) for feed in seen.feeds],
        "store": {
            "engine": seen.store.engine,
            "ready": seen.store.ready,
            "problem": seen.store.problem,
            "entries": seen.store.entries,
        },
        # This node is alive as well, and no member that it knows of itself.
        "members": {status.value: counts[status] + (status is MemberStatus.ALIVE) for status in MemberStatus},
        "kernel": [_kernel(kernel) for kernel in seen.kernels],
        "host": [{"step": step.step, "ok": step.ok, "reason": step.reason} for step in seen.host],
        "faults": _faults(seen),
        "untold": [{"vip": vip, "reason": reason} for vip, reason in list(seen.faults.untold.items())[:_UNTOLD_MOST]],
    }


def _faults(seen: Observation) -> Plain:
    names = seen.names()
    shown = [{"kind": one.kind, "node": names(one.node), "key": one.key, "reason": one.reason} for one in seen.faults.shown]
    return {"counts": dict(seen.faults.counts), "shown": shown}


def _source(feed: FeedObserved) -> Plain:
    state = feed.state
    return {
        "name": feed.name,
        "place": feed.place,
        "state": source_state(feed),
        "age_seconds": None if feed.age_seconds is None else round(feed.age_seconds, 3),
        "reason": feed.status.reason,
        "vips": 0 if state is None else len(state.vips),
        "problems": [] if state is None else [{"where": one.where, "reason": one.reason} for one in state.problems],
    }


def source_state(feed: FeedObserved) -> str:
    """``waiting`` for its first state, ``stale`` when it was silent for too long, ``failing`` when its last reading failed, ``good``."""
    if feed.state is None:
        return "failing" if feed.status.reason else "waiting"
    if feed.stale:
        return "stale"
    return "failing" if feed.status.reason else "good"


def _kernel(kernel: KernelObserved) -> Plain:
    return {
        "namespace": kernel.namespace,
        "services": kernel.services,
        "destinations": kernel.destinations,
        "last_sync_at": None if kernel.last_sync_at is None else rfc3339(kernel.last_sync_at),
        "last_sync_seconds": None if kernel.last_sync_seconds is None else round(kernel.last_sync_seconds, 6),
        "syncs": kernel.syncs_total,
        "draining": kernel.draining,
        "held_back": (
            {"id": kernel.held_id, "text": kernel.held, "services": list(kernel.held_services)} if kernel.held else None
        ),
        "foreign": list(kernel.foreign),
        "error": kernel.error,
    }


KERNEL_STATES: Final = ("waiting", "running", "held", "failing")


def kernel_state(kernel: KernelObserved) -> str:
    """One of :data:`KERNEL_STATES`: ``held`` while a plan is held back, ``failing``, ``waiting`` until the first sync, else ``running``."""
    if kernel.held:
        return "held"
    if kernel.error:
        return "failing"
    return "waiting" if kernel.last_sync_at is None else "running"


def node_state(seen: Observation) -> str:
    """``held`` while a plan is held back, ``degraded`` while something fails, ``waiting`` until the first sync of the host's own table, else ``running``."""
    if any(kernel.held for kernel in seen.kernels):
        return "held"
    own = [kernel for kernel in seen.kernels if not kernel.namespace]
    if not seen.kernels or any(kernel_state(kernel) == "waiting" for kernel in own):
        return "waiting"
    return "degraded" if problems(seen) else "running"


def problems(seen: Observation) -> list[Plain]:
    """What an operator should look at, the worst first; each with a kind for programs and a text for people."""
    found: list[tuple[str, str]] = []
    troubled = [kernel for kernel in seen.kernels if kernel.held or kernel.error]
    for kernel in troubled[:_KERNELS_MOST]:
        where = f"namespace {kernel.namespace}: " if kernel.namespace else ""
        if kernel.held:
            found.append(("held_back", f"{where}held back, for it would take away {kernel.held}"))
        if kernel.error:
            found.append(("sync_failed", f"{where}{kernel.error}"))
    if (more := len(troubled) - _KERNELS_MOST) > 0:
        found.append(("sync_failed", f"{more} more network namespaces have no good table, or hold a plan back"))
    found += [("failed_open", str(one)) for one in seen.desired.failed_open]
    if seen.store.problem:
        found.append(("store", seen.store.problem))
    for feed in seen.feeds:
        state = source_state(feed)
        if state in {"stale", "failing"}:
            found.append((f"source_{state}", f"source {feed.name}: {feed.status.reason or 'it has fallen silent'}"))
        left_out = 0 if feed.state is None else len(feed.state.problems)
        if left_out:
            found.append(("source_problem", f"source {feed.name}: {left_out} left out, as {_first_problem(feed)}"))
    found += [("host", f"{step.step}: {step.reason}") for step in seen.host if not step.ok]
    found += _problems_of_saying(seen)
    found += [("unaddressed", f"{name} has no address: {why}") for name, why in seen.desired.unaddressed.items()]
    return [{"kind": kind, "text": text} for kind, text in found[:_PROBLEMS_MOST]]


def _problems_of_saying(seen: Observation) -> list[tuple[str, str]]:
    """Between nodes: what cannot be read, and what could not be told. That of health is left out, for it passes while a host is new."""
    found: list[tuple[str, str]] = []
    names = seen.names()
    for kind in ("claim", "mark"):
        first = next((one for one in seen.faults.shown if one.kind == kind), None)
        if first is not None:
            whose = f" of {names(first.node)}" if first.node else ""
            text = f"{seen.faults.counts[kind]} {kind}s cannot be read, as {first.key}{whose}: {first.reason}"
            found.append(("unreadable", text))
    if seen.faults.untold:
        vip, reason = next(iter(seen.faults.untold.items()))
        found.append(("untold", f"{len(seen.faults.untold)} VIPs are not told to the others as they are, as {vip}: {reason}"))
    return found


_PROBLEMS_MOST: Final = 100
_UNTOLD_MOST: Final = 100
_KERNELS_MOST: Final = 10
"""Of network namespaces: what is wrong with one of many containers is wrong with most, and is not to hide all else."""


def _first_problem(feed: FeedObserved) -> str:
    return str(feed.state.problems[0]) if feed.state is not None else ""


# Members


def members_view(seen: Observation) -> Plain:
    """What ``/v1/members`` tells: this node first, the others by name."""
    known = _Known(_backends_by_node(seen), seen.names())
    rows = [_member(seen, seen.me, MemberStatus.ALIVE, rfc3339(seen.started_at), known)]
    others = sorted(seen.members.values(), key=lambda member: (member.record.name, member.record.id))
    rows += [_member(seen, one.record, one.status, seen.moment.text(one.since), known) for one in others]
    return {"version": VERSION, "members": rows}


class _Known(NamedTuple):
    """What is worked out once for all nodes."""

    backends: Counter[NodeId]
    names: Names


def _member(seen: Observation, record: Record, status: MemberStatus, since: str | None, known: _Known) -> Plain:
    drain = seen.node_drains.get(record.id)
    neighbours = seen.neighbours if record.id == seen.me.id else record.neighbours
    return {
        "id": str(record.id),
        "name": record.name,
        "label": known.names(record.id),
        "status": status.value,
        "since": since,
        "endpoint": str(record.endpoint),
        "addresses": list(record.addresses),
        "tags": dict(record.tags),
        "keys": [key.hex() for key in record.keys],
        "epoch": record.epoch,
        "neighbours": [str(one) for one in neighbours],
        "drained": drain is not None,
        "drain": mark_view(drain),
        "backends": known.backends[record.id],
        "me": record.id == seen.me.id,
    }


def topology_view(seen: Observation) -> Plain:
    """What ``/v1/topology`` tells: nodes, and each link once, as either of its ends says."""
    about = _Known(_backends_by_node(seen), seen.names())
    nodes = [_node(seen, seen.me, MemberStatus.ALIVE, about)]
    others = sorted(seen.members.values(), key=lambda member: (member.record.name, member.record.id))
    nodes += [_node(seen, one.record, one.status, about) for one in others]
    known = {seen.me.id, *seen.members}
    links = {_link(seen.me.id, other) for other in seen.neighbours}
    for member in others:
        # Of a node that is down, the last it said of its links is not so any more.
        if member.status in {MemberStatus.ALIVE, MemberStatus.SUSPECT}:
            links |= {_link(member.record.id, other) for other in member.record.neighbours if other != seen.me.id}
    return {
        "version": VERSION,
        "me": str(seen.me.id),
        "nodes": nodes,
        "links": [[str(one), str(other)] for one, other in sorted(links) if one in known and other in known],
    }


def _node(seen: Observation, record: Record, status: MemberStatus, known: _Known) -> Plain:
    return {
        "id": str(record.id),
        "name": record.name,
        "label": known.names(record.id),
        "status": status.value,
        "backends": known.backends[record.id],
        "drained": record.id in seen.node_drains,
    }


def _link(one: NodeId, other: NodeId) -> tuple[NodeId, NodeId]:
    return (one, other) if one < other else (other, one)


def _backends_by_node(seen: Observation) -> Counter[NodeId]:
    """How many backends run on each node; one that stands behind several VIPs counts once."""
    nodes = seen.nodes_by_address()
    placed = {
        (backend.key, backend.agent)
        for resolution in seen.desired.resolutions.values()
        for backend in resolution.vip.backends
        if backend.agent
    }
    return Counter(nodes[agent].id for _, agent in placed if agent in nodes)


# Events


def event_view(event: Happening) -> Plain:
    """One event."""
    return {"id": event.id, "time": rfc3339(event.time), "kind": event.kind, "text": event.text, "data": dict(event.data)}


def events_view(events: Sequence[Happening], *, life: str, oldest: int, newest: int) -> Plain:
    """What ``/v1/events?format=json`` tells; ``oldest`` and ``newest`` are the numbers of those still kept, 0 when there are none."""
    told = [event_view(event) for event in events]
    return {"version": VERSION, "life": life, "events": told, "oldest": oldest, "newest": newest}


def missed_view(first: int, last: int, at: float) -> Plain:
    """That events of these numbers are not kept any more. ``at``, in seconds of the epoch: of the first event that is."""
    text = f"event {first} is not kept any more" if first == last else f"events {first} to {last} are not kept any more"
    return {"id": last, "time": rfc3339(at), "kind": "missed", "text": text, "data": {"from": first, "to": last}}
