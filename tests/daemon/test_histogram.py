from pyminuteman.daemon.histogram import Histogram


def test_a_value_is_counted_at_the_first_bound_that_it_does_not_exceed() -> None:
    times = Histogram([0.1, 1.0])
    for value in (0.05, 0.1, 0.5, 7.0):
        times.add(value)
    assert (times.bounds, times.counts, times.sum) == ((0.1, 1.0), [2, 1, 1], 7.65)
