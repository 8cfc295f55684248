"""NetlinkBackend, as far as no kernel is needed: opening, and what is said when that fails."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pyminuteman.ipvs import IPVSUnavailableError, KernelError, NetlinkBackend, Snapshot
from pyminuteman.ipvs import netlink as module
from tests.support.puppet import PuppetKernel


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan")])
def test_a_timeout_takes_some_time(seconds: float) -> None:
    with pytest.raises(ValueError, match="is not positive"):
        NetlinkBackend(timeout_seconds=seconds)


def test_a_namespace_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(IPVSUnavailableError, match=r"network namespace .*blue: No such file"):
        NetlinkBackend(netns=tmp_path / "blue")


def test_a_missing_library_is_named_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyminuteman.ipvs._native", None)
    with pytest.raises(IPVSUnavailableError, match="install libnl-3-200 and libnl-genl-3-200"):
        NetlinkBackend()


def test_a_failure_to_open_leaves_no_descriptor(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    before = sorted(Path("/proc/self/fd").iterdir())
    for opener in (None, lambda *_: -93):
        with pytest.raises((KernelError, IPVSUnavailableError)):
            NetlinkBackend(netns=tmp_path / "plain", opener=opener)
    assert sorted(Path("/proc/self/fd").iterdir()) == before


def test_the_connections_are_read_from_their_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    puppet = PuppetKernel()
    with puppet.backend() as backend:
        monkeypatch.setattr(module, "_CONNECTIONS", str(tmp_path / "ip_vs_conn"))
        with pytest.raises(KernelError, match="No such file"):
            list(backend.connection_lines())
        (tmp_path / "ip_vs_conn").write_bytes(b"Pro FromIP\nTCP \xff\n")
        assert list(backend.connection_lines()) == ["Pro FromIP\n", "TCP \ufffd\n"]
    puppet.close()


def test_the_calls_are_counted_over_all_sockets() -> None:
    puppet = PuppetKernel()
    with puppet.backend() as backend:
        assert backend.system_calls == 0
        assert backend.read() == Snapshot()
        assert backend.system_calls == 2
    assert backend.system_calls == 2
    puppet.close()
