"""One VIP a key: slips take nothing away, and of two keys for one VIP the first has it."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from pyminuteman.sources.base import SourceProblem, SourceState
from pyminuteman.sources.document import parse_vip
from pyminuteman.sources.keyed import KeyedVIPs

WEB = {"listen": "tcp://11.0.0.1:80", "backend": [{"address": "10.0.0.5", "port": 8080}]}
DNS = {"listen": "udp://11.0.0.2:53", "backend": []}


def raw(document: object) -> bytes:
    return json.dumps(document).encode()


def vips(state: SourceState) -> list[str]:
    return [str(vip.key) for vip in state.vips]


def test_all_keys_together_are_the_state_in_the_order_of_the_vips() -> None:
    keyed = KeyedVIPs()
    assert keyed.state() == SourceState()
    keyed.change({b"/b": raw(WEB), b"/a": raw(DNS)})
    assert keyed.state() == SourceState((parse_vip(WEB, ""), parse_vip(DNS, "")))
    keyed.change({b"/b": None, b"/never there": None})
    assert vips(keyed.state()) == ["udp://11.0.0.2:53"]


def test_what_cannot_be_understood_leaves_what_the_key_said_before() -> None:
    keyed = KeyedVIPs()
    keyed.change({b"/a": raw(WEB)})
    for wrong, reason in (
        (b"{", "no JSON"),
        (b"\xff", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (raw({"listn": ""}), "unknown key"),
    ):
        keyed.change({b"/a": wrong})
        state = keyed.state()
        assert vips(state) == ["tcp://11.0.0.1:80"]
        assert [problem.where for problem in state.problems] == ["/a"]
        assert reason in state.problems[0].reason
        assert state.problems[0].reason.endswith("what it said before stands")
    keyed.change({b"/a": raw(WEB)})
    assert keyed.state().problems == ()
    keyed.change({b"/a": b"{"})
    keyed.change({b"/a": None})
    assert keyed.state() == SourceState()


def test_what_never_was_a_vip_is_left_out_and_named() -> None:
    keyed = KeyedVIPs()
    keyed.change({b"/a\xff": b"{", b"/b": raw(WEB), b"/c\n": b"3"})
    state = keyed.state()
    assert vips(state) == ["tcp://11.0.0.1:80"]
    assert [problem.where for problem in state.problems] == ["'/c\\n'", "/a\\xff"]
    assert "stands" not in state.problems[0].reason


def test_of_two_keys_for_one_vip_the_first_has_it_until_it_is_gone() -> None:
    keyed, other = KeyedVIPs(), {**WEB, "backend": []}
    keyed.change({b"/b": raw(WEB), b"/c": raw(other)})
    state = keyed.state()
    assert state.vips == (parse_vip(WEB, ""),)
    assert state.problems == (SourceProblem("/c", "tcp://11.0.0.1:80 is described by /b already"),)
    keyed.change({b"/b": None})
    assert keyed.state() == SourceState((parse_vip(other, ""),))


_values = st.sampled_from([None, b"{", raw(WEB), raw(DNS), raw({**WEB, "backend": []})])


@given(st.lists(st.dictionaries(st.sampled_from([b"a", b"b", b"c"]), _values, max_size=3), max_size=6))
def test_good_values_give_the_same_state_whatever_came_before(history: list[dict[bytes, bytes | None]]) -> None:
    keyed, fresh = KeyedVIPs(), KeyedVIPs()
    for changes in history:
        keyed.change(changes)
    last: dict[bytes, bytes | None] = {b"a": raw(WEB), b"b": raw(DNS), b"c": None}
    keyed.change(last)
    fresh.change(last)
    assert keyed.state() == fresh.state()
