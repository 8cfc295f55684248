"""An etcd that is treated badly is treated so by the time the call returns."""

from __future__ import annotations

from pathlib import Path

from pyminuteman.testing.etcd_server import EtcdMember
from tests.support.etcd import needs_etcd
from tests.support.etcd import own_etcd as own_etcd  # the fixture

pytestmark = needs_etcd


def states(pid: int) -> list[str]:
    """Of its threads: the letter behind the name, which is in parentheses and may have any character (proc(5))."""
    return [(task / "stat").read_text().rpartition(")")[2].split()[0] for task in Path(f"/proc/{pid}/task").iterdir()]


def test_a_pause_returns_when_all_threads_stand_still(own_etcd: EtcdMember) -> None:
    process = own_etcd._process
    assert process is not None
    for _ in range(50):
        own_etcd.pause()
        found = states(process.pid)
        own_etcd.resume()
        assert len(found) > 1
        assert set(found) == {"T"}
    own_etcd.wait_ready()
    own_etcd.kill()
    own_etcd.pause()
