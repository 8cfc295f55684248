"""The limits of a store: numbers in their ranges, or an error that names the one that is not."""

from __future__ import annotations

from typing import Any

import pytest

from pyminuteman.errors import ConfigurationError
from pyminuteman.kv.store import StoreLimits


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("value_max_bytes", 0, "0 is not from 1 to 65,536"),
        ("own_keys_max", 1_000_001, "1000001 is not from 1 to 1,000,000"),
        ("lease_seconds", -1.0, "-1.0 is not from 0 to 86,400"),
        ("lease_seconds", float("nan"), "nan is not from"),
        ("tombstone_seconds", "long", "'long' is not from 60"),
        ("watch_keys_max", True, "True is not from 1"),
    ],
)
def test_a_limit_out_of_its_range_is_named(name: str, value: Any, text: str) -> None:
    with pytest.raises(ConfigurationError, match=text) as raised:
        StoreLimits(**{name: value})
    assert raised.value.key == name


def test_the_defaults_are_in_their_ranges() -> None:
    assert StoreLimits(lease_seconds=0.5).lease_seconds == 0.5
