"""VIPs from rules of ipvsadm: what fits is taken, and what does not is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, reject

from pyminuteman.errors import ConfigurationError
from pyminuteman.ipvs import Destination, ForwardingMethod, Persistence, Service, ServiceFlags, format_table, parse_table
from pyminuteman.sources.ipvsadm_rules import ipvsadm_rules_source, read_rules
from pyminuteman.vips.model import VIP, Backend, VIPKey, VIPSettings
from tests.sources.support import keys, reading, until, write
from tests.support.strategies import tables

PATH = Path("/etc/ipvsadm.rules")


def test_rules_become_vips() -> None:
    text = """
        # saved by ipvsadm-save
        -A -t 11.0.0.1:80 -s mh -p 300 -M 255.255.255.0 -b mh-port
        -a -t 11.0.0.1:80 -r 10.0.0.6:8080 -m -w 3
        -a -t 11.0.0.1:80 -r 10.0.0.5:8080 -m
        -A -u [fd00::1]:53 -s rr -o
        -a -u [fd00::1]:53 -r [fd00::5]:53 -g -w 0
        -A -t 11.0.0.2:25 -s wlc
        -A -t 11.0.0.3:26 -s wlc
        -a -t 11.0.0.3:26 -r [fd00::5]:26 -i
    """
    settings = VIPSettings("mh", ServiceFlags.MH_PORT, Persistence(300, "255.255.255.0"))
    made = read_rules(text, PATH)
    assert made.problems == ()
    assert set(made.vips) == {
        VIP(VIPKey.tcp("11.0.0.1", 80), (Backend("10.0.0.5", 8080), Backend("10.0.0.6", 8080, 3)), settings),
        VIP(
            VIPKey.udp("fd00::1", 53),
            (Backend("fd00::5", 53, 0),),
            VIPSettings("rr", ServiceFlags.ONE_PACKET, forward=ForwardingMethod.ROUTE),
        ),
        VIP(VIPKey.tcp("11.0.0.2", 25), (), VIPSettings()),
        VIP(VIPKey.tcp("11.0.0.3", 26), (Backend("fd00::5", 26),), VIPSettings(forward=ForwardingMethod.TUNNEL)),
    }
    assert list(made.vips) == sorted(made.vips, key=lambda vip: vip.key.sort_key)


@pytest.mark.parametrize(
    ("rules", "said", "known"),
    [
        ("-A -f 7 -s rr", "fwmark 7: a firewall mark is no VIP", False),
        ("-A -t 11.0.0.9:0 -s rr -p", "tcp 11.0.0.9:0: every port (0) is no VIP", False),
        ("-A -u 11.0.0.9:5060 -s rr -p 60 --pe sip", "no persistence engine (--pe sip)", True),
        (
            "-A -t 11.0.0.9:80\n-a -t 11.0.0.9:80 -r 10.0.0.5:80 -m\n-a -t 11.0.0.9:80 -r 10.0.0.6:80 -g",
            "reached in different ways",
            True,
        ),
        ("-A -t 11.0.0.9:80\n-a -t 11.0.0.9:80 -r 10.0.0.5:80 -m -x 5", "10.0.0.5:80 has thresholds", True),
        (
            "-A -t 11.0.0.9:80\n-a -t 11.0.0.9:80 -r 10.0.0.5:80 -i --tun-type gre",
            "a tunnel that is not plain ipip",
            True,
        ),
        (
            "-A -t 11.0.0.9:80\n-a -t 11.0.0.9:80 -r 10.0.0.5:80 -m -w 65536",
            "has weight 65536; a backend has at most 65535",
            True,
        ),
        ("-A -t 11.0.0.9:80\n-a -t 11.0.0.9:80 -r [fd00::5]:80 -m", "of the other address family", True),
        ("-A -t 11.0.0.9:80\n-a -t 11.0.0.9:80 -r 10.0.0.5:0 -m", "0 is not a port", True),
    ],
)
def test_what_a_vip_cannot_hold_is_named_and_left_out(rules: str, said: str, known: bool) -> None:
    made = read_rules("-A -t 11.0.0.1:80\n" + rules, PATH)
    assert [str(vip.key) for vip in made.vips] == ["tcp://11.0.0.1:80"]
    assert len(made.problems) == 1
    assert said in str(made.problems[0])
    assert str(made.problems[0]).startswith("/etc/ipvsadm.rules: ")
    assert bool(made.wrong) == known


def test_a_line_that_cannot_be_carried_out_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"line 2: --weight 'x' is not a number"):
        read_rules("-A -t 11.0.0.1:80\n-a -t 11.0.0.1:80 -r 10.0.0.5 -w x", PATH)


@given(tables())
def test_every_service_is_a_vip_or_a_problem(table: dict[Service, tuple[Destination, ...]]) -> None:
    try:
        text = format_table(table)
        table = {service: tuple(rows) for service, rows in parse_table(text).items()}
    except ConfigurationError:
        reject()  # ipvsadm's format does not hold every table
    made = read_rules(text, PATH)
    assert len(made.vips) + len(made.problems) == len(table)
    services = {(service.key.protocol, service.key.address, service.key.port): service for service in table}
    for vip in made.vips:
        service = services[vip.key.protocol, str(vip.key.host), vip.key.port]
        assert {(backend.address, backend.port, backend.weight) for backend in vip.backends} == {
            (row.address, row.port, row.weight) for row in table[service]
        }
        assert (vip.settings.scheduler, vip.settings.persistence) == (service.scheduler, service.persistence)


@pytest.mark.trio
async def test_the_file_is_followed_and_a_bad_line_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "ipvsadm.rules"
    write(path, "-A -t 11.0.0.1:80\n")
    source = ipvsadm_rules_source(path)
    assert source.name == f"ipvsadm:{path}"
    async with reading(source) as states:
        assert keys(await anext(states)) == ["11.0.0.1:80"]
        write(path, "-A -t 11.0.0.1:80\n-C\n")
        assert keys(await anext(states)) == ["11.0.0.1:80"]
        assert f"{path}: line 2: -C: " in source.status.reason
        write(path, "-A -t 11.0.0.2:80\n-A -t 11.0.0.3:80 -s rr\n")
        assert keys(await anext(states)) == ["11.0.0.2:80", "11.0.0.3:80"]
        write(path, "-A -t 11.0.0.2:80\n-A -f 7\n")  # a mark takes nothing else with it
        await until(lambda: source.status.reason == "")
        assert keys(await anext(states)) == ["11.0.0.2:80"]


@pytest.mark.trio
async def test_a_directory_of_rules_has_files_of_that_ending(tmp_path: Path) -> None:
    write(tmp_path / "a.rules", "-A -t 11.0.0.1:80\n")
    write(tmp_path / "b.toml", "x")
    async with reading(ipvsadm_rules_source(tmp_path)) as states:
        assert keys(await anext(states)) == ["11.0.0.1:80"]
