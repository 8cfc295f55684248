"""The failure detector: only silence on all paths is a failure, and our own trouble is nobody else's fault."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyminuteman.membership.config import MembershipConfig
from pyminuteman.membership.failure_detector import FailureDetector, LocalHealth, RoundTripEstimator, Watch, answer_timeout
from pyminuteman.membership.messages import DisconnectReason, Heartbeat, IndirectProbe, Peer, Probe
from pyminuteman.membership.steps import DeadlineDue, HeartbeatDue, LinkSilent, Step
from tests.membership.support import CONFIG, START, make_endpoint, make_peer, of_type, reached, said, seeded, sends, timers
from tests.support.messages import node_id

LEAST, MOST = CONFIG.timeout_min_seconds, CONFIG.timeout_max_seconds
INTERVAL = CONFIG.heartbeat_interval_seconds
UNMEASURED = sqrt(LEAST * MOST)
"""What an answer may take where no round trip was seen."""
OVERDUE = INTERVAL * (1 + CONFIG.heartbeat_jitter) + UNMEASURED + 1e-6
"""So long after the last word a neighbour is overdue, and a moment more for rounding."""
FAILED = [LinkSilent(node_id(1), DisconnectReason.FAILED)]


class Setting:
    """A detector that watches neighbours 1, 2, ... since START; more helpers than are needed are there to be asked."""

    def __init__(self, neighbours: int = 1, config: MembershipConfig = CONFIG) -> None:
        self.helpers: list[Peer] = [make_peer(number) for number in range(10, 20)]
        self.detector = FailureDetector(config, seeded(), lambda _: self.helpers)
        self.began = [self.detector.watch(make_peer(number), INTERVAL, START) for number in range(1, neighbours + 1)]

    def watch(self, number: int = 1) -> Watch:
        return self.detector.watches[node_id(number)]

    def deadline(self, number: int = 1) -> DeadlineDue:
        return DeadlineDue(node_id(number), self.watch(number).serial)

    def judge(self, now: float, number: int = 1) -> list[Step]:
        return self.detector.deadline_due(self.deadline(number), now)

    def judge_until_done(self, now: float, number: int = 1) -> tuple[list[Step], float]:
        """Let the deadline fire whenever it wants to, from ``now`` on, until it is not set again."""
        for _ in range(10):
            steps = self.judge(now, number)
            again = timers(steps).get(self.deadline(number))
            if again is None:
                return steps, now
            now = again
        raise AssertionError("no verdict")

    def begin(self, number: int = 1) -> tuple[list[Step], float]:
        """Let the neighbour be overdue."""
        now = START + OVERDUE
        return self.judge(now, number), now


# -- the timeout -------------------------------------------------------------------------------------------------------

_round_trips = st.lists(st.floats(0, 10), min_size=1, max_size=12)


@given(_round_trips, st.floats(0.005, 1), st.floats(1, 60))
def test_a_timeout_stays_within_its_bounds_and_between_them_is_above_the_mean(
    samples: Sequence[float], least: float, most: float
) -> None:
    timeout = answer_timeout(samples, least, most)
    assert least <= timeout <= most
    assert timeout >= min(most, sum(samples) / len(samples))


@given(st.floats(0.01, 1), st.integers(1, 50))
def test_of_round_trips_all_alike_the_timeout_is_the_round_trip(sample: float, count: int) -> None:
    assert answer_timeout([sample] * count, 0.005, 60) == pytest.approx(sample)


def test_a_timeout_is_mean_and_four_deviations() -> None:
    assert answer_timeout([0.1, 0.3], 0.05, 10) == pytest.approx(0.2 + 4 * 0.1)


def test_without_round_trips_the_timeout_is_between_hasty_and_blind() -> None:
    assert answer_timeout([], 0.05, 0.5) == pytest.approx(sqrt(0.05 * 0.5))


@given(st.lists(st.sampled_from([0.0, 0.001, 0.06, 0.07, 0.2, 3.0]), max_size=12), st.integers(2, 8))
def test_the_estimator_knows_the_window_and_nothing_else(samples: Sequence[float], window: int) -> None:
    estimator = RoundTripEstimator(window, LEAST, MOST)
    assert estimator.last is None
    for sample in samples:
        estimator.add(sample)
        assert estimator.last == sample
    assert estimator.timeout == estimator.timeout == answer_timeout(samples[-window:], LEAST, MOST)


def test_one_fast_answer_does_not_make_the_next_slow_one_a_failure() -> None:
    estimator = RoundTripEstimator(32, 0.005, 60)
    for sample in (0.1, 0.12, 0.09, 0.11):
        estimator.add(sample)
    estimator.add(0.001)
    assert estimator.timeout > 0.12


# -- local health ------------------------------------------------------------------------------------------------------


def test_each_trouble_adds_one_and_each_quiet_second_takes_one_away() -> None:
    health = LocalHealth(8)
    assert health.score(START) == 0
    health.trouble(START)
    health.trouble(START)
    assert health.score(START) == health.score(START + 0.99) == 2
    assert health.score(START + 1) == 1
    assert health.score(START + 2) == health.score(START + 100) == 0


@given(st.integers(0, 5), st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.5]), max_size=10))
def test_health_never_leaves_its_bounds(most: int, pauses: Sequence[float]) -> None:
    health, now = LocalHealth(most), START
    for pause in pauses:
        now += pause
        before = health.score(now)
        health.trouble(now)
        assert health.score(now) == min(most, before + 1)


# -- heartbeats --------------------------------------------------------------------------------------------------------


def test_a_new_neighbour_gets_a_heartbeat_at_once_and_has_until_it_is_overdue() -> None:
    setting = Setting()
    due = timers(setting.began[0])
    assert due == {
        HeartbeatDue(node_id(1), 1): START,
        DeadlineDue(node_id(1), 1): pytest.approx(START + OVERDUE),
    }


def test_heartbeats_are_planned_from_when_they_were_due_so_the_period_does_not_drift() -> None:
    setting, due = Setting(), START
    gaps = []
    for _ in range(50):
        steps = setting.detector.heartbeat_due(HeartbeatDue(node_id(1), 1), due, due + 0.03, 0)
        (after,) = timers(steps).values()
        gaps.append(after - due)
        due = after
    assert all(0.9 * INTERVAL <= gap <= 1.1 * INTERVAL for gap in gaps)
    assert len(set(gaps)) == len(gaps), "jitter is continuous"
    assert sum(gaps) / len(gaps) == pytest.approx(INTERVAL, rel=0.03)


def test_heartbeats_that_fell_behind_are_not_made_up_for() -> None:
    setting = Setting()
    steps = setting.detector.heartbeat_due(HeartbeatDue(node_id(1), 1), START, START + 60, 0)
    (after,) = timers(steps).values()
    assert after >= START + 60 - 0.1 * INTERVAL
    assert len(sends(steps)) == 1


def test_heartbeats_say_who_we_are_until_one_of_the_neighbour_comes_and_again_after_a_doubt() -> None:
    setting = Setting()
    beat = HeartbeatDue(node_id(1), 1)

    def identified(now: float) -> bool:
        (send,) = sends(setting.detector.heartbeat_due(beat, now, now, 0))
        assert send.to == make_endpoint(1)
        return send.identify

    assert setting.detector.is_unsure(node_id(1))
    assert identified(START)
    setting.detector.heard(setting.watch(), START)
    assert identified(START), "it lives, but may not hold us for a neighbour"
    setting.detector.heartbeat(setting.watch(), Heartbeat(1, 0, 0, 0), START)
    assert not setting.detector.is_unsure(node_id(1))
    assert not identified(START)
    _, now = setting.begin()
    assert identified(now)
    setting.detector.heard(setting.watch(), now)
    assert identified(now), "it may have answered a probe, and have ended the link"


def test_a_stranger_may_not_know_us() -> None:
    assert Setting().detector.is_unsure(node_id(5))


def test_a_heartbeat_echoes_the_last_one_heard_and_how_long_it_was_held() -> None:
    watch = Setting().watch()
    assert watch.next_heartbeat(START, 7) == Heartbeat(1, 0, 0, 7)
    watch.their_number, watch.their_number_at = 41, START
    assert watch.next_heartbeat(START + 0.01235, 9) == Heartbeat(2, 41, 123, 9)
    assert watch.next_heartbeat(START - 1, 9).held_100us == 0
    assert watch.next_heartbeat(START + 60, 9).held_100us == 65535


def test_numbers_of_heartbeats_start_again_from_one_when_they_are_used_up() -> None:
    watch = Setting().watch()
    watch.number = 65_534
    assert [watch.next_heartbeat(START, 0).number for _ in range(3)] == [65_535, 1, 2]


def test_an_echo_measures_the_round_trip_without_the_time_it_was_held() -> None:
    setting = Setting()
    sent = setting.watch().next_heartbeat(START, 0)
    setting.detector.heartbeat(setting.watch(), Heartbeat(8, sent.number, 1000, 0), START + 0.107)
    assert setting.watch().round_trips.last == pytest.approx(0.007)
    assert setting.watch().next_heartbeat(START + 0.107, 0).echo == 8


@pytest.mark.parametrize(
    ("echo", "held", "seen"),
    [(1, 65_535, False), (2, 0, False), (0, 0, False), (1, 0, True), (1, 60_000, True)],
    ids=["held too long to say", "never sent", "nothing heard", "sent", "held longer than it took"],
)
def test_nothing_a_peer_invents_becomes_a_round_trip(echo: int, held: int, seen: bool) -> None:
    setting = Setting()
    assert setting.watch().next_heartbeat(START, 0).number == 1
    setting.detector.heartbeat(setting.watch(), Heartbeat(1, echo, held, 0), START + 0.01)
    assert (setting.watch().round_trips.last is not None) == seen
    if seen:
        assert setting.watch().round_trips.last >= 0


def test_an_echo_counts_once_and_only_of_a_heartbeat_that_is_remembered() -> None:
    setting = Setting()
    watch = setting.watch()
    for _ in range(9):
        watch.next_heartbeat(START, 0)
    watch.echo(1, 0, START + 0.3)
    assert watch.round_trips.last is None, "nine heartbeats ago"
    watch.echo(9, 0, START + 0.1)
    watch.echo(9, 0, START + 0.2)
    assert watch.round_trips.last == pytest.approx(0.1)


# -- overdue, confirmed, failed ----------------------------------------------------------------------------------------


def test_a_neighbour_that_is_heard_is_never_overdue() -> None:
    setting = Setting()
    for step in range(1, 20):
        setting.detector.heard(setting.watch(), START + step * INTERVAL)
        steps = setting.judge(START + step * INTERVAL)
        assert list(timers(steps).values()) == [pytest.approx(START + step * INTERVAL + OVERDUE)]
        assert sends(steps) == []
    assert setting.detector.confirmations == 0


def test_an_overdue_neighbour_is_probed_directly_twice_and_by_others_before_it_is_failed() -> None:
    setting = Setting()
    first, now = setting.begin()
    assert reached(first, Probe) == {make_endpoint(1)}
    assert reached(first, IndirectProbe) == {make_endpoint(number) for number in range(10, 10 + CONFIG.indirect_probes)}
    assert {probe.target for probe in said(first, IndirectProbe)} == {node_id(1)}
    assert not setting.detector.is_doubtful(node_id(1)), "not for as long as the first answer may take"
    (at,) = timers(first).values()
    assert at == pytest.approx(now + UNMEASURED / 2)

    second = setting.judge(at)
    assert setting.detector.is_doubtful(node_id(1))
    assert reached(second, Probe) == {make_endpoint(1)}
    assert said(second, IndirectProbe) == []
    (end,) = timers(second).values()
    assert end == pytest.approx(now + UNMEASURED)

    early = setting.judge(end - 0.001)
    assert list(timers(early).values()) == [end]
    assert sends(early) == []
    assert setting.judge(end) == FAILED


def test_silence_on_all_paths_is_a_failure_one_timeout_after_it_was_noticed() -> None:
    setting = Setting()
    steps, when = setting.judge_until_done(START)
    assert steps == FAILED
    assert when == pytest.approx(START + OVERDUE + UNMEASURED)


def test_without_helpers_the_neighbour_is_still_probed() -> None:
    setting = Setting()
    setting.helpers = []
    steps, _ = setting.begin()
    assert reached(steps, Probe) == {make_endpoint(1)}
    assert setting.judge_until_done(START + OVERDUE)[0] == FAILED


def test_what_is_heard_of_it_clears_it_and_the_false_alarm_is_counted() -> None:
    setting = Setting()
    _, now = setting.begin()
    setting.detector.heard(setting.watch(), now + 0.01)
    assert not setting.detector.is_doubtful(node_id(1))
    assert (setting.detector.confirmations, setting.detector.false_alarms, setting.watch().cleared) == (1, 1, 1)
    assert timers(setting.judge(now + 0.02)) == {setting.deadline(): pytest.approx(now + 0.01 + OVERDUE)}


def test_a_helper_that_heard_it_clears_it_too() -> None:
    setting = Setting()
    steps, now = setting.begin()
    (number,) = {probe.number for probe in said(steps, IndirectProbe)}
    setting.detector.heard_indirectly(node_id(1), number, now + 0.02)
    assert not setting.detector.is_doubtful(node_id(1))
    assert timers(setting.judge(now + 0.03)) == {setting.deadline(): pytest.approx(now + 0.02 + OVERDUE)}


def test_an_answer_to_another_probe_clears_nobody() -> None:
    setting = Setting()
    steps, now = setting.begin()
    (number,) = {probe.number for probe in said(steps, IndirectProbe)}
    setting.detector.heard_indirectly(node_id(1), number + 1, now)
    setting.detector.heard_indirectly(node_id(5), number, now)
    assert setting.watch().confirming_until > 0
    setting.detector.heard_indirectly(node_id(1), number, now)
    setting.detector.heard_indirectly(node_id(1), number, now + 1)
    assert setting.detector.false_alarms == 1, "a second answer is no second alarm"
    assert setting.watch().heard_at == now


def test_a_neighbour_that_only_others_hear_is_dropped_for_its_path_and_not_failed() -> None:
    setting = Setting()
    now, verdict = START, []
    while not verdict:
        steps = setting.judge(now)
        verdict = of_type(steps, LinkSilent)
        asked = said(steps, IndirectProbe)
        if asked:
            setting.detector.heard_indirectly(node_id(1), asked[0].number, now)
        now = timers(steps).get(setting.deadline(), now) + 1e-9
    assert verdict == [LinkSilent(node_id(1), DisconnectReason.PATH)]
    assert CONFIG.direct_failure_seconds < now - START < CONFIG.direct_failure_seconds + 2 * OVERDUE


# -- the cascade -------------------------------------------------------------------------------------------------------


def test_a_neighbour_that_others_doubt_is_confirmed_at_once_and_by_us_alone() -> None:
    setting = Setting()
    steps = setting.detector.suspect(node_id(1), START + 0.1)
    assert reached(steps, Probe) == {make_endpoint(1)}
    assert said(steps, IndirectProbe) == []
    verdict, when = setting.judge_until_done(timers(steps)[setting.deadline()])
    assert verdict == FAILED
    assert when == pytest.approx(START + 0.1 + UNMEASURED)


def test_a_neighbour_heard_a_moment_ago_is_not_doubted() -> None:
    setting = Setting()
    setting.detector.heard(setting.watch(), START + 1)
    assert setting.detector.suspect(node_id(1), START + 1 + 0.99 * LEAST) == []
    assert setting.detector.suspect(node_id(1), START + 1 + 1.01 * LEAST) != []


def test_a_stranger_and_one_already_under_confirmation_are_not_doubted_anew() -> None:
    setting = Setting()
    setting.begin()
    assert setting.detector.suspect(node_id(1), START + OVERDUE) == []
    assert setting.detector.suspect(node_id(5), START + OVERDUE) == []
    assert setting.detector.confirmations == 1


# -- our own trouble ---------------------------------------------------------------------------------------------------


def test_health_stretches_timeouts_and_has_a_bound() -> None:
    setting = Setting(config=MembershipConfig(timeout_stretched_max_seconds=0.5))
    assert setting.detector.timeout(setting.watch(), START) == pytest.approx(UNMEASURED)
    setting.detector.health.trouble(START)
    assert setting.detector.timeout(setting.watch(), START) == pytest.approx(2 * UNMEASURED)
    for _ in range(8):
        setting.detector.health.trouble(START)
    assert setting.detector.timeout(setting.watch(), START) == 0.5


def test_most_neighbours_silent_at_once_get_one_more_patient_round() -> None:
    setting = Setting(neighbours=4)
    for number in (1, 2, 3):
        setting.begin(number)
    assert setting.detector.doubts_itself
    verdict, when = setting.judge_until_done(START + OVERDUE)
    assert verdict == FAILED
    assert when > START + OVERDUE + 4 * UNMEASURED
    # The one that has had it gets no third; the others have theirs.
    assert setting.judge(when) == FAILED


def test_an_answer_in_the_patient_round_clears_everything() -> None:
    setting = Setting(neighbours=3)
    for number in (1, 2, 3):
        setting.begin(number)
    now = START + OVERDUE + UNMEASURED
    setting.judge(now)
    steps = setting.judge(now)
    assert setting.detector.health.score(now) == 1
    setting.judge(timers(steps)[setting.deadline()])
    for number in (1, 2, 3):
        setting.detector.heard(setting.watch(number), now + 0.1)
    assert setting.detector.false_alarms == 3
    assert not setting.detector.doubts_itself


@pytest.mark.parametrize(
    ("neighbours", "overdue", "doubts"), [(2, 2, False), (3, 3, True), (6, 3, False), (5, 3, True), (7, 3, False)]
)
def test_we_doubt_ourselves_when_most_neighbours_and_three_at_least_are_overdue(
    neighbours: int, overdue: int, doubts: bool
) -> None:
    setting = Setting(neighbours)
    for number in range(1, overdue + 1):
        setting.begin(number)
    assert setting.detector.doubts_itself == doubts


def test_time_that_we_did_not_run_is_given_back_to_everybody() -> None:
    setting = Setting(neighbours=2)
    steps, now = setting.begin(2)
    end = timers(steps)[setting.deadline(2)]
    setting.detector.forgive(10.0, START + 10.0)
    assert setting.watch(1).heard_at == setting.watch(1).heard_directly_at == START + 10
    assert setting.detector.health.score(START + 10) == 1
    assert setting.watch(2).confirming_until == pytest.approx(now + UNMEASURED + 10)
    assert setting.detector.fresh_deadline(setting.deadline(2), end) > end + 9


def test_forgiveness_makes_nobody_heard_in_the_future() -> None:
    setting = Setting()
    setting.detector.forgive(10.0, START + 1.0)
    assert setting.watch().heard_at == START + 1


def test_after_a_long_stall_neighbours_may_not_know_us_any_more() -> None:
    setting = Setting()
    setting.detector.heartbeat(setting.watch(), Heartbeat(1, 0, 0, 0), START)
    setting.detector.forgive(INTERVAL / 2, START)
    assert not setting.watch().unsure
    setting.detector.forgive(INTERVAL * 2, START)
    assert setting.watch().unsure


# -- what is stale -----------------------------------------------------------------------------------------------------


def test_timers_of_a_former_link_do_nothing() -> None:
    setting = Setting()
    beat, deadline = HeartbeatDue(node_id(1), 1), setting.deadline()
    setting.detector.watch(make_peer(1), INTERVAL, START + 1)
    assert setting.detector.heartbeat_due(beat, START, START + 2, 0) == []
    assert setting.detector.deadline_due(deadline, START + 60) == []
    assert setting.detector.fresh_deadline(deadline, START + 60) is None
    setting.detector.unwatch(node_id(1))
    setting.detector.unwatch(node_id(1))
    assert setting.detector.heartbeat_due(beat, START, START + 2, 0) == []
    assert setting.detector.deadline_due(deadline, START + 60) == []
    assert setting.detector.fresh_deadline(deadline, START + 60) is None
    assert not setting.detector.is_doubtful(node_id(1))


def test_nobody_wakes_up_to_find_that_a_heartbeat_came() -> None:
    setting = Setting()
    setting.detector.heard(setting.watch(), START + 1)
    assert setting.detector.fresh_deadline(setting.deadline(), START + OVERDUE) == pytest.approx(START + 1 + OVERDUE)


def test_a_confirmation_wakes_us_for_its_second_probe_and_for_its_end() -> None:
    setting = Setting()
    _, now = setting.begin()
    assert setting.detector.fresh_deadline(setting.deadline(), now) == pytest.approx(now + UNMEASURED / 2)
    setting.judge(now + UNMEASURED / 2)
    assert setting.detector.fresh_deadline(setting.deadline(), now) == pytest.approx(now + UNMEASURED)
