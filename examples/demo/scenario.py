"""The play: five steps, each of which asserts what it shows."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from typing import Final

from demo.plain import harm_of
from demo.processes import now
from demo.record import percentages, shares, worst_deviation
from demo.stage import CLIENT, NAMES, Repair, Stage, as_equal_shares, realtime

TOLERANCE: Final = 0.05
"""How far a share may be from an equal one: five percentage points."""
CONVERGED_BOUND_SECONDS: Final = 20.0
ZERO_BOUND_SECONDS: Final = 8.0
GONE_BOUND_SECONDS: Final = 15.0
RETURN_BOUND_SECONDS: Final = 60.0
_VERB_BOUND_SECONDS: Final = 60.0
_SETTLE_SECONDS: Final = 0.3
"""For a table's change to reach connections: those that began before it may end after it."""
_WINDOWS: Final = 4
_DRAINED, _ASKED, _LOST = 2, 1, 3


class Scenario:
    """The steps, in their order."""

    def __init__(self, stage: Stage, seconds: float) -> None:
        """Each step plays for so many seconds after what it does."""
        self.stage: Final = stage
        self.seconds: Final = seconds

    def play(self) -> None:
        """All of it.

        Raises:
            ClaimFailed: Something is not as claimed.
        """
        lost, drained = NAMES[_LOST], NAMES[_DRAINED]
        steps: list[tuple[str, Callable[[], None]]] = [
            ("three tasks appear", self._appear),
            ("two more", self._more),
            (f"an operator drains {drained}", self._drain),
            (f"{lost} panics", self._panic),
            (f"{lost} returns", self._return),
        ]
        for title, step in steps:
            self.stage.begin(title, len(steps))
            step()
        self._stop()
        self.stage.end()

    # The steps

    def _appear(self) -> None:
        self._start(1, 2, 3)
        self.stage.client.channel.send(start=True)
        self.stage.note(f"a client on {NAMES[CLIENT]} begins to ask the VIP")
        self._watch_shares()

    def _more(self) -> None:
        self._start(0, 4)
        self._watch_shares()

    def _drain(self) -> None:
        stage, drained = self.stage, NAMES[_DRAINED]
        began = self._verb("drain", "node", drained, "--reason", "new disk")
        stage.desired[drained] = 0
        self._converged(f"{drained} has weight 0 in all kernels", _VERB_BOUND_SECONDS + CONVERGED_BOUND_SECONDS, since=began)
        self._watch_shares()
        began = self._verb("undrain", "node", drained)
        stage.desired[drained] = 1
        self._converged(f"{drained} has weight 1 in all kernels", _VERB_BOUND_SECONDS + CONVERGED_BOUND_SECONDS, since=began)
        stage.no_failures()
        stage.claim(True, "the drain lost no request")

    def _panic(self) -> None:
        stage, lost = self.stage, NAMES[_LOST]
        stage.note(f"{lost} panics: its link is down, its daemon and its task are killed")
        began = realtime(stage.cluster.panic([_LOST]))
        stage.silent.add(_LOST)
        stage.tasks.end(lost)
        del stage.desired[lost]
        zero = stage.wait(
            f"{lost} has weight 0 in all kernels", lambda: self._weights(lost) <= {0, None}, ZERO_BOUND_SECONDS, since=began
        )
        gone = stage.wait(f"{lost} is gone from all kernels", self._are_desired, GONE_BOUND_SECONDS, since=began)
        stage.repair = Repair(began, zero, gone)
        stage.step.seen.append(f"repaired: weight 0 in all kernels after {zero:.2f} s, gone after {gone:.2f} s")
        self._watch_shares()
        stage.play(stage.repair.over - now())  # by then it is known what became of every request that it touched
        stage.no_failures()
        text = f"requests: {harm_of(stage.harm(stage.repair))}"
        stage.claim(True, f"{text}; none that began later")
        stage.step.seen.append(text)

    def _return(self) -> None:
        stage, lost = self.stage, NAMES[_LOST]
        stage.note(f"{lost} returns: link, task and daemon")
        began = now()
        stage.tasks.start(lost, stage.cluster.netns(_LOST), stage.cluster.address(_LOST))
        stage.cluster.revive([_LOST])
        stage.silent.discard(_LOST)
        stage.desired[lost] = 1
        self._converged(f"{lost} is back in all kernels, its own too,", RETURN_BOUND_SECONDS, since=began)
        self._watch_shares()

    def _stop(self) -> None:
        """Every request that was sent has ended, and the tasks counted as many as the client."""
        stage = self.stage
        stage.client.channel.send(stop=True)
        stage.play(15, until=lambda: stage.sent is not None)
        ended = len(stage.record.requests)
        stage.claim(stage.sent == ended, "every request that was sent has ended", f"{stage.sent} were sent, {ended} ended")
        counts = {name: stage.tasks.end(name) for name in NAMES if name != NAMES[_LOST]}
        seen = {name: stage.record.answered[name] for name in counts}
        stage.claim(counts == seen, "the tasks' own counts agree with the client's", f"{counts} is not {seen}")

    def go_on(self) -> None:
        """All runs once more as it did before the end, until somebody ends the demo."""
        stage = self.stage
        for node, name in enumerate(NAMES):
            if node != _LOST:
                stage.tasks.start(name, stage.cluster.netns(node), stage.cluster.address(node))
        stage.client.channel.send(start=True)
        stage.play(math.inf)

    # What they check

    def _start(self, *nodes: int) -> None:
        stage = self.stage
        for node in nodes:
            stage.say(node)
            stage.desired[NAMES[node]] = 1
        names = ", ".join(NAMES[node] for node in nodes)
        stage.note(f"the file sources of {names} say: a task of web is here, weight 1")
        self._converged("all five kernels have it")

    def _converged(self, what: str, bound: float = CONVERGED_BOUND_SECONDS, *, since: float | None = None) -> None:
        took = self.stage.wait(what, self._are_desired, bound, since=since)
        self.stage.step.seen.append(f"{what} after {took:.2f} s")

    def _are_desired(self) -> bool:
        return all(self.stage.rows(node) == self.stage.desired for node in self.stage.alive)

    def _weights(self, name: str) -> set[int | None]:
        """Those that a node's task has in the kernels of who is alive."""
        return {self.stage.rows(node).get(name) for node in self.stage.alive}

    def _watch_shares(self) -> None:
        """Play on, and assert that what follows is shared equally. A busy machine gets a few windows of time to show it."""
        stage = self.stage
        expected = as_equal_shares(name for name, weight in stage.desired.items() if weight)
        stage.play(_SETTLE_SECONDS)
        for _ in range(_WINDOWS):
            began = now()
            stage.play(self.seconds)
            seen = shares(stage.record.since(began))
            if fair := worst_deviation(seen, expected) <= TOLERANCE:
                break
        text = percentages(seen)
        stage.claim(fair, f"the load is shared equally, within {TOLERANCE * 100:g} points: {text}", f"it is not: {text}")
        stage.step.seen.append(f"shares: {text}")

    def _verb(self, *words: str) -> float:
        """An operator's words, said to one node that they do not concern; returns when the operator had typed them."""
        stage, began = self.stage, now()
        stage.note(f"on {NAMES[_ASKED]}: minuteman {' '.join(repr(word) if ' ' in word else word for word in words)}")
        command = [sys.executable, "-m", "pyminuteman", *words, "--yes", "--socket", str(stage.cluster.socket(_ASKED))]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            try:
                stage.play(_VERB_BOUND_SECONDS, until=lambda: process.poll() is not None)
            finally:
                process.kill()
            said = process.communicate()[0].strip()
        stage.claim(process.returncode == 0, "it is told to all", f"the verb ended with {process.returncode}: {said}")
        return began
