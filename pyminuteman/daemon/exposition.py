"""The text that Prometheus reads (exposition format 0.0.4), written without a registry of objects: rows come from tables we have anyway.

Pure. Names end in the unit, counters in ``_total``; what a label holds is escaped, so that a service's name cannot add rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from pyminuteman.daemon.observed import Buckets

__all__ = ["Exposition", "escaped", "labelled"]

_ESCAPES: Final = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


def escaped(value: str) -> str:
    """The value of a label, as it stands between quotes."""
    return value.translate(_ESCAPES)


def labelled(labels: Mapping[str, str]) -> str:
    """``{a="1",b="2"}``, or nothing without labels."""
    return "{" + ",".join([f'{name}="{escaped(value)}"' for name, value in labels.items()]) + "}" if labels else ""


class Exposition:
    """Families of rows, one after another."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def family(self, name: str, kind: str, text: str, rows: Iterable[tuple[str, float]]) -> None:
        """One family: ``rows`` are labels, as :func:`labelled` writes them, with their values. Without rows it is left out."""
        lines = [f"{name}{labels} {number(value)}" for labels, value in rows]
        if lines:
            self._lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}", *lines]

    def histogram(self, name: str, text: str, rows: Iterable[tuple[Mapping[str, str], Buckets]]) -> None:
        """One family of histograms, by their labels."""
        lines: list[str] = []
        for labels, buckets in rows:
            total = 0
            for bound, count in zip((*buckets.bounds, float("inf")), buckets.counts, strict=True):
                total += count
                lines.append(f"{name}_bucket{labelled({**labels, 'le': _bound(bound)})} {total}")
            lines += [f"{name}_sum{labelled(labels)} {number(buckets.sum)}", f"{name}_count{labelled(labels)} {total}"]
        if lines:
            self._lines += [f"# HELP {name} {text}", f"# TYPE {name} histogram", *lines]

    def text(self) -> bytes:
        """All of it."""
        return ("\n".join(self._lines) + "\n").encode()


def number(value: float) -> str:
    """A value; whole numbers as such."""
    return str(value) if isinstance(value, int) else repr(float(value))


def _bound(bound: float) -> str:
    return "+Inf" if bound == float("inf") else repr(float(bound))
