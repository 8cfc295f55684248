"""Who may claim what: networks, ports, backends, and who was first."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyminuteman.vips.claims import Claim, order_of_new_claim
from pyminuteman.vips.model import VIP, Backend, BackendKey, VIPKey, VIPName
from pyminuteman.vips.policy import InvalidPolicyError, Networks, Policy, RefusalReason, Rule, place_of

HOSTS = {"10.0.0.1", "10.0.0.2", "2001:db8::1"}
FOO = VIPName("/foo", "marathon")
ANYWHERE = Networks("0.0.0.0/0", "::/0")
OPEN = Policy((Rule(vip_networks=ANYWHERE, backend_networks=ANYWHERE),))
"""Allows whatever is not denied to all."""


def claim(
    host: str | VIPName = "11.0.0.1",
    *backends: Backend,
    port: int = 80,
    source: str = "mesos",
    principal: str = "marathon",
    node: str = "n1",
    order: int = 0,
    vouched: tuple[str, ...] = (),
) -> Claim:
    return Claim(VIP(VIPKey.tcp(host, port), backends, principal=principal), source, node, order, frozenset(vouched))


def refused(policy: Policy, *claims: Claim) -> list[tuple[RefusalReason, str]]:
    return [(refusal.reason, refusal.detail) for refusal in policy.judge(claims, HOSTS).refusals]


# -- rules -------------------------------------------------------------------------------------------------------------


def test_by_default_anybody_claims_names_and_nobody_addresses() -> None:
    judgement = Policy().judge([claim(FOO), claim("11.0.0.1"), claim("10.0.0.77")], HOSTS)
    assert judgement.accepted == (claim(FOO),)
    assert [refusal.reason for refusal in judgement.refusals] == [RefusalReason.ADDRESS, RefusalReason.ADDRESS]
    assert str(judgement.refusals[1]) == (
        "tcp://11.0.0.1:80, claimed by marathon (source mesos, node n1): the claimant may not claim this address (allowed: none)"
    )


def test_the_first_rule_that_fits_the_claimant_counts() -> None:
    policy = Policy(
        (
            Rule("mesos", "marathon", vip_networks=Networks("11.0.0.0/24")),
            Rule("mesos", vip_networks=Networks("11.0.1.0/24")),
            Rule("file", "", vip_networks=Networks("11.0.2.0/24")),
        )
    )
    ok = [
        claim("11.0.0.1"),
        claim("11.0.1.1", principal="chronos"),
        claim("11.0.2.1", source="file", principal=""),
    ]
    assert policy.judge(ok).accepted == tuple(ok)
    assert refused(policy, claim("11.0.1.1")) == [(RefusalReason.ADDRESS, "allowed: 11.0.0.0/24")]
    assert refused(policy, claim("11.0.2.1", source="file")) == [(RefusalReason.NO_RULE, "")]


def test_names_may_be_had_or_not() -> None:
    policy = Policy((Rule(principal="chronos", names=False), Rule()))
    assert refused(policy, claim(FOO, principal="chronos")) == [(RefusalReason.NAME, "")]
    assert refused(policy, claim(FOO)) == []


def test_a_name_that_makes_no_dns_name_is_refused() -> None:
    ((reason, detail),) = refused(Policy(), claim(VIPName("$", "marathon")))
    assert reason is RefusalReason.NO_NAME
    assert "needs a letter or a digit" in detail


@pytest.mark.parametrize(("port", "allowed"), [(79, False), (80, True), (81, False), (8000, True), (8999, True), (9000, False)])
def test_ports_are_ranges_with_both_their_ends(port: int, allowed: bool) -> None:
    policy = Policy((Rule(ports=((80, 80), (8000, 8999))),))
    expected = [] if allowed else [(RefusalReason.PORT, "allowed: 80-80 8000-8999")]
    assert refused(policy, claim(FOO, port=port)) == expected


def test_a_rule_may_allow_no_port_at_all() -> None:
    assert refused(Policy((Rule(ports=()),)), claim(FOO)) == [(RefusalReason.PORT, "allowed: none")]


@pytest.mark.parametrize("ports", [(0, 80), (81, 80), (1, 65536)])
def test_a_range_of_ports_is_one(ports: tuple[int, int]) -> None:
    with pytest.raises(InvalidPolicyError, match=r"is no range of ports \(1 to 65535, the lower one first\)"):
        Rule(ports=(ports,))


@pytest.mark.parametrize("text", ["11.0.0.1/8", "web", "11.0.0.0/33", "fd00::/129"])
def test_a_network_is_one(text: str) -> None:
    with pytest.raises(InvalidPolicyError):
        Networks("10.0.0.0/8", text)


def test_networks_hold_addresses_of_their_family() -> None:
    networks = Networks("11.0.0.0/8", "fd00::/8", "192.0.2.7")
    assert all(address in networks for address in ("11.0.0.0", "11.255.255.255", "fd00::1", "192.0.2.7"))
    assert not any(address in networks for address in ("12.0.0.0", "fc00::1", "192.0.2.8", "::b00:1"))
    assert networks == Networks(*networks.texts)
    assert hash(networks) == hash(Networks(*networks.texts))
    assert networks != Networks("11.0.0.0/8")
    assert networks != "11.0.0.0/8"
    assert repr(networks) == "Networks('11.0.0.0/8', 'fd00::/8', '192.0.2.7')"
    assert "11.0.0.1" not in Networks()


# -- what nobody may ---------------------------------------------------------------------------------------------------

DENIED = [
    ("127.0.0.1", "loopback"),
    ("127.255.0.1", "loopback"),
    ("::1", "loopback"),
    ("169.254.1.1", "link-local"),
    ("fe80::1", "link-local"),
    ("224.0.0.1", "multicast"),
    ("ff02::1", "multicast"),
    ("0.0.0.0", "unspecified"),  # noqa: S104
    ("0.1.2.3", "unspecified"),
    ("::", "unspecified"),
    ("255.255.255.255", "broadcast"),
    ("169.254.169.254", "the address of a cloud's metadata"),
    ("fd00:ec2::254", "the address of a cloud's metadata"),
    ("::ffff:127.0.0.1", "an IPv4 address written as an IPv6 one"),
]


@pytest.mark.parametrize(("address", "kind"), DENIED)
def test_some_addresses_are_denied_to_all_whatever_the_rules_say(address: str, kind: str) -> None:
    assert refused(OPEN, claim(address)) == [(RefusalReason.DENIED_ADDRESS, kind)]
    backend = Backend(address, 8080)
    judgement = OPEN.judge([claim(FOO, backend, vouched=(address,))])
    assert judgement.accepted[0].vip.backends == ()
    assert [(one.reason, one.detail, one.backend) for one in judgement.refusals] == [
        (RefusalReason.DENIED_BACKEND, kind, backend.key)
    ]


@pytest.mark.parametrize("address", sorted(HOSTS))
def test_no_vip_is_at_the_address_of_a_host(address: str) -> None:
    assert refused(OPEN, claim(address)) == [(RefusalReason.DENIED_ADDRESS, "the address of a host")]


def test_an_operator_may_deny_more() -> None:
    policy = Policy(OPEN.rules, denied=Networks("11.9.0.0/16"))
    assert refused(policy, claim("11.9.0.1")) == [(RefusalReason.DENIED_ADDRESS, "denied by the policy")]
    assert refused(policy, claim("11.8.0.1", Backend("11.9.0.1", 80))) == [
        (RefusalReason.DENIED_BACKEND, "denied by the policy")
    ]


@pytest.mark.parametrize("port", [22, 61420])
def test_no_vip_leads_to_ssh_or_gossip_of_a_host(port: int) -> None:
    known = Backend("10.0.0.1", port)
    agent = Backend("10.0.7.7", port, agent="10.0.7.7")
    mapped = Backend("172.17.0.2", 80, agent="10.0.0.1", local=BackendKey("10.0.0.1", port))
    assert refused(OPEN, claim(FOO, known, agent, mapped)) == [
        (RefusalReason.GUARDED_PORT, f"port {port} of 10.0.0.1"),
        (RefusalReason.GUARDED_PORT, f"port {port} of 10.0.7.7"),
        (RefusalReason.GUARDED_PORT, f"port {port} of 10.0.0.1"),
    ]
    assert refused(OPEN, claim(FOO, Backend("172.17.0.2", port, agent="10.0.0.1"))) == []
    assert refused(Policy(OPEN.rules, guarded_ports=frozenset()), claim(FOO, known)) == []


# -- backends ----------------------------------------------------------------------------------------------------------


def test_a_backend_is_where_the_policy_allows_one_or_where_the_source_vouches_for_it() -> None:
    policy = Policy((Rule(backend_networks=Networks("10.1.0.0/16")),))
    allowed, vouched, neither = Backend("10.1.0.1", 80), Backend("10.2.0.1", 80), Backend("10.3.0.1", 80)
    judgement = policy.judge([claim(FOO, allowed, vouched, neither, vouched=("10.2.0.1",))])
    assert judgement.accepted[0].vip.backends == (allowed, vouched)
    (refusal,) = judgement.refusals
    assert str(refusal) == (
        "tcp:///foo@marathon:80: backend 10.3.0.1:80, claimed by marathon (source mesos, node n1): neither does the policy allow a "
        "backend at this address, nor does the source vouch for it (10.3.0.1)"
    )


def test_the_place_behind_the_port_mapping_is_judged_like_the_backend() -> None:
    sly = Backend("10.1.0.1", 80, agent="10.1.0.1", local=BackendKey("169.254.169.254", 80))
    assert refused(OPEN, claim(FOO, sly)) == [(RefusalReason.DENIED_BACKEND, "the address of a cloud's metadata")]
    other = Backend("10.1.0.1", 80, agent="10.1.0.1", local=BackendKey("10.3.0.1", 80))
    assert refused(Policy(), claim(FOO, other, vouched=("10.1.0.1",))) == [(RefusalReason.BACKEND, "10.3.0.1")]


def test_a_claim_whose_backends_all_count_is_accepted_as_it_is() -> None:
    one = claim(FOO, Backend("10.1.0.1", 80), vouched=("10.1.0.1",))
    assert Policy().judge([one]).accepted[0] is one


# -- who was first -----------------------------------------------------------------------------------------------------


def test_a_second_claimant_waits_until_the_first_is_gone() -> None:
    first = claim(order=0, principal="marathon")
    second = claim(order=order_of_new_claim([first], ("mesos", "evil")), principal="evil", node="n9")
    for claims in permutations([first, second]):
        judgement = OPEN.judge(claims)
        assert judgement.accepted == (first,)
        assert str(judgement.refusals[0]) == (
            "tcp://11.0.0.1:80, claimed by evil (source mesos, node n9): the place belongs to another claimant "
            "(tcp://11.0.0.1:80 is marathon's (source mesos))"
        )
    assert OPEN.judge([second]).accepted == (second,)


def test_a_claim_without_backends_keeps_its_place() -> None:
    """So whoever waits does not have the VIP for as long as a task takes to restart."""
    first, second = claim(order=0), claim("11.0.0.1", Backend("10.1.0.1", 80), order=1, principal="evil")
    assert OPEN.judge([first, second]).accepted == (first,)


def test_a_refusal_is_an_event_once() -> None:
    first, second = claim(order=0), claim(order=1, principal="evil")
    alone, both = OPEN.judge([first]), OPEN.judge([first, second])
    assert both.new_since(alone) == both.refusals
    assert both.new_since(both) == alone.new_since(both) == ()


def test_a_claimant_is_a_principal_of_a_source() -> None:
    claims = [claim(source="mesos", principal="a"), claim(source="file", principal="a", order=1)]
    assert OPEN.judge(claims).accepted == (claims[0],)


def test_all_nodes_of_the_first_claimant_count_even_those_that_came_after_the_second() -> None:
    first, second, third = claim(order=0), claim(order=1, principal="evil"), claim(order=0, node="n3")
    assert OPEN.judge([third, second, first]).accepted == (first, third)


def test_claims_made_at_once_go_to_the_lesser_claimant() -> None:
    one, other = claim(principal="a", node="n2"), claim(principal="b", node="n1")
    for claims in permutations([one, other]):
        assert OPEN.judge(claims).accepted == (one,)


def test_a_dns_name_belongs_to_one_with_all_its_ports_however_it_is_spelled() -> None:
    first = claim(FOO)
    spelled = claim(VIPName("/FOO", "Marathon"), principal="evil", order=1)
    other_port = claim(FOO, port=22, principal="evil", order=1)
    own_port = claim(FOO, port=443)
    judgement = Policy().judge([spelled, other_port, own_port, first])
    assert set(judgement.accepted) == {first, own_port}
    assert {refusal.reason for refusal in judgement.refusals} == {RefusalReason.QUARANTINED}


def test_an_address_belongs_to_one_port_by_port() -> None:
    claims = [claim(principal="a"), claim(principal="b", port=443, order=1)]
    assert set(OPEN.judge(claims).accepted) == set(claims)


def test_a_claim_that_is_refused_owns_nothing() -> None:
    policy = Policy((Rule(principal="evil"), Rule(vip_networks=ANYWHERE)))
    early, late = claim(principal="evil", order=0), claim(order=1)
    judgement = policy.judge([early, late])
    assert judgement.accepted == (late,)
    assert [refusal.reason for refusal in judgement.refusals] == [RefusalReason.ADDRESS]


def test_who_is_nobody_is_said_so() -> None:
    claims = [Claim(VIP(VIPKey.tcp("11.0.0.1", 80))), claim(principal="", source="", node="", order=1), claim(order=2)]
    judgement = OPEN.judge(claims)
    assert len(judgement.accepted) == 2
    assert judgement.refusals[0].detail == "tcp://11.0.0.1:80 is nobody in particular's (source ?)"
    assert "claimed by nobody in particular (source ?, node ?)" in str(Policy().judge(claims[:1]).refusals[0])


def test_places_are_keys_of_addresses_and_dns_names_of_names() -> None:
    assert place_of(VIPKey.udp("11.0.0.1", 53)) == "udp://11.0.0.1:53"
    assert place_of(VIPKey.udp(FOO, 53)) == "foo.marathon"
    assert place_of(VIPKey.udp(VIPName("$", "m"), 53)) == "$@m"


Claims = st.lists(
    st.builds(
        claim,
        st.sampled_from(["11.0.0.1", "10.0.0.1", FOO, VIPName("FOO", "marathon"), VIPName("$", "m")]),
        st.builds(Backend, st.sampled_from(["10.1.0.1", "127.0.0.1"]), st.just(80)),
        port=st.sampled_from([80, 443]),
        source=st.sampled_from(["mesos", "file"]),
        principal=st.sampled_from(["a", "b"]),
        node=st.sampled_from(["n1", "n2"]),
        order=st.integers(0, 2),
        vouched=st.sampled_from([(), ("10.1.0.1",)]),
    ),
    max_size=8,
    unique_by=lambda one: (one.vip.key, one.claimant, one.node),
)


@given(Claims, st.randoms(use_true_random=False))
def test_the_verdict_is_the_same_in_any_order_and_accounts_for_every_claim(claims: list[Claim], rng: Any) -> None:
    policy = Policy((Rule(principal="a", vip_networks=ANYWHERE), Rule(backend_networks=ANYWHERE)))
    judgement = policy.judge(claims, HOSTS)
    shuffled = rng.sample(claims, len(claims))
    assert policy.judge(shuffled, HOSTS) == judgement
    whole = [refusal for refusal in judgement.refusals if refusal.backend is None]
    assert len(judgement.accepted) + len(whole) == len(claims)
    owners = {place_of(one.vip.key): one.claimant for one in judgement.accepted}
    assert all(owners[place_of(one.vip.key)] == one.claimant for one in judgement.accepted)
    by_place: dict[str, list[Claim]] = {}
    for one in claims:
        by_place.setdefault(place_of(one.vip.key), []).append(one)
    piecewise = [policy.judge(by_place[place], HOSTS) for place in sorted(by_place)]
    assert judgement.accepted == tuple(one for part in piecewise for one in part.accepted)
    assert judgement.refusals == tuple(one for part in piecewise for one in part.refusals)
