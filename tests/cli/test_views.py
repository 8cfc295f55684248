"""list, watch, connections, info and settings, on a fake kernel; and the pure parts behind them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pyminuteman.cli.listing import large_number
from pyminuteman.cli.rates import rates
from pyminuteman.cli.terminal import clean
from pyminuteman.ipvs import Connections, Counters, Destination, DestinationStatistics, Rates, ServiceKey

RULES = """\
-A -t 11.0.0.1:80 -s sh -p 77 -M 255.255.0.0 -b sh-fallback,sh-port
-a -t 11.0.0.1:80 -r 10.0.0.5:8080 -m -w 2 -x 20 -y 10
-a -t 11.0.0.1:80 -r 10.0.0.6:80 -g -w 0
-A -f 5 -6 -s rr
-a -f 5 -6 -r [fd00::5]:0 -i
-A -f 4000000000 -s wrr
"""
KEY = ServiceKey.tcp("11.0.0.1", 80)
FIVE = Destination("10.0.0.5", 8080)
PLAIN = """\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
TCP  11.0.0.1:80 sh (sh-fallback,sh-port) persistent 77 mask 255.255.0.0
  -> 10.0.0.5:8080                Masq    2      3          1         \n\
  -> 10.0.0.6:80                  Route   0      0          0         \n\
FWM  4000000000 wrr
FWM  5 IPv6 rr
  -> [fd00::5]:0                  Tunnel  1      0          0         \n\
"""
STATS = """\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes
  -> RemoteAddress:Port
TCP  11.0.0.1:80                         0        0        0        0        0
  -> 10.0.0.5:8080                       1        2        3  123456K     123G
