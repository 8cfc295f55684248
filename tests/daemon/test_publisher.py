"""What a node says of what its sources want."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pyminuteman.daemon.publisher import claims_of
from pyminuteman.vips.claims import Claim
from pyminuteman.vips.model import VIP, Backend, BackendKey, VIPKey

WEB = VIPKey.tcp("11.0.0.1", 80)
HERE, THERE = "10.0.0.1", "10.0.0.2"


def said(vips: Iterable[VIP], **more: Any) -> list[Claim]:
    asked = {"node": "n", "own_addresses": {HERE}, "publish": "all", "vouch": False, "standing": lambda _key: ()}
    return claims_of("file", vips, **(asked | more))


def test_a_backend_at_an_address_of_ours_is_on_this_host() -> None:
    vip = VIP(WEB, (Backend(HERE, 1), Backend(THERE, 1), Backend(HERE, 2, agent=THERE)))
    (claim,) = said([vip])
    assert {backend.key.port: backend.agent for backend in claim.vip.backends if backend.address == HERE} == {1: HERE, 2: THERE}
    assert [backend.agent for backend in claim.vip.backends if backend.address == THERE] == [""]
    assert (claim.source, claim.node, claim.order, claim.vouched) == ("file", "n", 0, frozenset())


def test_a_backend_at_the_address_of_a_member_is_on_that_host() -> None:
    (claim,) = said([VIP(WEB, (Backend(THERE, 1), Backend("10.0.0.3", 1)))], hosts={THERE})
    assert [backend.agent for backend in claim.vip.backends] == [THERE, ""]


def test_own_keeps_what_is_here() -> None:
    here, there = Backend(HERE, 1), Backend(THERE, 1)
    container = Backend("172.17.0.2", 80, agent=HERE)
    vips = [VIP(WEB, (here, there, container)), VIP(VIPKey.tcp("11.0.0.2", 80), (there,))]
    (claim,) = said(vips, publish="own")
    assert [backend.key for backend in claim.vip.backends] == [here.key, container.key]
    assert len(said(vips)) == len(said(vips, publish="none")) == 2


def test_a_source_that_vouches_does_so_for_every_address_that_it_names() -> None:
    vip = VIP(WEB, (Backend("172.17.0.2", 80, agent=HERE, local=BackendKey("172.18.0.2", 80)), Backend(THERE, 1)))
    (claim,) = said([vip], vouch=True)
    assert claim.vouched == {"172.17.0.2", HERE, "172.18.0.2", THERE}


def test_who_stands_keeps_its_place_and_a_newcomer_comes_after_it() -> None:
    vip = VIP(WEB, (), principal="b")
    standing = [Claim(VIP(WEB, principal="a"), "file", "m", 3), Claim(VIP(WEB, principal="b"), "file", "m", 5)]
    assert [claim.order for claim in said([vip], standing=lambda _key: standing)] == [5]
    assert [claim.order for claim in said([vip], standing=lambda _key: standing[:1])] == [4]
