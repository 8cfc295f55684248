"""The summary, for people. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

__all__ = ["summary_lines"]

_LOGS_SHOWN: Final = 3
_CHARACTERS_SHOWN: Final = 3000
"""Of each; there is more in the JSON."""


def summary_lines(summary: dict[str, Any]) -> Iterator[str]:
    """Lines to print."""
    requests, convergence, api = summary["requests"], summary["convergence"], summary["api"]
    minutes = summary["churn_seconds"] / 60
    yield f"soak: {minutes:.1f} minutes, {summary['nodes']} nodes, {summary['rounds']} rounds, seed {summary['seed']}"
    yield "disturbances: " + (", ".join(f"{count} {kind}" for kind, count in summary["disturbances"].items()) or "none")
    excused = requests["failed_while_a_node_was_being_found_out"]
    yield (
        f"requests: {sum(requests['answered'].values())} answered (slowest {requests['worst_seconds']:.2f} s), {requests['failed']} failed,"
        f" {excused} of them to a node that had just gone out of reach"
    )
    yield (
        f"convergence: {len(convergence['times'])} times, the slowest {convergence['worst_seconds']:.1f} s after the last disturbance"
        f" ({convergence['allowed_seconds']:g} s are allowed); {summary['rests']} times at rest, and nothing was written"
    )
    yield f"API: asked {api['asked']} times, the slowest answer took {api['worst_seconds']:.2f} s"
    yield "state files, the largest: " + ", ".join(f"{name} {size >> 10} KiB" for name, size in summary["state_files"].items())
    for title in ("failures_with_a_cause", "warnings"):
        for text, count in summary[title].items():
            yield f"{title.replace('_', ' ')}: {count} x {text}"
    yield "memory of each node's longest life:  minutes  first KiB  last KiB  KiB a minute  descriptors"
    for one in summary["memory"]:
        slope = "(too young)" if one["kib_per_minute"] is None else f"{one['kib_per_minute']:.1f}"
        name = f"n{one['node']}"
        yield f"{name:>34}   {one['minutes']:7.1f}  {one['first_kib']:9}  {one['last_kib']:8}  {slope:>12}  {one['descriptors']:11}"
    for name, tail in list(summary["logs"].items())[:_LOGS_SHOWN]:
        yield f"--- the end of {name}'s log"
        yield tail[-_CHARACTERS_SHOWN:]
    if not summary["findings"]:
        yield "nothing was found"
        return
    yield f"{len(summary['findings'])} findings:"
    for finding in summary["findings"]:
        node = "" if finding["node"] is None else f"n{finding['node']}: "
        yield f"  {finding['checker']}: {node}{finding['text']}"
    yield f'the same schedule again: make soak ARGS="--seed {summary["seed"]} --minutes {summary["minutes"]:g} --nodes {summary["nodes"]}"'
