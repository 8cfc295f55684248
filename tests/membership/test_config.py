"""Constants of the protocol: the profiles are sound, and what is not is refused by name."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from pyminuteman.errors import ConfigurationError
from pyminuteman.membership.config import MembershipConfig


@pytest.mark.parametrize("name", ["lan", "wan", "local"])
def test_a_profile_can_be_had_by_name_or_by_method(name: str) -> None:
    assert MembershipConfig.profile(name) == getattr(MembershipConfig, name)()


def test_the_defaults_are_those_of_one_site() -> None:
    assert MembershipConfig() == MembershipConfig.lan()


def test_far_sites_are_given_more_time_than_near_ones() -> None:
    for near in (MembershipConfig.local(), MembershipConfig.lan()):
        for field in ("heartbeat_interval_seconds", "timeout_min_seconds", "timeout_max_seconds", "down_after_seconds"):
            assert getattr(near, field) < getattr(MembershipConfig.wan(), field), field


def test_a_profile_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="'moon'"):
        MembershipConfig.profile("moon")


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"active_view_size": 0}, "active_view_size"),
        ({"active_view_size": 33}, "active_view_size"),
        ({"heartbeat_jitter": 0.51}, "heartbeat_jitter"),
        ({"heartbeat_interval_seconds": float("nan")}, "heartbeat_interval_seconds"),
        ({"datagram_max_bytes": 575}, "datagram_max_bytes"),
        ({"datagram_max_bytes": 9001}, "datagram_max_bytes"),
        ({"down_after_seconds": -0.1}, "down_after_seconds"),
        ({"down_after_seconds": float("inf")}, "down_after_seconds"),
        ({"down_after_seconds": float("nan")}, "down_after_seconds"),
        ({"passive_view_size": 6}, "active_view_size"),
        ({"timeout_min_seconds": 0.6}, "timeout_min_seconds"),
        ({"gossip_urgent_seconds": 0.03}, "gossip_urgent_seconds"),
    ],
)
def test_a_constant_out_of_its_range_is_refused_by_name(changes: dict[str, float], key: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        replace(MembershipConfig(), **changes)  # type: ignore[arg-type]
    assert caught.value.key == key


def test_the_text_says_what_is_accepted() -> None:
    with pytest.raises(ConfigurationError, match=r"heartbeat_jitter: 0\.6 is not from 0 to 0\.5"):
        MembershipConfig(heartbeat_jitter=0.6)


def test_every_field_that_is_no_time_has_a_range() -> None:
    from pyminuteman.membership.config import RANGES  # noqa: PLC0415 - of no use to the other tests

    ranged = {name for name, _, _ in RANGES}
    assert {field.name for field in fields(MembershipConfig) if not field.name.endswith("_seconds")} <= ranged
