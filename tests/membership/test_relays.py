"""Probes for others: whoever asked gets the answer, if it is the target's."""

from __future__ import annotations

from pyminuteman.membership.effects import Send
from pyminuteman.membership.messages import IndirectProbe, IndirectReply, Probe, ProbeReply
from pyminuteman.membership.relays import Relays
from tests.membership.support import make_endpoint, make_peer, said
from tests.support.messages import node_id

ASKED = IndirectProbe(42, node_id(2))


def relayed(relays: Relays, asked: IndirectProbe = ASKED, asker: int = 1) -> int:
    """Relay a probe of node 2's; returns its number."""
    steps = relays.relay(asked, make_peer(asker), make_endpoint(2))
    (probe,) = said(steps, Probe, to=2)
    return probe.number


def test_the_answer_of_the_target_goes_to_whoever_asked_under_the_number_it_gave() -> None:
    relays = Relays()
    number = relayed(relays)
    assert relays.on_reply(ProbeReply(number), make_peer(2)) == [Send(make_endpoint(1), (IndirectReply(42, node_id(2)),))]


def test_an_answer_is_passed_on_once() -> None:
    relays = Relays()
    number = relayed(relays)
    relays.on_reply(ProbeReply(number), make_peer(2))
    assert relays.on_reply(ProbeReply(number), make_peer(2)) == []


def test_an_answer_of_somebody_else_is_none() -> None:
    relays = Relays()
    number = relayed(relays)
    assert relays.on_reply(ProbeReply(number), make_peer(3)) == []
    assert relays.on_reply(ProbeReply(number), make_peer(2)) != []


def test_an_answer_that_nobody_asked_for_goes_nowhere() -> None:
    assert Relays().on_reply(ProbeReply(7), make_peer(2)) == []


def test_two_that_ask_with_the_same_number_get_an_answer_each() -> None:
    relays = Relays()
    numbers = {asker: relayed(relays, asker=asker) for asker in (1, 3)}
    for asker, number in numbers.items():
        (send,) = relays.on_reply(ProbeReply(number), make_peer(2))
        assert isinstance(send, Send)
        assert send.to == make_endpoint(asker)


def test_relayed_probes_have_numbers_far_from_those_of_our_own() -> None:
    assert relayed(Relays()) > 1 << 31


def test_of_too_many_the_oldest_goes_without_an_answer() -> None:
    relays = Relays()
    numbers = [relayed(relays) for _ in range(257)]
    assert relays.on_reply(ProbeReply(numbers[0]), make_peer(2)) == []
    assert all(relays.on_reply(ProbeReply(number), make_peer(2)) for number in numbers[1:])
