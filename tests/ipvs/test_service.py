"""Services: which can be built, how they compare, and the record they carry."""

# ruff: noqa: S104 - 0.0.0.0 is a mask here
from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyminuteman.addresses import IPV4, IPV6
from pyminuteman.ipvs import InvalidServiceError, Persistence, Protocol, Service, ServiceFlags, ServiceKey
from pyminuteman.ipvs.records import SERVICE_KEY_SIZE, SERVICE_SIZE
from tests.support.strategies import keys, services

KEY = ServiceKey.tcp("11.0.0.1", 80)


@given(keys)
def test_a_key_survives_packing(key: ServiceKey) -> None:
    again = ServiceKey.from_packed(key.packed)
    assert (again, str(again), hash(again)) == (key, str(key), hash(key))
    assert [getattr(again, name) for name in ("protocol", "address", "port", "mark", "family")] == [
        getattr(key, name) for name in ("protocol", "address", "port", "mark", "family")
    ]
    assert len(key.packed) == SERVICE_KEY_SIZE


@given(services())
def test_a_service_survives_packing(service: Service) -> None:
    again = Service.from_packed(service.packed)
    assert (again, repr(again), hash(again)) == (service, repr(service), hash(service))
    for name in ("key", "scheduler", "flags", "persistence", "persistence_engine"):
        assert getattr(again, name) == getattr(service, name)
    assert len(service.packed) == SERVICE_SIZE


@given(st.lists(services(), max_size=8))
def test_services_sort_by_their_keys(some: list[Service]) -> None:
    assert [service.key for service in sorted(some)] == sorted(service.key for service in some)


def test_keys_sort_as_they_are_listed() -> None:
    listed = [
        ServiceKey.tcp("9.0.0.1", 80),
        ServiceKey.tcp("11.0.0.1", 80),
        ServiceKey.tcp("11.0.0.1", 8080),
        ServiceKey.udp("1.0.0.1", 1),
        ServiceKey.sctp("1.0.0.1", 1),
        ServiceKey.tcp("::1", 1),
        ServiceKey.fwmark(1),
        ServiceKey.fwmark(2),
        ServiceKey.fwmark(1, IPV6),
    ]
    assert sorted(set(listed)) == listed
    assert listed[0] < listed[1] <= listed[1] < listed[-1]


