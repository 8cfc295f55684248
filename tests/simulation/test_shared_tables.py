"""Nodes that hold once what all know alike behave as nodes that do not; and the dict that does it behaves as a dict."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pyminuteman.testing.simulation.large import measure_large
from pyminuteman.testing.simulation.layered import Layered

NODES = 60
KEYS = st.integers(0, 8)
STEPS = st.lists(st.tuples(st.sampled_from(("set", "pop", "del", "setdefault", "get")), KEYS, st.integers()))


def test_a_cluster_that_shares_its_tables_is_as_good() -> None:
    alone, shared = measure_large(NODES, deaths=3), measure_large(NODES, deaths=3, shared_tables=True)
    assert alone.findings == shared.findings == ()
    assert abs(alone.datagrams_a_second / shared.datagrams_a_second - 1) < 0.02
    assert abs(alone.suspected.last - shared.suspected.last) < 0.1
    assert abs(alone.down.last - shared.down.last) < 0.1


@given(st.dictionaries(KEYS, st.integers()), st.dictionaries(KEYS, st.integers()), st.sets(KEYS), STEPS)
def test_a_layered_dict_is_a_dict(
    base: dict[int, int], own: dict[int, int], gone: set[int], steps: list[tuple[str, int, int]]
) -> None:
    gone -= set(own)
    untouched = dict(base)
    layered = Layered(base, own, gone)
    plain = {key: value for key, value in {**base, **own}.items() if key not in gone}
    for step, key, value in steps:
        for one in (layered, plain):
            match step:
                case "set":
                    one[key] = value
                case "setdefault":
                    one.setdefault(key, value)
                case "del" if key in one:
                    del one[key]
                case "pop":
                    one.pop(key, None)
        assert layered.get(key, -1) == plain.get(key, -1)
        assert (key in layered) == (key in plain)
        assert len(layered) == len(plain)
        assert bool(layered) == bool(plain)
    assert set(layered) == set(layered.keys()) == set(plain)
    assert sorted(layered.values()) == sorted(plain.values())
    assert {key: layered[key] for key in layered} == plain == dict(layered.items())
    assert set(layered.differing) >= {key for key in {**base, **plain} if base.get(key) != plain.get(key)}
    assert base == untouched


def test_values_that_are_changed_in_place_are_copied_first() -> None:
    base: dict[str, list[int]] = {"a": [1]}
    layered = Layered(base, copy=list)
    layered["a"].append(2)
    layered.setdefault("a", []).append(3)
    assert (base["a"], layered["a"]) == ([1], [1, 2, 3])


def test_a_key_that_is_not_there_is_an_error() -> None:
    layered = Layered({"a": 1, "b": 2}, gone=("a",))
    for key in ("a", "c"):
        try:
            layered.pop(key)
        except KeyError:
            continue
        raise AssertionError(key)
