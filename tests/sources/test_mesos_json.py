"""Reading JSON: what is there comes out, and what has another shape reads as if it were not there."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyminuteman.sources.mesos_json import address, agent_address, identity, labels, number, port, rows, table, text

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["labels", "value", "key", "x"]), inner, max_size=3)
    ),
    max_leaves=12,
)


def test_shapes_come_out_and_others_are_empty() -> None:
    assert table({"a": 1}) == {"a": 1}
    assert rows([{"a": 1}, 2, {"b": 3}]) == [{"a": 1}, {"b": 3}]
    assert text("x") == "x"
    assert (table([]), rows({}), text(1)) == ({}, [], "")


@pytest.mark.parametrize(
    ("value", "found"),
    [(1, 1.0), (2.5, 2.5), (True, None), ("1", None), (math.nan, None), (math.inf, None), (10**400, None), (None, None)],
)
def test_a_number_is_finite(value: object, found: float | None) -> None:
    assert number(value) == found


@pytest.mark.parametrize(
    ("value", "found"),
    [(80, 80), (80.0, 80), (0, None), (80.5, None), (65535, 65535), (65536, None), (-1, None), ("80", None), (None, None)],
)
def test_a_port_is_a_whole_number_from_1_to_65535(value: object, found: int | None) -> None:
    assert port(value) == found


def test_an_id_is_a_string_or_an_object_with_a_value() -> None:
    assert [identity(value) for value in ("x", {"value": "x"}, {"value": 1}, 7, None)] == ["x", "x", "", "", ""]


def test_labels_are_read_in_all_the_ways_they_are_written() -> None:
    found = (("VIP_0", "/a:80"),)
    row = [{"key": "VIP_0", "value": "/a:80"}]
    assert labels(row) == labels({"labels": row}) == labels({"VIP_0": "/a:80"}) == found
    assert labels({"VIP_0": "/a:80", "x": 1}) == found
    assert labels({"labels": "prod"}) == (("labels", "prod"),)  # a label of that name
    assert labels([{"key": 1}]) == (("", ""),)
    assert labels({}) == labels(None) == labels("x") == ()


def test_an_address_is_canonical_or_none() -> None:
    assert address("FD00:0::1") == "fd00::1"
    assert address("10.0.0.1") == "10.0.0.1"
    assert address("localhost") is None
    assert address(None) is None


@pytest.mark.parametrize(
    ("hostname", "pid", "found"),
    [
        ("10.0.0.1", "slave(1)@10.0.0.2:5051", "10.0.0.1"),
        ("agent.example", "slave(1)@10.0.0.2:5051", "10.0.0.2"),
        ("agent.example", "slave(1)@[fd00::2]:5051", "fd00::2"),
        ("agent.example", "slave(1)@agent.example:5051", None),
        ("agent.example", "", None),
        ("agent.example", None, None),
        (None, None, None),
    ],
)
def test_an_agent_is_where_its_hostname_or_else_its_process_says(hostname: object, pid: object, found: str | None) -> None:
    assert agent_address(hostname, pid) == found


@given(JSON)
def test_no_json_at_all_raises(value: Any) -> None:
    for read in (table, rows, text, number, port, identity, labels, address):
        read(value)
    agent_address(value, value)
