"""Randomness that a seed gives: one stream for each use, so that one use more does not change what the others draw."""

from __future__ import annotations

from random import Random

__all__ = ["seeded"]


def seeded(use: str, *numbers: int) -> Random:
    """The stream of that use. Python hashes texts for this in a way that does not differ between processes."""
    return Random(" ".join((use, *map(str, numbers))))  # noqa: S311 - a simulation must be guessable
