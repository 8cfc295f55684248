"""Reading ipvsadm's text."""

from __future__ import annotations

import pytest

from pyminuteman import ConfigurationError
from pyminuteman.addresses import IPV6
from pyminuteman.ipvs import (
    Destination,
    ForwardingMethod,
    Persistence,
    Service,
    ServiceFlags,
    Tunnel,
    TunnelFlags,
    TunnelType,
    parse_table,
)

WEB = Service.tcp("10.0.0.1", 80)
ROUTE, TUNNEL = ForwardingMethod.ROUTE, ForwardingMethod.TUNNEL
PORTS = {("http", "tcp"): 80, ("domain", "udp"): 53}


def port_by_name(name: str, protocol: str) -> int:
    try:
        return PORTS[name, protocol]
    except KeyError:
        raise OSError from None


def parse(text: str) -> dict[Service, list[Destination]]:
    return parse_table(text, port_by_name=port_by_name)


@pytest.mark.parametrize(
    ("line", "service"),
    [
        ("-A -t 10.0.0.1:80 -s wlc", WEB),
        ("-A -t 10.0.0.1:http", WEB),
        ("ipvsadm -At10.0.0.1:80", WEB),
        ("--add-service --tcp-service=10.0.0.1:80 --scheduler=wlc", WEB),
        ("-A -t [fd00::1]:http -s rr", Service.tcp("fd00::1", 80, scheduler="rr")),
        ("-A -u 10.0.0.1:domain -o", Service.udp("10.0.0.1", 53, flags=ServiceFlags.ONE_PACKET)),
        ("-A -u 10.0.0.1:53 -O", Service.udp("10.0.0.1", 53, flags=ServiceFlags.ONE_PACKET)),
        ("-A --sctp-service 10.0.0.1:99", Service.sctp("10.0.0.1", 99)),
        ("-A -f 7", Service.fwmark(7)),
        ("-A -f -1 -6", Service.fwmark(2**32 - 1, family=IPV6)),
        ("-A -t 10.0.0.1:80 -p", Service.tcp("10.0.0.1", 80, persistence=Persistence(360))),
        ("-A -p -t 10.0.0.1:80", Service.tcp("10.0.0.1", 80, persistence=Persistence(360))),
        ("-A -t 10.0.0.1:80 -p60", Service.tcp("10.0.0.1", 80, persistence=Persistence(60))),
        ("-A -t 10.0.0.1:80 -p=60", Service.tcp("10.0.0.1", 80, persistence=Persistence(60))),
        (
            "-A -t 10.0.0.1:0 -p 60 -M 255.255.0.0",
            Service.tcp("10.0.0.1", 0, persistence=Persistence(60, "255.255.0.0")),
        ),
        ("-A -t [::1]:1 --persistent --netmask 64", Service.tcp("::1", 1, persistence=Persistence(360, "64"))),
        (
            "-A -u 10.0.0.1:53 -p 60 --pe sip",
            Service.udp("10.0.0.1", 53, persistence=Persistence(60), persistence_engine="sip"),
        ),
        ("-A -t 10.0.0.1:80 -s sh -b sh-fallback,sh-port", Service.tcp("10.0.0.1", 80, scheduler="sh", flags=ServiceFlags(24))),
        ("-A -t 10.0.0.1:80 -b flag-1,,flag-3", Service.tcp("10.0.0.1", 80, flags=ServiceFlags(40))),
        ("-A -t 10.0.0.1:80 -b ''", WEB),
    ],
)
def test_a_line_of_a_service(line: str, service: Service) -> None:
    assert parse(line) == {service: []}


@pytest.mark.parametrize(
    ("rest", "destination"),
    [
        ("-r 10.1.0.1:80", Destination("10.1.0.1", 80, 1, ROUTE)),
        ("-r 10.1.0.1", Destination("10.1.0.1", 80, 1, ROUTE)),
        ("-r 10.1.0.1:9999 -g", Destination("10.1.0.1", 80, 1, ROUTE)),
        ("-r 10.1.0.1:8080 -m -w 0", Destination("10.1.0.1", 8080, 0)),
        ("-mr10.1.0.1:http", Destination("10.1.0.1", 80)),
        ("-r 10.1.0.1 -m -x 9 -y 5", Destination("10.1.0.1", 80, upper_threshold=9, lower_threshold=5)),
        ("-r 10.1.0.1 -i", Destination("10.1.0.1", 80, 1, TUNNEL)),
        (
            "-r 10.1.0.1 --ipip --tun-type GUE --tun-port 6080 --tun-remcsum",
            Destination("10.1.0.1", 80, 1, TUNNEL, tunnel=Tunnel(TunnelType.GUE, 6080, TunnelFlags.REMOTE_CHECKSUM)),
        ),
        (
            "-r 10.1.0.1 -i --tun-type gre --tun-csum",
            Destination("10.1.0.1", 80, 1, TUNNEL, tunnel=Tunnel(TunnelType.GRE, 0, TunnelFlags.CHECKSUM)),
        ),
        ("-r 10.1.0.1 -i --tun-type gre --tun-nocsum", Destination("10.1.0.1", 80, 1, TUNNEL, tunnel=Tunnel(TunnelType.GRE))),
        ("--real-server fd00::5 --ipip --weight 7", Destination("fd00::5", 80, 7, TUNNEL)),
    ],
)
def test_a_line_of_a_destination(rest: str, destination: Destination) -> None:
    assert parse(f"-A -t 10.0.0.1:80\n-a -t 10.0.0.1:80 {rest}") == {WEB: [destination]}


