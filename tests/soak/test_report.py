from __future__ import annotations

import threading

from tests.soak.checkers import Finding
from tests.soak.report import summary_lines
from tests.soak.soak import Options, Soak
from tests.soak.steps import Kind


def soak() -> Soak:
    made = Soak(Options(3, 10, 4711, 1.0), lambda _: None, threading.Event())
    made.steps[Kind.PANIC] = 2
    made.answers["n1"] = 5
    made.convergence.look(3.25, {0: ""})
    for at in range(3):
        made.memory.add(0, 99, 10.0 * at, 20_000 + at, 22)
    made.files.look(0, {"ledger.json": 4096})
    return made


def test_a_summary_says_what_was_done_and_that_nothing_was_found() -> None:
    lines = list(summary_lines(soak().summary()))
    text = "\n".join(lines)
    assert lines[-1] == "nothing was found"
    for part in ("10 nodes", "seed 4711", "2 panic", "5 answered", "slowest 3.2 s", "ledger.json 4 KiB", "(too young)"):
        assert part in text


def test_a_finding_comes_with_the_log_and_the_way_to_see_it_again() -> None:
    made = soak()
    made.findings.append(Finding("logs", 3, "ERROR: x"))
    made.tails[3] = "the last line"
    text = "\n".join(summary_lines(made.summary()))
    assert "logs: n3: ERROR: x" in text
    assert "the last line" in text
    assert 'make soak ARGS="--seed 4711 --minutes 3 --nodes 10"' in text
    assert "nothing was found" not in text
