"""Claims as entries of the store, and back."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyminuteman.addresses import NodeId
from pyminuteman.daemon.entries import ENTRY_MAX_BYTES, FAULTS_KEPT, ClaimTable, changes, decode_head, encode
from pyminuteman.ipvs import ForwardingMethod, Persistence, ServiceFlags
from pyminuteman.vips.claims import Claim
from pyminuteman.vips.model import VIP, Backend, BackendKey, VIPKey, VIPName, VIPSettings
from pyminuteman.vips.policy import place_of
from tests.support.hostile import nearly

ONE, TWO = NodeId(b"1" * 16), NodeId(b"2" * 16)
WEB = VIPKey.tcp("11.0.0.1", 80)
NAMED = VIPKey.udp(VIPName("/foo", "marathon"), 53)
SETTINGS = VIPSettings("mh", ServiceFlags.MH_PORT, Persistence(60, ""), ForwardingMethod.ROUTE, 5.0)

backends = st.builds(
    Backend,
    address=st.sampled_from(["10.0.0.1", "10.0.0.2", "fd00::1"]),
    port=st.integers(1, 65535),
    weight=st.integers(0, 65535),
    agent=st.sampled_from(["", "10.0.0.9"]),
    local=st.sampled_from([None, BackendKey("172.17.0.2", 80)]),
)
vips = st.builds(
    VIP,
    key=st.sampled_from([WEB, NAMED, VIPKey.tcp("11.0.0.1", 81)]),
    backends=st.lists(backends, max_size=4, unique_by=lambda backend: backend.key).map(tuple),
    settings=st.sampled_from([VIPSettings(), VIPSettings("rr", drain_seconds=3.0)]),
    principal=st.sampled_from(["", "marathon"]),
)


@st.composite
def claims(draw: st.DrawFn) -> Claim:
    vip = draw(vips)
    addresses = {
        address for one in vip.backends for address in (one.address, one.agent, one.local and one.local.address) if address
    }
    vouched = frozenset(addresses) if draw(st.booleans()) else frozenset()
    return Claim(vip, draw(st.sampled_from(["file", "mesos"])), str(ONE), draw(st.integers(0, 9)), vouched)


def told(table: ClaimTable, owner: NodeId, entries: dict[str, bytes]) -> ClaimTable:
    for key, value in entries.items():
        table.update(owner, key, value)
    return table


@given(
    st.lists(claims(), max_size=4, unique_by=lambda claim: (claim.vip.key, *claim.claimant)), st.randoms(use_true_random=False)
)
@settings(deadline=None)
def test_what_is_encoded_is_read_again_in_whatever_order_it_comes(said: list[Claim], random: object) -> None:
    entries = list(encode(said).items())
    random.shuffle(entries)  # type: ignore[attr-defined]
    table = told(ClaimTable(), ONE, dict(entries))
    assert sorted(table.all(), key=repr) == sorted(said, key=repr)
    assert table.faults_total == 0
    assert len(table) == len(said)
    assert table.take_touched() == {place_of(claim.vip.key) for claim in said}
    for claim in said:
        assert claim in table.claims(claim.vip.key)


def test_settings_and_names_survive() -> None:
    claim = Claim(VIP(NAMED, (), SETTINGS, "x"), "file", str(ONE), 7)
    table = told(ClaimTable(), ONE, encode([claim]))
    assert table.all() == [claim]


def test_one_backend_of_many_moves_tens_of_bytes() -> None:
    many = tuple(Backend("10.0.0.1", port, agent="10.0.0.1") for port in range(1, 1001))
    before = encode([Claim(VIP(WEB, many), "file")])
    after = encode([Claim(VIP(WEB, (*many, Backend("10.0.0.1", 2000, agent="10.0.0.1"))), "file")])
    moved = changes(before, after)
    assert len(moved) == 1
    assert sum(len(key) + len(value or b"") for key, value in moved.items()) < 80
    assert changes(after, before) == dict.fromkeys(moved)
    assert changes(after, after) == {}


def test_a_backend_waits_for_its_head_and_a_claim_ends_with_it() -> None:
    entries = encode([Claim(VIP(WEB, (Backend("10.0.0.1", 8080),)), "file")])
    head, backend = entries
    table = ClaimTable()
    table.update(ONE, backend, entries[backend])
    assert (table.all(), table.take_touched()) == ([], set())
    table.update(ONE, head, entries[head])
    assert [len(claim.vip.backends) for claim in table.all()] == [1]
    assert table.take_touched() == {str(WEB)}
    table.update(ONE, head, None)
    assert (table.all(), table.claims_at(str(WEB)), table.take_touched()) == ([], [], {str(WEB)})
    table.update(ONE, backend, None)
    table.update(ONE, backend, None)
    assert table.take_touched() == set()


def test_each_owner_speaks_for_itself() -> None:
    entries = encode([Claim(VIP(WEB, (Backend("10.0.0.1", 8080),)), "file")])
    table = told(told(ClaimTable(), ONE, entries), TWO, entries)
    assert {claim.node for claim in table.claims(WEB)} == {str(ONE), str(TWO)}
    for key in entries:
        table.update(ONE, key, None)
    assert [claim.node for claim in table.claims(WEB)] == [str(TWO)]


@pytest.mark.parametrize(
    "plain",
    [
        1,
        [6, "11.0.0.1", 80],
        [6, "11.0.0.1", 0, None, "", "file", 0],
        [6, "11.0.0", 80, None, "", "file", 0],
        [7, "11.0.0.1", 80, None, "", "file", 0],
        [6, ["/foo"], 80, None, "", "file", 0],
        [6, 5, 80, None, "", "file", 0],
        [6, None, 80, None, "", "file", 0],
        [6, b"11.0.0.1", 80, None, "", "file", 0],
        [6, ["/foo", 5], 80, None, "", "file", 0],
        [6, [b"/foo", "marathon"], 80, None, "", "file", 0],
        [6, "11.0.0.1", 80, None, "", "fi\x1b[2Jle", 0],
        [6, "11.0.0.1", 80, None, "", "f" * 256, 0],
        [6, "11.0.0.1", 80, None, "", "f" * ENTRY_MAX_BYTES, 0],
        [6, "11.0.0.1", 80, ["wlc", 0, 60, 5, 0, 0], "", "file", 0],
        [6, "11.0.0.1", 80, ["wlc", 0, 60, [1], 0, 0], "", "file", 0],
        [6, "11.0.0.1", 80, None, 5, "file", 0],
        [6, "11.0.0.1", 80, None, "", "file", -1],
        [6, "11.0.0.1", 80, None, "", "file", True],
        [6, "11.0.0.1", 80, [1], "", "file", 0],
        [6, "11.0.0.1", 80, [1, 0, None, None, 0, 0], "", "file", 0],
        [6, "11.0.0.1", 80, ["wlc", 0, None, None, 99, 0], "", "file", 0],
        [6, "11.0.0.1", 80, ["wlc", 4, None, None, 0, 0], "", "file", 0],
    ],
)
def test_a_head_that_is_none_is_left_out_and_named(plain: object) -> None:
    value = msgpack.packb(plain)
    with pytest.raises((ValueError, TypeError)):
        decode_head(value)
    table = ClaimTable()
    table.update(ONE, "vip/0011223344556677", value)
    assert (len(table), table.faults_total, [fault.owner for fault in table.faults]) == (0, 1, [ONE])
    table.update(ONE, "vip/0011223344556677", None)
    assert (table.faults_total, table.faults) == (1, ())


@pytest.mark.parametrize(
    ("place", "plain"),
    [
        ("10.0.0.1/80", [1, "", None]),
        ("10.0.0.1/80", [-1, "", None, False]),
        ("10.0.0.1/80", [1, 5, None, False]),
        ("10.0.0.1/80", [1, "", [5], False]),
        ("10.0.0.1/80", [1, "", [5, 80], False]),
        ("10.0.0.1/80", [1, "a" * ENTRY_MAX_BYTES, None, False]),
        ("10.0.0.1/x", [1, "", None, False]),
        ("10.0.0.1/080", [1, "", None, False]),
        ("FD00::1/80", [1, "", None, False]),
    ],
)
def test_a_backend_that_is_none_is_left_out_and_the_rest_stands(place: str, plain: object) -> None:
    entries = encode([Claim(VIP(WEB, (Backend("10.0.0.2", 80),)), "file")])
    head = next(iter(entries))
    table = told(ClaimTable(), ONE, entries)
    table.update(ONE, f"{head}/{place}", msgpack.packb(plain))
    assert [len(claim.vip.backends) for claim in table.all()] == [1]
    assert table.faults_total == 1


@given(st.binary(max_size=64), st.text(max_size=30))
@settings(deadline=None)
def test_no_bytes_of_others_raise_anything(value: bytes, rest: str) -> None:
    table = ClaimTable()
    table.update(ONE, f"vip/{rest}", value)
    table.update(ONE, f"vip/{rest}/10.0.0.1/80", value)
    table.all()


HEAD = [6, "11.0.0.1", 80, ["wlc", 0, 60, "", 0, 0.0], "", "file", 0]
NAMED_HEAD = [6, ["/foo", "marathon"], 80, None, "", "file", 0]
BACKEND = [1, "10.0.0.9", ["10.0.0.2", 80], True]


PAIRS = [(head, BACKEND) for right in (HEAD, NAMED_HEAD) for head in (right, *nearly(right))] + [
    (HEAD, row) for row in nearly(BACKEND)
]


@pytest.mark.parametrize("head_first", [True, False])
def test_no_field_of_others_raises_anything(head_first: bool) -> None:
    for head, backend in PAIRS:
        entries = {"vip/0011223344556677": head, "vip/0011223344556677/10.0.0.1/80": backend}
        table = ClaimTable()
        for key in sorted(entries, reverse=not head_first):
            table.update(ONE, key, msgpack.packb(entries[key]))
        assert len(table) + table.faults_total >= 1, (head, backend)
        for claim in table.all():
            assert table.claims(claim.vip.key) == [claim]
            assert VIPKey.parse(str(claim.vip.key)) == claim.vip.key
        for key in entries:
            table.update(ONE, key, None)
        assert (table.all(), table.faults) == ([], ()), (head, backend)


steps = st.lists(
    st.tuples(st.sampled_from([ONE, TWO]), st.integers(0, 5), st.sampled_from(["put", "bad", "gone"])), max_size=20
)


@given(steps)
@settings(deadline=None)
def test_what_a_table_holds_depends_on_what_is_said_now_and_each_change_names_its_place(
    said: list[tuple[NodeId, int, str]],
) -> None:
    right = encode(
        [
            Claim(VIP(key, (Backend("10.0.0.1", 1), Backend("10.0.0.2", 2, weight=5))), "file", vouched=frozenset())
            for key in (WEB, NAMED)
        ]
    )
    keys = sorted(right)
    table, now = ClaimTable(), dict[tuple[NodeId, str], bytes]()
    for owner, at, what in said:
        before = {place_of(key): table.claims_at(place_of(key)) for key in (WEB, NAMED)}
        value = {"put": right[keys[at]], "bad": b"\xc1", "gone": None}[what]
        table.update(owner, keys[at], value)
        now.pop((owner, keys[at]), None)
        if value is not None:
            now[owner, keys[at]] = value
        touched = table.take_touched()
        assert {place for place, claims_then in before.items() if table.claims_at(place) != claims_then} <= touched
    fresh = ClaimTable()
    for (owner, key), value in sorted(now.items(), reverse=True):
        fresh.update(owner, key, value)
    assert fresh.all() == table.all()
    assert sorted(fresh.faults, key=repr) == sorted(table.faults, key=repr)


def test_the_longest_entry_of_ours_is_read() -> None:
    name = VIPName("ä" * 127, "ö" * 127)
    claim = Claim(VIP(VIPKey.tcp(name, 65535), (), SETTINGS, "ü" * 127), "s" * 255, str(ONE), 1 << 40)
    (value,) = encode([claim]).values()
    assert len(value) < ENTRY_MAX_BYTES / 2
    assert decode_head(value).key == claim.vip.key


def test_faults_are_counted_without_end_and_named_up_to_a_limit() -> None:
    table = ClaimTable()
    table.update(ONE, "elsewhere/1", b"\xc1")
    for number in range(FAULTS_KEPT + 5):
        table.update(ONE, f"vip/{number}", b"\xc1")
    assert (table.faults_total, table.faults_now, len(table.faults)) == (FAULTS_KEPT + 5, FAULTS_KEPT + 5, FAULTS_KEPT)
    for number in (0, FAULTS_KEPT + 4):  # one that has a name, and one that has none
        table.update(ONE, f"vip/{number}", None)
    assert (table.faults_total, table.faults_now, len(table.faults)) == (FAULTS_KEPT + 5, FAULTS_KEPT + 3, FAULTS_KEPT - 1)
