"""Which backends of this host are asked, and how."""

from __future__ import annotations

from pyminuteman.daemon.events import EventLog
from pyminuteman.daemon.feeds import Feed
from pyminuteman.daemon.sources import Sources
from pyminuteman.health.checks import TCPCheck
from pyminuteman.health.hysteresis import CheckPolicy
from pyminuteman.health.monitor import Target
from pyminuteman.ipvs import Protocol
from pyminuteman.sources.base import SourceState
from pyminuteman.sources.push import PushSource
from pyminuteman.vips.model import VIP, Backend, BackendKey, VIPKey

OWN = {"10.0.0.1"}


def feed(name: str, *vips: VIP) -> Feed:
    made = Feed(name, PushSource(), events=EventLog(), changed=lambda: None)
    made.last = SourceState.of(vips)
    return made


def ask(source: str, backend: Backend) -> Target | None:
    policies = {"often": CheckPolicy(interval_seconds=1), "seldom": CheckPolicy(interval_seconds=60)}
    return Target(TCPCheck(backend.address, backend.port), policies[source]) if source in policies else None


def test_backends_of_tcp_vips_on_this_host_are_asked() -> None:
    here, there = Backend("10.0.0.1", 1), Backend("10.0.0.2", 1)
    contained = Backend("172.16.0.9", 1, agent="10.0.0.1")
    datagrams = VIP(VIPKey(Protocol.UDP, "11.0.0.2", 53), (Backend("10.0.0.1", 53),))
    sources = Sources(feeds=[feed("often", VIP(VIPKey.tcp("11.0.0.1", 80), (here, there, contained)), datagrams)], target=ask)
    assert set(sources.targets(OWN)) == {here.key, contained.key}
    assert Sources(feeds=sources.feeds).targets(OWN) == {}
    assert Sources(feeds=[Feed("often", PushSource(), events=EventLog(), changed=lambda: None)], target=ask).targets(OWN) == {}


def test_of_several_sources_the_first_that_has_a_backend_checked_counts() -> None:
    vip = VIP(VIPKey.tcp("11.0.0.1", 80), (Backend("10.0.0.1", 1),))
    for names, seconds in ((("never", "seldom", "often"), 60), (("often", "never", "seldom"), 1)):
        sources = Sources(feeds=[feed(name, vip) for name in names], target=ask)
        (target,) = sources.targets(OWN).values()
        assert target.policy.interval_seconds == seconds
        assert set(sources.targets(OWN)) == {BackendKey("10.0.0.1", 1)}
