from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from pyminuteman.testing.daemon_cluster import DaemonCluster, DaemonEndedError

pytestmark = pytest.mark.kernel(timeout=120)


def test_only_what_ends_a_daemon_makes_its_end_expected(tmp_path: Path) -> None:
    with DaemonCluster(1, tmp_path) as cluster:
        cluster.start([0])
        cluster.wait_until(lambda: cluster.socket(0).exists(), "it is there")
        cluster.signal(0, signal.SIGHUP)
        os.kill(cluster.pid(0), signal.SIGKILL)  # somebody else
        with pytest.raises(DaemonEndedError, match="n0 ended with -9"):
            cluster.wait_until(lambda: False, "its end is heard of", 30)
        cluster.start([0])
        cluster.wait_until(lambda: cluster.socket(0).exists(), "it is there again")
        cluster.signal(0, signal.SIGTERM)
        assert cluster.wait_ended(0) == 0
