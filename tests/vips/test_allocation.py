"""Addresses of names: a function of the set of names, held against a search that has no history at all."""

from __future__ import annotations

import random
import time
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyminuteman.addresses import IPV4, IPV6
from pyminuteman.vips.allocation import IPV4_RANGE, IPV6_RANGE, AddressRange, Allocation
from pyminuteman.vips.model import InvalidVIPError

TINY = AddressRange.parse("11.0.0.0", "11.0.0.12")
"""Twelve addresses: names collide, wrap around its end, and find no place."""
NAMES = [f"{home}-{letter}" for home in (0, 1, 5, 10, 11) for letter in "abcd"]
DCOS_TESTS = AddressRange.parse("11.0.0.0", "11.0.0.254")
"""What dcos-net's own tests used, so what is known of its addresses is in it."""


def home(name: str) -> int:
    """Where it is written in the name, so that tests choose who collides."""
    return int(name.partition("-")[0])


def reference(names: set[str], reserved: set[int], size: int, probes: int) -> dict[str, int]:
    """The stable matching, taken pair by pair: the nearest pair of all that are left, then the lesser name."""
    free = set(range(size)) - reserved
    found: dict[str, int] = {}
    for distance in range(probes):
        for name in sorted(names - found.keys()):
            slot = (home(name) + distance) % size
            if slot in free:
                free.discard(slot)
                found[name] = slot
    return found


def standing(allocation: Allocation, names: set[str], addresses: AddressRange = TINY) -> dict[str, int]:
    found = {name: allocation.address(name) for name in names}
    return {name: slot for name, address in found.items() if address and (slot := addresses.slot(address)) is not None}


Steps = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["add", "remove"]), st.sampled_from(NAMES)),
        st.tuples(st.sampled_from(["reserve", "release"]), st.integers(0, TINY.size - 1).map(TINY.address)),
    ),
    max_size=60,
)


@given(Steps, st.sampled_from([1, 3, 11, 12]))
def test_whatever_came_and_went_addresses_are_those_of_the_set_that_is_there(steps: list[tuple[str, str]], probes: int) -> None:
    with mock.patch("pyminuteman.vips.allocation._PROBES_MAX", probes):
        allocation = Allocation(TINY, home)
    names: set[str] = set()
    reserved: set[int] = set()
    for action, what in steps:
        before = standing(allocation, names)
        allocation.take_moved()
        match action:
            case "add":
                allocation.add(what)
                names.add(what)
            case "remove":
                allocation.remove(what)
                names.discard(what)
            case "reserve":
                allocation.reserve(what)
                reserved.add(int(what.rpartition(".")[2]))
            case "release":
                allocation.release(what)
                reserved.discard(int(what.rpartition(".")[2]))
        expected = reference(names, reserved, TINY.size, probes)
        assert standing(allocation, names) == expected
        assert allocation.homeless == sorted(names - expected.keys())
        assert {name for name in names if before.get(name) != expected.get(name)} <= set(allocation.take_moved())
    assert len(allocation) == len(names)
    assert all((name in allocation) == (name in names) for name in NAMES)


@given(st.sets(st.sampled_from(NAMES)), st.sampled_from(NAMES))
def test_a_name_that_comes_moves_only_names_it_collides_with(names: set[str], newcomer: str) -> None:
    """Those that stand in the run of addresses without a gap into which it falls."""
    names.discard(newcomer)
    allocation = Allocation(TINY, home)
    for name in sorted(names):
        allocation.add(name)
    before = standing(allocation, names)
    run: set[int] = set()
    slot = home(newcomer)
    while slot in before.values() and slot not in run:
        run.add(slot)
        slot = (slot + 1) % TINY.size
    allocation.add(newcomer)
    after = standing(allocation, names)
    assert all(before[name] in run for name in before if before[name] != after.get(name))
    allocation.remove(newcomer)
    assert standing(allocation, names) == before


def test_the_nearest_to_its_hash_stays_then_the_lesser_name() -> None:
    allocation = Allocation(TINY, home)
    for name in ("0-c", "0-b", "0-a", "1-a"):
        allocation.add(name)
    assert standing(allocation, {"0-a", "0-b", "0-c", "1-a"}) == {"0-a": 0, "1-a": 1, "0-b": 2, "0-c": 3}


def test_an_address_in_use_goes_to_nobody_and_who_stood_there_comes_back() -> None:
    allocation = Allocation(TINY, home)
    allocation.add("5-a")
    allocation.reserve("11.0.0.5")
    allocation.reserve("11.0.0.5")
    assert allocation.address("5-a") == "11.0.0.6"
    allocation.release("11.0.0.5")
    assert allocation.address("5-a") == "11.0.0.5"
    allocation.release("11.0.0.5")
    assert allocation.address("5-a") == "11.0.0.5"


def test_what_lies_outside_of_the_range_is_passed_over() -> None:
    allocation = Allocation(TINY, home)
    for address in ("11.0.0.12", "10.255.255.255", "fd01:c::", "::b00:5"):
        allocation.reserve(address)
        allocation.release(address)
    allocation.add("5-a")
    assert allocation.address("5-a") == "11.0.0.5"
    with pytest.raises(ValueError, match="is not an IP address"):
        allocation.reserve("web")


