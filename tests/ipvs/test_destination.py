"""Destinations: which can be built, how they compare, and the record they carry."""

# ruff: noqa: S104 - 0.0.0.0 is refused here
from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyminuteman.addresses import IPV4, IPV6
from pyminuteman.ipvs import (
    WEIGHT_MAX,
    Destination,
    ForwardingMethod,
    InvalidDestinationError,
    Tunnel,
    TunnelFlags,
    TunnelType,
)
from pyminuteman.ipvs.records import DESTINATION, DESTINATION_KEY_SIZE, DESTINATION_SIZE
from tests.support.strategies import destinations

TUNNEL = ForwardingMethod.TUNNEL


@given(destinations())
def test_a_destination_survives_packing(destination: Destination) -> None:
    again = Destination.from_packed(destination.packed)
    assert (again, repr(again), hash(again)) == (destination, repr(destination), hash(destination))
    for name in ("address", "port", "weight", "forward", "upper_threshold", "lower_threshold", "tunnel", "family", "key"):
        assert getattr(again, name) == getattr(destination, name)
    assert (len(destination.packed), len(destination.key)) == (DESTINATION_SIZE, DESTINATION_KEY_SIZE)


@given(st.lists(destinations(), max_size=8))
def test_destinations_sort_by_family_address_and_port(some: list[Destination]) -> None:
    assert [row.key for row in sorted(some)] == sorted(row.key for row in some)


def test_things_of_another_kind_are_neither_equal_nor_in_order() -> None:
    row = Destination("10.0.0.1", 80)
    assert row != "10.0.0.1:80"
    assert row < Destination("10.0.0.2", 1)
    with pytest.raises(TypeError):
        assert row < "10.0.0.2"  # type: ignore[operator]


def test_a_destination_reads_well() -> None:
    assert str(Destination("fd00:0::1", 80)) == "[fd00::1]:80"
    assert repr(Destination("10.0.0.1", 80, 3, ForwardingMethod.ROUTE)) == "<Destination 10.0.0.1:80 weight 3 route>"


def test_families_are_told_from_addresses() -> None:
    assert Destination("10.0.0.1", 80).family == IPV4
    assert Destination("::1", 80).family == IPV6


def test_a_tunnel_is_ipip_unless_said_otherwise() -> None:
    assert Destination("10.0.0.1", 80, 1, TUNNEL).tunnel == Tunnel(TunnelType.IPIP)
    assert Destination("10.0.0.1", 80).tunnel is None


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (lambda: Destination("10.0.0", 80), "'10.0.0' is not an IP address"),
        (lambda: Destination("0.0.0.0", 80), "0.0.0.0 is not a unicast address"),
        (lambda: Destination("224.0.0.1", 80), "is not a unicast"),
        (lambda: Destination("255.255.255.255", 80), "is not a unicast"),
        (lambda: Destination("::", 80), "is not a unicast"),
        (lambda: Destination("ff02::1", 80), "is not a unicast"),
        (lambda: Destination("fe80::1", 80), "is not a unicast"),
        (lambda: Destination("10.0.0.1", 65536), "10.0.0.1: port 65536 is not a whole number"),
        (lambda: Destination("10.0.0.1", 80, -1), "weight -1"),
        (lambda: Destination("10.0.0.1", 80, WEIGHT_MAX + 1), "weight 2147483648"),
        (lambda: Destination("10.0.0.1", 80, 1.0), "weight 1.0"),
        (lambda: Destination("10.0.0.1", 80, upper_threshold=2**32), "upper threshold"),
        (lambda: Destination("10.0.0.1", 80, lower_threshold=-1), "lower threshold -1"),
        (
            lambda: Destination("10.0.0.1", 80, lower_threshold=2, upper_threshold=1),
            "lower threshold 2 is above the upper one, 1",
        ),
        (lambda: Destination("10.0.0.1", 80, 1, 7), "7 is not a valid ForwardingMethod"),
        (lambda: Destination("10.0.0.1", 80, tunnel=Tunnel()), "a tunnel goes with the TUNNEL method, not MASQUERADE"),
        (lambda: Tunnel(TunnelType.GUE), "a GUE tunnel needs a port, and no other"),
        (lambda: Tunnel(TunnelType.IPIP, 1), "a GUE tunnel needs a port, and no other"),
        (lambda: Tunnel(TunnelType.GUE, 65536), "tunnel port 65536"),
        (lambda: Tunnel(3), "3 is not a valid TunnelType"),
        (lambda: Tunnel(TunnelType.IPIP, 0, TunnelFlags.CHECKSUM), "IPIP tunnel: checksum flags"),
        (lambda: Tunnel(TunnelType.GRE, 0, TunnelFlags.REMOTE_CHECKSUM), "GRE tunnel: checksum flags"),
        (lambda: Tunnel(TunnelType.GUE, 1, TunnelFlags(3)), "GUE tunnel: checksum flags"),
    ],
)
def test_what_the_kernel_would_refuse_cannot_be_built(build: Callable[[], object], reason: str) -> None:
    with pytest.raises(InvalidDestinationError, match=reason):
        build()


def test_what_others_left_in_the_kernel_can_be_looked_at() -> None:
    """Methods and tunnels that have no name keep their numbers."""
    packed = DESTINATION.pack(IPV4, bytes([10, 0, 0, 1]), b"\0\x50", 2**32 - 1, 1, 2, 7, 0, 0, 0)
    destination = Destination.from_packed(packed)
    assert (destination.forward, destination.tunnel, destination.weight) == (7, None, 2**32 - 1)
    assert repr(destination) == "<Destination 10.0.0.1:80 weight 4294967295 7>"
    packed = DESTINATION.pack(IPV4, bytes([10, 0, 0, 1]), b"\0\x50", 1, 0, 0, TUNNEL, 9, 5, 0x8003)
    tunnel = Destination.from_packed(packed).tunnel
    assert tunnel is not None
    assert (tunnel.type, tunnel.port, int(tunnel.flags)) == (9, 5, 0x8003)
