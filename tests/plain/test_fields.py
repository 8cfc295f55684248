"""Values out of plain data: what is taken, and in which words the rest is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyminuteman.ipvs import Persistence, ServiceFlags
from pyminuteman.plain.fields import Invalid, Place, as_table, choice, closest, get, number, place_text, short
from pyminuteman.plain.ipvs_words import flag_names, flags_of, plain_persistence, read_flags, read_persistence

HERE: Place = ("service", 3)


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ((), ""),
        (("a",), "a"),
        (("a", 0, "b_c-d", 12), "a[0].b_c-d[12]"),
        (("a b",), "'a b'"),
        (("a", "\x1b[31m", ""), "a.'\\x1b[31m'.''"),
        (("x" * 1000,), repr("x" * 60)[:57] + "..."),
    ],
)
def test_places(place: Place, text: str) -> None:
    assert place_text(place) == text


def test_tables_have_known_keys() -> None:
    assert as_table({"a": 1}, HERE, {"a", "b"}) == {"a": 1}
    for value, said in (
        ([], "service[3] is a list; expected a table"),
        (1.5, "service[3] is a number; expected a table"),
        (None, "service[3] is something else; expected a table"),
    ):
        with pytest.raises(Invalid) as caught:
            as_table(value, HERE, {"a"})
        assert (caught.value.place, caught.value.reason) == (HERE, said)
    with pytest.raises(Invalid) as caught:
        as_table({"weigth": 1}, (), {"weight", "port"})
    assert (caught.value.place, caught.value.reason) == (("weigth",), "unknown key 'weigth'; did you mean 'weight'?")
    with pytest.raises(Invalid, match=r"unknown key 'zzz'; there are port, weight"):
        as_table({"zzz": 1}, (), {"weight", "port"})


@pytest.mark.parametrize(
    ("take", "value", "taken"),
    [
        (lambda row: get(row, "a", HERE, str), "x", "x"),
        (lambda row: get(row, "a", HERE, str), 5, "a 5 is not a string"),
        (lambda row: get(row, "a", HERE, int), True, "a True is not a whole number"),
        (lambda row: get(row, "a", HERE, bool), True, True),
        (lambda row: get(row, "a", HERE, str), None, "a is missing"),
        (lambda row: get(row, "a", HERE, str, "d"), None, "d"),
        (lambda row: number(row, "a", HERE, (1, 9)), 9, 9),
        (lambda row: number(row, "a", HERE, (1, 9)), 10, "a 10 is not a whole number from 1 to 9"),
        (lambda row: number(row, "a", HERE, (1, 9)), 1.0, "a 1.0 is not a whole number from 1 to 9"),
        (lambda row: number(row, "a", HERE, (1, 9)), True, "a True is not a whole number from 1 to 9"),
        (lambda row: number(row, "a", HERE, (1, 9)), None, "a is missing"),
        (lambda row: number(row, "a", HERE, (1, 9), 0), None, 0),
        (lambda row: choice(row, "a", HERE, {"one": 1, "two": 2}), "two", 2),
        (lambda row: choice(row, "a", HERE, {"one": 1, "two": 2}, "one"), None, 1),
        (lambda row: choice(row, "a", HERE, {"one": 1, "two": 2}), "tow", "a 'tow' is none of one, two; did you mean 'two'?"),
        (lambda row: choice(row, "a", HERE, {"one": 1, "two": 2}), "zzz", "a 'zzz' is none of one, two"),
    ],
)
def test_values(take: Any, value: object, taken: object) -> None:
    found: object = None
    try:
        found = take({"a": value})
    except Invalid as error:
        found, place = error.reason, error.place
        assert_place = HERE if value is None else (*HERE, "a")
    else:
        place = assert_place = ()
    assert (found, place) == (taken, assert_place)


def test_what_was_meant() -> None:
    assert closest("masq", ["route", "masquerade"]) == "masquerade"
    assert closest("schedular", ["scheduler", "flags"]) == "scheduler"
    assert closest("", ["a"]) is None
    assert closest("x" * 100_000, ["scheduler"]) is None


@given(st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_what_is_shown_fits_a_line(value: object) -> None:
    assert len(short(value)) <= 60
    assert short(value).isprintable()


def test_a_number_that_python_does_not_print() -> None:
    assert short(1 << 100_000) == "(too long to show)"
    assert short("y" * 10**7).endswith("...")


@given(st.sampled_from(["wlc", "sh", "mh"]), st.integers(0, 15))
def test_flags_by_name_and_back(scheduler: str, bits: int) -> None:
    flags = ServiceFlags(bits << 2)
    assert read_flags({"flags": flag_names(scheduler, flags)}, (), scheduler) == flags
    assert set(flag_names(scheduler, flags)) <= flags_of(scheduler).keys()


@pytest.mark.parametrize("flag", ["mh-port", [], {}, None, 5])
def test_what_is_no_flag(flag: object) -> None:
    with pytest.raises(Invalid) as caught:
        read_flags({"flags": ["ops", flag]}, HERE, "wlc")
    assert caught.value.place == (*HERE, "flags", 1)
    assert "none of those of scheduler wlc: ops, flag-1, flag-2, flag-3" in caught.value.reason


@pytest.mark.parametrize(
    ("value", "made"),
    [
        (None, None),
        ({}, Persistence(360, "")),
        ({"timeout": 5, "netmask": 24}, Persistence(5, "24")),
        ({"netmask": "255.255.0.0"}, Persistence(360, "255.255.0.0")),
    ],
)
def test_persistence(value: object, made: Persistence | None) -> None:
    assert read_persistence({"persistence": value}, HERE) == made
    plain = plain_persistence(made)
    assert read_persistence({"persistence": plain}, HERE) == made


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (5, ()),
        ({"x": 1}, ("x",)),
        ({"timeout": 0}, ("timeout",)),
        ({"netmask": True}, ("netmask",)),
        ({"netmask": []}, ("netmask",)),
        ({"netmask": "9" * 16}, ("netmask",)),
    ],
)
def test_what_is_no_persistence(value: object, place: Place) -> None:
    with pytest.raises(Invalid) as caught:
        read_persistence({"persistence": value}, HERE)
    assert caught.value.place == (*HERE, "persistence", *place)