def test_destinations_of_a_mark_keep_their_ports() -> None:
    text = "-A -f 7\n-a -f 7 -r 10.1.0.1:8080 -g\n-a -f 7 -r 10.1.0.1\n-a -f 7 -r 10.1.0.2:http -m"
    assert parse(text) == {
        Service.fwmark(7): [
            Destination("10.1.0.1", 8080, 1, ROUTE),
            Destination("10.1.0.1", 0, 1, ROUTE),
            Destination("10.1.0.2", 80),
        ]
    }


def test_comments_and_blank_lines_are_passed_over() -> None:
    assert parse("# ipvsadm.rules\n\n   \n-A -t 10.0.0.1:80 # the web\n") == {WEB: []}


def test_an_empty_file_is_an_empty_table() -> None:
    assert parse_table("") == {}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("-A", "expected exactly one of -t, -u, --sctp-service and -f"),
        ("-A -t 10.0.0.1:80 -u 10.0.0.1:80", "expected exactly one of -t"),
        ("-t 10.0.0.1:80", r"expected -A \(a service\) or -a"),
        ("-A -a -t 10.0.0.1:80", "expected -A"),
        ("-C", "-C: a rules file has only -A and -a"),
        ("--clear", "--clear: a rules file has only -A and -a"),
        ("-A -t", "--tcp-service needs a value"),
        ("-A -t 10.0.0.1", "'10.0.0.1' has no port"),
        ("-A -t 10.0.0.1:80 -t 10.0.0.1:80", "--tcp-service is given twice"),
        ("-A --ops=1 -u 10.0.0.1:80", "--ops takes no value"),
        ("-A -t 10.0.0.1:80 web", "'web' belongs to no option"),
        ("-A -t 10.0.0.1:80 -", "'-' belongs to no option"),
        ("-A -t 10.0.0.1:80 -w 1", "--weight does not go with -A"),
        ("-A -t 10.0.0.1:nonesuch", "no such port or service name: 'nonesuch'"),
        ("-A -t web:80", r"'web' is not an IP address \(names of hosts are not looked up"),
        ("-A -t 10.0.0.1:99999", "is not a port"),
        ("-A -f x", "firewall mark 'x' is not a number"),
        ("-A -f 0", "firewall mark 0"),
        ("-A -t 10.0.0.1:80 -p x", "--persistent 'x' is not a number"),
        ("-A -t 10.0.0.1:80 -p 60 -M 24", "-M 24: write the mask out, as 255.255.255.0"),
        ("-A -t 10.0.0.1:80 -p 60 -M 255.255", r"-M|not an IP address"),
        ("-A -t 10.0.0.1:80 -b sideways", "scheduler flag 'sideways' is none of flag-1"),
        ("-A -t 10.0.0.1:0", "needs persistence"),
        ("-A -t '10.0.0.1:80", "No closing quotation"),
        ("-a -t 10.9.9.9:80 -r 10.1.0.1", r"tcp 10.9.9.9:80 has not been added \(-A\) above"),
        ("-a -t 10.0.0.1:81", r"expected -r ADDRESS\[:PORT\]"),
        ("-a -t 10.0.0.1:81 -s rr", "--scheduler does not go with -a"),
        ("-a -t 10.0.0.1:81 -r 10.1.0.1 -g -m", "expected at most one of -g, -i and -m"),
        ("-a -t 10.0.0.1:81 -r 10.1.0.1 -w -1", "--weight '-1' is not a number"),
        ("-a -t 10.0.0.1:81 -r 10.1.0.9", "tcp 10.0.0.1:81 has destination 10.1.0.9:81 already"),
        ("-a -t 10.0.0.1:81 -r 224.0.0.1", "is not a unicast address"),
        ("-a -t 10.0.0.1:81 -r 10.1.0.1 -i --tun-type vxlan", "--tun-type 'vxlan' is none of ipip, gue, gre"),
        ("-a -t 10.0.0.1:81 -r 10.1.0.1 -i --tun-type gue", "a GUE tunnel needs a port"),
        ("-A -t 10.0.0.1:81", "tcp 10.0.0.1:81 is there already"),
    ],
)
def test_a_line_that_cannot_be_carried_out_is_an_error_with_its_number(line: str, reason: str) -> None:
    text = f"# three lines first\n-A -t 10.0.0.1:81\n-a -t 10.0.0.1:81 -r 10.1.0.9\n{line}\n-A -t 10.0.0.2:80\n"
    with pytest.raises(ConfigurationError, match=reason) as caught:
        parse_table(text, path="some.rules", port_by_name=port_by_name)
    assert (caught.value.path, caught.value.key) == ("some.rules", "line 4")


def test_ports_are_looked_up_in_the_systems_list() -> None:
    assert list(parse_table("-A -t 10.0.0.1:http")) == [WEB]
