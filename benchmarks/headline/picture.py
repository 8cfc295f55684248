"""The picture: every request of two runs, over time; above with daemons, below with the same tables and nobody who repairs them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

from benchmarks.headline.figures import ENDED, MEANT, OUTCOME, Run, last_of, latency_ms, shown

ANSWERED, FAILED, PANIC, REPAIRED = "#1f6fd1", "#d1341f", "#444444", "#2e8b57"
TITLES = {
    "daemons": "pyminuteman: the survivors' kernels repair themselves",
    "static": "the same tables, and nobody who repairs them",
}
TICKS_MS = {0.1: "0.1 ms", 1: "1 ms", 10: "10 ms", 100: "0.1 s", 1000: "1 s", 10000: "10 s"}


def draw(data: dict[str, Any], path: Path) -> None:
    """Write the picture as SVG, with a ground of its own, so that it can be read on a dark page too; equal results give equal bytes.

    Nothing is drawn where no run has its requests.
    """
    plt.rcParams.update({"font.size": 9, "font.family": "DejaVu Sans", "svg.hashsalt": "headline"})
    runs = {form: run for form in TITLES if (run := shown(data, form)) is not None}
    if not runs:
        return
    height = 0.9 + 2.7 * len(runs)
    figure, rows = plt.subplots(len(runs), 1, figsize=(9.6, height), sharex=True, sharey=True, facecolor="white", squeeze=False)
    for axes, (form, run) in zip(rows[:, 0], runs.items(), strict=True):
        _requests(axes, run)
        failed = run["answers"]["failed"]
        axes.set_title(f"{TITLES[form]}: {failed:,} of {run['answers']['count']:,} requests failed", fontsize=9, loc="left")
        if form == "daemons":
            _repaired(axes, run)
    rows[-1, 0].set_xlabel("seconds after the panic, when a request was meant to begin")
    experiment = next(iter(runs.values()))["experiment"]
    dead = len(next(iter(runs.values()))["dead"])
    title = f"{dead} of {experiment['nodes']} nodes panic; {experiment['tasks']:,} tasks behind one VIP ({experiment['scheduler']}), a connection for each request"
    figure.suptitle(title, x=0.012, ha="left", fontsize=10, fontweight="bold")
    handles, labels = rows[0, 0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="lower right", frameon=False, fontsize=8, ncols=4
    )  # beside the axes: there it would hide requests
    figure.tight_layout(rect=(0, 0.03, 1, 0.985))
    figure.savefig(path, metadata={"Date": None}, dpi=150)
    plt.close(figure)


def _requests(axes: Any, run: Run) -> None:
    panic = run["panic_seconds"]
    for label, colour, marker, size, rows in (
        ("answered", ANSWERED, ".", 9, [row for row in run["requests"] if row[OUTCOME] == "ok"]),
        ("failed: given up, or refused", FAILED, "x", 22, [row for row in run["requests"] if row[OUTCOME] != "ok"]),
    ):
        times, latencies = [row[MEANT] - panic for row in rows], [max(0.05, latency_ms(row)) for row in rows]
        # Thousands of dots are an image in the picture: as so many elements they are slow to show.
        axes.scatter(
            times, latencies, s=size, marker=marker, color=colour, linewidths=0.8, alpha=0.75, label=label, rasterized=True
        )
    axes.axvline(0, color=PANIC, lw=1, ls="--", label="the panic")
    axes.set_yscale("log")
    axes.set_ylim(0.3, 20_000)
    axes.set_yticks(list(TICKS_MS)[1:], list(TICKS_MS.values())[1:])
    axes.minorticks_off()
    axes.set_xlim(-panic, max(row[MEANT] for row in run["requests"]) - panic)
    axes.set_ylabel("until answered or failed")
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _repaired(axes: Any, run: Run) -> None:
    last = last_of(run, "weightless")
    if last < run["requests"][-1][ENDED]:
        axes.axvspan(0, last, color=REPAIRED, alpha=0.15, lw=0, label=f"until the last kernel is repaired: {last:.2f} s")
