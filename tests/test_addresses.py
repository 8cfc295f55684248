"""Addresses and endpoints as text."""

# ruff: noqa: S104 - addresses to parse, none to bind
from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyminuteman.addresses import (
    IPV4,
    IPV6,
    Endpoint,
    NodeId,
    format_address,
    format_endpoint,
    parse_address,
    parse_endpoint,
    parse_network,
)


@given(st.ip_addresses())
def test_an_address_is_parsed_and_printed_as_ipaddress_does(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    family, packed = parse_address(str(address))
    assert (family, packed) == (IPV4 if address.version == 4 else IPV6, address.packed)
    assert ipaddress.ip_address(format_address(packed)) == address


@pytest.mark.parametrize(
    "text", ["", "10.1", "10.0.0.256", "010.0.0.1", "localhost", "fe80::1%eth0", "::g", "1.2.3.4 ", "\0", "1::2::3"]
)
def test_what_is_no_address_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match="is not an IP address"):
        parse_address(text)


@given(st.ip_addresses(), st.integers(0, 65535))
def test_an_endpoint_survives_printing_and_parsing(address: object, port: int) -> None:
    canonical = format_address(parse_address(str(address))[1])
    assert parse_endpoint(format_endpoint(canonical, port)) == (canonical, port)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.0.0.1", ("10.0.0.1", None)),
        ("fd00:0::1", ("fd00::1", None)),
        ("[fd00::1]", ("fd00::1", None)),
        ("[::]:0", ("::", 0)),
        ("0.0.0.0:65535", ("0.0.0.0", 65535)),
    ],
)
def test_the_port_may_be_left_out(text: str, expected: tuple[str, int | None]) -> None:
    assert parse_endpoint(text) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[fd00::1", r"expected \[IPV6\]:PORT"),
        ("[fd00::1]80", r"expected \[IPV6\]:PORT"),
        ("[10.0.0.1]:80", "only an IPv6 address goes in brackets"),
        ("[]:80", "only an IPv6 address goes in brackets"),
        ("10.0.0.1:", "'' is not a port"),
        ("[fd00::1]:", "'' is not a port"),
        ("10.0.0.1:65536", "'65536' is not a port"),
        ("10.0.0.1:-1", "'-1' is not a port"),
        ("10.0.0.1:٣", "is not a port"),
        ("10.0.0.1:80:81", "is not an IP address"),
        ("nowhere:80", "'nowhere' is not an IP address"),
    ],
)
def test_a_wrong_endpoint_is_refused_with_its_reason(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_endpoint(text)


@given(st.one_of(st.integers(0, 32).map(lambda p: (IPV4, p)), st.integers(0, 128).map(lambda p: (IPV6, p))), st.randoms())
def test_a_network_is_its_leading_bits(kind: tuple[int, int], dice: object) -> None:
    family, prefix = kind
    bits = dice.getrandbits(prefix) if prefix else 0  # type: ignore[attr-defined]
    size = 32 if family == IPV4 else 128
    address = format_address((bits << (size - prefix)).to_bytes(size // 8, "big"))
    assert parse_network(f"{address}/{prefix}") == (family, bits, prefix)


def test_an_address_alone_is_the_network_of_that_address() -> None:
    assert parse_network("10.0.0.1") == (IPV4, 0x0A000001, 32)
    assert parse_network("::1") == (IPV6, 1, 128)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("10.0.0.0/33", "the prefix length is a number from 0 to 32"),
        ("fd00::/129", "the prefix length is a number from 0 to 128"),
        ("10.0.0.0/", "the prefix length"),
        ("10.0.0.0/x", "the prefix length"),
        ("10.0.0.1/8", "has bits set beyond its prefix of 8"),
        ("nowhere/8", "is not an IP address"),
    ],
)
def test_a_wrong_network_is_refused_with_its_reason(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_network(text)


@given(st.ip_addresses(), st.integers(0, 65535))
def test_an_endpoint_survives_packing_printing_and_sorting(address: object, port: int) -> None:
    endpoint = Endpoint(format_address(parse_address(str(address))[1]), port)
    assert Endpoint.unpack(endpoint.packed) == endpoint == Endpoint.parse(str(endpoint))
    assert len(endpoint.packed) == (18 if ":" in endpoint.address else 6)


def test_an_endpoint_without_port_takes_the_default_or_is_refused() -> None:
    assert Endpoint.parse("10.0.0.1", default_port=61420) == Endpoint("10.0.0.1", 61420)
    assert Endpoint.parse("[fd00::1]:0", default_port=61420) == Endpoint("fd00::1", 0)
    with pytest.raises(ValueError, match=r"'fd00::1': expected ADDRESS:PORT"):
        Endpoint.parse("fd00::1")


@pytest.mark.parametrize("size", [0, 5, 7, 17, 19])
def test_an_endpoint_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"packed in 6 or 18 bytes, not {size}"):
        Endpoint.unpack(bytes(size))


@given(st.binary(min_size=16, max_size=16), st.binary(min_size=16, max_size=16))
def test_a_node_id_is_its_bytes(one: bytes, other: bytes) -> None:
    node = NodeId(one)
    assert NodeId.parse(str(node)) == node == one
    assert hash(node) == hash(one)
    assert (node < NodeId(other)) == (one < other)
    assert node.short == str(node)[:8] == one.hex()[:8]
    assert repr(node) == f"NodeId({node.short})"
    assert bytes(node) == one


@pytest.mark.parametrize("size", [0, 15, 17])
def test_a_node_id_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"a node id has 16 bytes, not {size}"):
        NodeId(bytes(size))
    with pytest.raises(ValueError, match="is not a node id"):
        NodeId.parse("ab" * size)


def test_words_are_no_node_id() -> None:
    with pytest.raises(ValueError, match=r"'somebody' is not a node id \(32 hexadecimal digits\)"):
        NodeId.parse("somebody")
