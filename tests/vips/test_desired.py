"""The desired table: after any history it is what a new table makes of what stands, and no more is looked at than what changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyminuteman.addresses import IPV4, IPV6
from pyminuteman.ipvs import Destination, IPVSTable, Scope
from pyminuteman.ipvs.service import Protocol
from pyminuteman.testing.fake_kernel import FakeKernel
from pyminuteman.vips.address_book import AddressBook
from pyminuteman.vips.allocation import IPV4_RANGE, AddressRange
from pyminuteman.vips.claims import Claim
from pyminuteman.vips.desired import DesiredState, DesiredTable, NameRecord
from pyminuteman.vips.model import VIP, Backend, BackendKey, VIPKey, VIPName, VIPSettings
from pyminuteman.vips.resolution import Adjustments, Reach, Reason

WEB = VIPKey.tcp("11.0.0.1", 80)
FOO_NAME = VIPName("/foo", "marathon")
FOO = VIPKey.tcp(FOO_NAME, 80)
A, B, C = (Backend(f"10.0.0.{number}", 8080, agent=f"10.0.0.{number}") for number in (1, 2, 3))
TINY = AddressRange.parse("11.0.0.0", "11.0.0.6")
TINY6 = AddressRange.parse("fd01:c::", "fd01:c::6")


def claim(key: VIPKey, *backends: Backend, node: str = "n1", principal: str = "", scheduler: str = "wlc") -> Claim:
    return Claim(VIP(key, backends, VIPSettings(scheduler), principal), "file", node)


def table(*claims: Claim, own: str = "10.9.9.9", book: AddressBook | None = None) -> DesiredTable:
    found = DesiredTable(own_addresses=[own], book=book)
    found.replace(claims)
    return found


def up(_agent: str) -> Reach:
    return Reach.UP


def reach(known: Mapping[str, Reach]) -> Any:
    return lambda agent: known.get(agent, Reach.UP)


def weights(state: DesiredState) -> dict[str, int]:
    return {str(row): row.weight for rows in state.services.values() for row in rows}


# -- what it says ------------------------------------------------------------------------------------------------------


def test_nothing_said_is_nothing_desired() -> None:
    assert table().refresh(up) == DesiredState()


def test_claims_become_services_in_the_order_of_their_keys() -> None:
    state = table(claim(VIPKey.udp("11.0.0.1", 53), B), claim(WEB, A), claim(FOO, C)).refresh(up)
    first, second, third = state.services
    address = IPV4_RANGE.address(IPV4_RANGE.home("foo.marathon"))
    assert [str(one.key) for one in (first, second, third)] == ["tcp 11.0.0.1:80", f"tcp {address}:80", "udp 11.0.0.1:53"]
    assert state.services[first] == (Destination("10.0.0.1", 8080),)


def test_nodes_join_their_backends_and_their_disagreement_is_reported() -> None:
    state = table(claim(WEB, A, node="n1"), claim(WEB, B, node="n2", scheduler="rr")).refresh(up)
    (service,) = state.services
    assert service.scheduler == "wlc"
    assert [str(row) for row in state.services[service]] == ["10.0.0.1:8080", "10.0.0.2:8080"]
    assert [conflict.what for conflict in state.conflicts] == ["settings"]


def test_reasons_and_open_failures_of_all_vips_are_found_in_one_place() -> None:
    state = table(claim(WEB, A, B), claim(FOO, A)).refresh(reach({"10.0.0.1": Reach.DOWN}))
    assert [(one.vip, one.backend, one.reason) for one in state.exclusions] == [(WEB, A.key, Reason.DOWN)]
    assert [one.vip for one in state.failed_open] == [FOO]


def test_a_host_is_asked_about_once_however_many_backends_it_has() -> None:
    asked: list[str] = []

    def ask(agent: str) -> Reach:
        asked.append(agent)
        return Reach.UP

    table(claim(WEB, A, B), claim(FOO, A, C), own="10.0.0.3").refresh(ask)
    assert sorted(asked) == ["10.0.0.1", "10.0.0.2"]


def test_a_host_still_bears_on_a_vip_that_has_lost_one_of_its_backends() -> None:
    both = Backend("10.0.0.1", 9090, agent="10.0.0.1")
    desired = table(claim(WEB, A, B, both))
    desired.refresh(up)
    desired.put(WEB, [claim(WEB, A, B)])
    desired.refresh(up)
    assert weights(desired.refresh(reach({"10.0.0.1": Reach.SUSPECT}))) == {"10.0.0.1:8080": 0, "10.0.0.2:8080": 1}
    desired.put(WEB, [claim(WEB, B, Backend("10.0.0.1", 8080, agent="10.0.0.3"))])  # the place is another host's now
    state = desired.refresh(reach({"10.0.0.1": Reach.SUSPECT, "10.0.0.3": Reach.UP}))
    assert weights(state) == {"10.0.0.1:8080": 1, "10.0.0.2:8080": 1}
    assert weights(desired.refresh(reach({"10.0.0.3": Reach.SUSPECT}))) == {"10.0.0.1:8080": 0, "10.0.0.2:8080": 1}


def test_a_backend_on_no_member_comes_and_goes_like_any_other() -> None:
    away = Backend("192.0.2.1", 80)
    desired = table(claim(WEB, away))
    before = desired.refresh(up)
    desired.put(WEB, [claim(WEB, away, A)])
    assert desired.refresh(up) == table(claim(WEB, away, A)).refresh(up)
    desired.put(WEB, [claim(WEB, away)])
    assert desired.refresh(up) == before


def test_what_is_claimed_no_more_is_gone() -> None:
    desired = table(claim(WEB, A), claim(FOO, B))
    desired.refresh(up)
    desired.replace([claim(FOO, B)])
    assert desired.refresh(up) == table(claim(FOO, B)).refresh(up)


def test_a_claim_on_another_vip_is_put_nowhere() -> None:
    with pytest.raises(ValueError, match=r"a claim on another VIP was put to tcp://11\.0\.0\.1:80"):
        DesiredTable().put(WEB, [claim(FOO, A)])


# -- names -------------------------------------------------------------------------------------------------------------


def test_a_name_has_the_addresses_of_its_services_and_all_its_ports() -> None:
    book = AddressBook()
    state = table(
        claim(FOO, A, Backend("fd00::1", 80)),
        claim(VIPKey.udp(FOO_NAME, 53), A),
        claim(VIPKey.tcp(FOO_NAME, 443), A),
        book=book,
    ).refresh(up)
    addresses = tuple(address for family in (IPV4, IPV6) if (address := book.address(FOO_NAME, family)))
    ports = ((Protocol.TCP, 80), (Protocol.TCP, 443), (Protocol.UDP, 53))
    assert dict(state.names) == {"foo.marathon": NameRecord(addresses, ports)}
    assert state.unaddressed == {}


def test_a_name_without_backends_is_there_without_addresses() -> None:
    assert dict(table(claim(FOO)).refresh(up).names) == {"foo.marathon": NameRecord((), ((Protocol.TCP, 80),))}


def test_a_name_that_loses_a_port_says_so() -> None:
    desired = table(claim(FOO, A), claim(VIPKey.tcp(FOO_NAME, 443), A))
    desired.refresh(up)
    desired.put(FOO, [])
    assert desired.refresh(up).names["foo.marathon"].ports == ((Protocol.TCP, 443),)
    desired.put(VIPKey.tcp(FOO_NAME, 443), [])
    assert desired.refresh(up) == DesiredState()


def test_of_two_names_with_one_dns_name_one_is_served_and_the_other_told() -> None:
    upper = VIPName("/FOO", "marathon")
    desired = table(claim(FOO, A), claim(VIPKey.tcp(upper, 80), B))
    state = desired.refresh(up)
    assert list(state.names) == ["foo.marathon"]
    assert [str(row) for rows in state.services.values() for row in rows] == ["10.0.0.2:8080"]
    assert list(state.unaddressed) == [FOO_NAME]
    assert [one.reason for one in state.exclusions] == [Reason.NO_ADDRESS]
    desired.put(VIPKey.tcp(upper, 80), [])
    state = desired.refresh(up)
    assert [str(row) for rows in state.services.values() for row in rows] == ["10.0.0.1:8080"]
    assert state.unaddressed == {}


def test_an_address_that_a_vip_has_as_such_goes_to_no_name() -> None:
    book = AddressBook([TINY])
    desired = table(claim(FOO, A), book=book)
    address = book.address(FOO_NAME, IPV4)
    assert address
    desired.refresh(up)
    raw = VIPKey.tcp(address, 80)
    desired.put(raw, [claim(raw, B)])
    state = desired.refresh(up)
    assert state.resolutions[raw].services[0][0].key.address == address
    moved = state.resolutions[FOO].services[0][0].key.address
    assert moved != address
    assert state.names["foo.marathon"].addresses == (moved,)
    desired.put(raw, [])
    assert desired.refresh(up).names["foo.marathon"].addresses == (address,)


def test_names_that_find_no_address_are_told() -> None:
    names = [VIPName(f"app{number}", "m") for number in range(7)]
    state = table(*(claim(VIPKey.tcp(name, 80), A) for name in names), book=AddressBook([TINY])).refresh(up)
    ((name, reason),) = state.unaddressed.items()
    assert reason == f"the range of addresses is too full for {name.label}.m"
    assert len(state.services) == 6


# -- cost --------------------------------------------------------------------------------------------------------------


def test_when_nothing_changed_the_same_object_comes_back() -> None:
    desired = table(claim(WEB, A), claim(FOO, B))
    state = desired.refresh(up)
    desired.replace([claim(FOO, B), claim(WEB, A)])
    desired.adjust(Adjustments())
    assert desired.refresh(up) is state
    assert desired.resolved == 2


def test_that_another_node_says_the_same_costs_nothing() -> None:
    desired = table(claim(WEB, A))
    state = desired.refresh(up)
    desired.put(WEB, [claim(WEB, A), claim(WEB, A, node="n2")])
    assert desired.refresh(up) is state
    desired.put(WEB, [claim(WEB, A), claim(WEB, A, node="n2", scheduler="rr")])
    conflicting = desired.refresh(up)
    assert conflicting.services == state.services
    assert [one.what for one in conflicting.conflicts] == ["settings"]
    desired.put(WEB, [claim(WEB, A)])
    assert desired.refresh(up) == state


def test_a_change_costs_the_vips_that_it_bears_on() -> None:
    keys = [VIPKey.tcp(f"11.0.0.{number}", 80) for number in range(100)]
    desired = table(*(claim(key, A if number % 10 == 0 else B) for number, key in enumerate(keys)))
    before = desired.refresh(up)
    assert desired.resolved == 100
    after = desired.refresh(reach({"10.0.0.1": Reach.DOWN}))
    assert desired.resolved == 110
    assert all(before.services[service] is after.services[service] for service in before.services)  # all ten failed open
    desired.adjust(Adjustments(weights={(keys[5], B.key): 7}))
    weighed = desired.refresh(reach({"10.0.0.1": Reach.DOWN}))
    assert desired.resolved == 111
    assert sum(after.services[service] is not weighed.services[service] for service in after.services) == 1
    desired.put(keys[3], [claim(keys[3], B, C)])
    desired.refresh(reach({"10.0.0.1": Reach.DOWN}))
    assert desired.resolved == 112


@pytest.mark.parametrize(
    ("adjustments", "looked_at"),
    [
        (Adjustments(unhealthy=frozenset({(WEB, A.key)})), 1),
        (Adjustments(drained=frozenset({(None, A.key)})), 2),
        (Adjustments(drained_agents=frozenset({"10.0.0.1"})), 2),
        (Adjustments(weights={(None, A.key): 3}), 2),
        (Adjustments(drained=frozenset({(None, C.key)}), drained_agents=frozenset({"10.0.0.3"})), 0),
        (Adjustments(drained=frozenset({(VIPKey.tcp("11.0.0.9", 80), A.key)})), 0),
    ],
)
def test_an_adjustment_costs_the_vips_that_have_the_backend(adjustments: Adjustments, looked_at: int) -> None:
    desired = table(claim(WEB, A, B), claim(FOO, A), claim(VIPKey.tcp("11.0.0.2", 80), B))
    desired.refresh(up)
    desired.adjust(adjustments)
    desired.refresh(up)
    assert desired.resolved == 3 + looked_at
    desired.adjust(Adjustments())
    assert desired.refresh(up) == table(claim(WEB, A, B), claim(FOO, A), claim(VIPKey.tcp("11.0.0.2", 80), B)).refresh(up)


def test_the_table_takes_the_state_and_has_nothing_to_do_the_second_time() -> None:
    with IPVSTable(scope=Scope.everything(), backend=FakeKernel()) as kernel:
        desired = table(claim(WEB, A, B), claim(FOO, A, Backend("fd00::1", 80)))
        report = kernel.converge(desired.refresh(up).services)
        assert len(report.plan) == 7
        assert not kernel.plan(desired.refresh(up).services)
        plan = kernel.plan(desired.refresh(reach({"10.0.0.2": Reach.SUSPECT})).services)
        assert str(plan).strip() == "-e -t 11.0.0.1:80 -r 10.0.0.2:8080 -m -w 0"


# -- histories ---------------------------------------------------------------------------------------------------------

NAMES = [VIPName(label, framework) for label in ("a", "A", "b", "$") for framework in ("m", "M")]
KEYS = [
    *(VIPKey.tcp(f"11.0.0.{number}", 80) for number in range(4)),
    VIPKey.tcp("11.0.0.1", 81),
    VIPKey.tcp("fd01:c::2", 80),
    *(VIPKey.tcp(name, 80) for name in NAMES),
    VIPKey.udp(NAMES[0], 53),
]
AGENTS = ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
Backends = st.lists(
    st.builds(
        Backend,
        st.sampled_from([*AGENTS, "fd00::1"]),
        st.integers(1, 2),
        st.integers(0, 1),
        st.sampled_from(["", *AGENTS]),
        st.sampled_from([None, BackendKey("172.17.0.2", 80)]),
    ),
    max_size=3,
    unique_by=lambda backend: backend.key,
).map(tuple)
Targets = st.frozensets(
    st.tuples(st.sampled_from([None, *KEYS[:8]]), st.builds(BackendKey, st.sampled_from(AGENTS), st.integers(1, 2))), max_size=3
)
Steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("put"),
            st.sampled_from(KEYS),
            st.dictionaries(st.sampled_from(["n1", "n2"]), st.tuples(Backends, st.sampled_from(["wlc", "rr"]))),
        ),
        st.tuples(st.just("reach"), st.sampled_from(AGENTS), st.sampled_from(Reach)),
        st.tuples(
            st.just("adjust"),
            st.builds(
                Adjustments,
                unhealthy=Targets,
                drained=Targets,
                drained_agents=st.frozensets(st.sampled_from(AGENTS), max_size=1),
                weights=Targets.map(lambda targets: dict.fromkeys(targets, 3)),
            ),
            st.none(),
        ),
        st.tuples(st.just("refresh"), st.none(), st.none()),
    ),
    max_size=25,
)


@given(Steps)
def test_any_history_comes_to_what_a_new_table_makes_of_what_stands(steps: list[tuple[str, Any, Any]]) -> None:
    desired = DesiredTable(own_addresses=["10.0.0.1"], book=AddressBook([TINY, TINY6]))
    claims: dict[VIPKey, list[Claim]] = {}
    known: dict[str, Reach] = {}
    adjustments = Adjustments()
    for action, one, other in steps:
        match action:
            case "put":
                claims[one] = [claim(one, *rows, node=node, scheduler=how) for node, (rows, how) in other.items()]
                desired.put(one, claims[one])
            case "reach":
                known[one] = other
            case "adjust":
                adjustments = one
                desired.adjust(adjustments)
            case "refresh":
                desired.refresh(reach(known))
    state = desired.refresh(reach(known))
    fresh = DesiredTable(own_addresses=["10.0.0.1"], book=AddressBook([TINY, TINY6]))
    fresh.adjust(adjustments)
    fresh.replace(reversed([one for stated in claims.values() for one in stated]))
    expected = fresh.refresh(reach(known))
    assert state == expected
    assert list(state.services) == list(expected.services)
    assert list(state.names) == list(expected.names)
