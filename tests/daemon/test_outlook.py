"""What a node makes of all that is said, and what is told of it."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st

from pyminuteman.addresses import NodeId
from pyminuteman.daemon.differences import differences
from pyminuteman.daemon.entries import ClaimTable, encode
from pyminuteman.daemon.outlook import Outlook
from pyminuteman.vips.claims import Claim
from pyminuteman.vips.desired import DesiredState, DesiredTable
from pyminuteman.vips.model import VIP, Backend, VIPKey
from pyminuteman.vips.policy import Networks, Policy, RefusalReason, Rule
from pyminuteman.vips.resolution import Adjustments, Reach

ONE, TWO = NodeId(b"1" * 16), NodeId(b"2" * 16)
KEYS = [VIPKey.tcp(f"11.0.0.{number}", 80) for number in (1, 2, 3)]
OPEN = Policy((Rule(vip_networks=Networks("11.0.0.0/8"), backend_networks=Networks("10.0.0.0/8")),))
HERE = Backend("10.0.0.1", 80, agent="10.0.0.1")
THERE = Backend("10.0.0.2", 80, agent="10.0.0.2")


def outlook(policy: Policy = OPEN) -> Outlook:
    return Outlook(ClaimTable(), DesiredTable(own_addresses=["10.0.0.1"]), policy)


def say(view: Outlook, owner: NodeId, *claims: Claim) -> dict[str, bytes]:
    entries = encode(claims)
    for key, value in entries.items():
        view.claims.update(owner, key, value)
    return entries


def kinds(before: DesiredState, after: DesiredState) -> list[str]:
    return [kind for kind, _, _ in differences(before, after)]


def test_a_claim_comes_is_told_of_and_goes() -> None:
    view = outlook()
    empty = view.refresh({})
    entries = say(view, ONE, Claim(VIP(KEYS[0], (HERE, THERE)), "file"))
    state = view.refresh({})
    assert [service.key.address for service in state.services] == ["11.0.0.1"]
    assert kinds(empty, state) == ["vip_added"]
    assert view.refresh({}) is state
    silent = view.refresh({"10.0.0.2": Reach.SUSPECT})
    assert kinds(state, silent) == ["backend_out"]
    down = view.refresh({"10.0.0.2": Reach.DOWN})
    assert kinds(silent, down) == ["backend_out"]
    back = view.refresh({"10.0.0.2": Reach.UP})
    assert kinds(down, back) == ["backend_in"]
    for key in entries:
        view.claims.update(ONE, key, None)
    assert kinds(back, view.refresh({})) == ["vip_removed"]
    assert view.judgement.accepted == ()


def test_a_vip_that_fails_open_is_told_of_once() -> None:
    view = outlook()
    say(view, ONE, Claim(VIP(KEYS[0], (THERE,)), "file"))
    state = view.refresh({})
    down = view.refresh({"10.0.0.2": Reach.DOWN})
    assert kinds(state, down) == ["failed_open"]
    view.adjust(Adjustments(weights={(None, THERE.key): 5}))
    assert kinds(down, view.refresh({"10.0.0.2": Reach.DOWN})) == []


def test_what_has_not_changed_is_not_looked_at_and_what_still_fails_open_not_told_again() -> None:
    view = outlook()
    say(view, ONE, Claim(VIP(KEYS[0], (THERE,)), "file"), Claim(VIP(KEYS[1], (HERE,)), "file"))
    before = view.refresh({"10.0.0.2": Reach.DOWN})
    other = Backend("10.0.0.3", 80, agent="10.0.0.2")
    say(view, ONE, Claim(VIP(KEYS[0], (THERE, other)), "file"))
    after = view.refresh({"10.0.0.2": Reach.DOWN})
    assert after.resolutions[KEYS[1]] is before.resolutions[KEYS[1]]
    assert [key for key in after.resolutions if after.resolutions[key].failed_open] == [KEYS[0]]
    assert kinds(before, after) == []


def test_a_backend_that_is_still_out_for_the_same_reason_is_not_told_of_again() -> None:
    view = outlook()
    say(view, ONE, Claim(VIP(KEYS[0], (HERE, THERE)), "file"))
    before = view.refresh({"10.0.0.2": Reach.DOWN})
    say(view, ONE, Claim(VIP(KEYS[0], (HERE, THERE, Backend("10.0.0.3", 80))), "file"))
    assert kinds(before, view.refresh({"10.0.0.2": Reach.DOWN})) == []


def test_refusals_are_told_once_and_judged_again_when_policy_or_hosts_change() -> None:
    view = outlook(Policy())
    say(view, ONE, Claim(VIP(KEYS[0], (HERE,)), "file"))
    assert view.refresh({}).services == {}
    (refusal,) = view.take_refusals()
    assert refusal.reason is RefusalReason.ADDRESS
    view.refresh({})
    assert view.take_refusals() == []
    view.set_policy(OPEN)
    view.set_policy(OPEN)
    assert len(view.refresh({}).services) == 1
    view.set_hosts(["11.0.0.1"])
    view.set_hosts(["11.0.0.1"])
    assert view.refresh({}).services == {}
    assert [one.reason for one in view.take_refusals()] == [RefusalReason.DENIED_ADDRESS]
    assert [one.reason for one in view.judgement.refusals] == [RefusalReason.DENIED_ADDRESS]


claims = st.builds(
    lambda key, backends, source: Claim(VIP(key, tuple(backends)), source),
    st.sampled_from(KEYS),
    st.lists(st.sampled_from([HERE, THERE]), unique=True),
    st.sampled_from(["file", "mesos"]),
)


@given(st.lists(st.tuples(st.sampled_from([ONE, TWO]), claims, st.booleans()), max_size=8))
@settings(deadline=None, max_examples=60)
def test_the_outlook_depends_on_what_is_said_and_not_on_its_history(steps: list[tuple[NodeId, Claim, bool]]) -> None:
    walked = outlook()
    said: dict[tuple[NodeId, str], bytes] = {}
    for owner, claim, stays in steps:
        entries = encode([claim])
        head = next(iter(entries))
        for old_owner, key in [place for place in said if place[0] == owner and place[1].startswith(head)]:
            walked.claims.update(old_owner, key, None)
            del said[old_owner, key]
        for key, value in entries.items() if stays else ():
            walked.claims.update(owner, key, value)
            said[owner, key] = value
        walked.refresh({})
    fresh = outlook()
    for (owner, key), value in sorted(said.items(), reverse=True):
        fresh.claims.update(owner, key, value)
    assert fresh.refresh({}).services == walked.refresh({}).services
    assert fresh.judgement == walked.judgement
    assert not _missing(walked.state.services, fresh.state.services)


def _missing(one: Iterable[object], other: Iterable[object]) -> set[object]:
    return set(one) ^ set(other)