"""


def numbers(*counters: int) -> DestinationStatistics:
    return DestinationStatistics(Counters(*counters), Rates(), Connections(3, 1, 2))


@pytest.fixture
def full(cli: Any) -> Any:
    cli.load(RULES)
    cli.fake.count(KEY, numbers(1, 2, 3, 123456789, 123456789012), FIVE)
    return cli


def test_list(full: Any) -> None:
    assert full("list").stdout == PLAIN
    assert full("list", "-n").stdout == PLAIN
    assert full("list", "--stats").stdout.startswith(STATS)
    assert "123456789 123456789012\n" in full("list", "--stats", "--exact").stdout
    assert (
        "  -> 10.0.0.5:8080                2         2           3          1         \n"
        in full("list", "--persistent-conn").stdout
    )
    assert (
        "  -> 10.0.0.5:8080                20         10         3          1         \n" in full("list", "--thresholds").stdout
    )
    assert "CPS" in full("list", "--rate").stdout
    one = full("list", "-f", "5", "-6").stdout.splitlines()
    assert one[0].startswith("Prot")
    assert one[2:] == PLAIN.splitlines()[-2:]
    assert (
        full("list", "-o", "ipvsadm", "-f", "5", "-6").stdout
        == "-A -f 5 -6 -s rr\n-a -f 5 -6 -r [fd00::5]:0 -i -w 1 --tun-type ipip\n"
    )
    assert full("list", "-o", "ipvsadm").stdout == full("export").stdout
    assert "no such service" in full("list", "-f", "6", expect=1).stderr


def test_list_as_json(full: Any) -> None:
    data = json.loads(full("list", "-o", "json").stdout)
    assert data["kernel"] == {"ipvs_version": "1.2.1", "connection_table_size": 4096}
    row = data["service"][0]["destination"][0]
    assert row["statistics"]["in_bytes"] == 123456789
    assert row["statistics"]["active_connections"] == 3
    assert row["upper_threshold"] == 20


@pytest.mark.parametrize(
    ("environment", "options", "dim"),
    [
        ({"CLICOLOR_FORCE": "1"}, [], True),
        ({"CLICOLOR_FORCE": "0"}, [], False),
        ({}, [], False),
        ({"CLICOLOR_FORCE": "1", "NO_COLOR": "1"}, [], False),
        ({"CLICOLOR_FORCE": "1"}, ["--no-color"], False),
    ],
)
def test_colour(
    full: Any, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], options: list[str], *, dim: bool
) -> None:
    for name in ("CLICOLOR_FORCE", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    text = full(*options, "ipvs", "list", group="").stdout
    assert ("\x1b[2m  -> 10.0.0.6:80" in text) == dim
    assert text.count("\x1b") == (2 if dim else 0)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "        0"),
        (99999999, " 99999999"),
        (100000000, "  100000K"),
        (10**9, "    1000M"),
        (10**11 - 1, "   99999M"),
        (10**11, "     100G"),
        (10**14, "     100T"),
        (2**64 - 1, "18446744T"),
    ],
)
def test_large_numbers(number: int, text: str) -> None:
    assert large_number(number) == text
    assert large_number(number, exact=True) == f" {number:8}"


def test_rates() -> None:
    assert rates(None, Counters(5), 1.0) is None
    assert rates(Counters(5), Counters(5), 0) is None
    assert rates(Counters(5, 10), Counters(9, 10), 2.0) == dict.fromkeys(
        ("in_packets", "out_packets", "in_bytes", "out_bytes"), 0
    ) | {"connections": 2.0}
    zeroed = rates(Counters(500), Counters(6), 2.0)
    assert zeroed is not None
    assert zeroed["connections"] == 3.0


def test_watch(full: Any) -> None:
    full.at_sleep = [lambda: full.fake.count(KEY, numbers(21, 2, 3, 123456789, 123456789012), FIVE)]
    text = full("watch", "--count", "2", "--interval", "5", "-t", "11.0.0.1:80").stdout
    first, second = text.strip().split("\n\n")
    assert first.splitlines()[0].endswith(", over 5.0 s")
    assert (
        first.splitlines()[4]
        == "  -> 10.0.0.5:8080                       4        0        0        0        0 2      3          1         "
    )
    assert second.splitlines()[4].split()[2] == "0"
    assert full.slept == [5.0, 5.0]


def test_watch_as_json(full: Any) -> None:
    full.at_sleep = [lambda: full("zero"), lambda: full("flush", "--scope", "everything", "--yes")]
    lines = full("watch", "--count", "3", "-o", "json").stdout.splitlines()
    one, two, three = map(json.loads, lines)
    row = one["service"][0]["destination"][0]
    assert row["rates"]["connections"] == 0
    assert row["weight"] == 2
    assert two["service"] == three["service"] == []
    assert two["interval_seconds"] == 2.0


def test_watch_of_a_service_to_come_and_busiest_first(full: Any) -> None:
    new = ServiceKey.tcp("99.0.0.1", 80)

    def act() -> None:
        full.load("-A -t 99.0.0.1:80 -s rr")

    full.at_sleep = [act]
    text = full("watch", "--count", "2", "-t", "99.0.0.1:80").stdout
    assert text.count(f"{'TCP  99.0.0.1:80':33}{'-':>9}") == 1
    full.at_sleep = [lambda: full.fake.count(new, numbers(100, 1, 1, 1, 1))]
    text = full("watch", "--count", "1", "--busiest").stdout
    assert text.splitlines()[3].startswith(f"{'TCP  99.0.0.1:80':33}{50:9}")


def test_watch_is_interrupted(full: Any) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    full.at_sleep = [lambda: None, interrupt]
    assert full("watch").stdout.count("over") == 1


CONNECTION = "TCP 0A000909 1267 0B000001 0050 0A000005 1F90 ESTABLISHED 899"


def test_connections(full: Any) -> None:
    full.fake.connections = [CONNECTION, CONNECTION.replace("0B000001", "0B000002") + " sip \x1b[31mcall"]
    text = full("connections").stdout
    assert text.splitlines()[2] == "TCP 14:59  ESTABLISHED 10.0.9.9:4711      11.0.0.1:80        10.0.0.5:8080"
    assert text.splitlines()[3].endswith("10.0.0.5:8080 sip [31mcall")
    assert len(full("connections", "-t", "11.0.0.2:80").stdout.splitlines()) == 3
    assert json.loads(full("connections", "-o", "json").stdout)["connection"][0]["client_port"] == 4711
    full("connections", "-f", "7", expect=2)


def test_info(full: Any) -> None:
    text = full("info").stdout
    assert "IPVS version 1.2.1, connection table of 4096 buckets" in text
    assert "3 services, 3 destinations" in text
    assert json.loads(full("info", "-o", "json").stdout)["timeouts"] == {"tcp": 900, "tcp_fin": 120, "udp": 300}


def test_zero(full: Any) -> None:
    assert "would set the counters of all services" in full("zero", "--dry-run").stderr
    full("zero", "-t", "11.0.0.1:80")
    assert json.loads(full("list", "-o", "json").stdout)["service"][0]["destination"][0]["statistics"]["in_bytes"] == 0
    assert "no such service" in full("zero", "-t", "11.0.0.1:81", expect=1).stderr


def test_timeouts(cli: Any) -> None:
    assert cli("timeouts").stdout == "Timeout (tcp tcpfin udp): 900 120 300\n"
    dry = cli("timeouts", "--udp", "5", "--dry-run")
    assert (dry.stdout, dry.stderr) == ("Timeout (tcp tcpfin udp): 900 120 300\n", "would set udp 5; they are now:\n")
    assert cli("timeouts", "--udp", "5", "--tcp-fin", "9").stdout == "Timeout (tcp tcpfin udp): 900 9 5\n"
    assert json.loads(cli("timeouts", "-o", "json").stdout) == {"version": 1, "tcp": 900, "tcp_fin": 9, "udp": 5}
    cli("timeouts", "--udp", "0", expect=2)
    cli("timeouts", "--udp", "2147484", expect=2)


def test_daemons(cli: Any) -> None:
    start = ("daemons", "start", "master", "--interface", "eth0", "--sync-id", "5")
    cli(*start, "--dry-run")
    assert cli("daemons").stdout == ""
    cli(*start)
    cli("daemons", "start", "backup", "--interface", "eth0")
    assert "one of this role runs already" in cli(*start, expect=1).stderr
    text = cli("daemons").stdout
    assert text == cli("daemons", "list").stdout
    assert text.startswith("master sync daemon (mcast=eth0, syncid=5, maxlen=1472, group=224.0.0.81, port=8848, ttl=1)\nbackup")
    data = json.loads(cli("daemons", "list", "-o", "json").stdout)
    assert [one["role"] for one in data["daemon"]] == ["master", "backup"]
    cli("daemons", "stop", "master")
    cli("daemons", "stop", "backup", "--dry-run")
    assert cli("daemons").stdout.startswith("backup")
    cli("daemons", "stop", "master", expect=1)
    cli("daemons", "start", "master", "--interface", "a-name-much-too-long", expect=2)


@pytest.mark.parametrize(("text", "shown"), [("plain", "plain"), ("\x1b]0;x\x07é\u202e\udce9", "]0;xé"), ("a\tb\r", "a\tb")])
def test_clean(text: str, shown: str) -> None:
    assert clean(text) == shown
