"""``python -m pyminuteman.testing.simulation --seeds 0-499``: run scenarios, print the stories of those that fail."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from pyminuteman.testing.simulation.runner import Outcome, run, run_many
from pyminuteman.testing.simulation.scenarios import draw
from pyminuteman.testing.simulation.story import Story


def seeds_in(text: str) -> list[int]:
    """Read ``7``, ``0-499`` or several of these with commas or blanks between.

    Raises:
        ValueError: Something else.
    """
    found: list[int] = []
    for part in text.replace(",", " ").split():
        first, dash, last = part.partition("-")
        found += range(int(first), int(last if dash else first) + 1)
    if not found:
        raise ValueError("no seeds")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; 1 when a seed failed."""
    parser = argparse.ArgumentParser(prog="python -m pyminuteman.testing.simulation", description=__doc__)
    parser.add_argument("--seed", "--seeds", dest="seeds", type=seeds_in, default="0-499", metavar="SEEDS",
                        help="such as 7, 0-499 or 3,5,100-200 (default 0-499)")  # fmt: skip
    parser.add_argument("--processes", type=int, default=None, help="how many to run at once (default: one a core)")
    parser.add_argument("--story", type=Path, help="write the whole story of a single seed to this file")
    options = parser.parse_args(arguments)
    if len(options.seeds) == 1:
        return _one(options.seeds[0], options.story)
    return _many(options.seeds, options.processes)


def _one(seed: int, file: Path | None) -> int:
    if file is None:
        outcome = run(draw(seed))
    else:
        with file.open("w") as open_file:
            outcome = run(draw(seed), story=Story(open_file))
    print(outcome.report())  # noqa: T201 - a command's output
    return not outcome.passed


def _many(seeds: list[int], processes: int | None) -> int:
    began = time.perf_counter()
    failed: list[Outcome] = []
    for done, outcome in enumerate(run_many(seeds, processes=processes), 1):
        if not outcome.passed:
            failed.append(outcome)
            print(outcome.report(), flush=True)  # noqa: T201
        if done % 50 == 0 or done == len(seeds):
            seconds = time.perf_counter() - began
            print(f"{done} of {len(seeds)} seeds, {len(failed)} failed, {seconds:.0f} s", file=sys.stderr, flush=True)  # noqa: T201
    if failed:
        print(f"failed: make simulate SEEDS={','.join(str(outcome.scenario.seed) for outcome in failed)}")  # noqa: T201
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
