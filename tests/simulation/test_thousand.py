"""A cluster of 1,000: connected, in agreement, cheap at rest; a death, a newcomer and a packet known to all within the bounds."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from pyminuteman.membership.config import MembershipConfig
from pyminuteman.testing.simulation.bounds import Bounds
from pyminuteman.testing.simulation.faults import CLEAN
from pyminuteman.testing.simulation.large import measure_large

NODES = 1000


def test_a_thousand_nodes_are_one_cluster() -> None:
    # In a process of its own: its memory goes with it, and no tracer of a coverage run slows it down.
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        figures = pool.submit(measure_large, NODES, deaths=3, shared_tables=True).result()
    config = MembershipConfig.lan()
    bounds = Bounds(config, CLEAN, NODES)
    assert figures.findings == ()
    assert figures.suspected.last <= bounds.suspected(dead=3)
    assert figures.down.last <= bounds.down(dead=3)
    assert figures.multicast.last <= bounds.news
    assert figures.joined.last <= bounds.joined
    # At rest each node sends a heartbeat a link and interval, and hardly anything else, whatever the size of the cluster.
    heartbeats = config.active_view_size / config.heartbeat_interval_seconds
    assert heartbeats * 0.98 <= figures.datagrams_a_second <= heartbeats * 1.05
    assert figures.bytes_a_second < 110 * heartbeats


def test_small_clusters_are_measured_alike_from_a_cold_start_and_without_the_codec() -> None:
    warm, cold, objects = measure_large(12), measure_large(12, cold=True), measure_large(12, through_codec=False)
    assert warm.findings == cold.findings == objects.findings == ()
    assert cold.cold_seconds is not None
    assert cold.cold_bytes is not None
    assert objects.cold_seconds is warm.cold_seconds is None
    assert abs(warm.bytes_a_second / objects.bytes_a_second - 1) < 0.05
