"""The network, the clocks and the story of a simulation: faults come as often as they are asked for, and within their bounds."""

from __future__ import annotations

import io

import pytest

from pyminuteman.testing.simulation.clock import WALL_START, Clock
from pyminuteman.testing.simulation.faults import CLEAN, Faults, Network
from pyminuteman.testing.simulation.seeds import seeded
from pyminuteman.testing.simulation.story import Story

MANY = 20_000


def network(**faults: float) -> Network:
    return Network(Faults(**faults), seeded("test"))  # type: ignore[arg-type]


def test_a_clean_network_only_takes_its_time() -> None:
    clean = network()
    delays = [clean.datagram(0, 1) for _ in range(MANY)]
    assert all(len(copies) == 1 for copies in delays)
    assert all(CLEAN.delay_min_seconds <= copies[0] <= CLEAN.delay_max_seconds for copies in delays)
    mean = sum(copies[0] for copies in delays) / MANY
    assert mean == pytest.approx(CLEAN.delay_min_seconds + CLEAN.delay_mean_seconds, rel=0.05)


def test_loss_and_duplication_are_shares_of_all_datagrams() -> None:
    bad = network(loss=0.1, duplication=0.2)
    copies = [len(bad.datagram(0, 1)) for _ in range(MANY)]
    assert copies.count(0) / MANY == pytest.approx(0.1, abs=0.01)
    assert copies.count(2) / MANY == pytest.approx(0.9 * 0.2, abs=0.01)


def test_reordering_holds_some_back_and_no_longer_than_it_says() -> None:
    bad = network(reordering=0.5, reordering_seconds=1.0)
    delays = [bad.datagram(0, 1)[0] for _ in range(MANY)]
    assert 0.3 < sum(delay > CLEAN.delay_max_seconds for delay in delays) / MANY < 0.5
    assert max(delays) <= bad.faults.slowest_seconds == 1.0 + CLEAN.delay_max_seconds


def test_a_stream_is_late_where_datagrams_are_lost_and_never_loses() -> None:
    assert network().stream(0, 1) is not None
    bad = network(loss=1.0)
    delays = [bad.stream(0, 1) for _ in range(100)]
    assert all(delay is not None for delay in delays)
    assert max(delay for delay in delays if delay is not None) > 0.2


def test_a_cut_is_one_way_for_datagrams_and_ends_streams_both_ways() -> None:
    cut = network()
    cut.block((0,), (1,))
    assert cut.datagram(0, 1) == ()
    assert cut.datagram(1, 0)
    assert cut.stream(0, 1) is cut.stream(1, 0) is None
    assert not cut.connected(1, 0)
    assert cut.blocked == {(0, 1)}
    cut.heal()
    assert cut.datagram(0, 1)
    assert not cut.blocked


@pytest.mark.parametrize(
    "wrong", [{"loss": 1.5}, {"loss": -0.1}, {"delay_min_seconds": 1.0}, {"delay_mean_seconds": float("nan")}]
)
def test_faults_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"delay|loss"):
        Faults(**wrong)  # type: ignore[arg-type]


def test_clocks_differ_and_can_be_turned_back() -> None:
    faults = Faults(wall_skew_seconds=10.0, clock_drift=0.01)
    clocks = [Clock.drawn(faults, seeded("clock", number)) for number in range(50)]
    assert len({clock.offset for clock in clocks}) == 50
    for clock in clocks:
        assert clock.world(clock.local(123.0)) == pytest.approx(123.0)
        assert clock.local(10.0) - clock.local(0.0) == pytest.approx(10.0, rel=0.011)
        assert clock.local(0.0) + clock.wall_offset == pytest.approx(WALL_START, abs=10.0)


def test_a_story_keeps_its_last_lines_and_a_hash_of_all() -> None:
    file = io.StringIO()
    long, short, other = Story(file, lines=2), Story(lines=2), Story()
    for number in range(5):
        long.tell(number, "n01", f"does {number}")
        short.tell(number, "n01", f"does {number}")
        other.tell(number, "n02", f"does {number}")
    assert long.last() == ["... 3 earlier lines", "    3.0000  n01   does 3", "    4.0000  n01   does 4"]
    assert file.getvalue().count("\n") == 5
    assert long.digest == short.digest != other.digest


def test_streams_of_randomness_do_not_depend_on_each_other() -> None:
    assert seeded("a", 1).random() == seeded("a", 1).random()
    assert len({seeded("a", 1).random(), seeded("b", 1).random(), seeded("a", 2).random(), seeded("a", 1, 2).random()}) == 4
