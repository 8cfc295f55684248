"""Each checker is silent where all is well, and speaks of the fault that is planted."""

from __future__ import annotations

import pytest

from tests.soak.checkers import Finding
from tests.soak.checkers.api import ApiAnswers
from tests.soak.checkers.convergence import Convergence
from tests.soak.checkers.foreign import foreign_untouched
from tests.soak.checkers.leftovers import nothing_left
from tests.soak.checkers.logs import Logs
from tests.soak.checkers.memory import LEAST_SECONDS, MOST_KIB, MOST_KIB_PER_MINUTE, WARM_UP_SECONDS, Memory
from tests.soak.checkers.requests import Failure, RequestsServed
from tests.soak.checkers.rest import AtRest, nothing_written
from tests.soak.checkers.state_files import MOST_FILES, StateFiles
from tests.soak.world import FOREIGN, Held

VIP = "12.9.0.1:80"
TIME = "2026-01-02 03:04:05,678"


def test_a_finding_says_whose_it_is() -> None:
    assert str(Finding("api", 3, "x")) == "api: n3: x"
    assert str(Finding("leftovers", None, "x")) == "leftovers: x"


def test_convergence() -> None:
    checker = Convergence(10)
    assert checker.look(10, {0: "", 1: "no row"}) == (False, [])
    assert checker.look(11, {0: "", 1: "no row"}) == (
        True,
        [Finding("convergence", 1, "after 11.0 s, and 10 s are allowed: no row")],
    )
    assert checker.worst_seconds == 0
    assert checker.look(3, {0: ""}) == (True, [])
    assert checker.worst_seconds == 3


def test_foreign_services() -> None:
    assert foreign_untouched(1, {VIP: FOREIGN}, {VIP: FOREIGN, "11.0.0.1:80": Held("wlc", frozenset())}) == []
    assert foreign_untouched(1, {VIP: FOREIGN}, {}) == [Finding("foreign", 1, f"{VIP} was made as {FOREIGN}, and is gone")]
    (changed,) = foreign_untouched(1, {VIP: FOREIGN}, {VIP: Held("wlc", FOREIGN.rows)})
    assert "and is wlc" in changed.text


@pytest.mark.parametrize(
    ("failure", "is_found"),
    [
        (Failure(99.0, 104.0, 3, "timed out"), False),  # on its way when the link went
        (Failure(104.9, 109.9, 3, "timed out"), False),
        (Failure(105.1, 110.1, 3, "timed out"), True),  # it ought to have been known by then
        (Failure(90.0, 95.0, 3, "timed out"), True),
        (Failure(101.0, 106.0, 4, "timed out"), True),  # another node, with which nothing was wrong
        (Failure(101.0, 106.0, None, "timed out"), False),
        (Failure(110.0, 116.0, None, "timed out"), True),
    ],
)
def test_requests(failure: Failure, is_found: bool) -> None:
    checker = RequestsServed(5)
    checker.out_of_reach(3, 100)
    assert [one.node for one in checker.judge(failure)] == ([failure.node] if is_found else [])
    assert checker.excused == (not is_found)


@pytest.mark.parametrize(
    "line",
    [
        "Traceback (most recent call last):",
        f"{TIME} ERROR a fault in pyminuteman, please report it",
        f"{TIME} CRITICAL x",
        f"{TIME} INFO sync_failed: -A -t 11.0.0.1:80: No such file or directory",
        f"{TIME} INFO sync_failed: /x/ledger.json cannot be written: No space left on device; no service is added until it can be",
        f"{TIME} INFO held_back: 3 of 4 destinations would be lost",
        f"{TIME} INFO host: no iptables",
    ],
)
def test_logs(line: str) -> None:
    assert [finding.node for finding in Logs().read(2, f"{line}\n")] == [2]


