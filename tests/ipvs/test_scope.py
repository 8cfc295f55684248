"""Scopes: which services are ours."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given

from pyminuteman.addresses import IPV6
from pyminuteman.ipvs import Scope, ServiceKey
from tests.support.strategies import keys

NETWORKS = ("10.0.0.0/8", "100.64.0.0/10", "fd00::/8", "192.168.0.1")


@given(keys)
def test_networks_cover_the_addresses_in_them_and_no_marks(key: ServiceKey) -> None:
    inside = bool(key.address) and any(ipaddress.ip_address(key.address) in ipaddress.ip_network(each) for each in NETWORKS)
    assert (key in Scope.networks(*NETWORKS)) == inside


@given(keys)
def test_scopes_combine_as_sets(key: ServiceKey) -> None:
    networks, marks = Scope.networks("10.0.0.0/8", "fd00::/8"), Scope.fwmarks(1, range(2**31, 2**32))
    ten = Scope.networks("10.255.0.0/16")
    assert key in Scope.everything()
    assert (key in (networks | marks)) == (key in networks or key in marks)
    assert (key in (networks - ten)) == (key in networks and key not in ten)


@pytest.mark.parametrize(("mark", "inside"), [(1, True), (2, False), (9, False), (10, True), (19, True), (20, False)])
@pytest.mark.parametrize("family", [2, IPV6])
def test_marks_are_covered_singly_and_by_ranges(mark: int, family: int, inside: bool) -> None:
    assert (ServiceKey.fwmark(mark, family) in Scope.fwmarks(1, range(10, 20))) == inside


def test_a_ledger_covers_what_is_listed() -> None:
    web, dns = ServiceKey.tcp("11.0.0.1", 80), ServiceKey.udp("11.0.0.1", 53)
    assert web in Scope.services([web])
    assert dns not in Scope.services([web])


def test_no_network_is_no_scope() -> None:
    with pytest.raises(ValueError, match=r"at least one network; Scope.everything\(\) is the whole table"):
        Scope.networks()
    with pytest.raises(ValueError, match="bits set beyond"):
        Scope.networks("11.0.0.1/8")


def test_a_scope_says_what_it_covers() -> None:
    scope = (Scope.networks("11.0.0.0/8", "fd00::/8") | Scope.fwmarks(7, range(10, 20))) - Scope.services([])
    assert str(scope) == "11.0.0.0/8 fd00::/8 or fwmark 7 fwmark 10-19 without 0 listed services"
    assert repr(Scope.everything()) == "<Scope everything>"
    assert Scope.everything().is_everything
    assert not scope.is_everything
