"""Claims on one VIP: joined without regard to the order in which they were heard, and ordered without a clock."""

from __future__ import annotations

from itertools import permutations

import pytest

from pyminuteman.vips.claims import Claim, join, order_of_new_claim
from pyminuteman.vips.model import VIP, Backend, VIPKey, VIPSettings

WEB = VIPKey.tcp("11.0.0.1", 80)


def claim(
    node: str, *backends: Backend, source: str = "mesos", principal: str = "marathon", scheduler: str = "wlc", order: int = 0
) -> Claim:
    return Claim(VIP(WEB, backends, VIPSettings(scheduler), principal), source, node, order)


def test_one_claim_is_the_vip_itself() -> None:
    only = claim("n1", Backend("10.0.0.1", 80))
    vip, conflicts = join([only])
    assert vip is only.vip
    assert conflicts == ()


def test_backends_of_all_nodes_are_joined() -> None:
    one, two, three = (Backend(f"10.0.0.{number}", 80, agent=f"10.0.0.{number}") for number in (1, 2, 3))
    vip, conflicts = join([claim("n2", two, three), claim("n1", one, two)])
    assert vip.backends == (one, two, three)
    assert conflicts == ()


def test_in_any_order_the_settings_of_the_lowest_principal_stand_and_the_others_are_reported() -> None:
    claims = [
        claim("n3", principal="a", scheduler="rr"),
        claim("n1", principal="b", scheduler="sh"),
        claim("n2", principal="a", source="nomad", scheduler="rr"),
    ]
    for order in permutations(claims):
        vip, (conflict,) = join(order)
        assert (vip.settings.scheduler, vip.principal) == ("rr", "a")
        assert (conflict.what, conflict.kept, conflict.passed_over) == ("settings", ("a", "mesos", "n3"), ("b", "mesos", "n1"))
        assert str(conflict) == (
            "tcp://11.0.0.1:80: settings: b (source mesos, node n1) disagrees with a (source mesos, node n3), which stands"
        )


def test_one_backend_told_in_two_ways_is_as_the_first_tells_it() -> None:
    heavy, light = Backend("10.0.0.1", 80, weight=9), Backend("10.0.0.1", 80, weight=1)
    for claims in permutations([claim("n1", heavy), claim("n2", light), claim("n3", heavy)]):
        vip, (conflict,) = join(claims)
        assert vip.backends == (heavy,)
        assert str(conflict).startswith("tcp://11.0.0.1:80: backend 10.0.0.1:80: marathon (source mesos, node n2) disagrees")


def test_who_is_nobody_is_said_so() -> None:
    claims = [Claim(VIP(WEB)), Claim(VIP(WEB, settings=VIPSettings("rr")), "file")]
    _, (conflict,) = join(claims)
    assert "nobody in particular (source file, node ?) disagrees with nobody in particular (source ?, node ?)" in str(conflict)


@pytest.mark.parametrize("claims", [[], [claim("n1"), Claim(VIP(VIPKey.tcp("11.0.0.1", 81)))]])
def test_only_claims_on_one_vip_are_joined(claims: list[Claim]) -> None:
    with pytest.raises(ValueError, match="claims of one VIP"):
        join(claims)


def test_whoever_has_heard_of_a_claim_comes_after_it() -> None:
    first = claim("n1", principal="a", order=order_of_new_claim([], ("mesos", "a")))
    second = claim("n2", principal="b", order=order_of_new_claim([first], ("mesos", "b")))
    third = claim("n3", principal="c", order=order_of_new_claim([second, first], ("mesos", "c")))
    assert [first.order, second.order, third.order] == [0, 1, 2]


def test_a_claimant_that_is_there_keeps_its_place_on_every_node() -> None:
    standing = [claim("n1", principal="a", order=3), claim("n2", principal="a", order=5), claim("n3", principal="b", order=4)]
    assert order_of_new_claim(standing, ("mesos", "a")) == 3
    assert order_of_new_claim(standing, ("nomad", "a")) == 6
