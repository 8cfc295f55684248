"""The address book: names in both families, and whose a DNS name is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyminuteman.addresses import IPV4, IPV6
from pyminuteman.vips.address_book import AddressBook
from pyminuteman.vips.allocation import IPV4_RANGE, IPV6_RANGE, AddressRange
from pyminuteman.vips.model import InvalidVIPError, VIPName

FOO, UPPER, BAR = VIPName("/foo", "marathon"), VIPName("/Foo", "marathon"), VIPName("bar", "foo")
TINY = AddressRange.parse("11.0.0.0", "11.0.0.4")
TINY6 = AddressRange.parse("fd01:c::", "fd01:c::4")
NAMES = [VIPName(label, framework) for label in ("a", "A", "b", "/b", "$") for framework in ("m", "M", "n")]
ADDRESSES = ["11.0.0.1", "11.0.0.3", "fd01:c::2", "10.0.0.1"]


def test_a_name_has_an_address_of_each_family_whatever_backends_it_has() -> None:
    book = AddressBook()
    book.add(FOO)
    address, address6 = book.address(FOO, IPV4), book.address(FOO, IPV6)
    assert address == IPV4_RANGE.address(IPV4_RANGE.home("foo.marathon"))
    assert address6 == IPV6_RANGE.address(IPV6_RANGE.home("foo.marathon"))
    assert (book.dns_name(FOO), len(book), book.reason(FOO, IPV4)) == ("foo.marathon", 1, "")


def test_a_name_is_there_until_its_last_vip_goes() -> None:
    book = AddressBook()
    book.add(FOO)
    book.add(FOO)
    book.remove(FOO)
    assert book.address(FOO, IPV4)
    book.remove(FOO)
    book.remove(FOO)
    assert (book.address(FOO, IPV4), len(book)) == (None, 0)
    assert book.reason(FOO, IPV4) == "/foo@marathon is not in the address book"


def test_an_address_is_reserved_until_its_last_vip_goes() -> None:
    book = AddressBook([TINY])
    for number in range(4):
        book.add(VIPName(f"a{number}", "m"))
    held = book.address(VIPName("a0", "m"), IPV4)
    assert held
    book.reserve(held)
    book.reserve(held)
    assert (len(book.homeless(IPV4)), book.homeless(IPV6)) == (1, [])
    book.release(held)
    assert len(book.homeless(IPV4)) == 1
    book.release(held)
    book.release(held)
    assert book.homeless(IPV4) == []
    assert book.address(VIPName("a0", "m"), IPV4) == held


def test_of_two_names_with_one_dns_name_the_lesser_has_it_and_the_other_is_told() -> None:
    book = AddressBook()
    for name in (FOO, UPPER):
        book.add(name)
    assert (book.dns_name(UPPER), book.dns_name(FOO)) == ("foo.marathon", None)  # an upper case letter is less
    assert book.address(FOO, IPV4) is None
    assert book.reason(FOO, IPV4) == "/Foo@marathon has the DNS name foo.marathon, too, and comes first"
    assert dict(book.shadowed) == {FOO: UPPER}
    book.take_changed()
    book.remove(UPPER)
    assert book.take_changed() == {FOO, UPPER}
    assert book.address(FOO, IPV4)
    assert dict(book.shadowed) == {}


def test_the_framework_counts_for_more_than_the_label() -> None:
    book = AddressBook()
    one, other = VIPName("z", "M"), VIPName("Z", "m")
    book.add(other)
    book.add(one)
    assert book.dns_name(one) == "z.m"


def test_a_name_without_a_dns_name_has_no_address_and_a_reason() -> None:
    book = AddressBook()
    dollar = VIPName("$", "m")
    book.add(dollar)
    assert "needs a letter or a digit" in book.reason(dollar, IPV4)
    assert list(book.nameless) == [dollar]
    assert book.take_changed() == {dollar}
    book.remove(dollar)
    assert (dict(book.nameless), book.take_changed()) == ({}, {dollar})


def test_a_family_without_a_range_has_no_addresses() -> None:
    book = AddressBook([TINY6])
    book.add(FOO)
    assert book.families == (IPV6,)
    assert (book.address(FOO, IPV4), book.reason(FOO, IPV4)) == (None, "no range of addresses of this family was given")


def test_a_range_that_is_full_is_the_reason() -> None:
    book = AddressBook([TINY])
    for number in range(5):
        book.add(VIPName(f"a{number}", "m"))
    (homeless,) = book.homeless(IPV4)
    name = VIPName(homeless.partition(".")[0], "m")
    assert book.reason(name, IPV4) == f"the range of addresses is too full for {homeless}"


def test_a_family_has_one_range() -> None:
    with pytest.raises(InvalidVIPError, match="two ranges of one family"):
        AddressBook([TINY, IPV4_RANGE])


Steps = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["add", "remove"]), st.sampled_from(NAMES)),
        st.tuples(st.sampled_from(["reserve", "release"]), st.sampled_from(ADDRESSES)),
    ),
    max_size=40,
)


def view(book: AddressBook) -> dict[VIPName, tuple[str | None, str | None, str | None]]:
    return {name: (book.dns_name(name), book.address(name, IPV4), book.address(name, IPV6)) for name in NAMES}


@given(Steps)
def test_the_book_says_the_same_after_any_history_and_tells_of_every_change(
    steps: list[tuple[str, VIPName | str]],
) -> None:
    book = AddressBook([TINY, TINY6])
    counts: dict[VIPName | str, int] = {}
    for action, what in steps:
        before = view(book)
        book.take_changed()
        getattr(book, action)(what)
        counts[what] = max(0, counts.get(what, 0) + (1 if action in {"add", "reserve"} else -1))
        after = view(book)
        assert {name for name in NAMES if before[name] != after[name]} <= book.take_changed()
    fresh = AddressBook([TINY, TINY6])
    for what in sorted((what for what, count in counts.items() if count), key=str):
        if isinstance(what, VIPName):
            fresh.add(what)
        else:
            fresh.reserve(what)
    assert view(book) == view(fresh)
    assert dict(book.shadowed) == dict(fresh.shadowed)
    assert dict(book.nameless) == dict(fresh.nameless)
