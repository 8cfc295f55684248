"""Labels: what is understood, what is refused and why, and that one bad label costs itself alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyminuteman.errors import MinutemanError
from pyminuteman.ipvs.service import Protocol
from pyminuteman.vips.labels import (
    InvalidLabelError,
    LabelProblem,
    LabelVIP,
    NetworkScope,
    TaskVIP,
    parse_port_value,
    parse_protocol,
    parse_task_value,
    port_key,
    read_port_labels,
    read_task_labels,
    task_key,
)
from pyminuteman.vips.model import InvalidVIPError, VIPKey, VIPName

# -- keys --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "now", "legacy"),
    [
        ("VIP_0", True, True),
        ("vip0", True, True),
        ("VIP_d8c37956-f5e8", True, True),
        ("Vip_0", False, False),
        ("MY_VIP", False, True),
        ("my-vip-1", False, True),
        ("network-scope", False, False),
        ("", False, False),
    ],
)
def test_a_key_begins_with_vip_and_by_the_legacy_rules_contains_it(key: str, now: bool, legacy: bool) -> None:
    assert port_key(key) is now
    assert port_key(key, legacy=True) is legacy


@pytest.mark.parametrize(
    ("key", "index"), [("vip_PORT0", 0), ("VIP_PORT12", 12), ("vip_port65535", 65535), ("vip_0", None), ("HAPROXY_0", None)]
)
def test_a_task_label_names_the_port_by_its_number(key: str, index: int | None) -> None:
    assert task_key(key) == index


@pytest.mark.parametrize("key", ["vip_port", "vip_port-1", "vip_port1x", "vip_port65536", "vip_port²", "vip_port" + "0" * 6])
def test_a_task_label_without_a_number_is_refused(key: str) -> None:
    with pytest.raises(InvalidLabelError, match="is no key for a VIP: expected vip_portN"):
        task_key(key)


# -- values ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "vip"),
    [
        ("1.2.3.4:5000", LabelVIP("1.2.3.4", 5000)),
        ("[fd01:d::1]:80", LabelVIP("fd01:d::1", 80)),
        ("[FD01:D:0::1]:80", LabelVIP("fd01:d::1", 80)),
        ("/foo:80", LabelVIP("/foo", 80, named=True)),
        ("merp:5000", LabelVIP("merp", 5000, named=True)),
        ("/api.hello-world:80", LabelVIP("/api.hello-world", 80, named=True)),
        ("10.1:80", LabelVIP("10.1", 80, named=True)),  # no address by the strict rules
        ("1.2.3.4:65535", LabelVIP("1.2.3.4", 65535)),
        ("/foo:00080", LabelVIP("/foo", 80, named=True)),
    ],
)
def test_a_value_is_an_address_or_a_name_and_a_port(value: str, vip: LabelVIP) -> None:
    assert parse_port_value(value) == vip


def test_a_bare_ipv6_address_is_taken_up_to_the_last_colon_with_a_warning() -> None:
    vip = parse_port_value("fd01:d::1:80")
    assert (vip.host, vip.port, vip.named) == ("fd01:d::1", 80, False)
    assert vip.warning == "'fd01:d::1:80' is taken for [fd01:d::1]:80; write it with brackets"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("", "is not HOST:PORT"),
        ("missing-port", "is not HOST:PORT"),
        (":80", "is not HOST:PORT"),
        ("/foo:", "'' is not a port"),
        ("/foo:http", "'http' is not a port"),
        ("/foo:80 ", "'80 ' is not a port"),
        ("/foo:0", "'0' is not a port"),
        ("/foo:65536", "'65536' is not a port"),
        ("/foo:+80", "is not a port"),
        ("/foo:٨٠", "is not a port"),
        ("/foo:" + "9" * 5000, "is not a port"),
        ("invalid-port::1234", "'invalid-port:' is neither an IPv6 address nor a name"),
        ("[1.2.3.4]:80", "only an IPv6 address goes in brackets"),
        ("[foo]:80", "is neither an IPv6 address nor a name"),
        ("fe80::1%eth0:80", "is neither an IPv6 address nor a name"),
        ("tcp://1.2.3.4:80", "has a scheme"),
    ],
)
def test_what_is_no_vip_is_refused_with_a_reason(value: str, reason: str) -> None:
    with pytest.raises(InvalidLabelError, match=r".+") as caught:
        parse_port_value(value)
    assert reason in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("value", "vip"),
    [
        ("1.2.3.4:5000", LabelVIP("1.2.3.4", 5000)),
        ("10.1:80", LabelVIP("10.0.0.1", 80)),
        ("0x0a.0.0.1:80", LabelVIP("10.0.0.1", 80)),
        ("012.0.0.1:80", LabelVIP("10.0.0.1", 80)),
        ("merp:5000", LabelVIP("merp", 5000, named=True)),
        ("1.2.3.4 or so:5000", LabelVIP("1.2.3.4 or so", 5000, named=True)),
        ("näme:5000", LabelVIP("näme", 5000, named=True)),
    ],
)
def test_the_legacy_rules_take_what_inet_aton_takes(value: str, vip: LabelVIP) -> None:
    assert parse_port_value(value, legacy=True) == vip


@pytest.mark.parametrize("value", ["fd01:d::1:80", "[fd01:d::1]:80", "invalid-port::1234", "missing-port"])
def test_the_legacy_rules_divide_at_the_first_colon(value: str) -> None:
    with pytest.raises(InvalidLabelError):
        parse_port_value(value, legacy=True)


def test_a_task_label_says_the_protocol_too() -> None:
    assert parse_task_value("tcp://1.2.3.4:80") == (Protocol.TCP, LabelVIP("1.2.3.4", 80))
    assert parse_task_value("UDP://[fd00::1]:53") == (Protocol.UDP, LabelVIP("fd00::1", 53))
    assert parse_task_value("tcp://def:80") == (Protocol.TCP, LabelVIP("def", 80, named=True))


@pytest.mark.parametrize("value", ["1.2.3.4:80", "http://1.2.3.4:80", "tcp:/1.2.3.4:80", "://1.2.3.4:80"])
def test_a_task_label_without_a_known_scheme_is_refused(value: str) -> None:
    with pytest.raises(InvalidLabelError, match="is not tcp://HOST:PORT or udp://HOST:PORT"):
        parse_task_value(value)


def test_by_the_legacy_rules_a_task_label_takes_no_name() -> None:
    assert parse_task_value("tcp://1.2.3.4:80", legacy=True) == (Protocol.TCP, LabelVIP("1.2.3.4", 80))
    with pytest.raises(InvalidLabelError, match="takes an IPv4 address, no name"):
        parse_task_value("tcp://def:80", legacy=True)


def test_protocols_are_tcp_and_udp_in_any_case_and_tcp_when_nothing_is_said() -> None:
    assert [parse_protocol(text) for text in ("tcp", "TCP", "Udp", "")] == [
        Protocol.TCP,
        Protocol.TCP,
        Protocol.UDP,
        Protocol.TCP,
    ]
    with pytest.raises(InvalidLabelError, match="'udp,tcp' is not a protocol"):
        parse_protocol("udp,tcp")


@given(st.text(max_size=60), st.booleans())
def test_any_text_gives_a_vip_in_range_or_a_clear_refusal(value: str, legacy: bool) -> None:
    try:
        vip = parse_port_value(value, legacy=legacy)
    except MinutemanError as error:
        assert str(error)  # noqa: PT017 - most texts are refused, and a few are not
    else:
        assert 0 < vip.port < 65536
        assert vip.host


@given(st.ip_addresses(), st.integers(1, 65535))
def test_every_address_comes_back_however_it_is_written(address: object, port: int) -> None:
    text = str(address)
    bracketed = f"[{text}]" if ":" in text else text
    one, other = parse_port_value(f"{bracketed}:{port}"), parse_port_value(f"{text}:{port}")
    assert (one.host, one.port, one.named) == (other.host, other.port, other.named)
    assert VIPKey.tcp(text, port) == one.key(Protocol.TCP, "marathon")


# -- keys of VIPs ------------------------------------------------------------------------------------------------------


def test_a_name_is_one_of_its_framework() -> None:
    vip = parse_port_value("/foo:80")
    assert vip.key(Protocol.UDP, "marathon") == VIPKey.udp(VIPName("/foo", "marathon"), 80)
    assert parse_port_value("1.2.3.4:80").key(Protocol.TCP, "marathon") == VIPKey.tcp("1.2.3.4", 80)


@pytest.mark.parametrize(
    ("label", "framework"), [("/", "marathon"), ("x" * 300, "marathon"), ("/foo", ""), ("/f\noo", "marathon"), ("/foo", "%")]
)
def test_a_name_that_dns_has_no_room_for_is_none(label: str, framework: str) -> None:
    with pytest.raises(InvalidVIPError):
        LabelVIP(label, 80, named=True).key(Protocol.TCP, framework)


# -- labels together ---------------------------------------------------------------------------------------------------


def test_one_bad_label_costs_itself_alone() -> None:
    labels = read_port_labels(
        [
            ("VIP_0", "nonsense"),
            ("VIP_1", "/a:80"),
            ("VIP_2", "1.2.3.4:0"),
            ("vip_3", "def:81"),
            ("other", "x:1"),
            ("VIP_4", "/a:80"),
        ]
    )
    assert labels.vips == (LabelVIP("/a", 80, named=True), LabelVIP("def", 81, named=True))
    assert [(problem.key, problem.warning) for problem in labels.problems] == [("VIP_0", False), ("VIP_2", False)]


def test_the_scope_is_host_or_container_or_not_said() -> None:
    assert read_port_labels([("VIP_0", "/a:80")]).scope is None
    assert read_port_labels([("network-scope", "host")]).scope is NetworkScope.HOST
    assert read_port_labels([("network-scope", "container")]).scope is NetworkScope.CONTAINER
    bad = read_port_labels([("network-scope", "Host"), ("VIP_0", "/a:80")])
    assert (bad.scope, len(bad.vips)) == (None, 1)
    assert bad.problems == (LabelProblem("network-scope", "'Host' is not a scope (host or container)"),)


def test_a_warning_stands_beside_the_vip_it_is_about() -> None:
    labels = read_port_labels([("VIP_0", "fd00::1:80")])
    assert (len(labels.vips), [problem.warning for problem in labels.problems]) == (1, [True])
    task = read_task_labels([("vip_port0", "tcp://fd00::1:80")])
    assert (len(task.vips), [problem.warning for problem in task.problems]) == (1, [True])


def test_the_labels_of_a_task_are_read_each_by_itself() -> None:
    labels = read_task_labels(
        [
            ("vip_PORT0", "tcp://def:80"),
            ("vip_port", "tcp://x:1"),
            ("VIP_PORT1", "udp://1.2.3.4:53"),
            ("vip_port2", "x:1"),
            ("a", "b"),
        ]
    )
    assert labels.vips == (
        TaskVIP(0, Protocol.TCP, LabelVIP("def", 80, named=True)),
        TaskVIP(1, Protocol.UDP, LabelVIP("1.2.3.4", 53)),
    )
    assert [problem.key for problem in labels.problems] == ["vip_port", "vip_port2"]
    assert read_task_labels([("vip_PORT0", "tcp://def:80")], legacy=True).vips == ()