def test_a_name_that_is_not_there_has_no_address_and_goes_without_a_trace() -> None:
    allocation = Allocation(TINY, home)
    allocation.remove("0-a")
    assert allocation.address("0-a") is None
    assert allocation.take_moved() == []


def test_the_255th_name_of_a_range_of_254_finds_no_place_until_one_goes() -> None:
    """The predecessor's listener died of it (``out_of_ips``)."""
    allocation = Allocation(DCOS_TESTS)
    names = [f"name{number}.marathon" for number in range(255)]
    for name in names:
        allocation.add(name)
    (homeless,) = allocation.homeless
    assert allocation.address(homeless) is None
    assert len({allocation.address(name) for name in names}) == 255  # 254 addresses, and None
    allocation.remove(next(name for name in names if name != homeless))
    assert allocation.homeless == []
    assert allocation.address(homeless) is not None


def test_names_land_no_further_from_their_hash_than_a_search_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyminuteman.vips.allocation._PROBES_MAX", 16)
    allocation = Allocation(IPV4_RANGE, lambda _name: 7)
    for number in range(17):
        allocation.add(f"{number:02}")
    assert allocation.homeless == ["16"]
    assert allocation.address("15") == IPV4_RANGE.address(7 + 15)
    allocation.remove("00")
    assert allocation.homeless == []
    assert allocation.address("16") == IPV4_RANGE.address(7 + 15)


def test_names_that_all_collide_come_and_go_in_little_time() -> None:
    """Anybody who may choose thousands of names may choose them so. A scan for each place that is left took seconds."""
    allocation = Allocation(IPV4_RANGE, lambda _name: 7)
    names = [f"{number:04}" for number in range(1000)]
    for name in names:
        allocation.add(name)
    began = time.process_time()
    allocation.remove(names[0])
    assert time.process_time() - began < 0.3
    assert [allocation.address(name) for name in names[1:]] == [IPV4_RANGE.address(7 + number) for number in range(999)]


def test_a_name_without_a_place_goes_and_moves_nobody() -> None:
    allocation = Allocation(AddressRange.parse("11.0.0.0", "11.0.0.1"), home)
    for name in ("0-a", "0-b"):
        allocation.add(name)
    allocation.take_moved()
    allocation.remove("0-b")
    assert (allocation.homeless, allocation.address("0-a"), allocation.take_moved()) == ([], "11.0.0.0", ["0-b"])


def test_moved_names_are_told_once_and_in_order() -> None:
    allocation = Allocation(TINY, home)
    allocation.add("5-b")
    assert allocation.take_moved() == ["5-b"]
    allocation.add("5-a")
    assert allocation.take_moved() == ["5-a", "5-b"]
    allocation.remove("5-a")
    assert allocation.take_moved() == ["5-a", "5-b"]
    assert allocation.take_moved() == []


def test_names_that_collide_with_nobody_have_the_addresses_that_dcos_net_gave_them() -> None:
    v4, v6 = Allocation(DCOS_TESTS), Allocation(IPV6_RANGE)
    for name in ("foo.marathon", "foo.bar", "baz.qux", "qux.ipv6"):
        v4.add(name)
        v6.add(name)
    # foo.marathon: dcos-net's rule, the hash itself. Minuteman's had one more (11.0.0.36).
    assert [v4.address(name) for name in ("foo.marathon", "foo.bar", "baz.qux")] == ["11.0.0.35", "11.0.0.37", "11.0.0.39"]
    assert v6.address("qux.ipv6") == "fd01:c::6d6d:9c64:fd19:f251"


def test_a_full_cluster_of_names_is_placed_alike_from_two_histories() -> None:
    """Nine tenths full, with the hashes of the trade."""
    addresses = AddressRange.parse("11.0.0.0", "11.0.7.208")
    names = [f"app{number}.marathon" for number in range(1800)]
    shuffled = random.Random(1).sample(names, len(names))  # noqa: S311 - a test
    one, other = Allocation(addresses), Allocation(addresses)
    for name in names:
        one.add(name)
    for name in [*shuffled, *(f"gone{number}.x" for number in range(150))]:
        other.add(name)
    for number in range(150):
        other.remove(f"gone{number}.x")
    assert [one.address(name) for name in names] == [other.address(name) for name in names]


@pytest.mark.parametrize(
    ("low", "high", "reason"),
    [
        ("11.0.0.1", "11.0.0.1", "is no range"),
        ("11.0.0.2", "11.0.0.1", "is no range"),
        ("11.0.0.1", "fd00::1", "is no range"),
        ("11.0.0", "11.0.0.1", "is not an IP address"),
    ],
)
def test_a_range_is_two_addresses_of_one_family_in_order(low: str, high: str, reason: str) -> None:
    with pytest.raises(InvalidVIPError, match=reason):
        AddressRange.parse(low, high)


def test_a_range_goes_up_to_but_without_its_high_end() -> None:
    assert (IPV4_RANGE.family, IPV4_RANGE.size, IPV4_RANGE.slot("11.255.255.254")) == (IPV4, 2**24 - 2, None)
    assert (IPV6_RANGE.family, IPV6_RANGE.size, IPV6_RANGE.address(1)) == (IPV6, 2**64 - 1, "fd01:c::1")
    assert IPV4_RANGE.slot("11.255.255.253") == IPV4_RANGE.size - 1
