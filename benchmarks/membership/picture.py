"""The picture of a run: how soon the survivors know of the dead.

Above, the share of all (survivor, victim) pairs that have been told, over time; below, each victim's last survivor, whom the aims are
about.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import figures
import matplotlib.pyplot as plt

SERIES = {  # peer, word: its label, its colour
    ("minuteman", "suspected"): ("pyminuteman: suspect, gets no new connections", "#1f6fd1"),
    ("minuteman", "down"): ("pyminuteman: down, its backends are removed", "#7fb2f0"),
    ("serf", "down"): ("serf, profile lan: failed", "#8b6bb8"),
}
POINTS = 400  # of a curve
TICKS = (0.1, 0.2, 0.3, 0.5, 1, 2, 5, 10, 20)


def draw(data: dict[str, Any], path: Path) -> None:
    """Write the picture as SVG; the same results give the same bytes."""
    plt.rcParams.update({"font.size": 9, "font.family": "DejaVu Sans", "svg.hashsalt": "membership"})
    shown = [key for key in SERIES if figures.all_pairs(data["peers"].get(key[0], {}), key[1])]
    heights = (4, 0.5 + 0.45 * len(shown))
    figure, (above, below) = plt.subplots(
        2, 1, figsize=(9.6, 1.6 + sum(heights)), sharex=True, facecolor="white", gridspec_kw={"height_ratios": heights}
    )
    for row, (peer, what) in enumerate(shown):
        label, colour = SERIES[peer, what]
        _shares(above, data["peers"][peer], what, label, colour)
        _last_survivors(below, data["peers"][peer], what, row, colour)
    above.set_ylim(0, 1.02)
    above.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])
    above.set_ylabel("pairs of survivor and victim told")
    below.set_title("each victim's last survivor", fontsize=9, loc="left")
    below.set_yticks([])
    below.set_ylim(len(shown) - 0.4, -0.6)
    below.set_xlabel("seconds since the victims' links went down")
    below.set_xscale("log")
    below.set_xlim(0.05, 30)
    below.set_xticks(TICKS, [f"{tick:g}" for tick in TICKS])
    below.minorticks_off()
    for axes in (above, below):
        axes.grid(axis="x", alpha=0.3)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    title = f"{data['victims']} of {data['nodes']} nodes fall silent at one moment"
    figure.suptitle(title, x=0.012, ha="left", fontsize=10, fontweight="bold")
    figure.legend(*above.get_legend_handles_labels(), ncols=3, loc="upper left", bbox_to_anchor=(0, 0.955), frameon=False)
    figure.tight_layout(rect=(0, 0, 1, 0.95))
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _shares(axes: Any, found: figures.Found, what: str, label: str, colour: str) -> None:
    times = figures.all_pairs(found, what)
    expected = len(times) + figures.detection(found, what).missing  # who was never told keeps the curve below 100 %
    every = max(1, len(times) // POINTS)  # thousands of steps make a large file, and the same line
    steps = [(time, count / expected) for count, time in enumerate(times, 1) if count % every == 0 or count in {1, len(times)}]
    axes.step(*zip(*steps, strict=True), where="post", color=colour, label=label, lw=1.8)


def _last_survivors(axes: Any, found: figures.Found, what: str, row: int, colour: str) -> None:
    victims = [
        (f"{number} {victim}", times[-1])
        for number, record in enumerate(found["detection"])
        for victim, times in record[f"{what}_seconds"].items()
        if times
    ]
    # Spread by a checksum and not by chance: the picture changes only with the figures.
    heights = [row + (zlib.crc32(name.encode()) % 1000 / 1000 - 0.5) * 0.5 for name, _ in victims]
    axes.scatter([seconds for _, seconds in victims], heights, s=9, color=colour, alpha=0.6, linewidths=0)
