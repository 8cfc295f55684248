"""DNS names as dcos-net made them, and hashes as Erlang makes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pyminuteman.vips.model import InvalidVIPError, VIPName
from pyminuteman.vips.names import dns_label, dns_name, phash2, sha1_number

VECTORS: list[dict[str, Any]] = json.loads(Path(__file__).parents[1].joinpath("data/names/phash2_vectors.json").read_text())
LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("fd%gsf---gs7-f$gs--d7fddg-123", "fdgsf---gs7-fgs--d7fddg-123"),
        ("4abc123", "4abc123"),
        ("-4abc123", "4abc123"),
        ("89fdgsf---gs7-fgs--d7fddg-", "89fdgsf---gs7-fgs--d7fddg"),
        ("0-0", "0-0"),
        ("/a/b", "ab"),
        ("__Web_API__", "web-api"),
        ("a" * 62 + "-b", "a" * 62),
        ("a" * 64, "a" * 63),
        ("$", ""),
        ("", ""),
    ],
)
def test_a_label_is_made_as_dcos_made_it(text: str, label: str) -> None:
    assert dns_label(text) == label


@pytest.mark.parametrize("text", ["\N{KELVIN SIGN}", "\N{LATIN CAPITAL LETTER I WITH DOT ABOVE}", "ä", "٣"])
def test_what_is_not_ascii_is_dropped_even_if_its_lower_case_is(text: str) -> None:
    assert dns_label(f"a{text}b") == "ab"


@given(st.text())
@example("\N{KELVIN SIGN}")
def test_a_label_has_lower_case_letters_digits_and_hyphens_inside(text: str) -> None:
    label = dns_label(text)
    assert set(label) <= LETTERS
    assert len(label) <= 63
    assert label == label.strip("-")
    assert dns_label(label) == label


@pytest.mark.parametrize(
    ("label", "framework", "name"),
    [
        ("/foo", "marathon", "foo.marathon"),
        ("/api.hello-world", "marathon", "api.hello-world.marathon"),
        ("..web..", ".my.Framework.", "web.my.framework"),
        ("merp", "marathon_user", "merp.marathon-user"),
    ],
)
def test_a_name_keeps_its_dots_and_loses_empty_parts(label: str, framework: str, name: str) -> None:
    assert dns_name(VIPName(label, framework)) == name


@pytest.mark.parametrize(
    ("label", "framework"), [("/", "marathon"), ("...", "marathon"), ("web", "$"), ("a.$.b", "m"), ("a", ".")]
)
def test_a_name_of_which_a_part_has_nothing_left_has_no_dns_name(label: str, framework: str) -> None:
    with pytest.raises(InvalidVIPError, match="needs a letter or a digit"):
        dns_name(VIPName(label, framework))


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"][:20])
def test_phash2_is_erlangs(vector: dict[str, Any]) -> None:
    name = vector["name"]
    assert phash2(name, 254) == vector["phash2_mod_254"]
    assert phash2(name, 16777214) == vector["phash2_mod_16777214"]
    assert phash2(name) == vector["phash2_27bit"]


def test_the_vectors_are_of_every_length_of_tail() -> None:
    assert len(VECTORS) >= 12
    assert "" in {vector["name"] for vector in VECTORS}


@given(st.text(max_size=40), st.integers(1, 1 << 27))
def test_phash2_is_below_its_size(text: str, size: int) -> None:
    assert 0 <= phash2(text, size) < size


def test_sha1_is_read_as_one_big_endian_number() -> None:
    assert sha1_number("qux.ipv6") % (2**64 - 1) == 0x6D6D_9C64_FD19_F251
