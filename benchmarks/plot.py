"""The picture of the last run: ``results/reconcile.png``, from ``results/reconcile.json``.

Above, what changes cost without the guest (an estimate, see native.py); below, this library against the limit, as measured. Where a
table is there before the change (W4, W5, W8), ``converge`` goes by memory: ``audit=False``.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from report import WHOLE, estimate, estimated
from workloads import WORKLOADS

HERE = Path(__file__).resolve().parent
SHORT = {
    "W1": "W1: load\n1 x 1,000",
    "W2": "W2: load\n1,000 x 10",
    "W3": "W3: no-op\n1,000 x 10",
    "W3n": "W3n: no-op\n1 x 1,000",
    "W4": "W4: swap\n125 of 1,000",
    "W5": "W5: 100 weights\nin 10,000",
    "W6": "W6: load\n1,000 x 100",
    "W7": "W7: no-op\n1,000 x 100",
    "W8": "W8: one weight\nin 100,000",
}
COLOURS = {
    "limit": "#9aa0a6",
    "apply": "#1f6fd1",
    "whole": "#7fb2f0",
    "gnlpy": "#e6a23c",
    "ipvsadm": "#8b6bb8",
    "pyroute2": "#c8503c",
}
LABELS = {
    "limit": "limit (C)",
    "apply": "pyminuteman: apply",
    "whole": "pyminuteman: converge, the whole",
    "gnlpy": "gnlpy",
    "ipvsadm": "ipvsadm -R (at least)",
    "pyroute2": "pyroute2",
}


def short(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio < 3 else f"{ratio:.1f}" if ratio < 20 else f"{ratio:,.0f}"


def bars(axes: Any, groups: list[dict[str, float]], labels: list[dict[str, str]], room: float) -> None:
    """Groups of bars; who is absent takes no room."""
    most = max(map(len, groups))
    for group, (values, texts) in enumerate(zip(groups, labels, strict=True)):
        width = room / most
        for at, (who, value) in enumerate(values.items()):
            x = group + (at - (len(values) - 1) / 2) * width
            axes.bar(x, value, width * 0.94, color=COLOURS[who])
            axes.annotate(
                texts.get(who, ""), (x, value), (0, 2), textcoords="offset points", ha="center", va="bottom", fontsize=6.8
            )
    axes.set_yscale("log")
    axes.set_ylim(top=max(value for values in groups for value in values.values()) * 4)
    axes.set_ylabel("milliseconds")
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="x", length=0)


def native(axes: Any, data: dict[str, Any]) -> None:
    names = [name for name in estimated(data) if name != "W8"]
    groups, labels = [], []
    for name in names:
        found = estimate(data, name)
        values = {"limit": found["limit"], "apply": found["apply"], "whole": found[WHOLE[WORKLOADS[name].kind]]}
        values |= {peer: found[peer] for peer in ("gnlpy", "ipvsadm", "pyroute2") if peer in found}
        groups.append(values)
        labels.append({who: f"{short(value / found['limit'])}" for who, value in values.items() if who != "limit"})
    bars(axes, groups, labels, 0.92)
    axes.set_xticks(range(len(names)), [SHORT[name] for name in names], fontsize=8)
    axes.set_title(
        "Changes, estimated for a host without the guest; labels: times the limit", fontsize=10, loc="left", fontweight="bold"
    )


def measured(axes: Any, data: dict[str, Any]) -> None:
    names = [name for name in SHORT if "limit" in data["results"].get(name, {})]
    groups, labels = [], []
    for name in names:
        found = data["results"][name]
        whole = WHOLE[WORKLOADS[name].kind]
        values = {"limit": found["limit"]["median_ms"]}
        if "apply" in found:
            values["apply"] = found["apply"]["median_ms"]
        if whole in found:
            values["whole"] = found[whole]["median_ms"]
        groups.append(values)
        labels.append({who: short(value / values["limit"]) for who, value in values.items() if who != "limit"})
    bars(axes, groups, labels, 0.92)
    axes.set_xticks(range(len(names)), [SHORT[name] for name in names], fontsize=8)
    where = "in the guest" if data["guest"] else "on this kernel"
    axes.set_title(
        f"This library, measured {where}; labels: times the limit, of W3 and W7 a raw dump",
        fontsize=10,
        loc="left",
        fontweight="bold",
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Draw results/reconcile.png from results/reconcile.json.")
    parser.add_argument("--save", action="store_true", help="accepted, and what it does anyway")
    parser.parse_args()
    data = json.loads((HERE / "results" / "reconcile.json").read_text())
    plt.rcParams.update({"font.size": 9, "font.family": "DejaVu Sans"})
    figure, (above, below) = plt.subplots(2, 1, figsize=(9.6, 7.4), facecolor="white")
    native(above, data)
    measured(below, data)
    handles = [plt.Rectangle((0, 0), 1, 1, color=COLOURS[who]) for who in LABELS]
    figure.legend(handles, LABELS.values(), ncols=6, loc="upper center", frameon=False, fontsize=8.5, columnspacing=1.2)
    figure.tight_layout(rect=(0, 0, 1, 0.965), h_pad=1.8)
    figure.savefig(HERE / "results" / "reconcile.png", dpi=130)
    return 0


if __name__ == "__main__":
    sys.exit(main())
