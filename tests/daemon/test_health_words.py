"""Whose word on the health of a backend counts."""

from __future__ import annotations

import pytest

from pyminuteman.addresses import NodeId
from pyminuteman.daemon.health_words import HealthWords, read_words, word_key
from pyminuteman.kv.store import Entry
from pyminuteman.vips.model import BackendKey, VIPKey

ONE, TWO = NodeId(b"1" * 16), NodeId(b"2" * 16)
ADDRESSES = {ONE: ("10.0.0.1", "fd00::1"), TWO: ("10.0.0.2",)}
WEB, API = VIPKey.tcp("11.0.0.1", 80), VIPKey.tcp("11.0.0.2", 80)
HERE, SIX, CONTAINER = BackendKey("10.0.0.1", 8080), BackendKey("fd00::1", 80), BackendKey("172.17.0.2", 80)
PLACES = {HERE: {WEB: "10.0.0.1"}, CONTAINER: {WEB: "10.0.0.1", API: "10.0.0.2"}, BackendKey("192.0.2.1", 1): {WEB: ""}}


def read(*said: tuple[NodeId, str]) -> HealthWords:
    entries = [Entry(key, owner, b"refused") for owner, key in said]
    return read_words(entries, lambda node: ADDRESSES.get(node, ()), lambda backend: PLACES.get(backend, {}))


def test_the_host_of_a_backend_is_believed() -> None:
    assert read((ONE, word_key(HERE)), (ONE, word_key(SIX))) == ({(None, HERE), (None, SIX)}, ())


def test_words_of_others_do_not_count_and_are_faults() -> None:
    nobody = NodeId(b"3" * 16)
    for owner in (TWO, nobody):
        assert read((owner, word_key(HERE))) == (set(), ((owner, word_key(HERE), "it is not on a host of that node"),))
    found = read((TWO, "unhealthy/192.0.2.1:1"))
    assert (found.unhealthy, len(found.faults)) == (set(), 1)


def test_a_container_is_on_the_host_that_the_claims_say_and_behind_those_vips_alone() -> None:
    assert read((ONE, word_key(CONTAINER))) == ({(WEB, CONTAINER)}, ())
    assert read((TWO, word_key(CONTAINER))) == ({(API, CONTAINER)}, ())


def test_a_backend_that_no_vip_has_is_no_fault() -> None:
    assert read((TWO, "unhealthy/172.17.0.9:80")) == (set(), ())


@pytest.mark.parametrize(
    "key", ["unhealthy/", "unhealthy/x", "unhealthy/10.0.0.1:0", "unhealthy/10.0.0.1:+1", "unhealthy/10.0.0.1:\u00b2",
            "unhealthy/10.0.0.1:08080", "unhealthy/[10.0.0.1]:8080", "unhealthy/x:80", "unhealthy/10.0.0.1:99999999999999999999"]
)  # fmt: skip
def test_what_names_no_backend_is_a_fault(key: str) -> None:
    assert read((ONE, key)) == (set(), ((ONE, key, "it names no backend"),))
