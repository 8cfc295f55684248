"""VIPs and backends: what cannot be is refused where it is built, in words that say what is accepted."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyminuteman.ipvs.destination import ForwardingMethod
from pyminuteman.ipvs.service import Persistence, Protocol, Service, ServiceFlags, ServiceKey
from pyminuteman.vips.model import VIP, Backend, BackendKey, InvalidVIPError, VIPKey, VIPName, VIPSettings

FOO = VIPName("/foo", "marathon")
WEB = VIPKey.tcp("11.0.0.1", 80)
texts = st.text(min_size=1, max_size=60).filter(str.isprintable)


# -- names and keys ----------------------------------------------------------------------------------------------------


def test_a_name_prints_as_it_was_written() -> None:
    assert str(FOO) == "/foo@marathon"


@pytest.mark.parametrize("text", ["", "a" * 256, "ä" * 128, "a\nb", "a\0", "\ud800", "\u200e"])
def test_a_name_is_printable_and_of_a_length_that_dns_has_room_for(text: str) -> None:
    with pytest.raises(InvalidVIPError, match=r"label .* 1 to 255 bytes of printable text"):
        VIPName(text, "marathon")
    with pytest.raises(InvalidVIPError, match=r"framework .* 1 to 255 bytes of printable text"):
        VIPName("/foo", text)


def test_a_label_of_255_bytes_is_one() -> None:
    assert VIPName("a" * 255, "ä" * 127).label == "a" * 255


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (VIPKey.tcp("11.0.0.1", 80), "tcp://11.0.0.1:80"),
        (VIPKey.udp("FD00:0::1", 53), "udp://[fd00::1]:53"),
        (VIPKey(Protocol.SCTP, FOO, 65535), "sctp:///foo@marathon:65535"),
    ],
)
def test_a_key_prints_as_a_url_with_its_address_in_canonical_form(key: VIPKey, text: str) -> None:
    assert str(key) == text
    assert VIPKey.parse(text) == key


@given(
    st.builds(
        VIPKey,
        st.sampled_from(Protocol),
        st.ip_addresses().map(str) | st.builds(VIPName, texts, texts.filter(lambda framework: "@" not in framework)),
        st.integers(1, 65535),
    )
)
def test_what_a_key_prints_is_read_again(key: VIPKey) -> None:
    assert VIPKey.parse(str(key)) == key


def test_of_several_signs_the_last_one_divides_a_name() -> None:
    assert VIPKey.parse("tcp://a@b:c@marathon:80") == VIPKey.tcp(VIPName("a@b:c", "marathon"), 80)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is not a VIP: expected tcp://"),
        ("11.0.0.1:80", "is not a VIP"),
        ("tcp:11.0.0.1:80", "is not a VIP"),
        ("tcp", "is not a VIP"),
        ("http://11.0.0.1:80", "is not a VIP"),
        ("TCP://11.0.0.1:80", "is not a VIP"),
        ("tcp://", "is not an IP address"),
        ("tcp://web:80", "is not an IP address"),
        ("tcp://11.0.0.1", "is not a port"),
        ("tcp://11.0.0.1:", "is not a port"),
        ("tcp://11.0.0.1:x", "is not a port"),
        ("tcp://11.0.0.1:0", "is not a port"),
        ("tcp://11.0.0.1:65536", "is not a port"),
        ("tcp://11.0.0.1:" + "9" * 5000, "is not a VIP"),
        ("tcp://fd00::1:80", "is not a port"),
        ("tcp:///foo@marathon", "is not an IP address"),
        ("tcp:///foo@marathon:", "is not a port"),
        ("tcp:///foo@marathon:x", "is not a port"),
        ("tcp:///foo@marathon:\u00b2", "is not a port"),
        ("tcp:///foo@marathon:65536", "is not a port"),
        ("tcp:///foo@marathon:" + "9" * 5000, "is not a VIP"),
        ("tcp://@marathon:80", "label '' is not"),
        ("tcp:///foo@:80", "framework '' is not"),
    ],
)
def test_what_is_no_key_is_not_read_as_one(text: str, reason: str) -> None:
    with pytest.raises(InvalidVIPError, match=reason):
        VIPKey.parse(text)


def test_keys_that_write_one_address_in_two_ways_are_one() -> None:
    assert VIPKey.tcp("fd00:0:0::1", 80) == VIPKey.tcp("FD00::1", 80)


@pytest.mark.parametrize("port", [0, -1, 65536, True, "80", 80.0])
def test_a_port_is_a_whole_number_from_1_to_65535(port: Any) -> None:
    with pytest.raises(InvalidVIPError, match=r"is not a port \(1 to 65535\)"):
        VIPKey.tcp("11.0.0.1", port)
    with pytest.raises(InvalidVIPError, match=r"is not a port \(1 to 65535\)"):
        Backend("10.0.0.1", port)
    with pytest.raises(InvalidVIPError, match=r"is not a port \(1 to 65535\)"):
        Backend("10.0.0.1", 80, local=BackendKey("172.17.0.2", port))


def test_a_protocol_is_one_that_ipvs_balances() -> None:
    assert VIPKey(17, "11.0.0.1", 53).protocol is Protocol.UDP  # type: ignore[arg-type]
    with pytest.raises(InvalidVIPError, match=r"47 is not a protocol .*TCP, UDP, SCTP"):
        VIPKey(47, "11.0.0.1", 80)  # type: ignore[arg-type]


@pytest.mark.parametrize("address", ["", "11.0.0", "11.0.0.1/32", "web", "fe80::1%eth0", "[fd00::1]"])
def test_an_address_is_an_address(address: str) -> None:
    with pytest.raises(InvalidVIPError, match="is not an IP address"):
        VIPKey.tcp(address, 80)
    with pytest.raises(InvalidVIPError, match="is not an IP address"):
        Backend(address, 80)
    with pytest.raises(InvalidVIPError, match="is not an IP address"):
        Backend("10.0.0.1", 80, local=BackendKey(address, 80))


def test_an_agent_is_an_address_or_none() -> None:
    assert Backend("10.0.0.1", 80).agent == ""
    assert Backend("10.0.0.1", 80, agent="FD00::1").agent == "fd00::1"
    with pytest.raises(InvalidVIPError, match="'web1' is not an IP address"):
        Backend("10.0.0.1", 80, agent="web1")


def test_keys_have_one_order_on_every_node_with_names_after_addresses() -> None:
    keys = [
        VIPKey.tcp("11.0.0.1", 80),
        VIPKey.tcp("11.0.0.1", 443),
        VIPKey.tcp(VIPName("/bar", "marathon"), 80),
        VIPKey.tcp(FOO, 80),
        VIPKey.udp("11.0.0.1", 53),
    ]
    assert sorted([keys[3], *keys[:3], keys[4]], key=lambda key: key.sort_key) == keys


# -- backends ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [-1, 65536, True, 1.0, "1", None])
def test_a_weight_is_a_whole_number_from_0_to_65535(weight: Any) -> None:
    with pytest.raises(InvalidVIPError, match=r"is not a weight \(0 to 65535\)"):
        Backend("10.0.0.1", 80, weight)


def test_the_addresses_of_a_backend_are_brought_into_canonical_form() -> None:
    backend = Backend("FD00::0:1", 80, local=BackendKey("FD00::0:2", 8080))
    assert (str(backend.key), str(backend.local)) == ("[fd00::1]:80", "[fd00::2]:8080")


def test_a_vip_has_its_backends_in_order_however_they_came() -> None:
    one, two, three = (Backend("10.0.0.1", port) for port in (1, 2, 3))
    assert VIP(WEB, (three, one, two)).backends == (one, two, three)
    assert VIP(WEB, (three, one)) == VIP(WEB, (one, three))


def test_no_two_backends_of_a_vip_are_at_one_place() -> None:
    with pytest.raises(InvalidVIPError, match=r"tcp://11\.0\.0\.1:80 has two backends at 10\.0\.0\.1:1"):
        VIP(WEB, (Backend("10.0.0.1", 1), Backend("10.0.0.1", 2), Backend("10.0.0.1", 1, weight=5)))


def test_a_vip_with_other_backends_is_otherwise_the_same() -> None:
    vip = VIP(WEB, (Backend("10.0.0.1", 1),), VIPSettings(scheduler="rr"), "marathon")
    other = vip.with_backends([Backend("10.0.0.2", 1)])
    assert (other.key, other.settings, other.principal) == (vip.key, vip.settings, vip.principal)
    assert other.backends == (Backend("10.0.0.2", 1),)


def test_a_principal_may_be_empty_and_is_printable() -> None:
    assert VIP(WEB).principal == ""
    with pytest.raises(InvalidVIPError, match="principal"):
        VIP(WEB, principal="a\x1bb")


# -- settings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [-1, 86401, float("nan"), float("inf"), "60", True])
def test_a_time_to_drain_is_at_most_a_day(seconds: Any) -> None:
    with pytest.raises(InvalidVIPError, match="is not a time to drain"):
        VIPSettings(drain_seconds=seconds)


def test_a_way_to_forward_is_one_of_the_kernels() -> None:
    with pytest.raises(InvalidVIPError, match="9 is not a way to forward"):
        VIPSettings(forward=9)  # type: ignore[arg-type]
    assert VIPSettings(forward=ForwardingMethod.ROUTE).forward is ForwardingMethod.ROUTE


@pytest.mark.parametrize(
    ("key", "settings", "reason"),
    [
        (WEB, VIPSettings(scheduler=""), "scheduler"),
        (WEB, VIPSettings(scheduler="a b"), "scheduler"),
        (WEB, VIPSettings(flags=ServiceFlags.ONE_PACKET), "one-packet"),
        (WEB, VIPSettings(persistence=Persistence(0)), "persistence timeout"),
        (VIPKey.tcp("fd00::1", 80), VIPSettings(persistence=Persistence(60, "255.255.255.0")), "netmask"),
        (VIPKey.tcp(FOO, 80), VIPSettings(persistence=Persistence(60, "1.2.3")), "not an IP address"),
    ],
)
def test_settings_that_the_kernel_could_not_have_are_refused_with_the_vip(
    key: VIPKey, settings: VIPSettings, reason: str
) -> None:
    with pytest.raises(InvalidVIPError, match=reason):
        VIP(key, settings=settings)


def test_a_named_vip_may_have_settings_that_only_one_family_can_have() -> None:
    settings = VIPSettings(persistence=Persistence(60, "128"))
    assert VIP(VIPKey.tcp(FOO, 80), settings=settings).settings is settings


def test_settings_make_the_service_of_their_vip() -> None:
    settings = VIPSettings("rr", ServiceFlags.ONE_PACKET, Persistence(60))
    assert settings.service(ServiceKey.udp("11.0.0.1", 53)) == Service.udp(
        "11.0.0.1", 53, scheduler="rr", flags=ServiceFlags.ONE_PACKET, persistence=Persistence(60)
    )