def test_logs_let_pass_what_has_a_cause_and_count() -> None:
    checker = Logs()
    full = f"{TIME} INFO sync_failed: /x/ledger.json cannot be written: No space left on device; no service is added until it can be\n"
    assert checker.read(2, full, frozenset({"full disk"})) == []
    assert list(checker.allowed.values()) == [1]
    assert checker.read(2, f"{TIME} INFO sync: 1 service added\n{TIME} WARNING state: x\n{TIME} INFO na") == []
    assert checker.read(2, "me\n") == []  # the rest of a line that was being written
    assert (checker.writes[2], checker.events["sync"], sum(checker.warnings.values())) == (1, 1, 1)


def lived(kib_per_minute: float, seconds: float = WARM_UP_SECONDS + LEAST_SECONDS, first: float = 20_000) -> Memory:
    memory = Memory()
    for at in range(0, int(seconds) + 11, 10):
        warming = 5_000 * min(1.0, at / WARM_UP_SECONDS)
        memory.add(4, 99, at, int(first + warming + kib_per_minute * at / 60), 30)
    return memory


def test_memory() -> None:
    assert lived(MOST_KIB_PER_MINUTE / 2).findings() == []
    (found,) = lived(MOST_KIB_PER_MINUTE * 1.2).findings()
    assert (found.node, "KiB a minute" in found.text) == (4, True)
    assert lived(MOST_KIB_PER_MINUTE * 1.2, WARM_UP_SECONDS).findings() == []  # too short to say
    (found,) = lived(MOST_KIB_PER_MINUTE * 20, 900).findings()  # but not for this
    assert "KiB more" in found.text
    (found,) = lived(0, first=MOST_KIB).findings()
    assert f"{MOST_KIB} are allowed" in found.text


def test_descriptors_and_the_longest_life() -> None:
    memory = lived(0)
    memory.add(4, 100, 3_019, 1, 30)
    assert [len(life.seconds) > 2 for life in memory.longest] == [True]
    memory.add(4, 99, 3_020, 20_000, 60)
    (found,) = memory.findings()
    assert found.text == "60 descriptors in the end, and at most 30 in the first half of its life"


def test_a_number_that_is_given_again_is_another_life() -> None:
    memory = lived(0)
    memory.add(4, 99, 9_000, 1, 30)
    memory.add(5, 99, 9_010, 2, 30)
    assert [(life.node, len(life.seconds) > 1) for life in memory.lives] == [(4, True), (4, False), (5, False)]


def test_rest() -> None:
    before = AtRest({VIP: FOREIGN}, 7, 123)
    assert nothing_written(1, before, AtRest({VIP: FOREIGN}, 7, 123)) == []
    assert len(nothing_written(1, before, AtRest({}, 9, 124))) == 3


def test_api() -> None:
    checker = ApiAnswers(2)
    assert checker.answered(1, "/v1/status", 1.5) == []
    assert checker.answered(1, "/v1/status", 2.5)[0].text == "/v1/status took 2.50 s; 2 are allowed"
    assert checker.answered(1, "/v1/status", 0.1, "no such file")[0].text == "/v1/status failed after 0.10 s: no such file"
    assert (checker.asked, checker.worst_seconds) == (3, 2.5)


def test_state_files() -> None:
    checker = StateFiles()
    assert checker.look(1, {"ledger.json": 900, "store.db": 40_000, "store.db-wal": 4 << 20, "members": 100}) == []
    assert [finding.text for finding in checker.look(1, {"ledger.json": 1 << 20})] == [
        "ledger.json has 1048576 bytes; 65536 are allowed"
    ]
    assert len(checker.look(1, {"members": 1 << 20})) == 1
    assert len(checker.look(1, {f"draft-{number}": 1 for number in range(MOST_FILES + 1)})) == 1
    assert checker.largest["ledger.json"] == 1 << 20


def test_leftovers() -> None:
    before = {"processes": {"1 init"}, "namespaces": set[str]()}
    assert nothing_left(before, before) == []
    assert nothing_left(before, {**before, "namespaces": {"minuteman-1"}}) == [
        Finding("leftovers", None, "namespaces: minuteman-1")
    ]