def test_things_of_another_kind_are_neither_equal_nor_in_order() -> None:
    key, service = KEY, Service(KEY)
    assert service != key
    assert service.key != "tcp 11.0.0.1:80"
    with pytest.raises(TypeError):
        assert service < key  # type: ignore[operator]
    with pytest.raises(TypeError):
        assert key < service  # type: ignore[operator]


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (KEY, "tcp 11.0.0.1:80"),
        (ServiceKey.udp("fd00:0::1", 53), "udp [fd00::1]:53"),
        (ServiceKey.sctp("11.0.0.1", 1), "sctp 11.0.0.1:1"),
        (ServiceKey.fwmark(7), "fwmark 7"),
        (ServiceKey.fwmark(8, IPV6), "fwmark 8 (ipv6)"),
        (ServiceKey.from_packed(bytes([0, 2, 47, 0, 1, 2, 3, 4]) + bytes(16)), "protocol 47 1.2.3.4:0"),
    ],
)
def test_a_key_reads_well(key: ServiceKey, text: str) -> None:
    assert str(key) == text
    assert repr(key) == f"<ServiceKey {text}>"


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (lambda: ServiceKey.tcp("11.0.0", 80), "'11.0.0' is not an IP address"),
        (lambda: ServiceKey.tcp("11.0.0.1", 65536), "port 65536 is not a whole number from 0 to 65535"),
        (lambda: ServiceKey.tcp("11.0.0.1", -1), "port -1"),
        (lambda: ServiceKey.tcp("11.0.0.1", True), "port True"),
        (lambda: ServiceKey.tcp("11.0.0.1", "80"), "port '80'"),
        (lambda: ServiceKey(47, "11.0.0.1", 80), "47 is not a valid Protocol"),
        (lambda: ServiceKey.fwmark(0), "firewall mark 0"),
        (lambda: ServiceKey.fwmark(2**32), "firewall mark 4294967296"),
        (lambda: ServiceKey.fwmark(1, 3), "a firewall mark takes"),
        (lambda: ServiceKey(Protocol.TCP, "", 0, 7), "a firewall mark takes no protocol"),
        (lambda: ServiceKey(None, "", 80, 7), "a firewall mark takes no protocol, address or port"),
        (lambda: Service(KEY, ""), "scheduler '' is not a name"),
        (lambda: Service(KEY, "x" * 16), "is not a name of 1 to 15 letters"),
        (lambda: Service(KEY, "r r"), "is not a name"),
        (lambda: Service(KEY, "rr\n"), "is not a name"),
        (lambda: Service(KEY, "ß"), "is not a name"),
        (lambda: Service(KEY, 5), "is not a name"),
        (lambda: Service(KEY, persistence_engine="s p"), "persistence engine 's p' is not a name"),
        (lambda: Service(KEY, flags=ServiceFlags(1)), "flags 0x1 are not all known; persistence has a field"),
        (lambda: Service(KEY, flags=ServiceFlags(64)), "flags 0x40"),
        (lambda: Service(KEY, flags=ServiceFlags.ONE_PACKET), "one-packet scheduling is for UDP"),
        (lambda: Service.sctp("11.0.0.1", 80, flags=ServiceFlags.ONE_PACKET), "one-packet scheduling is for UDP"),
        (lambda: Service.tcp("11.0.0.1", 0), r"tcp 11.0.0.1:0: port 0 \(every port\) needs persistence"),
        (lambda: Service(KEY, persistence=Persistence(0)), "persistence timeout 0"),
        (lambda: Service(KEY, persistence=Persistence(2678401)), "persistence timeout 2678401"),
        (lambda: Service(KEY, persistence=Persistence(1, "33")), "expected a mask or 0 to 32"),
        (lambda: Service(KEY, persistence=Persistence(1, "1.2.3")), "is not an IP address"),
        (lambda: Service(KEY, persistence=Persistence(1, "fd00::")), "expected a mask or 0 to 32"),
        (lambda: Service.tcp("::1", 1, persistence=Persistence(1, "0")), "a prefix length, 1 to 128"),
        (lambda: Service.tcp("::1", 1, persistence=Persistence(1, "129")), "a prefix length, 1 to 128"),
        (lambda: Service.tcp("::1", 1, persistence=Persistence(1, "255.0.0.0")), "a prefix length, 1 to 128"),
    ],
)
def test_what_the_kernel_would_refuse_cannot_be_built(build: Callable[[], object], reason: str) -> None:
    with pytest.raises(InvalidServiceError, match=reason):
        build()


@pytest.mark.parametrize(
    ("key", "given_as", "kept_as"),
    [
        (KEY, "24", "255.255.255.0"),
        (KEY, "/24", "255.255.255.0"),
        (KEY, "0", "0.0.0.0"),
        (KEY, "32", ""),
        (KEY, "255.255.255.255", ""),
        (KEY, "255.0.255.0", "255.0.255.0"),
        (ServiceKey.tcp("::1", 1), "064", "64"),
        (ServiceKey.tcp("::1", 1), "128", ""),
        (ServiceKey.fwmark(1, IPV6), "/1", "1"),
    ],
)
def test_a_netmask_is_kept_in_one_form(key: ServiceKey, given_as: str, kept_as: str) -> None:
    service = Service(key, persistence=Persistence(9, given_as))
    assert service.persistence == Persistence(9, kept_as)
    assert service == Service(key, persistence=Persistence(9, kept_as))


def test_every_way_to_build_a_service() -> None:
    assert Service.tcp("11.0.0.1", 80) == Service(KEY)
    assert Service.udp("11.0.0.1", 80).key == ServiceKey.udp("11.0.0.1", 80)
    assert Service.sctp("11.0.0.1", 80).key.protocol == Protocol.SCTP
    assert Service.fwmark(7, flags=ServiceFlags.ONE_PACKET).key == ServiceKey.fwmark(7, IPV4)
    assert Service(KEY) != Service(KEY, "rr")


def test_what_others_left_in_the_kernel_can_be_looked_at() -> None:
    """Nothing is validated: odd flags and names that are not text."""
    packed = KEY.packed + b"\xff" * 16 + b"a\xfe".ljust(16, b"\0") + (0x8041).to_bytes(4, "little") + bytes(4) + b"\xff\0\xff\0"
    service = Service.from_packed(packed)
    assert service.scheduler == "\\xff" * 16
    assert service.persistence_engine == "a\\xfe"
    assert int(service.flags) == 0x8040
    assert service.persistence == Persistence(0, "255.0.255.0")
    assert service.packed == packed
