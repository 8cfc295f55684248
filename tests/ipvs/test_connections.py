"""Reading /proc/net/ip_vs_conn."""

from __future__ import annotations

from pyminuteman.ipvs.connections import Connection, parse_connections

# Lines of 6.1 and earlier kernels, and of hosts that ran Minuteman.
LINES = """\
Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData
TCP 0A004FB6 F26D 0A004FB6 1F90 0A004FB6 1F91 ESTABLISHED      58
TCP 0A004FB6 BAC0 0A004FB6 1F90 0A004FB6 1F91 SYN_RECV         59
UDP C0A80001 0035 0A000001 0035 0A000002 0035 UDP             299
SCTP 0A000009 1000 0A000001 0063 0A000002 0063 ESTABLISHED    899
IP  0A000009 0000 00000007 0000 0A000002 0050 NONE            355
UDP 0A000009 0000 0A000001 13C4 0A000002 13C4 NONE             55 sip abc@10.0.0.9
TCP [fd00:0000:0000:0000:0000:0000:0000:0009] 8A3C [fd00:0000:0000:0000:0000:0000:0000:0001] 0050 \
[fd00:0000:0000:0000:0000:0000:0000:0005] 1F90 TIME_WAIT 118
TCP fd00:0000:0000:0000:0000:0000:0000:0009 8A3C fd00:0000:0000:0000:0000:0000:0000:0001 0050 0A000005 1F90 CLOSE 9
"""


def test_lines_of_real_kernels_are_read() -> None:
    found = list(parse_connections(LINES.splitlines(keepends=True)))
    assert list(map(str, found)) == [
        "TCP 10.0.79.182:62061 > 10.0.79.182:8080 > 10.0.79.182:8081 ESTABLISHED 58",
        "TCP 10.0.79.182:47808 > 10.0.79.182:8080 > 10.0.79.182:8081 SYN_RECV 59",
        "UDP 192.168.0.1:53 > 10.0.0.1:53 > 10.0.0.2:53 UDP 299",
        "SCTP 10.0.0.9:4096 > 10.0.0.1:99 > 10.0.0.2:99 ESTABLISHED 899",
        "IP 10.0.0.9:0 > 0.0.0.7:0 > 10.0.0.2:80 NONE 355",
        "UDP 10.0.0.9:0 > 10.0.0.1:5060 > 10.0.0.2:5060 NONE 55",
        "TCP [fd00::9]:35388 > [fd00::1]:80 > [fd00::5]:8080 TIME_WAIT 118",
        "TCP [fd00::9]:35388 > [fd00::1]:80 > 10.0.0.5:8080 CLOSE 9",
    ]
    assert (found[5].engine, found[5].engine_data) == ("sip", "abc@10.0.0.9")
    assert found[0] == Connection("TCP", "10.0.79.182", 62061, "10.0.79.182", 8080, "10.0.79.182", 8081, "ESTABLISHED", 58)


def test_lines_that_are_cut_off_or_garbled_are_passed_over() -> None:
    whole = LINES.splitlines()[1]
    lines = [whole[:at] for at in range(len("TCP 0A004FB6 F26D 0A004FB6 1F90 0A004FB6 1F91 ESTABLISHED"))]
    lines += ["", "\n", "\ufffd", whole.replace("0A004FB6", "0A004FBX", 1), whole.replace("F26D", "F26G"), whole + "x"]
    assert list(parse_connections(lines)) == []


def test_the_heading_may_be_left_out() -> None:
    assert len(list(parse_connections(LINES.splitlines()[1:]))) == len(list(parse_connections(LINES.splitlines())))
